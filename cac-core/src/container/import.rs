//! Taking over containers that exist on a node already: what is there and not in our books, and the row that makes one of them ours.
//! Nothing changes in Proxmox VE but the owner's role, which a job gives.

use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use super::register::{Checked, Sizes, insert};
use super::{Container, address, check, find_any};
use crate::actor::Actor;
use crate::error::Fields;
use crate::job::container_access;
use crate::node::{self, Node, cluster};
use crate::pve::{LxcStatus, Pve};
use crate::{Core, Error, Result, args, transaction};

/// Calls to Proxmox VE at once.
const AT_ONCE: usize = 8;

/// A container of a node that no row knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Importable {
    pub vmid: u32,
    pub hostname: String,
    /// `running` or `stopped`.
    pub status: String,
    pub ipv4_address: Option<String>,
    pub mac_address: Option<String>,
    pub os_release: Option<String>,
    pub cores: Option<u32>,
    /// MiB
    pub memory: Option<u32>,
    /// GiB
    pub disk: Option<u32>,
    /// What keeps it from being taken over, with what to do; empty when nothing does.
    pub problems: Vec<String>,
}

/// Which container is to be taken over, and as what.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub vmid: u32,
    /// The owner.
    pub username: String,
    /// The container's web port; absent: it gets no web service.
    pub http_port: Option<i64>,
    /// Names of the protocol table or forms such as `8080/tcp`.
    pub additional_protocols: Vec<String>,
}

/// The containers of a node that are in no row, by VMID; for admins. Template containers are left out.
pub async fn importable(core: &Core, actor: &Actor, node: i64) -> Result<Vec<Importable>> {
    let (node, pve) = asked(core, actor, node).await?;
    let all = pve
        .lxc_list(&node.name)
        .await
        .map_err(|e| told(&node, &e))?;
    let known = cluster::vmids(core, node.id).await?;
    let unknown = all
        .into_iter()
        .filter(|one| one.template != Some(true) && !known.contains(&one.vmid));
    let looks = unknown.map(|one| {
        let (node, pve) = (&node, &pve);
        async move { look(core, node, pve, one).await }
    });
    let mut found: Vec<_> = stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    found.sort_by_key(|one| one.vmid);
    Ok(found)
}

async fn asked(core: &Core, actor: &Actor, node: i64) -> Result<(Node, Pve)> {
    actor.must_be_admin()?;
    let node = node::find(core, node).await?;
    let pve = core.pve(&node)?;
    Ok((node, pve))
}

fn told(node: &Node, error: &crate::pve::Error) -> Error {
    let text = format!("Node {}: {error}", node.name);
    match error.is_transient() {
        true => Error::Unreachable(text),
        false => Error::Upstream(text),
    }
}

/// One that is gone meanwhile is left out.
pub(super) async fn look(
    core: &Core,
    node: &Node,
    pve: &Pve,
    one: LxcStatus,
) -> Option<Importable> {
    let config = pve.lxc_config(&node.name, one.vmid).await.ok()?;
    let interfaces = pve.lxc_interfaces(&node.name, one.vmid).await;
    let interfaces = interfaces.ok().flatten();
    let address = interfaces.and_then(|all| address::of(core, &config, &all, None));
    let hostname = config.hostname.clone().unwrap_or_default();
    let mut fields = Fields::default();
    check::label(core, "hostname", &hostname, &mut fields);
    let mut problems: Vec<String> = fields.0.into_values().collect();
    if problems.is_empty() && name_is_taken(core, &hostname).await.ok()? {
        problems.push(format!(
            "`{hostname}` is another container's name here; rename one of them."
        ));
    }
    if let Some(mac) = config.mac() {
        let sql = r#"SELECT "id" FROM "Containers" WHERE "macAddress" = ?"#;
        if let Some(row) = core.db.opt(sql, args![mac]).await.ok()? {
            let id: i64 = row.get("id").ok()?;
            problems.push(format!(
                "It is container {id}, which was elsewhere: write that down (`POST /containers/{id}/refresh`)."
            ));
        }
    } else {
        problems.push("It has no network `net0`, and so no MAC address to be known by.".to_owned());
    }
    if let Some(lock) = &config.lock {
        problems.push(format!(
            "Proxmox VE works on it ({lock}); wait until that is over."
        ));
    }
    Some(Importable {
        vmid: one.vmid,
        hostname,
        status: one.status,
        ipv4_address: address.map(|address| address.to_string()),
        mac_address: config.mac().map(ToOwned::to_owned),
        disk: config.disk_gib(),
        os_release: config.ostype,
        cores: config.cores,
        memory: config.memory,
        problems,
    })
}

async fn name_is_taken(core: &Core, hostname: &str) -> Result<bool> {
    let mut tx = core.db.read().await?;
    match check::name_is_free(&mut tx, core, "hostname", hostname, (0, 0)).await {
        Ok(()) => Ok(false),
        Err(Error::Conflict { .. }) => Ok(true),
        Err(other) => Err(other),
    }
}

/// Takes a container over under the name that it has in Proxmox VE, with its address, MAC and sizes; for admins. From then on it is
/// known by host name and MAC, since it carries no marker of ours.
pub async fn import(core: &Core, actor: &Actor, node: i64, wanted: &Wanted) -> Result<Container> {
    let (node, pve) = asked(core, actor, node).await?;
    let mut fields = Fields::default();
    let username = check::owner(core, &wanted.username, &mut fields);
    let http_port = wanted
        .http_port
        .map(|port| check::port(core, "httpPort", Some(port), &mut fields));
    if wanted.vmid < 100 {
        fields.add("vmid", "Give its VMID, a number from 100.");
        return Err(Error::Invalid(fields));
    }
    let status = match pve.lxc_status(&node.name, wanted.vmid).await {
        Ok(status) => status,
        Err(error) if error.is_does_not_exist() => {
            let message = format!("Node {} has no CT {}.", node.name, wanted.vmid);
            return Err(Error::invalid("vmid", message));
        }
        Err(error) => return Err(told(&node, &error)),
    };
    if status.template == Some(true) {
        let message = format!(
            "CT {} is a template; containers are cloned from it.",
            wanted.vmid
        );
        return Err(Error::invalid("vmid", message));
    }
    let one = look(core, &node, &pve, status).await;
    let one = one.ok_or_else(|| {
        Error::Upstream(format!(
            "CT {} cannot be read: it may be gone, or the node's token may not see it.",
            wanted.vmid
        ))
    })?;
    for problem in &one.problems {
        fields.add("vmid", problem.clone());
    }
    let words = &wanted.additional_protocols;
    let services = check::services(core, &one.hostname, http_port, words, &mut fields);
    fields.into_result()?;
    let new = Checked {
        hostname: one.hostname,
        address: one.ipv4_address.and_then(|address| address.parse().ok()),
        username,
        os_release: one.os_release.unwrap_or_default(),
        vmid: wanted.vmid,
        mac: one.mac_address.unwrap_or_default(),
        ai_container: node.ai_container.clone().unwrap_or_else(|| "N".to_owned()),
        services,
        sizes: Sizes {
            cores: one.cores,
            memory: one.memory,
            disk: one.disk,
        },
        node,
        node_given: true,
        verified: true,
    };
    cluster::learn(core, &new.node).await?;
    // Proxmox VE has just shown it there.
    let claim = match new.address {
        Some(address) => Some(address::claim_on_word(core, 0, address).await?),
        None => None,
    };
    let (id, stored) = transaction!(core.db, tx => {
        tx.lock("names").await?;
        if let Some(holder) = cluster::holders(tx, new.node.id, new.vmid, None).await?.first() {
            let id = holder.id;
            return Err(Error::conflict("vmid", format!("CT {} is container {id} already.", new.vmid)));
        }
        let id = insert(tx, core, &new).await?;
        let stored = address::store(tx, core, id, claim.as_ref()).await?;
        new.entry("node_import", id, &stored).write(tx, core, actor).await?;
        container_access::add_for_owner(tx, core, id, &new.username).await?;
        (id, stored)
    })?;
    stored.announce(core);
    core.wake.jobs();
    let row = find_any(core, id).await?;
    row.ok_or_else(|| Error::NotFound("The container was deleted meanwhile.".to_owned()))
}
