//! Placement: which node, storage and template a container is made from. Asks Proxmox VE, decides, explains.

use std::cmp::Reverse;
use std::collections::HashMap;

use futures_util::future::join_all;

use crate::node::{self, Node};
use crate::pve::{self, Content, Pve};
use crate::{Core, Result, args};

mod template;

pub use template::{
    NO_KEY, Offer, Os, Preferences, Template, container_id, is_template, names_container, offered,
    os_release, templates,
};

/// Where a container will be made.
#[derive(Debug, Clone)]
pub struct Place {
    pub node: Node,
    /// A volume id, such as `local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst`, or `lxc/VMID` of a template container.
    pub template: String,
    pub storage: String,
    pub bridge: String,
    /// Other nodes that were asked for, with the reason, one sentence each.
    pub passed_over: Vec<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub os_release: String,
    /// A volume id or its file's name; `lxc/VMID` or the name of a template container.
    pub template: Option<String>,
    /// A node's name.
    pub node: Option<String>,
    /// A node's label; `N` means any node without a label.
    pub ai_container: String,
    pub disk: u32,
    pub memory: u32,
    /// Whether a key of the owner is to be in it.
    pub ssh_key: bool,
}

/// Why no node will do.
#[derive(Debug, Clone, Default)]
pub struct NoPlace {
    /// One sentence a node.
    pub reasons: Vec<String>,
    /// Whether one of them does not answer now, but may in a moment.
    pub away: bool,
    /// Whether one of them only makes as many containers already as it may.
    pub busy: bool,
}

impl std::fmt::Display for NoPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "No node can take this container: {}.",
            self.reasons.join("; ")
        )
    }
}

/// The best place, with what was passed over and why, or why no node will do.
pub async fn choose(
    core: &Core,
    wish: &Wish,
    making: &Making,
) -> Result<std::result::Result<Place, NoPlace>> {
    let mut no = NoPlace::default();
    let mut places = Vec::new();
    let nodes = node::all(core).await?;
    // All at once: one that does not answer holds nobody up.
    let looks = nodes.iter().map(|node| look(core, node, wish, making));
    for (node, seen) in nodes.iter().zip(join_all(looks).await) {
        match seen {
            Ok((room, place)) => places.push((room, place)),
            Err(Not::Asked) => {}
            Err(Not::Free(reason)) => {
                no.busy = true;
                no.reasons.push(format!("{}: {reason}", node.name));
            }
            Err(Not::Fit(reason)) => no.reasons.push(format!("{}: {reason}", node.name)),
            Err(Not::Said(error)) => {
                no.away |= error.is_transient();
                no.reasons.push(format!("{}: {error}", node.name));
            }
        }
    }
    places.sort_by_key(|(room, place)| (Reverse(*room), place.node.id));
    Ok(match places.into_iter().next() {
        Some((_, place)) => Ok(Place {
            passed_over: no.reasons,
            ..place
        }),
        None if no.reasons.is_empty() => Err(NoPlace {
            reasons: vec!["no node is configured for this request".to_owned()],
            ..NoPlace::default()
        }),
        None => Err(no),
    })
}

/// What is being made on each node now.
#[derive(Debug, Clone, Default)]
pub struct Making {
    /// Containers and their memory in MiB, by the node's row id.
    nodes: HashMap<i64, (i64, u64)>,
    /// How many one node may make at once; absent where that is no reason to refuse.
    limit: Option<i64>,
}

impl Making {
    fn on(&self, node: i64) -> (i64, u64) {
        self.nodes.get(&node).copied().unwrap_or_default()
    }
}

/// What is being made now; nodes that make as many as they may are passed over.
pub async fn making(core: &Core) -> Result<Making> {
    let sql = r#"SELECT "nodeId", "memory" FROM "Containers"
                 WHERE "state" = 'creating' AND "nodeId" IS NOT NULL AND "containerId" IS NOT NULL"#;
    let mut nodes: HashMap<i64, (i64, u64)> = HashMap::new();
    for row in core.db.all(sql, args![]).await? {
        let on = nodes.entry(row.get("nodeId")?).or_default();
        on.0 += 1;
        on.1 += u64::from(row.get::<Option<u32>>("memory")?.unwrap_or(0));
    }
    let limit = Some(i64::from(core.config.containers.creates_per_node));
    Ok(Making { nodes, limit })
}

/// Why a node is not the place.
enum Not {
    /// It is not a candidate at all, so there is nothing to say about it.
    Asked,
    Fit(String),
    /// It makes as many containers as it may.
    Free(String),
    /// Proxmox VE gave no good answer.
    Said(pve::Error),
}

impl From<pve::Error> for Not {
    fn from(error: pve::Error) -> Self {
        Self::Said(error)
    }
}

async fn look(core: &Core, node: &Node, wish: &Wish, making: &Making) -> Result<(u64, Place), Not> {
    let fit = |text: &str| Err(Not::Fit(text.to_owned()));
    if wish.node.as_ref().is_some_and(|name| *name != node.name) {
        return Err(Not::Asked);
    }
    let label = node.ai_container.as_deref();
    let wanted = Some(wish.ai_container.as_str()).filter(|label| *label != "N");
    if wish.node.is_none() && label != wanted {
        return Err(Not::Asked);
    }
    if !node.enabled {
        return fit("is disabled");
    }
    // Before Proxmox VE is asked: many that wait cost it nothing.
    let (count, promised) = making.on(node.id);
    if making.limit.is_some_and(|limit| count >= limit) {
        let text = format!("makes {count} containers already (CREATES_PER_NODE)");
        return Err(Not::Free(text));
    }
    let pve = core
        .pve(node)
        .map_err(|error| Not::Fit(error.to_string()))?;
    let all = pve.nodes().await?;
    let Some(info) = all.into_iter().find(|info| info.node == node.name) else {
        return fit("Proxmox VE there knows no node of this name");
    };
    if info.status == "offline" {
        return fit("is offline");
    }
    let found = templates(&pve, node).await?;
    let Some(template) = template::pick(&found, node, wish) else {
        return Err(Not::Fit(match &wish.template {
            Some(named) => format!("has no template `{named}`"),
            None => format!("has no template for `{}`", wish.os_release),
        }));
    };
    if let Template::Container { vmid, .. } = template {
        cloneable(&pve, node, *vmid, wish).await?;
    }
    let (storage, free) = storage(&pve, node, wish.disk).await?;
    let memory = info.maxmem.unwrap_or_default();
    // What is promised to those that are being made is not used yet.
    let free_memory = memory
        .saturating_sub(info.mem.unwrap_or_default())
        .saturating_sub(promised << 20);
    // Without Sys.Audit the node's memory is not shown (0); then the disk alone decides.
    if memory > 0 && free_memory < u64::from(wish.memory) << 20 {
        let free = free_memory >> 20;
        return Err(Not::Fit(format!("has only {free} MiB of memory free")));
    }
    let room = if memory > 0 {
        free_memory.min(free)
    } else {
        free
    };
    let bridge = node.bridge.clone().unwrap_or_else(|| "vmbr0".to_owned());
    Ok((
        room,
        Place {
            node: node.clone(),
            template: template.id(),
            storage,
            bridge,
            passed_over: Vec::new(),
        },
    ))
}

/// Whether a clone of this template container would be what is asked for.
async fn cloneable(pve: &Pve, node: &Node, vmid: u32, wish: &Wish) -> Result<(), Not> {
    if wish.ssh_key {
        return Err(Not::Fit(format!("its template is CT {vmid}. {NO_KEY}")));
    }
    let config = pve.lxc_config(&node.name, vmid).await?;
    if !config.unprivileged {
        return Err(Not::Fit(format!(
            "its template CT {vmid} is privileged, and so would be every clone; make the template anew, unprivileged"
        )));
    }
    match config.disk_gib() {
        Some(gib) if gib > wish.disk => Err(Not::Fit(format!(
            "the disk of its template CT {vmid} has {gib} GiB, and disks only grow; ask for as much"
        ))),
        _ => Ok(()),
    }
}

async fn storage(pve: &Pve, node: &Node, disk: u32) -> Result<(String, u64), Not> {
    let mut found = pve.storages(&node.name, Content::RootDir).await?;
    found.retain(|storage| {
        storage.active.unwrap_or(true)
            && node
                .storage
                .as_ref()
                .is_none_or(|name| *name == storage.storage)
    });
    let best = found
        .into_iter()
        .max_by_key(|storage| storage.avail.unwrap_or_default());
    let Some(best) = best else {
        let text = "has no active storage for container disks";
        return Err(Not::Fit(text.to_owned()));
    };
    let avail = best.avail.unwrap_or_default();
    if avail < u64::from(disk) << 30 {
        let text = format!(
            "its storage {} has only {} GiB free",
            best.storage,
            avail >> 30
        );
        return Err(Not::Fit(text));
    }
    Ok((best.storage, avail))
}
