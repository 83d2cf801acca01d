//! Whether what stands under a row's VMID is the row's container, looked up in Proxmox VE before anything is read or changed there on
//! behalf of the row, and what the row remembers of it. The rule itself is `job/identity.rs`.
//!
//! A look has four outcomes, and only one of them takes anything away: a *proved* mismatch stops the row's services from being served until
//! a later look proves its identity again. A look that fails, or a container that is not found, changes nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::Container;
use super::change::{made, told};
use crate::job::{Mismatch, identity};
use crate::node::{self, Node};
use crate::pve::{LxcConfig, LxcStatus, Pve};
use crate::{Core, Error, Result, args};

/// How old the look behind a list may be.
const RECENT: Duration = Duration::from_secs(60);
/// Calls to Proxmox VE at once.
const AT_ONCE: usize = 8;

/// The row's container in Proxmox VE.
pub(crate) struct Place {
    pub(crate) pve: Pve,
    /// The name of the node that has it now.
    pub(crate) node: String,
}

/// What a look says.
pub(crate) enum Look {
    Same(Box<Place>),
    Mismatch(Mismatch),
    /// Proved: no node of the cluster has the VMID.
    Gone,
    /// Nothing can be said now.
    Unknown(Error),
}

/// Looks at what stands under the row's VMID, on whichever node of the cluster it is, and stores the outcome.
pub(crate) async fn look(core: &Core, row: &Container) -> Result<Look> {
    let (node, _) = made(row)?;
    let node = node::find(core, node).await?;
    match core.pve(&node) {
        Ok(pve) => look_on(core, row, &node, pve).await,
        Err(error) => Ok(Look::Unknown(error)),
    }
}

async fn look_on(core: &Core, row: &Container, node: &Node, pve: Pve) -> Result<Look> {
    let (_, vmid) = made(row)?;
    let (on, config) = match find(&pve, node, vmid).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Look::Gone),
        Err(error) => return Ok(Look::Unknown(error)),
    };
    // While it is locked for its creation the config hides the description.
    if config.lock.as_deref() == Some("create") {
        let message = format!("CT {vmid} is still being created; try again in a moment.");
        return Ok(Look::Unknown(Error::conflict("id", message)));
    }
    let outcome = identity(core, row, &config);
    store(core, row, outcome.as_ref().map(|()| &config)).await?;
    Ok(match outcome {
        Ok(()) => Look::Same(Box::new(Place { pve, node: on })),
        Err(mismatch) => Look::Mismatch(mismatch),
    })
}

/// Where the VMID is now, with its config; `None` only when it is proved gone.
pub(super) async fn find(pve: &Pve, node: &Node, vmid: u32) -> Result<Option<(String, LxcConfig)>> {
    match pve.lxc_config(&node.name, vmid).await {
        Ok(config) => return Ok(Some((node.name.clone(), config))),
        Err(error) if error.is_does_not_exist() => {}
        Err(error) => return Err(told(&error)),
    }
    // The wrong node says that, too.
    let resources = pve.resources("vm").await.map_err(|error| told(&error))?;
    let listed = resources.into_iter().find(|one| one.vmid == Some(vmid));
    match listed.and_then(|one| one.node) {
        Some(on) => {
            let config = pve.lxc_config(&on, vmid).await;
            Ok(Some((on, config.map_err(|error| told(&error))?)))
        }
        None if pve.sees_all().await.map_err(|error| told(&error))? => Ok(None),
        None => Err(Error::Upstream(
            "Whether the container exists cannot be proved: the node's token needs VM.Audit on /vms.".to_owned(),
        )),
    }
}

/// Proves that the container is the row's; what is read or changed in Proxmox VE on behalf of the row is read or changed there.
pub(crate) async fn prove(core: &Core, row: &Container) -> Result<Place> {
    match look(core, row).await? {
        Look::Same(place) => Ok(*place),
        Look::Mismatch(mismatch) => Err(Error::conflict("id", mismatch.to_string())),
        Look::Gone => {
            let vmid = row.container_id.unwrap_or_default();
            let message = format!("CT {vmid} does not exist any more in Proxmox VE.");
            Err(Error::Upstream(message))
        }
        Look::Unknown(error) => Err(error),
    }
}

/// Stores what a look proved: the config of the row's container, or that it is another one. Sizes that the row does not know are learned.
pub(crate) async fn store(
    core: &Core,
    row: &Container,
    outcome: Result<&LxcConfig, &Mismatch>,
) -> Result<()> {
    let now = core.clock.now();
    // The row may name another container by now.
    let (node, vmid) = made(row)?;
    match outcome {
        Ok(config) => {
            let sizes = (config.cores, config.memory, config.disk_gib());
            let learned = (row.cores.is_none() && sizes.0.is_some())
                || (row.memory.is_none() && sizes.1.is_some())
                || (row.disk.is_none() && sizes.2.is_some());
            let clean = row.unverified_since.is_none() && row.identity_mismatch_at.is_none();
            if clean && !learned {
                return Ok(());
            }
            let sql = r#"UPDATE "Containers" SET "unverifiedSince" = NULL, "identityMismatchAt" = NULL, "cores" = COALESCE("cores", ?),
                                "memory" = COALESCE("memory", ?), "disk" = COALESCE("disk", ?), "updatedAt" = ?
                         WHERE "id" = ? AND "nodeId" = ? AND "containerId" = ?"#;
            core.db
                .exec(
                    sql,
                    args![sizes.0, sizes.1, sizes.2, now, row.id, node, vmid],
                )
                .await?;
            if !clean {
                tracing::info!(container = row.id, vmid, "identity proved");
            }
        }
        Err(mismatch) if mismatch.is_proved() && row.identity_mismatch_at.is_none() => {
            let sql = r#"UPDATE "Containers" SET "identityMismatchAt" = ?, "updatedAt" = ?
                         WHERE "id" = ? AND "nodeId" = ? AND "containerId" = ? AND "identityMismatchAt" IS NULL"#;
            let given = args![now, now, row.id, node, vmid];
            if core.db.exec(sql, given).await? > 0 {
                let detail = mismatch.detail();
                tracing::warn!(container = row.id, vmid, detail, "identity mismatch");
            }
        }
        Err(_) => return Ok(()),
    }
    core.wake.routes();
    Ok(())
}

/// The looks behind lists, by row id.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<HashMap<i64, Known>>);

/// A look at one row.
#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    row: Named,
    /// The name that Proxmox VE listed then.
    listed: Option<String>,
    same: bool,
}

/// By what a row knows its container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    node: Option<i64>,
    vmid: Option<u32>,
    hostname: String,
    mac: Option<String>,
    marker: bool,
}

impl Named {
    fn of(row: &Container) -> Self {
        Self {
            node: row.node_id,
            vmid: row.container_id,
            hostname: row.hostname.clone(),
            mac: row.mac_address.clone(),
            marker: row.marker,
        }
    }
}

impl Looks {
    /// What a recent look said, if the row and the listed name are as they were.
    fn recent(&self, row: &Container, listed: &LxcStatus) -> Option<bool> {
        let looks = self.0.lock().expect("nothing panics while it holds it");
        let known = looks.get(&row.id)?;
        let good = known.at.elapsed() < RECENT
            && known.listed == listed.name
            && known.row == Named::of(row);
        good.then_some(known.same)
    }

    fn keep(&self, row: &Container, listed: &LxcStatus, same: bool) {
        let known = Known {
            at: Instant::now(),
            row: Named::of(row),
            listed: listed.name.clone(),
            same,
        };
        let mut looks = self.0.lock().expect("nothing panics while it holds it");
        looks.retain(|_, known| known.at.elapsed() < RECENT);
        looks.insert(row.id, known);
    }
}

/// Of what Proxmox VE lists under the VMIDs of these rows, that which is proved to be theirs, by a look of the last minute.
pub(super) async fn proved(
    core: &Core,
    rows: &[Container],
    listed: Vec<(i64, LxcStatus)>,
) -> HashMap<i64, LxcStatus> {
    let looks = &core.live.looks;
    let by_id: HashMap<i64, &Container> = rows.iter().map(|row| (row.id, row)).collect();
    let mut proved = HashMap::new();
    let mut open = Vec::new();
    for (id, status) in listed {
        let Some(row) = by_id.get(&id).copied() else {
            continue;
        };
        match looks.recent(row, &status) {
            Some(true) => drop(proved.insert(id, status)),
            Some(false) => {}
            None => open.push((row, status)),
        }
    }
    if open.is_empty() {
        return proved;
    }
    let clients = clients(core, &open).await;
    let mut asked: Vec<BoxFuture<'_, _>> = Vec::with_capacity(open.len());
    for (row, status) in open {
        let Some((node, pve)) = row.node_id.and_then(|id| clients.get(&id)) else {
            continue;
        };
        let looked = async move { (row, status, look_on(core, row, node, pve.clone()).await) };
        asked.push(looked.boxed());
    }
    let mut asked = stream::iter(asked).buffer_unordered(AT_ONCE);
    let deadline = tokio::time::Instant::now() + node::AWAY;
    // Whoever is not looked at in time is without a status this once.
    while let Ok(Some((row, status, outcome))) =
        tokio::time::timeout_at(deadline, asked.next()).await
    {
        match outcome {
            Ok(Look::Same(_)) => {
                looks.keep(row, &status, true);
                proved.insert(row.id, status);
            }
            Ok(Look::Mismatch(_)) => looks.keep(row, &status, false),
            Ok(Look::Gone | Look::Unknown(_)) => {}
            Err(error) => tracing::warn!(%error, container = row.id, "identity cannot be stored"),
        }
    }
    proved
}

/// The nodes of these rows that can be asked, with their clients.
async fn clients(core: &Core, rows: &[(&Container, LxcStatus)]) -> HashMap<i64, (Node, Pve)> {
    let mut clients = HashMap::new();
    for id in rows.iter().filter_map(|(row, _)| row.node_id) {
        if clients.contains_key(&id) {
            continue;
        }
        if let Ok(node) = node::find(core, id).await
            && let Ok(pve) = core.pve(&node)
        {
            clients.insert(id, (node, pve));
        }
    }
    clients
}
