//! Registering a container that exists already, as scripts do that made it themselves: row, services and ports in one
//! transaction. What is claimed is compared with Proxmox VE first; where that cannot be asked, the row is *unverified* until it can
//! (`verify.rs`). Only admins and machines register, since whoever owns the row may destroy the container.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::future::join_all;

use super::address::{self, Claim, Stored};
use super::{Container, check, find_any, identity};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Fields;
use crate::infrastructure;
use crate::node::cluster::{self, Holder};
use crate::node::{self, Node};
use crate::quota::{self, Amounts};
use crate::service::{self, NewService};
use crate::{Core, Error, Result, args, audit, db, transaction};

/// What a script says of its container.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// One label, or a full name under `CAC_DOMAIN`.
    pub hostname: String,
    pub ipv4_address: String,
    /// The owner.
    pub username: String,
    pub os_release: String,
    /// The VMID.
    pub container_id: Option<i64>,
    pub mac_address: String,
    /// The label of its node.
    pub ai_container: Option<String>,
    /// The container's web port.
    pub http_port: Option<i64>,
    /// Names of the protocol table or forms such as `8080/tcp`.
    pub additional_protocols: Vec<String>,
    /// A node's name.
    pub node: Option<String>,
}

/// A container that passed every check.
pub(super) struct Checked {
    pub(super) hostname: String,
    /// Absent for one that does not run.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) username: String,
    pub(super) os_release: String,
    pub(super) vmid: u32,
    pub(super) mac: String,
    pub(super) ai_container: String,
    pub(super) services: Vec<NewService>,
    pub(super) node: Node,
    /// Whether the request named the node, so that it must be this one.
    pub(super) node_given: bool,
    pub(super) sizes: Sizes,
    /// Whether Proxmox VE has shown that all this is true.
    pub(super) verified: bool,
}

/// As far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    pub(super) cores: Option<u32>,
    pub(super) memory: Option<u32>,
    pub(super) disk: Option<u32>,
}

impl Checked {
    pub(super) fn address(&self) -> Option<String> {
        self.address.map(|address| address.to_string())
    }

    /// The audit entry of the row that it became.
    pub(super) fn entry(
        &self,
        action: &'static str,
        id: i64,
        stored: &address::Stored,
    ) -> audit::Change {
        let services: Vec<String> = self.services.iter().map(NewService::summary).collect();
        audit::Change::new(action, format!("/containers/{id}"))
            .created()
            .new_field("hostname", &self.hostname)
            .new_field("username", &self.username)
            .new_field("node", &self.node.name)
            .new_field("vmid", self.vmid)
            .new_field("macAddress", &self.mac)
            .new_field("ipv4Address", &stored.address)
            .new_field("verified", self.verified)
            .new_field("services", services)
    }

    fn amounts(&self) -> Amounts {
        let size = |size: Option<u32>| size.map_or(0, i64::from);
        Amounts {
            containers: 1,
            cores: size(self.sizes.cores),
            memory: size(self.sizes.memory),
            disk: size(self.sizes.disk),
            ..Amounts::of_services(&self.services)
        }
    }
}

/// Registers a container, for admins. The same node, VMID, name and MAC again change the address alone. What Proxmox VE shows to be
/// false is refused; what cannot be looked up now is stored as unverified.
pub async fn register(core: &Core, actor: &Actor, given: &Registration) -> Result<Container> {
    if !actor.admin {
        return Err(Error::Forbidden(
            "Only admins may register a container.".to_owned(),
        ));
    }
    let mut new = check(core, given, true).await?;
    let row = known(&mut core.db.read().await?, &new).await?;
    verify(core, &mut new).await?;
    let claim = claim(core, &new, row).await?;
    let (id, stored) = transaction!(core.db, tx => {
        tx.lock("names").await?;
        let known = known(tx, &new).await?;
        if known.is_none() {
            check_quota(tx, core, actor, &new).await?;
        }
        match known {
            Some(id) => {
                let sql = r#"SELECT "ipv4Address" FROM "Containers" WHERE "id" = ?"#;
                let before: Option<String> = tx.one(sql, args![id]).await?.get("ipv4Address")?;
                if new.verified {
                    let sql = r#"UPDATE "Containers" SET "unverifiedSince" = NULL, "identityMismatchAt" = NULL WHERE "id" = ?"#;
                    tx.exec(sql, args![id]).await?;
                }
                let stored = take_address(tx, core, id, claim.as_ref()).await?;
                audit::Change::new("container_create", format!("/containers/{id}"))
                    .field("ipv4Address", before, &stored.address)
                    .write(tx, core, actor)
                    .await?;
                (id, stored)
            }
            None => {
                let id = insert(tx, core, &new).await?;
                let stored = take_address(tx, core, id, claim.as_ref()).await?;
                new.entry("container_create", id, &stored).write(tx, core, actor).await?;
                (id, stored)
            }
        }
    })?;
    stored.announce(core);
    let row = find_any(core, id).await?;
    row.ok_or_else(|| Error::NotFound("The container was deleted meanwhile.".to_owned()))
}

/// Everything that can be said without the database's rows; `web` says whether there must be a web port.
pub(super) async fn check(core: &Core, given: &Registration, web: bool) -> Result<Checked> {
    let mut fields = Fields::default();
    let hostname = given.hostname.trim().to_lowercase();
    let hostname = match hostname.strip_suffix(&format!(".{}", core.config.domain)) {
        Some(label) => label.to_owned(),
        None => hostname,
    };
    // A container that is known keeps its name, whatever was reserved since.
    let sql = r#"SELECT "id" FROM "Containers" WHERE "hostname" = ? AND "containerId" = ?"#;
    let known = core
        .db
        .opt(sql, args![hostname.as_str(), given.container_id])
        .await?;
    if known.is_some() {
        check::existing_label(core, "hostname", &hostname, &mut fields);
    } else {
        check::label(core, "hostname", &hostname, &mut fields);
    }
    let address = given.ipv4_address.trim().parse::<Ipv4Addr>();
    let infrastructure = infrastructure::load(core).await?;
    match &address {
        Ok(ip) => {
            if let Err(denial) = infrastructure.permit(IpAddr::V4(*ip), None) {
                let message = format!("{denial} Nothing would be passed on to it.");
                fields.add("ipv4Address", message);
            }
        }
        Err(_) => fields.add("ipv4Address", "Give an IPv4 address, such as 192.0.2.7."),
    }
    let username = check::owner(core, &given.username, &mut fields);
    let os_release = given.os_release.trim().to_lowercase();
    if os_release.is_empty() || os_release.len() > 64 || os_release.chars().any(char::is_control) {
        fields.add("osRelease", "Give its operating system, such as `debian`.");
    }
    let vmid = given.container_id.and_then(|id| u32::try_from(id).ok());
    let vmid = vmid.filter(|id| (100..1_000_000_000).contains(id));
    if vmid.is_none() {
        fields.add("containerId", "Give its VMID, a number from 100.");
    }
    let mac = given.mac_address.trim().to_uppercase().replace('-', ":");
    if !is_mac(&mac) {
        fields.add(
            "macAddress",
            "Give its MAC address, such as BC:24:11:00:00:01.",
        );
    }
    let label = given.ai_container.as_deref().map(str::trim);
    let ai_container = label
        .filter(|label| !label.is_empty())
        .unwrap_or("N")
        .to_owned();
    if ai_container.len() > 50 {
        fields.add("aiContainer", "A label has at most 50 characters.");
    }
    let http_port = (web || given.http_port.is_some())
        .then(|| check::port(core, "httpPort", given.http_port, &mut fields));
    let words = &given.additional_protocols;
    let services = check::services(core, &hostname, http_port, words, &mut fields);
    if let Ok(ip) = address {
        for service in &services {
            let port = service.internal_port();
            if let Err(denial) = infrastructure.permit(IpAddr::V4(ip), Some(port)) {
                let message = format!("Port {port} there: {denial}");
                fields.add("ipv4Address", message);
            }
        }
    }
    fields.into_result()?;
    let vmid = vmid.unwrap_or_default();
    let name = given
        .node
        .as_deref()
        .map(str::trim)
        .filter(|name| !name.is_empty());
    Ok(Checked {
        node: whose(core, name, &ai_container, vmid).await?,
        node_given: name.is_some(),
        address: address.ok(),
        hostname,
        username,
        os_release,
        vmid,
        mac,
        ai_container,
        services,
        sizes: Sizes::default(),
        verified: false,
    })
}

/// Six pairs of hexadecimal digits; the lowest bit of the first marks a group, which no interface is.
pub(crate) fn is_mac(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(':').collect();
    let byte = |pair: &&str| {
        let digits = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    };
    pairs.len() == 6
        && pairs.iter().all(|pair| byte(pair).is_some())
        && byte(&pairs[0]).is_some_and(|first| first & 1 == 0)
}

/// The node as named; else the one with the label; else the one that has the VMID; else the only one.
async fn whose(core: &Core, name: Option<&str>, label: &str, vmid: u32) -> Result<Node> {
    let mut nodes = node::all(core).await?;
    cluster::learn_unknown(core, &nodes).await?;
    if let Some(name) = name {
        let named = nodes.into_iter().find(|node| node.name == name);
        return named
            .ok_or_else(|| Error::invalid("node", format!("There is no node named `{name}`.")));
    }
    let labelled = |node: &&Node| node.ai_container.as_deref() == Some(label);
    let mut found = nodes.iter().filter(labelled);
    if let (Some(node), None) = (found.next(), found.next()) {
        return Ok(node.clone());
    }
    let names: BTreeSet<String> = join_all(nodes.iter().map(|node| at(core, node, vmid)))
        .await
        .into_iter()
        .flatten()
        .collect();
    let mut holders = nodes.iter().filter(|node| names.contains(&node.name));
    if let (Some(node), None) = (holders.next(), holders.next()) {
        return Ok(node.clone());
    }
    if nodes.len() == 1 {
        return Ok(nodes.remove(0));
    }
    let all: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    Err(Error::invalid(
        "node",
        match all.is_empty() {
            true => "No node was added yet; ask an admin to add it.".to_owned(),
            false => format!("Which node is it on? Give one of {}.", all.join(", ")),
        },
    ))
}

/// Where this node's Proxmox VE has the VMID, as far as it answers at once.
async fn at(core: &Core, node: &Node, vmid: u32) -> Option<String> {
    let pve = core.pve(node).ok()?;
    let resources = tokio::time::timeout(node::AWAY, pve.resources("vm")).await;
    let resources = resources.ok()?.ok()?;
    resources
        .into_iter()
        .find(|resource| resource.vmid == Some(vmid))?
        .node
}

/// What is to become of the address that was given.
pub(super) enum Given {
    /// Proxmox VE shows it on this container.
    Confirmed(Claim),
    /// Proxmox VE cannot be asked, or shows no address there yet: good only where nobody has it.
    Unconfirmed(Ipv4Addr),
}

/// `row` is the id of the row that this container has already.
async fn claim(core: &Core, new: &Checked, row: Option<i64>) -> Result<Option<Given>> {
    let Some(address) = new.address else {
        return Ok(None);
    };
    let shown = shown(core, new).await;
    if shown.contains(&address) {
        let claim = address::claim_on_word(core, row.unwrap_or_default(), address)
            .await?
            .vouched();
        return Ok(Some(Given::Confirmed(claim)));
    }
    if shown.is_empty() {
        return Ok(Some(Given::Unconfirmed(address)));
    }
    let message = format!(
        "Proxmox VE shows another address than {address} on net0 of this container. Give that one."
    );
    Err(Error::conflict("ipv4Address", message))
}

/// The addresses that Proxmox VE itself shows on `net0` of this VMID inside `CONTAINER_NETWORKS`, as far as it answers at once.
async fn shown(core: &Core, new: &Checked) -> Vec<Ipv4Addr> {
    let Ok(pve) = core.pve(&new.node) else {
        return Vec::new();
    };
    let asked = async {
        let config = pve.lxc_config(&new.node.name, new.vmid).await?;
        let interfaces = pve.lxc_interfaces(&new.node.name, new.vmid).await?;
        let interfaces = interfaces.unwrap_or_default();
        // Another container's addresses say nothing of this one.
        let same = config
            .mac()
            .is_some_and(|mac| mac.eq_ignore_ascii_case(&new.mac));
        Ok::<_, crate::pve::Error>(if same {
            config.net0_ipv4(&interfaces)
        } else {
            Vec::new()
        })
    };
    let asked = tokio::time::timeout(node::AWAY, asked).await;
    let mut shown = asked.ok().and_then(Result::ok).unwrap_or_default();
    let networks = &core.config.containers.networks;
    shown.retain(|ip| infrastructure::is_listed(networks, IpAddr::V4(*ip)));
    shown
}

/// Compares what is claimed with Proxmox VE. An error says that it is not true, without what is; a node that cannot be asked proves
/// nothing, and leaves the claim unverified.
pub(super) async fn verify(core: &Core, new: &mut Checked) -> Result<()> {
    let Ok(pve) = core.pve(&new.node) else {
        return Ok(());
    };
    let asked = identity::find(&pve, &new.node, new.vmid);
    let (vmid, named) = (new.vmid, new.node.name.clone());
    let refused = |message: String| Error::conflict("containerId", message);
    let (on, config) = match tokio::time::timeout(node::AWAY, asked).await {
        Ok(Ok(Some(found))) => found,
        Ok(Ok(None)) => return Err(refused(format!("Node {named} has no CT {vmid}."))),
        Ok(Err(error)) => {
            tracing::warn!(%error, node = named, vmid, "a registration cannot be verified now");
            return Ok(());
        }
        Err(_) => return Ok(()),
    };
    if config.lock.as_deref() == Some("create") {
        return Ok(());
    }
    if on != named {
        let nodes = node::all(core).await?;
        let real = nodes.into_iter().find(|node| node.name == on);
        new.node = real.filter(|_| !new.node_given).ok_or_else(|| {
            refused(format!(
                "CT {vmid} is not on node {named}. Give the node that it is on, or none."
            ))
        })?;
    }
    if config.template {
        return Err(refused(format!("CT {vmid} is a template.")));
    }
    let hostname = config.hostname.as_deref().unwrap_or_default();
    let mac = config.mac().unwrap_or_default();
    if !hostname.eq_ignore_ascii_case(&new.hostname) || !mac.eq_ignore_ascii_case(&new.mac) {
        return Err(refused(format!(
            "CT {vmid} has another host name, or another MAC address on net0. Send the ones that it has in Proxmox VE."
        )));
    }
    new.verified = true;
    new.sizes = Sizes {
        cores: config.cores,
        memory: config.memory,
        disk: config.disk_gib(),
    };
    Ok(())
}

/// The row that this very container has already; an error names the row that has its VMID in this cluster.
async fn known(tx: &mut Tx, new: &Checked) -> Result<Option<i64>> {
    let holders = cluster::holders(tx, new.node.id, new.vmid, None).await?;
    let same = |holder: &&Holder| {
        let mac = holder.mac_address.as_deref();
        let place = holder.node_id == new.node.id || !new.node_given;
        place
            && holder.hostname == new.hostname
            && mac.is_some_and(|mac| mac.eq_ignore_ascii_case(&new.mac))
    };
    if let Some(holder) = holders.iter().find(same) {
        return Ok(Some(holder.id));
    }
    match holders.first() {
        None => Ok(None),
        Some(holder) => Err(Error::conflict(
            "containerId",
            format!(
                "VMID {} is container {}, `{}`, in this cluster, with another name, MAC address or node. Delete that one first.",
                new.vmid, holder.id, holder.hostname
            ),
        )),
    }
}

/// A machine may not give anybody more than they may have; an admin may, and it is logged.
async fn check_quota(tx: &mut Tx, core: &Core, actor: &Actor, new: &Checked) -> Result<()> {
    let owner = Actor::new(&new.username, false);
    let mut fields = Fields::default();
    quota::check(tx, core, &owner, &new.username, new.amounts(), &mut fields).await?;
    if *actor == Actor::local() {
        return fields.into_result();
    }
    if !fields.0.is_empty() {
        tracing::warn!(owner = new.username, %fields, "a registration exceeds a quota");
    }
    Ok(())
}

/// Gives the row its address: a confirmed one as Proxmox VE shows it, an unconfirmed one where no other row has it.
pub(super) async fn take_address(
    tx: &mut Tx,
    core: &Core,
    id: i64,
    given: Option<&Given>,
) -> Result<Stored> {
    let unconfirmed = match given {
        None => return address::store(tx, core, id, None).await,
        Some(Given::Confirmed(claim)) => return address::store(tx, core, id, Some(claim)).await,
        Some(Given::Unconfirmed(address)) => *address,
    };
    let sql = r#"SELECT "id" FROM "Containers" WHERE "ipv4Address" = ? AND "id" <> ?"#;
    if tx
        .opt(sql, args![unconfirmed.to_string(), id])
        .await?
        .is_some()
    {
        return Err(Error::conflict(
            "ipv4Address",
            format!(
                "Another container has the address {unconfirmed}, and Proxmox VE does not show it on this one."
            ),
        ));
    }
    address::store(tx, core, id, Some(&Claim::unconfirmed(unconfirmed))).await
}

/// Adds the row, its services and ports; the address is [`take_address`]'s.
pub(super) async fn insert(tx: &mut Tx, core: &Core, new: &Checked) -> Result<i64> {
    check::name_is_free(tx, core, "hostname", &new.hostname, (0, 0)).await?;
    let now = core.clock.now();
    let id = tx
        .insert(
            r#"INSERT INTO "Containers" ("hostname", "username", "osRelease", "containerId", "macAddress",
                                         "aiContainer", "nodeId", "cores", "memory", "disk", "unverifiedSince", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#,
            args![
                &new.hostname, &new.username, &new.os_release, new.vmid, &new.mac, &new.ai_container,
                new.node.id, new.sizes.cores, new.sizes.memory, new.sizes.disk, (!new.verified).then_some(now), now, now
            ],
        )
        .await
        .map_err(|error| match error {
            // Names and VMID were looked at under the lock.
            db::Error::Unique(_) => {
                let message = format!("Another container has the MAC address {}.", new.mac);
                Error::conflict("macAddress", message)
            }
            other => other.into(),
        })?;
    cluster::claim(tx, id)
        .await
        .map_err(|error| cluster::taken(error, "containerId", new.vmid))?;
    tx.lock("ports").await?;
    service::create(tx, core, id, &new.services).await?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::is_mac;

    #[test]
    fn mac_addresses() {
        for good in ["BC:24:11:00:00:01", "00:00:5E:00:53:FF"] {
            assert!(is_mac(good), "{good}");
        }
        for bad in [
            "",
            "BC:24:11:00:00",
            "BC:24:11:00:00:0G",
            "01:00:5E:00:00:01",
            "BC:24:11:00:00:+1",
        ] {
            assert!(!is_mac(bad), "{bad}");
        }
    }
}
