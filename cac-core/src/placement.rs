//! Placement: which node, storage and template a container is made from. Asks Proxmox VE, decides, explains.

use std::cmp::Reverse;
use std::collections::HashMap;

use futures_util::future::join_all;

use crate::node::{self, Node};
use crate::pve::{self, Content, Pve, Template};
use crate::{Core, Result, args};

/// Where a container will be made.
#[derive(Debug, Clone)]
pub struct Place {
    pub node: Node,
    /// The template's volume id, such as `local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst`.
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
    /// A volume id, or a template's file name.
    pub template: Option<String>,
    /// A node's name.
    pub node: Option<String>,
    /// A node's label; `N` means any node without a label.
    pub ai_container: String,
    pub disk: u32,
    pub memory: u32,
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
    let Some(template) = pick(&found, wish) else {
        return Err(Not::Fit(format!(
            "has no template for `{}`",
            wish.os_release
        )));
    };
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
            template: template.volid.clone(),
            storage,
            bridge,
            passed_over: Vec::new(),
        },
    ))
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

/// All container templates on the node's active storages.
pub async fn templates(pve: &Pve, node: &Node) -> Result<Vec<Template>, pve::Error> {
    let mut found = Vec::new();
    for storage in pve.storages(&node.name, Content::Templates).await? {
        if storage.active.unwrap_or(true) {
            found.extend(pve.templates(&node.name, &storage.storage).await?);
        }
    }
    Ok(found)
}

/// A template and the node that has it.
#[derive(Debug, Clone)]
pub struct Offer {
    pub node: String,
    pub template: Template,
}

/// The templates of all enabled nodes that answer, by node and name.
pub async fn offered(core: &Core) -> Result<Vec<Offer>> {
    let nodes = node::all(core).await?;
    let looks = nodes.iter().filter(|node| node.enabled).map(|node| async {
        let pve = core.pve(node).ok()?;
        let found = tokio::time::timeout(node::AWAY, templates(&pve, node)).await;
        let offer = |template| Offer {
            node: node.name.clone(),
            template,
        };
        Some(found.ok()?.ok()?.into_iter().map(offer).collect::<Vec<_>>())
    });
    let mut all: Vec<Offer> = join_all(looks)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    all.sort_by(|a, b| (&a.node, &a.template.volid).cmp(&(&b.node, &b.template.volid)));
    Ok(all)
}

/// The `osRelease` that asks for exactly this distribution and version, such as `debian-12`.
#[must_use]
pub fn os_release(volid: &str) -> Option<String> {
    let file = volid.rsplit('/').next()?;
    let (distribution, rest) = file.split_once('-')?;
    let (name, _) = DISTRIBUTIONS
        .iter()
        .find(|(_, known)| *known == distribution)?;
    let release = rest.split(['-', '_']).next()?;
    numbers(release).map(|_| format!("{name}-{release}"))
}

/// The template that was named, else the newest one of the distribution.
fn pick<'a>(found: &'a [Template], wish: &Wish) -> Option<&'a Template> {
    if let Some(named) = &wish.template {
        return found
            .iter()
            .find(|t| t.volid == *named || t.volid.rsplit('/').next() == Some(named));
    }
    let wanted = Os::parse(&wish.os_release)?;
    found
        .iter()
        .filter_map(|template| Some((version_of(&template.volid, &wanted)?, template)))
        .max_by(|a, b| a.0.cmp(&b.0))
        .map(|(_, template)| template)
}

/// An `osRelease`: a distribution's name, with or without a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Os {
    distribution: &'static str,
    version: Vec<u32>,
}

/// Names that people use, and the names in Proxmox VE's template files.
const DISTRIBUTIONS: [(&str, &str); 14] = [
    ("almalinux", "almalinux"),
    ("alma", "almalinux"),
    ("alpine", "alpine"),
    ("arch", "archlinux"),
    ("archlinux", "archlinux"),
    ("centos", "centos"),
    ("debian", "debian"),
    ("devuan", "devuan"),
    ("fedora", "fedora"),
    ("gentoo", "gentoo"),
    ("opensuse", "opensuse"),
    ("rocky", "rockylinux"),
    ("rockylinux", "rockylinux"),
    ("ubuntu", "ubuntu"),
];

impl Os {
    /// `debian`, `debian-12`, `debian 12` and `debian12` are all understood.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        let split = text
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(text.len());
        let (name, version) = text.split_at(split);
        let (_, distribution) = DISTRIBUTIONS.iter().find(|(known, _)| *known == name)?;
        let version = version.trim_start_matches(['-', ' ', ':']);
        let version = if version.is_empty() {
            Some(Vec::new())
        } else {
            numbers(version)
        };
        Some(Self {
            distribution,
            version: version?,
        })
    }

    /// The names that may be asked for.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        DISTRIBUTIONS.iter().map(|(name, _)| *name).collect()
    }
}

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// What orders templates of one distribution: its version, then the template's own.
fn version_of(volid: &str, wanted: &Os) -> Option<(Vec<u32>, Vec<u32>)> {
    let file = volid.rsplit('/').next()?;
    let rest = file.strip_prefix(wanted.distribution)?.strip_prefix('-')?;
    let (release, rest) = rest.split_once(['-', '_'])?;
    let release = numbers(release).unwrap_or_default();
    if !release.starts_with(&wanted.version) {
        return None;
    }
    let build = rest.split('_').find_map(|part| {
        let digits: String = part
            .chars()
            .map(|c| if c == '-' { '.' } else { c })
            .collect();
        numbers(&digits)
    });
    Some((release, build.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(os: &str, files: &[&str]) -> Option<String> {
        let wanted = Os::parse(os)?;
        let mut found: Vec<_> = files
            .iter()
            .filter_map(|f| Some((version_of(f, &wanted)?, *f)))
            .collect();
        found.sort();
        found.pop().map(|(_, file)| file.to_owned())
    }

    #[test]
    fn the_newest_template_of_a_distribution_is_taken() {
        let files = [
            "local:vztmpl/debian-9-standard_9.7-1_amd64.tar.gz",
            "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst",
            "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst",
            "local:vztmpl/rockylinux-9-default_20240912_amd64.tar.xz",
            "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
        ];
        assert_eq!(picked("debian", &files).as_deref(), Some(files[2]));
        assert_eq!(picked("debian-9", &files).as_deref(), Some(files[0]));
        assert_eq!(picked("Rocky", &files).as_deref(), Some(files[3]));
        assert_eq!(picked("ubuntu 24.04", &files).as_deref(), Some(files[4]));
        assert_eq!(picked("debian-11", &files), None);
        let named = os_release("local:vztmpl/rockylinux-9-default_20240912_amd64.tar.xz");
        assert_eq!(named.as_deref(), Some("rocky-9"));
        assert_eq!(
            os_release("local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst").as_deref(),
            Some("debian-12")
        );
        assert_eq!(os_release("local:vztmpl/turnkey-core_18.tar.gz"), None);
        assert_eq!(Os::parse("windows"), None);
        assert_eq!(Os::parse("debian-x"), None);
    }
}
