//! Our books and Proxmox VE compared: what differs, and what repairs it. Looking changes nothing; nothing is ever deleted unasked.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;

use crate::actor::Actor;
use crate::container::{self, AddressProblem, Container, Filter, address};
use crate::job::{Mismatch, identity};
use crate::node::{self, Node, cluster};
use crate::pve::{Interface, LxcConfig, Pve};
use crate::{Core, Error, Result, args, audit, transaction};

mod watch;

pub(crate) use watch::Suspects;
pub use watch::{LOOK, Watcher, watch};

/// Calls to Proxmox VE at once.
const AT_ONCE: usize = 8;
/// Rows that are compared.
const MOST: u32 = 10_000;

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A row whose container is nowhere in Proxmox VE.
    Gone,
    /// Under the row's VMID stands somebody else's container.
    Stranger,
    /// Another row names the same VMID of the same cluster.
    Duplicate,
    /// It was registered while its node could not be asked.
    Unverified,
    /// The container is on another node than the row says.
    Moved,
    /// It has another address than the row says.
    Address,
    /// A container with our marker that no row knows.
    Orphan,
    /// A node that cannot be asked, so that nothing is known of its containers.
    Unknown,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub kind: Kind,
    /// The row, where there is one.
    pub container: Option<i64>,
    pub node: String,
    pub vmid: Option<u32>,
    pub message: String,
    /// What an admin may do about it.
    pub repair: String,
}

/// A look at one container.
type Look<'a> = BoxFuture<'a, Option<Finding>>;

/// What stands where, as one node's Proxmox VE says.
struct Seen {
    node: Node,
    pve: Pve,
    /// VMIDs with the names of the nodes that have them now.
    all: HashMap<u32, String>,
}

/// Compares everything, for admins.
pub async fn look(core: &Core, actor: &Actor) -> Result<Vec<Finding>> {
    actor.must_be_admin()?;
    let mut findings = Vec::new();
    let mut seen = HashMap::new();
    for node in node::all(core).await? {
        match see(core, &node).await {
            Ok(one) => drop(seen.insert(node.id, one)),
            Err(reason) => findings.push(Finding {
                kind: Kind::Unknown,
                container: None,
                vmid: None,
                message: format!("Node {} cannot be asked: {reason}", node.name),
                repair: format!("Test the node (`POST /nodes/{}/test`).", node.id),
                node: node.name,
            }),
        }
    }
    let filter = Filter {
        all: true,
        limit: MOST,
        ..Filter::default()
    };
    let (rows, _) = container::list(core, actor, &filter).await?;
    let mut looks: Vec<Look<'_>> = Vec::new();
    for row in rows.iter().filter(|row| row.state.is_none()) {
        looks.push(compare(core, row, &seen).boxed());
    }
    findings.extend(all(looks).await);
    findings.extend(duplicates(core, &rows, &seen).await?);
    findings.extend(orphans(core, &rows, &seen).await);
    findings.sort_by_key(|one| (one.kind, one.container, one.vmid));
    Ok(findings)
}

async fn see(core: &Core, node: &Node) -> Result<Seen, String> {
    let pve = core.pve(node).map_err(|error| error.to_string())?;
    let sees_all = pve.sees_all().await.map_err(|error| error.to_string())?;
    if !sees_all {
        return Err("its token may not see all containers (VM.Audit on /vms).".to_owned());
    }
    let resources = pve
        .resources("vm")
        .await
        .map_err(|error| error.to_string())?;
    let places = resources
        .into_iter()
        .filter_map(|one| one.vmid.zip(one.node));
    Ok(Seen {
        node: node.clone(),
        all: places.collect(),
        pve,
    })
}

async fn compare(core: &Core, row: &Container, seen: &HashMap<i64, Seen>) -> Option<Finding> {
    let (vmid, node) = (row.container_id?, row.node_id?);
    let Some(seen) = seen.get(&node) else {
        return unverified(row, vmid, node);
    };
    let finding = |kind, message: String, repair: String| {
        Some(Finding {
            kind,
            container: Some(row.id),
            node: seen.node.name.clone(),
            vmid: Some(vmid),
            message,
            repair,
        })
    };
    let forget = format!(
        "Let go of the row: `DELETE /containers/{}?forget=true`.",
        row.id
    );
    let refresh = format!(
        "Write down what Proxmox VE says: `POST /containers/{}/refresh`.",
        row.id
    );
    let name = &row.hostname;
    let on = seen.all.get(&vmid).unwrap_or(&seen.node.name);
    let config = match seen.pve.lxc_config(on, vmid).await {
        Ok(config) => config,
        Err(error) if error.is_does_not_exist() && !seen.all.contains_key(&vmid) => {
            let message = format!("{name}: CT {vmid} does not exist any more.");
            return finding(Kind::Gone, message, forget);
        }
        Err(_) => return None,
    };
    if let Err(mismatch) = identity(core, row, &config) {
        return finding(
            Kind::Stranger,
            format!("{name}: {}", mismatch.detail()),
            forget,
        );
    }
    if *on != seen.node.name {
        let message = format!(
            "{name}: CT {vmid} is on {on} now, not on {}.",
            seen.node.name
        );
        return finding(Kind::Moved, message, refresh);
    }
    let interfaces = seen.pve.lxc_interfaces(on, vmid).await.ok()??;
    let ours = row.ipv4_address.as_deref();
    let theirs = address::of(core, &config, &interfaces, ours)?;
    // What was refused is no news; the row says why.
    if let Some(problem @ AddressProblem::Refused { .. }) = &row.address_problem {
        return finding(Kind::Address, format!("{name}: {problem}"), refresh);
    }
    if ours != Some(theirs.to_string().as_str()) {
        let ours = ours.unwrap_or("none");
        let message = format!("{name}: CT {vmid} has the address {theirs}, our books say {ours}.");
        return finding(Kind::Address, message, refresh);
    }
    None
}

/// A row of which nothing is known but what a registration said.
fn unverified(row: &Container, vmid: u32, node: i64) -> Option<Finding> {
    let since = row.unverified_since?.format("%Y-%m-%d %H:%M:%S");
    Some(Finding {
        kind: Kind::Unverified,
        container: Some(row.id),
        node: String::new(),
        vmid: Some(vmid),
        message: format!(
            "{}: CT {vmid} was registered at {since} UTC, when Proxmox VE could not be asked whether it is so.",
            row.hostname
        ),
        repair: format!(
            "It is verified as soon as the node answers. Test the node (`POST /nodes/{node}/test`)."
        ),
    })
}

/// Rows that name one VMID of a cluster, a finding for each.
async fn duplicates(
    core: &Core,
    rows: &[Container],
    seen: &HashMap<i64, Seen>,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for pair in cluster::duplicate_pairs(core).await? {
        for (id, other) in [(pair.first, pair.second), (pair.second, pair.first)] {
            let Some(row) = rows.iter().find(|row| row.id == id) else {
                continue;
            };
            let node = row.node_id.and_then(|node| seen.get(&node));
            findings.push(Finding {
                kind: Kind::Duplicate,
                container: Some(id),
                node: node.map_or_else(String::new, |seen| seen.node.name.clone()),
                vmid: Some(pair.vmid),
                message: format!(
                    "{}: container {other} names CT {} of the same cluster, too. Nothing that cannot be taken back is done to either.",
                    row.hostname, pair.vmid
                ),
                repair: format!(
                    "Let go of the one that is wrong: `DELETE /containers/{id}?forget=true` or `DELETE /containers/{other}?forget=true`."
                ),
            });
        }
    }
    Ok(findings)
}

/// Containers with a marker of ours that is no row's.
async fn orphans(core: &Core, rows: &[Container], seen: &HashMap<i64, Seen>) -> Vec<Finding> {
    let known: Vec<u32> = rows.iter().filter_map(|row| row.container_id).collect();
    let mut asked: HashMap<u32, (&Seen, &String)> = HashMap::new();
    for one in seen.values() {
        let unknown = one.all.iter().filter(|(vmid, _)| !known.contains(vmid));
        asked.extend(unknown.map(|(vmid, on)| (*vmid, (one, on))));
    }
    let mut looks: Vec<Look<'_>> = Vec::new();
    for (vmid, (one, on)) in asked {
        looks.push(orphan(core, one, on, vmid).boxed());
    }
    all(looks).await
}

async fn orphan(core: &Core, seen: &Seen, on: &str, vmid: u32) -> Option<Finding> {
    let config = seen.pve.lxc_config(on, vmid).await.ok()?;
    let marker = own_marker(core, &config)?;
    Some(Finding {
        kind: Kind::Orphan,
        container: None,
        node: on.to_owned(),
        vmid: Some(vmid),
        message: format!("CT {vmid} carries our marker `{marker}`, but no row knows it."),
        repair: "Register it (`POST /containers` without `init`), or remove it in Proxmox VE."
            .to_owned(),
    })
}

/// What came of all looks, some of them at once.
async fn all(looks: Vec<Look<'_>>) -> Vec<Finding> {
    let found = stream::iter(looks).buffer_unordered(AT_ONCE);
    found.filter_map(std::future::ready).collect().await
}

fn own_marker(core: &Core, config: &LxcConfig) -> Option<String> {
    let ours = container::marker_line(&core.installation, 0);
    let ours = ours.trim_end_matches('0');
    let lines = config.description.as_deref()?.lines();
    let marker = lines.map(str::trim).find(|line| line.starts_with(ours));
    marker.map(ToOwned::to_owned)
}

/// Stores where the container is, its address and its sizes, as Proxmox VE says; for its owner and for admins.
pub async fn refresh(core: &Core, actor: &Actor, id: i64) -> Result<Container> {
    let row = container::find(core, actor, id).await?;
    let (Some(vmid), Some(old)) = (row.container_id, row.node_id) else {
        let message = "This container is not made yet, or its node is not known.";
        return Err(Error::conflict("id", message));
    };
    let nodes = node::all(core).await?;
    let old = nodes.iter().find(|node| node.id == old);
    let old = old.ok_or_else(|| Error::NotFound("The container's node is gone.".to_owned()))?;
    let seen = see(core, old).await.map_err(Error::Upstream)?;
    let on = seen.all.get(&vmid).unwrap_or(&old.name);
    let told = |error: crate::pve::Error| Error::Upstream(error.to_string());
    let config = seen.pve.lxc_config(on, vmid).await.map_err(told)?;
    let outcome = identity(core, &row, &config);
    container::identity::store(core, &row, outcome.as_ref().map(|()| &config)).await?;
    outcome.map_err(|mismatch| mismatch_for(actor, &mismatch))?;
    let Some(new) = nodes.iter().find(|node| node.name == *on) else {
        let message = format!("CT {vmid} is on {on}, which is no node here; add it first.");
        return Err(Error::conflict("node", message));
    };
    let interfaces = seen.pve.lxc_interfaces(on, vmid).await.map_err(told)?;
    let entry = audit::Change::new("container_refresh", format!("/containers/{id}"));
    let entry = entry.field("node", &old.name, &new.name);
    let found = FoundContainer {
        node: new.id,
        interfaces,
        config,
    };
    let stored = found
        .store(core, &row, Absent::Withdraw, Some((actor, entry)))
        .await?;
    if !stored {
        let message = "Something works on this container; wait until it has ended.";
        return Err(Error::conflict("id", message));
    }
    container::find(core, actor, id).await
}

/// What stands behind a mismatch is the admins' business: it may be somebody else's container.
fn mismatch_for(actor: &Actor, mismatch: &Mismatch) -> Error {
    let message = match actor.admin {
        true => mismatch.detail(),
        false => mismatch.to_string(),
    };
    Error::conflict("id", message)
}

/// A container as Proxmox VE shows it. Identity holds.
pub(crate) struct FoundContainer {
    /// The row id of the node that it is on.
    pub(crate) node: i64,
    pub(crate) config: LxcConfig,
    /// Absent where it does not run.
    pub(crate) interfaces: Option<Vec<Interface>>,
}

/// What becomes of a stored address while `net0` shows none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It is withdrawn, and so are the routes.
    Withdraw,
    /// It stays: a guest that boots, or renews its lease, has none for a moment.
    Keep,
}

impl FoundContainer {
    /// Stores node, sizes and address in the row as it was read; `false` where a job works on it by now, or it is gone.
    /// The entry gets the change of the address.
    pub(crate) async fn store(
        &self,
        core: &Core,
        row: &Container,
        absent: Absent,
        entry: Option<(&Actor, audit::Change)>,
    ) -> Result<bool> {
        let interfaces = self.interfaces.as_deref().unwrap_or_default();
        let before = row.ipv4_address.as_deref();
        let shown = match &self.interfaces {
            Some(_) => address::of(core, &self.config, interfaces, before),
            // Not even a static address answers there.
            None => None,
        };
        let claim = match shown {
            Some(shown) => Some(address::claim(core, row.id, shown).await?),
            None => None,
        };
        let (config, disk) = (&self.config, self.config.disk_gib());
        let vmid = row.container_id.unwrap_or_default();
        let stored = transaction!(core.db, tx => {
            tx.lock("names").await?;
            let sql = r#"UPDATE "Containers" SET "nodeId" = ?, "cores" = COALESCE(?, "cores"), "memory" = COALESCE(?, "memory"),
                                "disk" = COALESCE(?, "disk"), "updatedAt" = ? WHERE "id" = ? AND "state" IS NULL"#;
            let given = args![self.node, config.cores, config.memory, disk, core.clock.now(), row.id];
            if tx.exec(sql, given).await.map_err(|error| cluster::taken(error, "id", vmid))? == 0 {
                None
            } else {
                cluster::claim(tx, row.id).await.map_err(|error| cluster::taken(error, "id", vmid))?;
                let stored = match &claim {
                    None if absent == Absent::Keep => None,
                    claim => Some(address::store(tx, core, row.id, claim.as_ref()).await?),
                };
                if let Some((actor, entry)) = &entry {
                    let after = match &stored {
                        Some(stored) => &stored.address,
                        None => &row.ipv4_address,
                    };
                    let entry = entry.clone().field("ipv4Address", &row.ipv4_address, after);
                    entry.write(tx, core, actor).await?;
                }
                Some(stored)
            }
        })?;
        if let Some(Some(stored)) = &stored {
            stored.announce(core);
        }
        Ok(stored.is_some())
    }
}
