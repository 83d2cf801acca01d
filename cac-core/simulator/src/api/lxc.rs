//! `/nodes/{node}/lxc`: list, configuration, status, interfaces, destruction of containers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, change, clone, create, index, not_simulated, power, series, snapshot};
use crate::answer::{Output, Refusal, Reply};
use crate::container;
use crate::core::Core;
use crate::task::{Outcome, Worker};
use crate::world::{Container, World, now_ms};

pub(crate) async fn answer(method: &str, template: &str, call: Call) -> Reply {
    let tail = template.trim_start_matches("/nodes/{node}/lxc");
    match (method, tail.trim_start_matches("/{vmid}"), tail.is_empty()) {
        ("GET", "", true) => Ok(list(&call)),
        ("POST", "", true) => create::create(call),
        ("GET", "", false) => Ok(index("subdir", &SUBDIRS)),
        ("DELETE", "", false) => destroy(&call),
        ("GET", "/config", _) => config(&call),
        ("PUT", "/config", _) => put_config(call).await,
        ("GET", "/status/current", _) => current(&call),
        ("POST", "/status/start", _) => power::start(&call),
        ("POST", "/status/stop", _) => power::stop(&call),
        ("POST", "/status/shutdown", _) => power::shutdown(&call),
        ("POST", "/status/reboot", _) => power::reboot(&call),
        ("POST", "/status/suspend", _) => power::suspend(&call),
        ("GET", "/interfaces", _) => Ok(interfaces(&call)),
        ("GET", "/rrddata", _) => series::of(&call),
        ("GET", "/feature", _) => snapshot::feature(&call),
        ("POST", "/clone", _) => clone::clone(call).await,
        ("POST", "/template", _) => clone::template(call).await,
        ("PUT", "/resize", _) => snapshot::resize(&call),
        ("GET", "/snapshot", _) => snapshot::list(&call),
        ("POST", "/snapshot", _) => snapshot::create(&call),
        ("DELETE", "/snapshot/{snapname}", _) => snapshot::delete(&call),
        ("GET", "/snapshot/{snapname}/config", _) => snapshot::config(&call),
        ("POST", "/snapshot/{snapname}/rollback", _) => snapshot::rollback(&call),
        _ => not_simulated(method, template),
    }
}

const SUBDIRS: [&str; 15] = [
    "config",
    "pending",
    "status",
    "vncproxy",
    "termproxy",
    "vncwebsocket",
    "spiceproxy",
    "migrate",
    "clone",
    "rrd",
    "rrddata",
    "firewall",
    "snapshot",
    "resize",
    "interfaces",
];

/// The container of a call, or the 500 that says it has no configuration file.
pub(crate) fn find<'a>(world: &'a World, call: &Call) -> Result<&'a Container, Refusal> {
    let vmid = call.params.vmid();
    world
        .containers
        .get(&vmid)
        .filter(|container| container.node == call.node)
        .ok_or_else(|| Refusal::failed(power::missing(&call.node, vmid)))
}

/// Fails for a locked container.
pub(crate) fn unlocked(container: &Container) -> Result<(), Refusal> {
    match container.config.get("lock") {
        Some(lock) => Err(Refusal::failed(format!("CT is locked ({lock})"))),
        None => Ok(()),
    }
}

/// The fields that lists and the current status share.
pub(crate) fn row(vmid: u32, container: &Container) -> Value {
    let mebibytes = |option: &str, default: u64| container.number(option).unwrap_or(default) << 20;
    let half_made = container.is_half_made();
    let mut row = json!({
        "vmid": vmid, "type": "lxc", "name": container.hostname(vmid), "status": "stopped",
        "cpus": container.number("cores").unwrap_or(2), "cpu": 0,
        "maxmem": mebibytes("memory", 512), "mem": 0,
        "maxswap": mebibytes("swap", if half_made { 0 } else { 512 }), "swap": 0,
        "maxdisk": container.disk_size(), "disk": 0,
        "diskread": 0, "diskwrite": 0, "netin": 0, "netout": 0, "uptime": 0,
    });
    for option in ["tags", "lock"] {
        if let Some(text) = container.config.get(option) {
            row[option] = json!(text);
        }
    }
    if container.config.contains_key("template") {
        row["template"] = json!(1);
    }
    if let Some(running) = &container.running {
        let uptime = now_ms().saturating_sub(running.since) / 1000;
        row["status"] = json!("running");
        row["pid"] = json!(running.pid);
        row["uptime"] = json!(uptime);
        row["mem"] = json!(mebibytes("memory", 512) / 8);
        row["disk"] = json!(container.disk_size() / 16);
        row["netin"] = json!(220 + uptime * 20);
        row["netout"] = json!(426 + uptime * 10);
    }
    row
}

fn list(call: &Call) -> Output {
    let world = call.core.world();
    let gate = crate::permission::Gate {
        world: &world,
        who: &call.who,
        params: &call.params,
    };
    let rows: Vec<Value> = world
        .containers
        .iter()
        .filter(|(_, container)| container.node == call.node)
        .filter(|(vmid, _)| gate.has(&format!("/vms/{vmid}"), "VM.Audit"))
        .map(|(vmid, container)| row(*vmid, container))
        .collect();
    json!(rows).into()
}

fn current(call: &Call) -> Reply {
    let world = call.core.world();
    let mut row = row(call.params.vmid(), find(&world, call)?);
    row["ha"] = json!({"managed": 0});
    Ok(row.into())
}

/// All options and the digest, as a JSON object.
pub(crate) fn shown_config(container: &Container) -> Value {
    let mut shown: serde_json::Map<String, Value> = container
        .config
        .iter()
        .map(|(option, text)| (option.clone(), container::shown(option, text)))
        .collect();
    shown.insert("digest".to_owned(), json!(container.digest()));
    Value::Object(shown)
}

fn config(call: &Call) -> Reply {
    let world = call.core.world();
    let container = find(&world, call)?;
    Ok(shown_config(container).into())
}

async fn put_config(mut call: Call) -> Reply {
    let vmid = call.params.vmid();
    let remove = call.params.list("delete");
    let revert = call.params.take("revert");
    let digest = call.params.take("digest");
    for name in ["node", "vmid", "delete"] {
        call.params.take(name);
    }
    call.params.0.insert("vmid".to_owned(), vmid.to_string());
    let mut options = call.params.0.clone();
    options.remove("vmid");
    check_removal(&remove, &options)?;
    if options.is_empty() && remove.is_empty() && revert.is_none() {
        return Err(Refusal::failed("no options specified"));
    }
    {
        let old = find(&call.core.world(), &call).cloned()?;
        let scope = change::Scope {
            vmid,
            pool: None,
            unprivileged: old
                .config
                .get("unprivileged")
                .is_some_and(|text| text == "1"),
            old: &old.config,
        };
        change::may_change(&call, &scope, &options)?;
        change::may_remove(&call, &scope, &remove)?;
    }
    let _lock = call.core.lock_call(vmid).await?;
    apply(&call, &options, &remove, digest.as_deref())?;
    follow(&call.core, vmid).await;
    Ok(Value::Null.into())
}

fn check_removal(
    remove: &[String],
    options: &std::collections::BTreeMap<String, String>,
) -> Result<(), Refusal> {
    for option in remove {
        if options.contains_key(option) {
            let text = format!("you can't use '-{option}' and -delete {option}' at the same time");
            return Err(Refusal::param("delete", text));
        }
        let known =
            crate::contract::property(crate::contract::container_options(), option).is_some();
        if !known && option != "lock" {
            return Err(Refusal::param(
                "delete",
                format!("unknown option '{option}'"),
            ));
        }
    }
    Ok(())
}

fn apply(
    call: &Call,
    options: &std::collections::BTreeMap<String, String>,
    remove: &[String],
    digest: Option<&str>,
) -> Result<(), Refusal> {
    let vmid = call.params.vmid();
    let mut world = call.core.change();
    let old = find(&world, call)?;
    unlocked(old)?;
    if digest.is_some_and(|digest| digest != old.digest()) {
        return Err(Refusal::failed(
            "detected modified configuration - file changed by other user? Try again.",
        ));
    }
    if options.contains_key("unprivileged") {
        return Err(Refusal::failed(
            "unable to modify read-only option: 'unprivileged'",
        ));
    }
    for option in ["rootfs", "memory", "hostname"] {
        if option == "rootfs" && remove.iter().any(|name| name == option) {
            let text = format!("unable to delete required option '{option}'");
            return Err(Refusal::failed(text));
        }
    }
    if let Some(container) = world.containers.get_mut(&vmid) {
        for option in remove {
            container.config.remove(option);
        }
        for (option, text) in options {
            container
                .config
                .insert(option.clone(), change::stored(option, text));
        }
    }
    Ok(())
}

/// Lets a running guest follow its description.
async fn follow(core: &Arc<Core>, vmid: u32) {
    let (card, description) = {
        let world = core.world();
        let Some(container) = world.containers.get(&vmid) else {
            return;
        };
        let card = crate::guest::Card {
            vmid,
            name: container.hostname(vmid),
            node: container.node.clone(),
        };
        (card, container.config.get("description").cloned())
    };
    core.guests
        .follow(&card, &description.unwrap_or_default())
        .await;
}

fn destroy(call: &Call) -> Reply {
    let vmid = call.params.vmid();
    let force = call.params.flag("force");
    let purge = call.params.flag("purge");
    {
        let world = call.core.world();
        let container = find(&world, call)?;
        if container
            .config
            .get("protection")
            .is_some_and(|text| text == "1")
        {
            let text = format!("can't remove CT {vmid} - protection mode enabled");
            return Err(Refusal::failed(text));
        }
        unlocked(container)?;
        if container.running.is_some() && !force {
            let text = format!("unable to destroy CT {vmid} - container is running");
            return Err(Refusal::failed(text));
        }
    }
    let upid = call.work("vzdestroy", vmid.to_string(), move |worker| async move {
        destroy_worker(&worker, vmid, force, purge).await
    });
    Ok(json!(upid).into())
}

async fn destroy_worker(worker: &Worker, vmid: u32, force: bool, purge: bool) -> Outcome {
    let core = &worker.core;
    let _lock = worker.lock(vmid).await?;
    let running = match core.world().containers.get(&vmid) {
        Some(container) if container.node == worker.node => container.running.is_some(),
        _ => return Err(power::missing(&worker.node, vmid).into()),
    };
    if running && !force {
        return Err(format!("unable to destroy CT {vmid} - container is running").into());
    }
    if running {
        worker.log(format!("forced to stop CT {vmid} before destroying!"));
        worker.pause(core.delay.stop).await?;
        power::put_down(core, vmid).await;
    }
    worker.strike().await?;
    worker.pause(core.delay.destroy).await?;
    if purge {
        worker.log(format!("purging CT {vmid} from related configurations.."));
    }
    let mut world = core.change();
    world.containers.remove(&vmid);
    for pool in world.pools.values_mut() {
        pool.guests.remove(&vmid);
    }
    let path = format!("/vms/{vmid}");
    world.acl.retain(|entry| entry.path != path);
    Ok(())
}

fn address_row(address: &str) -> Value {
    let (ip, prefix) = address.split_once('/').unwrap_or((address, "32"));
    let kind = if ip.contains(':') { "inet6" } else { "inet" };
    json!({"ip-address": ip, "prefix": prefix, "ip-address-type": kind})
}

fn interface(name: &str, mac: &str, addresses: &[String]) -> Value {
    let rows: Vec<Value> = addresses
        .iter()
        .map(|address| address_row(address))
        .collect();
    let mut row = json!({
        "name": name, "hwaddr": mac, "hardware-address": mac, "ip-addresses": rows,
    });
    for address in addresses {
        let kind = if address.contains(':') {
            "inet6"
        } else {
            "inet"
        };
        row[kind] = json!(address);
    }
    row
}

/// The link-local address that a kernel makes from a MAC address.
fn link_local(mac: &str) -> String {
    let mut bytes = [0u8; 6];
    for (byte, part) in bytes.iter_mut().zip(mac.split(':')) {
        *byte = u8::from_str_radix(part, 16).unwrap_or_default();
    }
    let [a, b, c, d, e, f] = bytes.map(u16::from);
    let address = std::net::Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (a ^ 2) << 8 | b,
        c << 8 | 0xff,
        0xfe00 | d,
        e << 8 | f,
    );
    format!("{address}/64")
}

/// Stopped and unknown containers give null, as in reality.
fn interfaces(call: &Call) -> Output {
    let world = call.core.world();
    let Ok(container) = find(&world, call) else {
        return Value::Null.into();
    };
    let Some(running) = &container.running else {
        return Value::Null.into();
    };
    let up = u128::from(now_ms().saturating_sub(running.since));
    let dhcp_done = up >= call.core.delay.dhcp.as_millis();
    let local = ["127.0.0.1/8".to_owned(), "::1/128".to_owned()];
    let mut rows = vec![interface("lo", "00:00:00:00:00:00", &local)];
    let guest = &container.network;
    for extra in &guest.interfaces {
        let mac = extra.mac.to_lowercase();
        let addresses = [extra.address.clone(), link_local(&mac)];
        rows.push(interface(&extra.name, &mac, &addresses));
    }
    let dhcp_done = dhcp_done && !guest.without_lease;
    for (number, (_, net)) in container.nets().into_iter().enumerate() {
        let mac = net
            .get("hwaddr")
            .cloned()
            .unwrap_or_default()
            .to_lowercase();
        let ip = match net.get("ip").map(String::as_str) {
            // Only the first network has the address the guest really answers on.
            Some("dhcp") if dhcp_done && number == 0 => {
                let address = guest.shown.or(container.address);
                address.map(|address| format!("{address}/16"))
            }
            Some("dhcp" | "manual") | None => None,
            Some(fixed) => Some(fixed.to_owned()),
        };
        let addresses: Vec<String> = ip.into_iter().chain([link_local(&mac)]).collect();
        let name = net.get("name").map(String::as_str).unwrap_or_default();
        rows.push(interface(name, &mac, &addresses));
    }
    json!(rows).into()
}
