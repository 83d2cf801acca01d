//! What containers do now, as Proxmox VE says: one call for each node every few seconds, whoever asks and how often; and one for each
//! container a minute, which proves that it is the row's.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::{Container, identity};
use crate::pve::LxcStatus;
use crate::{Core, node};

/// How old a node's list may be.
const FRESH: Duration = Duration::from_secs(2);

/// The lists of all nodes, by their row ids.
#[derive(Debug, Default)]
pub struct Live {
    nodes: Mutex<HashMap<i64, Arc<tokio::sync::Mutex<Seen>>>>,
    pub(super) looks: identity::Looks,
}

/// A node's list.
#[derive(Debug, Default)]
struct Seen {
    /// Whether the node gave none.
    away: bool,
    at: Option<(Instant, DateTime<Utc>)>,
    containers: HashMap<u32, LxcStatus>,
}

impl Seen {
    /// Whether we changed this container since its node was asked.
    fn misses(&self, row: &Container) -> bool {
        row.state.is_none() && self.at.is_some_and(|(_, asked)| row.updated_at >= asked)
    }

    fn of(&self, row: &Container) -> Option<(i64, LxcStatus)> {
        let status = self.containers.get(&row.container_id?)?;
        Some((row.id, status.clone()))
    }
}

impl Live {
    fn of(&self, node: i64) -> Arc<tokio::sync::Mutex<Seen>> {
        let mut nodes = self
            .nodes
            .lock()
            .expect("nothing panics while it holds the nodes");
        Arc::clone(nodes.entry(node).or_default())
    }
}

/// What these containers do now, by row id; those of which nothing can be said, and those that are others in Proxmox VE, are absent. What we changed ourselves since its
/// node was asked is asked for by itself.
pub async fn live(core: &Core, containers: &[Container]) -> HashMap<i64, LxcStatus> {
    let nodes: BTreeSet<i64> = containers.iter().filter_map(|row| row.node_id).collect();
    let looks = nodes.into_iter().map(|node| on(core, node, containers));
    let listed = join_all(looks).await.into_iter().flatten().collect();
    identity::proved(core, containers, listed).await
}

async fn on(core: &Core, id: i64, containers: &[Container]) -> Vec<(i64, LxcStatus)> {
    let seen = core.live.of(id);
    // Whoever comes second waits for the first one's answer.
    let mut seen = seen.lock().await;
    let ours = || containers.iter().filter(|row| row.node_id == Some(id));
    let fresh = seen.at.is_some_and(|(at, _)| at.elapsed() < FRESH);
    if fresh && !ours().any(|row| seen.misses(row)) {
        return ours().filter_map(|row| seen.of(row)).collect();
    }
    let node = node::find(core, id).await;
    let reached = node.and_then(|node| Ok((core.pve(&node)?, node)));
    let Ok((pve, node)) = reached else {
        *seen = Seen {
            at: Some((Instant::now(), core.clock.now())),
            ..Seen::default()
        };
        return Vec::new();
    };
    if !fresh {
        let now = core.clock.now();
        let list = tokio::time::timeout(node::AWAY, pve.lxc_list(&node.name)).await;
        let list = list.ok().and_then(Result::ok);
        seen.away = list.is_none();
        let list = list.into_iter().flatten();
        seen.containers = list.map(|row| (row.vmid, row)).collect();
        seen.at = Some((Instant::now(), now));
    }
    let missed = ours().filter(|row| !seen.away && seen.misses(row));
    let looks = missed.filter_map(|row| row.container_id);
    let looks = looks.map(|vmid| pve.lxc_status(&node.name, vmid));
    let own = tokio::time::timeout(node::AWAY, join_all(looks)).await;
    for own in own.into_iter().flatten().flatten() {
        seen.containers.insert(own.vmid, own);
    }
    ours().filter_map(|row| seen.of(row)).collect()
}

/// What Proxmox VE says of it, such as `running` or `stopped`, as [`live`] does; absent where nothing can be said.
pub async fn live_status(core: &Core, container: &Container) -> Option<String> {
    let mut found = live(core, std::slice::from_ref(container)).await;
    Some(found.remove(&container.id)?.status)
}
