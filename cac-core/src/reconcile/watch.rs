//! Notices what happens to containers without us: they are moved, restarted, or get another address. Comparing everything for an admin is
//! `reconcile.rs`.
//!
//! One process at a time leads (a lease). Every [`LOOK`] it asks each cluster once for all its containers (`/cluster/resources`, which knows
//! node, state and uptime, and no addresses). Where node or uptime changed, or a running container has no address yet, it asks for that one
//! container's interfaces, one call each. An address can change without either (a lease that ends, root in the guest), so the leader also
//! reads `ADDRESS_READS_PER_SECOND` running containers a second in turn: a whole round takes as many seconds as there are running containers,
//! divided by that number. Every process, leading or not, looks at containers at whose address a proxy got no answer ([`suspect`]).
//!
//! A look that fails changes nothing. A container that is stopped, or that has no address for a moment, keeps the one that is stored.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{AT_ONCE, Absent, FoundContainer};
use crate::container::{self, AddressProblem, Container, address};
use crate::job::identity;
use crate::node::{self, Node};
use crate::pve::Pve;
use crate::{Core, Result, args, infrastructure, secret};

#[cfg(test)]
mod tests;

/// Between two looks at each cluster.
pub const LOOK: Duration = Duration::from_secs(20);
/// How long a leader leads without renewing its lease, in milliseconds; it does so every [`RENEW`].
const LEASE: i64 = 20_000;
const RENEW: Duration = Duration::from_secs(5);
/// How long the members of a cluster are remembered.
const MEMBERS: Duration = Duration::from_secs(600);
/// How long one container's node may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a node may take that did not answer the last time.
const SILENT: Duration = Duration::from_secs(1);
/// Proxmox VE measures uptimes every ten seconds, so the same start seems to move by that much; in seconds.
const MEASURED: u64 = 11;
/// A container that started longer ago and has no address is left to its turn, in seconds.
const BOOTS: u64 = 600;
/// Containers without an answer that are remembered, and how long none of them is looked at again.
const SUSPECTS: usize = 1000;
const SUSPECT_AGAIN: Duration = Duration::from_secs(30);

/// Containers at whose address a proxy got no answer; when each was looked at.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<HashMap<i64, Option<Instant>>>);

impl Suspects {
    /// A proxy got no answer from the container with this row id. Cheap: it is called for each visitor.
    pub(crate) fn add(&self, container: i64) {
        let mut all = self.0.lock().expect("nothing panics while it holds it");
        if all.len() >= SUSPECTS {
            all.retain(|_, looked| looked.is_none_or(|at| at.elapsed() < SUSPECT_AGAIN));
        }
        if all.len() < SUSPECTS {
            let looked = all.entry(container).or_insert(None);
            if looked.is_some_and(|at| at.elapsed() >= SUSPECT_AGAIN) {
                *looked = None;
            }
        }
    }

    /// Some of those that nobody looked at yet.
    fn take(&self, most: usize) -> Vec<i64> {
        let mut all = self.0.lock().expect("nothing panics while it holds it");
        let new = all
            .iter_mut()
            .filter(|(_, looked)| looked.is_none())
            .take(most);
        new.map(|(id, looked)| {
            *looked = Some(Instant::now());
            *id
        })
        .collect()
    }
}

/// Watches until `stop`, leading whenever no other process does.
pub async fn watch(core: Core, stop: CancellationToken) {
    let mut watcher = Watcher::new(core);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Not at once: whoever starts has just been told how everything is.
    let (mut renew, mut look) = (Instant::now(), Instant::now() + LOOK);
    let mut leads = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = seconds.tick() => {}
        }
        let now = Instant::now();
        if now >= renew {
            leads = watcher.lead().await.unwrap_or(false);
            renew = now + RENEW;
        }
        let mut outcome = Ok(());
        if leads && now >= look {
            outcome = watcher.look().await.map(drop);
            // A look that takes long is not due again at once.
            look = Instant::now() + LOOK;
        }
        let outcome = outcome.and(watcher.second(leads).await);
        if let Err(error) = outcome {
            tracing::warn!(%error, "containers cannot be watched now");
        }
    }
}

/// What one process knows of all containers.
pub struct Watcher {
    core: Core,
    name: String,
    /// By the row ids of nodes: the names of all members of its cluster.
    members: HashMap<i64, (Instant, HashSet<String>)>,
    /// Nodes that did not answer the last time, by their row ids.
    silent: HashSet<i64>,
    clusters: Vec<Cluster>,
    /// By the row ids of containers, as the last look found them.
    before: HashMap<i64, Place>,
    /// Running containers in order of their row ids, and the one that was read last.
    running: Vec<i64>,
    turn: i64,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Nodes that answer for each other.
struct Cluster {
    nodes: Vec<Node>,
    /// The names of all its nodes, added here or not.
    members: HashSet<String>,
    pve: Pve,
    containers: HashMap<u32, Place>,
}

/// Where a container is, and since when.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    node: String,
    running: bool,
    /// In seconds.
    uptime: u64,
    at: Instant,
}

impl Place {
    /// Whether it was moved or started again since then.
    fn differs(&self, before: &Self) -> bool {
        let expected = before.uptime + self.at.duration_since(before.at).as_secs();
        self.node != before.node
            || self.running != before.running
            || (self.running && self.uptime < before.uptime)
            || (self.running && expected.abs_diff(self.uptime) > MEASURED)
    }
}

/// A row as far as a look needs it.
struct Row {
    id: i64,
    vmid: u32,
    node: Option<i64>,
    has_address: bool,
}

impl Watcher {
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self {
            core,
            name: format!("{}-{}", std::process::id(), &secret::random()[..12]),
            members: HashMap::new(),
            silent: HashSet::new(),
            clusters: Vec::new(),
            before: HashMap::new(),
            running: Vec::new(),
            turn: 0,
        }
    }

    /// Takes or renews the lease; whether this process leads.
    pub async fn lead(&mut self) -> Result<bool> {
        // The counter makes each renewal a change of the row, so that two nodes of a Galera cluster never both succeed.
        let sql = r#"UPDATE "Leases" SET "holder" = ?, "until" = NOW_MS() + ?, "counter" = "counter" + 1
                     WHERE "name" = 'addresses' AND ("holder" = ? OR "until" < NOW_MS())"#;
        let changed = self
            .core
            .db
            .exec(sql, args![&self.name, LEASE, &self.name])
            .await?;
        Ok(changed > 0)
    }

    /// Asks every cluster once and reads the containers that something happened to; how many those were.
    pub async fn look(&mut self) -> Result<usize> {
        self.clusters = self.ask_clusters().await?;
        let rows = self.rows().await?;
        let mut due = Vec::new();
        let mut places = HashMap::with_capacity(rows.len());
        let mut running = Vec::new();
        for row in rows {
            let Some((cluster, place)) = self.find(&row) else {
                continue;
            };
            let mut nodes = cluster.nodes.iter();
            let moved = nodes.any(|node| Some(node.id) == row.node && node.name != place.node);
            let changed = match self.before.get(&row.id) {
                Some(before) => place.differs(before),
                // Nothing is known of the time before: as if it had been looked at when this look would have been due.
                None => place.uptime < 3 * LOOK.as_secs(),
            };
            let boots = place.running && !row.has_address && place.uptime < BOOTS;
            if moved || (place.running && changed) || boots {
                due.push(row.id);
            }
            if place.running {
                running.push(row.id);
            }
            places.insert(row.id, place.clone());
        }
        self.before = places;
        self.running = running;
        Ok(self.read_all(due).await)
    }

    /// What is done each second: containers without an answer, and for a leader the next ones in turn.
    async fn second(&mut self, leads: bool) -> Result<()> {
        let most = self.core.config.containers.address_reads;
        let suspects = self.core.suspects.take(most);
        if !suspects.is_empty() {
            if !leads || self.clusters.is_empty() {
                self.clusters = self.ask_clusters().await?;
            }
            self.read_all(suspects).await;
        }
        if leads {
            self.read_in_turn().await;
        }
        Ok(())
    }

    /// Reads the next containers in turn, as many as one second is for; how many those were.
    pub async fn read_in_turn(&mut self) -> usize {
        let most = self
            .core
            .config
            .containers
            .address_reads
            .min(self.running.len());
        let first = self.running.partition_point(|id| *id <= self.turn);
        let next: Vec<i64> = self
            .running
            .iter()
            .cycle()
            .skip(first)
            .take(most)
            .copied()
            .collect();
        self.turn = next.last().copied().unwrap_or_default();
        self.read_all(next).await
    }

    async fn rows(&self) -> Result<Vec<Row>> {
        let sql = r#"SELECT "id", "containerId", "nodeId", "ipv4Address" FROM "Containers"
                     WHERE "containerId" IS NOT NULL AND "state" IS NULL ORDER BY "id""#;
        let rows = self.core.db.all(sql, args![]).await?;
        let read = |row: &crate::db::Row| {
            Ok(Row {
                id: row.get("id")?,
                vmid: row.get("containerId")?,
                node: row.get("nodeId")?,
                has_address: row.get::<Option<String>>("ipv4Address")?.is_some(),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Where the row's cluster has its VMID.
    fn find(&self, row: &Row) -> Option<(&Cluster, &Place)> {
        let mut clusters = self.clusters.iter();
        let cluster = match row.node {
            Some(_) => {
                clusters.find(|one| one.nodes.iter().any(|node| Some(node.id) == row.node))?
            }
            // A row by hand may name no node.
            None => clusters.find(|one| one.containers.contains_key(&row.vmid))?,
        };
        Some((cluster, cluster.containers.get(&row.vmid)?))
    }

    /// All containers of each cluster, from whichever of its nodes answers first. A node that does not answer belongs to a cluster all the
    /// same: what ran there may have been started elsewhere.
    async fn ask_clusters(&mut self) -> Result<Vec<Cluster>> {
        let mut rest = node::all(&self.core).await?;
        // Those that were silent come last, and are then known as members of a cluster without being asked.
        rest.sort_by_key(|node| self.silent.contains(&node.id));
        let (mut clusters, mut silent): (Vec<Cluster>, Vec<Node>) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let node = rest.remove(0);
            // One that was silent the last time is not waited for again.
            let limit = match self.silent.contains(&node.id) {
                true => SILENT,
                false => ANSWER,
            };
            let asked = match self.core.pve(&node) {
                Ok(pve) => containers_of(&pve, limit)
                    .await
                    .map(|containers| (pve, containers)),
                Err(_) => None,
            };
            let Some((pve, containers)) = asked else {
                silent.push(node);
                continue;
            };
            let members = self.members_of(&node, &pve).await;
            let (same, others): (Vec<Node>, Vec<Node>) = rest
                .into_iter()
                .partition(|one| members.contains(&one.name));
            rest = others;
            let nodes = std::iter::once(node).chain(same).collect();
            clusters.push(Cluster {
                nodes,
                members,
                pve,
                containers,
            });
        }
        self.silent = silent.iter().map(|node| node.id).collect();
        for node in silent {
            let mut all = clusters.iter_mut();
            if let Some(cluster) = all.find(|one| one.members.contains(&node.name)) {
                cluster.nodes.push(node);
            }
        }
        Ok(clusters)
    }

    async fn members_of(&mut self, node: &Node, pve: &Pve) -> HashSet<String> {
        if let Some((at, members)) = self.members.get(&node.id)
            && at.elapsed() < MEMBERS
        {
            return members.clone();
        }
        let asked = tokio::time::timeout(ANSWER, pve.nodes()).await;
        let Ok(Ok(nodes)) = asked else {
            return HashSet::new();
        };
        if let Err(error) = infrastructure::publish_nodes(&self.core, pve, &nodes).await {
            tracing::warn!(%error, "addresses of nodes are not published now");
        }
        let members: HashSet<String> = nodes.into_iter().map(|one| one.node).collect();
        self.members
            .insert(node.id, (Instant::now(), members.clone()));
        members
    }

    /// Reads these containers, some at once; how many.
    async fn read_all(&self, ids: Vec<i64>) -> usize {
        let count = ids.len();
        let reads = ids.into_iter().map(|id| async move {
            let read = tokio::time::timeout(ANSWER, self.read(id)).await;
            match read {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, container = id, "its address is not known now")
                }
                Err(_) => tracing::debug!(container = id, "its node does not answer"),
            }
        });
        stream::iter(reads)
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<()>>()
            .await;
        count
    }

    async fn read(&self, id: i64) -> Result<()> {
        let Some(row) = container::find_any(&self.core, id).await? else {
            return Ok(());
        };
        let (Some(vmid), None) = (row.container_id, &row.state) else {
            return Ok(());
        };
        let wanted = Row {
            id,
            vmid,
            node: row.node_id,
            has_address: row.ipv4_address.is_some(),
        };
        let Some((cluster, place)) = self.find(&wanted) else {
            return Ok(());
        };
        let told = |error: crate::pve::Error| crate::Error::Upstream(error.to_string());
        let config = cluster
            .pve
            .lxc_config(&place.node, vmid)
            .await
            .map_err(told)?;
        let outcome = identity(&self.core, &row, &config);
        if row.node_id.is_some() {
            container::identity::store(&self.core, &row, outcome.as_ref().map(|()| &config))
                .await?;
        }
        if outcome.is_err() {
            // Nothing of another container is written into this row.
            return Ok(());
        }
        let interfaces = cluster
            .pve
            .lxc_interfaces(&place.node, vmid)
            .await
            .map_err(told)?;
        let on = cluster.nodes.iter().find(|node| node.name == place.node);
        if on.is_none() {
            tracing::warn!(container = id, node = %place.node, "container moved to a node that is not added here");
        }
        let found = FoundContainer {
            node: on.map(|node| node.id).or(row.node_id).unwrap_or_default(),
            config,
            interfaces,
        };
        if is_news(&self.core, &row, &found).await? {
            found.store(&self.core, &row, Absent::Keep, None).await?;
        }
        Ok(())
    }
}

async fn containers_of(pve: &Pve, limit: Duration) -> Option<HashMap<u32, Place>> {
    let asked = tokio::time::timeout(limit, pve.resources("vm")).await;
    let resources = asked.ok()?.ok()?;
    let at = Instant::now();
    let place = |one: crate::pve::Resource| {
        let place = Place {
            node: one.node?,
            running: one.status.as_deref() == Some("running"),
            uptime: one.uptime.unwrap_or_default(),
            at,
        };
        Some((one.vmid?, place))
    };
    Some(resources.into_iter().filter_map(place).collect())
}

/// Whether there is anything to store. A row that is written each turn would seem changed to everybody who compares it.
async fn is_news(core: &Core, row: &Container, found: &FoundContainer) -> Result<bool> {
    let config = &found.config;
    let sizes = [
        (config.cores, row.cores),
        (config.memory, row.memory),
        (config.disk_gib(), row.disk),
    ];
    let resized = sizes
        .iter()
        .any(|(now, before)| now.is_some() && now != before);
    if resized || Some(found.node) != row.node_id {
        return Ok(true);
    }
    let Some(interfaces) = &found.interfaces else {
        return Ok(false);
    };
    let stored = row.ipv4_address.as_deref();
    let Some(shown) = address::of(core, config, interfaces, stored) else {
        return Ok(false);
    };
    if stored == Some(shown.to_string().as_str()) {
        address::end_own_hold(core, &shown.to_string(), row.id).await?;
    }
    match &row.address_problem {
        // Refused already: news is only that it is free by now.
        Some(AddressProblem::Refused { address, .. }) if *address == shown.to_string() => {
            Ok(!address::claim(core, row.id, shown).await?.is_refused())
        }
        Some(AddressProblem::Refused { .. }) => Ok(true),
        _ => Ok(stored != Some(shown.to_string().as_str())),
    }
}
