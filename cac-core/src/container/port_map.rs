//! The original's port map, a JSON file of host names: containers with their addresses, ports and owners are taken over, each
//! in a transaction of its own. The ports that people know stay the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::import;
use super::register::{self, Checked, Given, Registration, insert, take_address};
use crate::actor::Actor;
use crate::db::Retry;
use crate::node::{self, cluster};
use crate::service::{NewService, ServiceType};
use crate::{Core, Error, Result, args};

/// An entry of the file as it stands there; numbers may be text.
#[derive(Debug, Clone, Default, Deserialize)]
struct Entry {
    ip: Option<String>,
    user: Option<String>,
    os_release: Option<String>,
    ctid: Option<Value>,
    mac: Option<String>,
    #[serde(default)]
    ports: BTreeMap<String, Value>,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    pub hostname: String,
    pub outcome: Outcome,
    /// The row's id, if there is one.
    pub id: Option<i64>,
    /// Such as `tcp 2344 → 22`, as far as the entry was understood.
    pub services: Vec<String>,
    /// Why not.
    pub reason: Option<String>,
}

/// How an entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is in the books now; in a dry run, it would be.
    Imported,
    /// It was there already, and is left as it is.
    Known,
    /// The reason says what to do.
    Refused,
}

/// Takes over every entry of the file that can be, in order of the names; a dry run changes nothing. What an entry leaves out is looked up by
/// its name in the Proxmox VE of the nodes. `node` says that all are on this one.
pub async fn take(
    core: &Core,
    actor: &Actor,
    text: &str,
    node: Option<&str>,
    dry_run: bool,
) -> Result<Vec<Taken>> {
    actor.must_be_admin()?;
    let file: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|error| {
        Error::invalid(
            "file",
            format!("This is no port map, an object of host names: {error}."),
        )
    })?;
    let mut seen = BTreeSet::new();
    let mut away = None;
    let mut all = Vec::with_capacity(file.len());
    for (hostname, entry) in file {
        let mut taken = Taken {
            hostname: hostname.clone(),
            outcome: Outcome::Imported,
            id: None,
            services: Vec::new(),
            reason: None,
        };
        if let Some(away) = &away {
            taken.outcome = Outcome::Refused;
            taken.reason = Some(format!("It was not tried: {away}"));
            all.push(taken);
            continue;
        }
        let ways = (node, dry_run);
        if let Err(error) = one(
            core,
            actor,
            (&hostname, entry),
            ways,
            (&mut seen, &mut taken),
        )
        .await
        {
            taken.outcome = Outcome::Refused;
            taken.reason = Some(error.to_string());
            // The database is away, or something is broken: the next entries fare no better.
            if matches!(error, Error::Internal(_) | Error::Unreachable(_)) {
                away = Some(error.to_string());
            }
        }
        all.push(taken);
    }
    Ok(all)
}

async fn one(
    core: &Core,
    actor: &Actor,
    (hostname, entry): (&str, Value),
    (node, dry_run): (Option<&str>, bool),
    (seen, taken): (&mut BTreeSet<String>, &mut Taken),
) -> Result<()> {
    let mut entry: Entry = serde_json::from_value(entry).map_err(|error| {
        Error::invalid("entry", format!("This entry is not understood: {error}."))
    })?;
    let mut node = node.map(ToOwned::to_owned);
    if entry.ip.is_none()
        || entry.ctid.is_none()
        || entry.mac.is_none()
        || entry.os_release.is_none()
    {
        look_up(core, hostname, &mut entry, &mut node).await?;
    }
    let (http_port, services) = services(core, &entry.ports)?;
    taken.services = services.iter().map(NewService::summary).collect();
    if let Some(port) = http_port {
        taken
            .services
            .insert(0, format!("http {hostname} → {port}"));
    }
    let given = Registration {
        hostname: hostname.to_owned(),
        ipv4_address: entry.ip.unwrap_or_default(),
        username: entry.user.unwrap_or_default(),
        os_release: entry.os_release.unwrap_or_default(),
        container_id: entry.ctid.as_ref().and_then(number),
        mac_address: entry.mac.unwrap_or_default(),
        http_port,
        node,
        ..Registration::default()
    };
    let mut new = register::check(core, &given, false).await?;
    register::verify(core, &mut new).await?;
    new.services
        .retain(|service| matches!(service, NewService::Http { .. }));
    new.services.extend(services);
    twice(&new, seen)?;
    let mut retry = Retry::default();
    loop {
        match store(core, actor, &new, dry_run, taken).await {
            Err(Error::Busy { .. }) if retry.again().await => {}
            outcome => return outcome,
        }
    }
}

/// What the entry leaves out, from the one container of its name that what it says is true of.
async fn look_up(
    core: &Core,
    hostname: &str,
    entry: &mut Entry,
    node: &mut Option<String>,
) -> Result<()> {
    let mut all = Vec::new();
    for one in node::all(core).await? {
        if node.as_ref().is_some_and(|name| *name != one.name) {
            continue;
        }
        let Ok(pve) = core.pve(&one) else { continue };
        let Ok(list) = pve.lxc_list(&one.name).await else {
            continue;
        };
        let named = list.into_iter().filter(|status| {
            let name = status.name.as_deref().unwrap_or_default();
            name.eq_ignore_ascii_case(hostname) && status.template != Some(true)
        });
        for status in named {
            let found = import::look(core, &one, &pve, status).await;
            all.extend(
                found
                    .filter(|found| agrees(entry, found))
                    .map(|found| (one.name.clone(), found)),
            );
        }
    }
    if all.len() > 1 {
        let message = format!("Several containers are named `{hostname}`: give `ctid` and `mac`.");
        return Err(Error::invalid("entry", message));
    }
    if let Some((on, found)) = all.pop() {
        entry.ip = entry.ip.take().or(found.ipv4_address);
        entry.mac = entry.mac.take().or(found.mac_address);
        entry.os_release = entry.os_release.take().or(found.os_release);
        entry.ctid = entry.ctid.take().or(Some(found.vmid.into()));
        *node = Some(on);
    }
    Ok(())
}

/// Whether this can be the container that the entry means.
fn agrees(entry: &Entry, found: &import::Importable) -> bool {
    let vmid = entry.ctid.as_ref().and_then(number);
    let mac = |text: &str| text.trim().to_uppercase().replace('-', ":");
    let given = entry.mac.as_deref().map(mac);
    vmid.is_none_or(|vmid| vmid == i64::from(found.vmid))
        && given.is_none_or(|given| found.mac_address.as_deref().map(mac) == Some(given))
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `http` is the port in the container; every other name is of the protocol table and has the external port. What the table does not
/// know is tcp with the same port on both sides.
fn services(
    core: &Core,
    ports: &BTreeMap<String, Value>,
) -> Result<(Option<i64>, Vec<NewService>)> {
    let mut http = None;
    let mut services = Vec::new();
    for (name, value) in ports {
        let port = number(value).and_then(|port| u16::try_from(port).ok());
        let port = port.filter(|port| *port > 0).ok_or_else(|| {
            Error::invalid(
                "ports",
                format!("The port of `{name}` is no number from 1 to 65535."),
            )
        })?;
        let name = name.trim().to_lowercase();
        if name == "http" {
            http = Some(i64::from(port));
            continue;
        }
        let mut service =
            core.config
                .containers
                .protocols
                .parse(&name)
                .unwrap_or(NewService::Port {
                    r#type: ServiceType::Tcp,
                    internal_port: port,
                    ssh: false,
                    external_port: None,
                });
        if let NewService::Port {
            external_port,
            internal_port,
            ssh,
            ..
        } = &mut service
        {
            *external_port = Some(port);
            if *ssh {
                *internal_port = core.config.containers.ssh_port;
            }
        }
        services.push(service);
    }
    Ok((http, services))
}

/// Two entries of one file that want the same; a dry run would not notice.
fn twice(new: &Checked, seen: &mut BTreeSet<String>) -> Result<()> {
    let ports = new.services.iter().filter_map(|service| match service {
        NewService::Port {
            r#type,
            external_port,
            ..
        } => Some(format!("port {}/{}", (*external_port)?, r#type.as_str())),
        NewService::Http { .. } => None,
    });
    let things: Vec<String> = ports
        .chain([
            format!("name {}", new.hostname),
            format!("MAC address {}", new.mac),
            format!("VMID {} on {}", new.vmid, new.node.name),
        ])
        .chain(new.address().map(|address| format!("address {address}")))
        .collect();
    if let Some(again) = things.iter().find(|thing| seen.contains(*thing)) {
        let message = format!("Another entry of this file has the {again}, too.");
        return Err(Error::conflict("file", message));
    }
    seen.extend(things);
    Ok(())
}

async fn store(
    core: &Core,
    actor: &Actor,
    new: &Checked,
    dry_run: bool,
    taken: &mut Taken,
) -> Result<()> {
    let mut tx = core.db.write().await?;
    tx.lock("names").await?;
    let sql = r#"SELECT "id", "containerId", "macAddress" FROM "Containers" WHERE "hostname" = ?"#;
    if let Some(row) = tx.opt(sql, args![&new.hostname]).await? {
        let vmid: Option<u32> = row.get("containerId")?;
        let mac: Option<String> = row.get("macAddress")?;
        if vmid == Some(new.vmid) && mac.is_some_and(|mac| mac.eq_ignore_ascii_case(&new.mac)) {
            taken.outcome = Outcome::Known;
            taken.id = Some(row.get("id")?);
            return Ok(());
        }
    }
    let holders = cluster::holders(&mut tx, new.node.id, new.vmid, None).await?;
    if let Some(holder) = holders.first() {
        let id = holder.id;
        let message = format!("VMID {} of {} is container {id}.", new.vmid, new.node.name);
        return Err(Error::conflict("ctid", message));
    }
    let id = insert(&mut tx, core, new).await?;
    let given = new.address.map(Given::Unconfirmed);
    let stored = take_address(&mut tx, core, id, given.as_ref()).await?;
    new.entry("container_import", id, &stored)
        .write(&mut tx, core, actor)
        .await?;
    if dry_run {
        tx.rollback().await;
        return Ok(());
    }
    tx.commit().await?;
    taken.id = Some(id);
    core.wake.routes();
    Ok(())
}
