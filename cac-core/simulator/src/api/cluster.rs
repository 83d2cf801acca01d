//! `/cluster`: the overview of everything the caller may audit, free numbers, who is a member.

use serde_json::{Value, json};

use super::{Call, index, lxc, nodes, not_simulated, storage, tasks};
use crate::answer::{Output, Refusal, Reply};
use crate::permission::Gate;
use crate::world::{Container, now_ms};

/// Numbers that Proxmox VE hands out.
const FIRST: u32 = 100;
const LAST: u32 = 999_999;

pub(crate) fn answer(method: &str, template: &str, call: &Call) -> Reply {
    match (method, template) {
        ("GET", "/cluster") => Ok(index(
            "name",
            &["nextid", "options", "resources", "status", "tasks"],
        )),
        ("GET", "/cluster/resources") => Ok(resources(call)),
        ("GET", "/cluster/nextid") => next_id(call),
        ("GET", "/cluster/status") => Ok(status(call)),
        ("GET", "/cluster/tasks") => Ok(tasks::recent(call)),
        ("GET", "/cluster/options") => Ok(json!({
            "mac_prefix": "BC:24:11", "description": "", "allowed-tags": [],
        })
        .into()),
        _ => not_simulated(method, template),
    }
}

fn next_id(call: &Call) -> Reply {
    let world = call.core.world();
    if let Some(wanted) = call.params.get("vmid") {
        let taken = world.containers.contains_key(&call.params.vmid());
        return if taken {
            Err(Refusal::param(
                "vmid",
                format!("VM {wanted} already exists"),
            ))
        } else {
            Ok(json!(wanted).into())
        };
    }
    let free = (FIRST..=LAST).find(|vmid| !world.containers.contains_key(vmid));
    free.map(|vmid| json!(vmid.to_string()).into())
        .ok_or_else(|| {
            Refusal::failed(format!(
                "unable to get any free VMID in range [{FIRST}, {LAST}]"
            ))
        })
}

/// A lone node is no cluster and has the number 0.
fn status(call: &Call) -> Output {
    let world = call.core.world();
    let several = world.nodes.len() > 1;
    let mut rows = Vec::new();
    if several {
        rows.push(json!({
            "type": "cluster", "id": "cluster", "name": "lab", "version": world.nodes.len(),
            "nodes": world.nodes.len(), "quorate": 1,
        }));
    }
    for (place, (name, node)) in world.nodes.iter().enumerate() {
        let mut row = json!({
            "type": "node", "id": format!("node/{name}"), "name": name, "level": "",
            "nodeid": place + usize::from(several), "local": u8::from(place == 0),
            "online": u8::from(node.online),
        });
        if node.online {
            row["ip"] = json!(node.address());
        }
        rows.push(row);
    }
    json!(rows).into()
}

fn resources(call: &Call) -> Output {
    let kind = call.params.get("type").unwrap_or_default();
    let wanted = |one: &str| kind.is_empty() || kind == one;
    let delay = u64::try_from(call.core.delay.overview.as_millis()).unwrap_or(u64::MAX);
    let rows = call.with_gate(|gate| {
        let mut rows = Vec::new();
        if kind.is_empty() {
            rows.extend(pools(gate));
        }
        if wanted("vm") {
            let guests = gate.world.containers.iter();
            let seen = guests.filter(|(vmid, _)| gate.has(&format!("/vms/{vmid}"), "VM.Audit"));
            rows.extend(seen.map(|(vmid, guest)| guest_row(gate, *vmid, guest, delay)));
        }
        for name in gate.world.nodes.keys() {
            if wanted("node") {
                rows.push(node_row(gate, name));
            }
            if wanted("storage") {
                rows.extend(storage::resources(gate, name));
            }
            if wanted("sdn") && gate.has("/sdn/zones/localnetwork", "SDN.Audit") {
                rows.push(json!({
                    "type": "sdn", "id": format!("sdn/{name}/localnetwork"), "node": name,
                    "sdn": "localnetwork", "status": "ok",
                }));
            }
        }
        rows
    });
    json!(rows).into()
}

fn node_row(gate: &Gate<'_>, name: &str) -> Value {
    let mut row = nodes::row(gate, name);
    if row["status"] == "online" {
        row["cgroup-mode"] = json!(2);
    }
    row
}

fn pools(gate: &Gate<'_>) -> Vec<Value> {
    let names = gate.world.pools.keys();
    names
        .filter(|name| gate.has(&format!("/pool/{name}"), "Pool.Audit"))
        .map(|name| json!({"type": "pool", "id": format!("/pool/{name}"), "pool": name}))
        .collect()
}

/// A container as the overview knows it. It learns of new ones late, and of those on a dead node nothing at all.
pub(crate) fn guest_row(gate: &Gate<'_>, vmid: u32, guest: &Container, delay: u64) -> Value {
    let mut row = json!({
        "type": "lxc", "id": format!("lxc/{vmid}"), "vmid": vmid, "node": guest.node,
        "status": "unknown",
    });
    for option in ["tags", "lock"] {
        if let Some(text) = guest.config.get(option) {
            row[option] = json!(text);
        }
    }
    let pool = gate.world.pool_of(vmid);
    if let Some(pool) = pool.filter(|pool| gate.has(&format!("/pool/{pool}"), "Pool.Audit")) {
        row["pool"] = json!(pool);
    }
    let online = gate.world.nodes.get(&guest.node).is_some_and(|n| n.online);
    if !online || now_ms() < guest.created.saturating_add(delay) {
        return row;
    }
    let full = lxc::row(vmid, guest);
    for (from, to) in [
        ("name", "name"),
        ("status", "status"),
        ("uptime", "uptime"),
        ("cpu", "cpu"),
        ("cpus", "maxcpu"),
        ("mem", "mem"),
        ("maxmem", "maxmem"),
        ("disk", "disk"),
        ("maxdisk", "maxdisk"),
        ("netin", "netin"),
        ("netout", "netout"),
        ("diskread", "diskread"),
        ("diskwrite", "diskwrite"),
    ] {
        row[to] = full[from].clone();
    }
    row["template"] = json!(u8::from(guest.config.contains_key("template")));
    row
}
