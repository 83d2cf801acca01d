//! `/nodes`: the list, a node's status, its bridges, its clock. Figures follow from the containers that run there.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{Call, index, not_simulated, version};
use crate::answer::{Output, Refusal, Reply};
use crate::container;
use crate::permission::Gate;
use crate::world::{World, now};

/// What every simulated node has: cores, memory and the room of its system disk.
pub(crate) const CORES: u64 = 8;
const MEMORY: u64 = 32 << 30;
const DISK: u64 = 200 << 30;
/// What the node itself takes.
const OWN_MEMORY: u64 = 2 << 30;
pub(crate) const OWN_DISK: u64 = 20 << 30;

pub(crate) fn answer(method: &str, template: &str, call: &Call) -> Reply {
    match (method, template) {
        ("GET", "/nodes") => Ok(list(call)),
        ("GET", "/nodes/{node}") => Ok(index(
            "name",
            &[
                "aplinfo", "dns", "lxc", "network", "status", "storage", "tasks", "time", "version",
            ],
        )),
        ("GET", "/nodes/{node}/status") => Ok(status(call).into()),
        ("GET", "/nodes/{node}/version") => Ok(version().into()),
        ("GET", "/nodes/{node}/dns") => {
            Ok(json!({"search": "lab.invalid", "dns1": "127.0.0.1"}).into())
        }
        ("GET", "/nodes/{node}/time") => {
            Ok(json!({"time": now(), "localtime": now(), "timezone": "Etc/UTC"}).into())
        }
        ("GET", "/nodes/{node}/network") => Ok(network(call)),
        ("GET", "/nodes/{node}/network/{iface}") => interface(call),
        _ => not_simulated(method, template),
    }
}

/// How busy a node is.
pub(crate) struct Load {
    pub(crate) cpu: f64,
    pub(crate) memory: u64,
    pub(crate) disk: u64,
    pub(crate) uptime: u64,
}

pub(crate) fn load(world: &World, node: &str) -> Load {
    let mut load = Load {
        cpu: 0.01,
        memory: OWN_MEMORY,
        disk: used_disk(world, node, "local") + OWN_DISK,
        uptime: now().saturating_sub(world.born) + 2400,
    };
    let running = world.containers.values();
    for guest in running.filter(|c| c.node == node && c.running.is_some()) {
        load.cpu += 0.002;
        load.memory += guest.number("memory").unwrap_or(512) << 17;
    }
    load.memory = load.memory.min(MEMORY);
    load.disk = load.disk.min(DISK);
    load
}

/// Bytes that the disks of a node's containers take on a storage; they are written to a sixteenth.
pub(crate) fn used_disk(world: &World, node: &str, storage: &str) -> u64 {
    let guests = world.containers.values().filter(|c| c.node == node);
    guests
        .flat_map(container_disks)
        .filter(|(place, _)| place == storage)
        .map(|(_, size)| size / 16)
        .sum()
}

/// Storage and size of each disk.
fn container_disks(guest: &crate::world::Container) -> Vec<(String, u64)> {
    let place = |keys: &container::Keys| {
        let (storage, _) = keys.get("volume")?.split_once(':')?;
        let size = keys.get("size").map_or(0, |size| container::bytes(size));
        Some((storage.to_owned(), size))
    };
    let disks = guest.disks();
    disks.iter().filter_map(|(_, keys)| place(keys)).collect()
}

/// The fields that `/nodes` and `/cluster/resources` share.
pub(crate) fn row(gate: &Gate<'_>, name: &str) -> Value {
    let id = format!("node/{name}");
    let online = gate.world.nodes.get(name).is_some_and(|node| node.online);
    if !online {
        return json!({"id": id, "node": name, "type": "node", "status": "offline"});
    }
    let mut row = json!({"id": id, "node": name, "type": "node", "status": "online", "level": ""});
    if gate.has(&format!("/nodes/{name}"), "Sys.Audit") {
        let load = load(gate.world, name);
        row["cpu"] = json!(load.cpu);
        row["maxcpu"] = json!(CORES);
        row["mem"] = json!(load.memory);
        row["maxmem"] = json!(MEMORY);
        row["disk"] = json!(load.disk);
        row["maxdisk"] = json!(DISK);
        row["uptime"] = json!(load.uptime);
    }
    row
}

fn list(call: &Call) -> Output {
    let rows: Vec<Value> = call.with_gate(|gate| {
        let nodes = gate.world.nodes.iter();
        nodes
            .map(|(name, node)| {
                let mut row = row(gate, name);
                let print = node.online.then_some(call.core.fingerprint.as_str());
                row["ssl_fingerprint"] = json!(print);
                row
            })
            .collect()
    });
    json!(rows).into()
}

fn status(call: &Call) -> Value {
    let load = load(&call.core.world(), &call.node);
    let release = "6.8.12-20-pve";
    json!({
        "uptime": load.uptime, "cpu": load.cpu, "wait": 0.001, "idle": 0,
        "loadavg": ["0.10", "0.12", "0.10"],
        "memory": {"total": MEMORY, "used": load.memory, "free": MEMORY - load.memory},
        "swap": {"total": 0, "used": 0, "free": 0},
        "rootfs": {
            "total": DISK, "used": load.disk, "free": DISK - load.disk, "avail": DISK - load.disk,
        },
        "ksm": {"shared": 0},
        "pveversion": "pve-manager/8.4.21/2606ac850d46da29",
        "kversion": format!("Linux {release} #1 SMP PREEMPT_DYNAMIC"),
        "current-kernel": {
            "sysname": "Linux", "release": release, "machine": "x86_64",
            "version": "#1 SMP PREEMPT_DYNAMIC",
        },
        "cpuinfo": {
            "cpus": CORES, "cores": CORES, "sockets": 1, "user_hz": 100, "hvm": "1",
            "mhz": "2600.000", "model": "Simulated Processor", "flags": "fpu vme",
        },
        "boot-info": {"mode": "legacy-bios"},
    })
}

fn bridge(name: &str, address: Ipv4Addr) -> Value {
    json!({
        "iface": name, "type": "bridge", "active": 1, "autostart": 1, "priority": 3,
        "method": "static", "method6": "manual", "families": ["inet"],
        "address": address, "netmask": "8", "cidr": format!("{address}/8"),
        "bridge_ports": "", "bridge_stp": "off", "bridge_fd": "0",
    })
}

/// The bridges of a node, and its address on each.
fn bridges(call: &Call) -> (Vec<String>, Ipv4Addr) {
    let world = call.core.world();
    let node = world.nodes.get(&call.node);
    node.map_or((Vec::new(), Ipv4Addr::LOCALHOST), |node| {
        (node.bridges.clone(), node.address())
    })
}

/// Whoever asks for bridges gets those it may put containers on; the whole list is nobody's secret.
fn network(call: &Call) -> Output {
    let kind = call.params.get("type").unwrap_or_default();
    let of_bridges = matches!(kind, "" | "bridge") || kind.starts_with("any_");
    let for_guests = kind.starts_with("any_") || kind == "include_sdn";
    let mut rows = Vec::new();
    let (bridges, address) = bridges(call);
    for name in bridges.into_iter().filter(|_| of_bridges) {
        let path = format!("/sdn/zones/localnetwork/{name}");
        let allowed = call.with_gate(|gate| gate.has_any(&path, &["SDN.Audit", "SDN.Use"]));
        if allowed || !for_guests {
            rows.push(bridge(&name, address));
        }
    }
    json!(rows).into()
}

fn interface(call: &Call) -> Reply {
    let name = call.params.text("iface");
    let (bridges, address) = bridges(call);
    if bridges.iter().any(|bridge| bridge == name) {
        return Ok(bridge(name, address).into());
    }
    Err(Refusal::param("iface", "interface does not exist"))
}
