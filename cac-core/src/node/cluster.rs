//! Which nodes form one Proxmox VE cluster, and which row has a VMID there: VMIDs are unique in a cluster, whichever of its nodes a row
//! names. A row claims its VMID by `Containers.cluster`, under a unique key. A row without a claim (inserted by hand, or of a node that was
//! never asked) counts all the same, since [`holders`] looks at the nodes.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};

use crate::db::{self, Row, Tx};
use crate::node::{self, Node};
use crate::{Core, Error, Result, args, infrastructure, secret, transaction};

/// Names a cluster by its members. Proxmox VE has an id for clusters only, none for a single node, and shows it to few; every caller
/// may see the names of the nodes.
fn key(members: &mut Vec<String>) -> String {
    members.sort_unstable();
    members.dedup();
    secret::hash(&members.join("\n"))[..32].to_owned()
}

/// Asks a node for the members of its cluster and stores what is new, with the claims of its rows. `None` when it cannot be asked now.
pub(crate) async fn learn(core: &Core, node: &Node) -> Result<Option<String>> {
    let Ok(pve) = core.pve(node) else {
        return Ok(None);
    };
    let Ok(Ok(members)) = tokio::time::timeout(node::AWAY, pve.nodes()).await else {
        return Ok(None);
    };
    let mut names: Vec<String> = members.iter().map(|member| member.node.clone()).collect();
    if !names.contains(&node.name) {
        return Ok(None);
    }
    let key = key(&mut names);
    if node.cluster.as_ref() != Some(&key) {
        transaction!(core.db, tx => {
            tx.lock("names").await?;
            move_nodes(tx, node, &names, &key).await?;
        })?;
        infrastructure::publish_nodes(core, &pve, &members).await?;
    }
    Ok(Some(key))
}

/// [`learn`]s the clusters of these nodes, all at once.
pub(crate) async fn learn_all(core: &Core, nodes: &[Node]) -> Result<()> {
    let asked = nodes.iter().map(|node| learn(core, node).boxed());
    let asked: Vec<BoxFuture<'_, _>> = asked.collect();
    let mut learned = join_all(asked).await.into_iter();
    learned.try_for_each(|outcome| outcome.map(drop))
}

/// [`learn_all`] of the nodes whose cluster is not known yet.
pub(crate) async fn learn_unknown(core: &Core, nodes: &[Node]) -> Result<()> {
    let unknown: Vec<Node> = nodes
        .iter()
        .filter(|node| node.cluster.is_none())
        .cloned()
        .collect();
    learn_all(core, &unknown).await
}

/// The node, and those that were in its cluster before and still are, get the new key.
async fn move_nodes(tx: &mut Tx, node: &Node, members: &[String], key: &str) -> Result<()> {
    let sql =
        r#"UPDATE "Nodes" SET "cluster" = ? WHERE "id" = ? OR ("cluster" = ? AND "name" IN ?)"#;
    let before = node.cluster.as_deref();
    tx.exec(sql, args![key, node.id, before, members.to_vec()])
        .await?;
    claim_missing(tx).await
}

/// Claims the VMIDs of rows whose claim is missing or names an older cluster. The caller holds the lock `names`.
pub(crate) async fn claim_missing(tx: &mut Tx) -> Result<()> {
    let sql = r#"SELECT c."id" FROM "Containers" c JOIN "Nodes" n ON n."id" = c."nodeId"
                 WHERE c."containerId" IS NOT NULL AND n."cluster" IS NOT NULL AND (c."cluster" IS NULL OR c."cluster" <> n."cluster")
                 ORDER BY c."id""#;
    for row in tx.all(sql, args![]).await? {
        claim(tx, row.get("id")?).await?;
    }
    Ok(())
}

/// Claims the VMID of a row in its node's cluster; without effect where that is not known, or another row has the claim. The caller holds
/// the lock `names`. [`db::Error::Unique`] means that a transaction on another database node was quicker.
pub(crate) async fn claim(tx: &mut Tx, container: i64) -> Result<(), db::Error> {
    let sql = r#"SELECT c."containerId", n."cluster" FROM "Containers" c JOIN "Nodes" n ON n."id" = c."nodeId" WHERE c."id" = ?"#;
    let Some(row) = tx.opt(sql, args![container]).await? else {
        return Ok(());
    };
    let vmid: Option<u32> = row.get("containerId")?;
    let mut cluster: Option<String> = row.get("cluster")?;
    if let (Some(key), Some(vmid)) = (&cluster, vmid) {
        let sql = r#"SELECT "id" FROM "Containers" WHERE "cluster" = ? AND "containerId" = ? AND "id" <> ?"#;
        if tx.opt(sql, args![key, vmid, container]).await?.is_some() {
            cluster = None;
        }
    }
    let sql = r#"UPDATE "Containers" SET "cluster" = ? WHERE "id" = ?"#;
    tx.exec(sql, args![cluster.as_deref(), container]).await?;
    Ok(())
}

/// A row that names a VMID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) id: i64,
    pub(crate) node_id: i64,
    pub(crate) hostname: String,
    pub(crate) mac_address: Option<String>,
    pub(crate) username: String,
}

impl Holder {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            node_id: row.get("nodeId")?,
            hostname: row.get("hostname")?,
            mac_address: row.get("macAddress")?,
            username: row.get("username")?,
        })
    }
}

/// The rows, other than `except`, that name a VMID of the node's cluster. Nodes with the same API address are of one cluster, also where
/// neither was ever asked.
pub(crate) async fn holders(
    tx: &mut Tx,
    node: i64,
    vmid: u32,
    except: Option<i64>,
) -> Result<Vec<Holder>> {
    let sql = r#"SELECT c."id", c."nodeId", c."hostname", c."macAddress", c."username" FROM "Containers" c
                 JOIN "Nodes" n ON n."id" = c."nodeId" JOIN "Nodes" m ON m."id" = ?
                 WHERE c."containerId" = ? AND c."id" <> ? AND (n."id" = m."id" OR n."cluster" = m."cluster" OR n."apiUrl" = m."apiUrl")
                 ORDER BY c."id""#;
    let given = args![node, vmid, except.unwrap_or_default()];
    tx.all(sql, given)
        .await?
        .iter()
        .map(Holder::from_row)
        .collect()
}

/// The VMIDs of the node's cluster that rows name.
pub(crate) async fn vmids(core: &Core, node: i64) -> Result<BTreeSet<u32>> {
    let sql = r#"SELECT c."containerId" FROM "Containers" c JOIN "Nodes" n ON n."id" = c."nodeId" JOIN "Nodes" m ON m."id" = ?
                 WHERE c."containerId" IS NOT NULL AND (n."id" = m."id" OR n."cluster" = m."cluster" OR n."apiUrl" = m."apiUrl")"#;
    let rows = core.db.all(sql, args![node]).await?;
    rows.iter().map(|row| Ok(row.get("containerId")?)).collect()
}

/// Two rows that name the same VMID of one cluster, as [`duplicate_pairs`] finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) first: i64,
    pub(crate) second: i64,
    pub(crate) vmid: u32,
}

/// All pairs of rows that name the same VMID of one cluster, each once.
pub(crate) async fn duplicate_pairs(core: &Core) -> Result<Vec<Pair>> {
    let sql = r#"SELECT a."id" AS "first", b."id" AS "second", a."containerId" FROM "Containers" a
                 JOIN "Containers" b ON b."containerId" = a."containerId" AND b."id" > a."id"
                 JOIN "Nodes" n ON n."id" = a."nodeId" JOIN "Nodes" m ON m."id" = b."nodeId"
                 WHERE n."id" = m."id" OR n."cluster" = m."cluster" OR n."apiUrl" = m."apiUrl" ORDER BY a."id", b."id""#;
    let rows = core.db.all(sql, args![]).await?;
    let pair = |row: &Row| {
        Ok(Pair {
            first: row.get("first")?,
            second: row.get("second")?,
            vmid: row.get("containerId")?,
        })
    };
    rows.iter().map(pair).collect()
}

/// The other rows that name the same VMID of the same cluster as this one. While there are any, nothing destructive may run.
pub(crate) async fn duplicates(
    core: &Core,
    container: &crate::container::Container,
) -> Result<Vec<i64>> {
    let Some((node, vmid)) = container.node_id.zip(container.container_id) else {
        return Ok(Vec::new());
    };
    let mut tx = core.db.read().await?;
    let holders = holders(&mut tx, node, vmid, Some(container.id)).await?;
    Ok(holders.into_iter().map(|holder| holder.id).collect())
}

/// That a claim on a VMID came second.
pub(crate) fn taken(error: db::Error, field: &'static str, vmid: u32) -> Error {
    match error {
        db::Error::Unique(_) => Error::conflict(
            field,
            format!("VMID {vmid} was given to another container meanwhile. Try again."),
        ),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn the_key_names_the_members_in_any_order() {
        let list =
            |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_owned()).collect() };
        let one = key(&mut list(&["pve2", "pve1", "pve1"]));
        assert_eq!(one, key(&mut list(&["pve1", "pve2"])));
        assert_ne!(one, key(&mut list(&["pve1"])));
        assert_eq!(one.len(), 32);
    }
}
