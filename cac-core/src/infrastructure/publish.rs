//! What a process finds of the installation's own addresses is stored for all other processes. What is not on loopback is stored whole;
//! loopback is another machine's business only as long as all run on one, as in a demo.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{Endpoint, Part, own};
use crate::pve::{NodeInfo, Pve};
use crate::{Core, Result, args, db};

/// How often a process says it again.
const SAY: Duration = Duration::from_secs(600);
/// Between two attempts where the database is away.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a node of a cluster may take, and how many of them are asked at once.
const ANSWER: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 8;
/// After this long an address that nobody published again is removed, in milliseconds.
const FORGET: i64 = 7 * 24 * 60 * 60 * 1000;

/// Publishes what this process finds, until `stop`; `listening` is where its portal listens, which from then on counts here at once.
pub async fn publish(core: Core, listening: Option<SocketAddr>, stop: CancellationToken) {
    if let Some(at) = listening {
        let mut all = core
            .infrastructure
            .listening
            .lock()
            .expect("nothing panics while it holds it");
        if !all.contains(&at) {
            all.push(at);
        }
    }
    loop {
        let pause = match store(&core).await {
            Ok(()) => SAY,
            Err(error) => {
                tracing::warn!(%error, "own addresses are not published now");
                AGAIN
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One round of [`publish`].
async fn store(core: &Core) -> Result<()> {
    for endpoint in own(core).await? {
        store_one(core, &endpoint).await?;
    }
    let sql = r#"DELETE FROM "OwnAddresses" WHERE "seenAt" < NOW_MS() - ?"#;
    core.db.exec(sql, args![FORGET]).await?;
    Ok(())
}

/// Publishes the addresses of every node of the cluster, added here or not: the network of the storages is a node's address, too. What
/// Proxmox VE does not say now stays as it was said before.
pub(crate) async fn publish_nodes(core: &Core, pve: &Pve, members: &[NodeInfo]) -> Result<()> {
    // The first node would wait long for one that is away.
    let online = members.iter().filter(|member| member.status == "online");
    let looks = online.map(|member| pve.node_addresses(&member.node).boxed());
    let looks: Vec<BoxFuture<'_, _>> = looks.chain([pve.cluster_addresses().boxed()]).collect();
    let answers = looks
        .into_iter()
        .map(|look| tokio::time::timeout(ANSWER, look).boxed());
    let answers: Vec<BoxFuture<'_, _>> = answers.collect();
    let answers: Vec<_> = stream::iter(answers)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let found = answers.into_iter().flatten().flatten().flatten();
    let mut found: Vec<IpAddr> = found.map(|ip| ip.to_canonical()).collect();
    found.retain(|ip| !ip.is_loopback() && !ip.is_unspecified());
    found.sort_unstable();
    found.dedup();
    for ip in found {
        let endpoint = Endpoint {
            part: Part::Node,
            ip,
            port: None,
        };
        store_one(core, &endpoint).await?;
    }
    Ok(())
}

async fn store_one(core: &Core, endpoint: &Endpoint) -> Result<()> {
    let (kind, ip) = (endpoint.part.name(), endpoint.ip.to_string());
    let port = i64::from(endpoint.port.unwrap_or_default());
    let now = core.clock.now();
    let again = r#"UPDATE "OwnAddresses" SET "seenAt" = NOW_MS(), "updatedAt" = ? WHERE "kind" = ? AND "address" = ? AND "port" = ?"#;
    if core.db.exec(again, args![now, kind, &ip, port]).await? > 0 {
        return Ok(());
    }
    let first = r#"INSERT INTO "OwnAddresses" ("kind", "address", "port", "seenAt", "createdAt", "updatedAt") VALUES (?, ?, ?, NOW_MS(), ?, ?)"#;
    match core.db.exec(first, args![kind, &ip, port, now, now]).await {
        // Another process has just stored the same.
        Ok(_) | Err(db::Error::Unique(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
