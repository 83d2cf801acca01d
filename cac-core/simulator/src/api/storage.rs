//! `/storage` and `/nodes/{node}/storage`: what can hold disks and templates, and what lies there.

use serde_json::{Value, json};

use super::nodes::{OWN_DISK, used_disk};
use super::{Call, index, not_simulated};
use crate::answer::{Output, Refusal, Reply};
use crate::permission::Gate;
use crate::world::{Storage, Template, World, hex};
use sha2::{Digest, Sha256};

/// Rights that let somebody see a storage.
const SEEN: [&str; 2] = ["Datastore.Audit", "Datastore.AllocateSpace"];

pub(crate) fn answer(method: &str, template: &str, call: &Call) -> Reply {
    match (method, template) {
        ("GET", "/storage") => Ok(configured(call)),
        ("GET", "/storage/{storage}") => one_configured(call),
        ("GET", "/nodes/{node}/storage") => Ok(list(call)),
        ("GET", "/nodes/{node}/storage/{storage}") => {
            known(call)?;
            Ok(index("subdir", &["content", "status", "rrddata"]))
        }
        ("GET", "/nodes/{node}/storage/{storage}/status") => status(call),
        ("GET", "/nodes/{node}/storage/{storage}/content") => content(call),
        ("GET", "/nodes/{node}/storage/{storage}/content/{volume}") => volume(call),
        _ => not_simulated(method, template),
    }
}

fn size(name: &str) -> u64 {
    if name == "local" { 200 << 30 } else { 64 << 30 }
}

fn used(world: &World, node: &str, name: &str) -> u64 {
    let own = if name == "local" { OWN_DISK } else { 40 << 20 };
    (own + used_disk(world, node, name)).min(size(name))
}

fn figures(world: &World, node: &str, name: &str, storage: &Storage) -> Value {
    let (total, used) = (size(name), used(world, node, name));
    let active = !storage.disabled;
    let or_zero = |number: u64| if active { number } else { 0 };
    json!({
        "type": storage.kind, "content": storage.content.join(","), "shared": 0,
        "enabled": u8::from(active), "active": u8::from(active),
        "total": or_zero(total), "used": or_zero(used), "avail": or_zero(total - used),
    })
}

/// A storage of a node, by the part that is used.
fn fraction(used: u64, total: u64) -> f64 {
    let parts = used.saturating_mul(10_000) / total.max(1);
    f64::from(u32::try_from(parts).unwrap_or(10_000)) / 10_000.0
}

fn list(call: &Call) -> Output {
    let params = &call.params;
    let wanted = params.list("content");
    let rows: Vec<Value> = call.with_gate(|gate| {
        let storages = gate.world.storages.iter();
        storages
            .filter(|(name, _)| params.get("storage").is_none_or(|one| one == name.as_str()))
            .filter(|(_, storage)| !(params.flag("enabled") && storage.disabled))
            .filter(|(_, storage)| {
                wanted.is_empty() || storage.content.iter().any(|kind| wanted.contains(kind))
            })
            .filter(|(name, _)| gate.has_any(&format!("/storage/{name}"), &SEEN))
            .map(|(name, storage)| {
                let mut row = figures(gate.world, &call.node, name, storage);
                row["storage"] = json!(name);
                if !storage.disabled {
                    let part = fraction(used(gate.world, &call.node, name), size(name));
                    row["used_fraction"] = json!(part);
                }
                row
            })
            .collect()
    });
    json!(rows).into()
}

/// The storage of a call, or the 400 of an unknown one.
fn known(call: &Call) -> Result<Storage, Refusal> {
    let world = call.core.world();
    let found = world.storages.get(call.params.text("storage"));
    found
        .cloned()
        .ok_or_else(|| Refusal::param("storage", "No such storage."))
}

fn status(call: &Call) -> Reply {
    let storage = known(call)?;
    let name = call.params.text("storage");
    Ok(figures(&call.core.world(), &call.node, name, &storage).into())
}

/// Rows for the cluster's overview.
pub(crate) fn resources(gate: &Gate<'_>, node: &str) -> Vec<Value> {
    let online = gate.world.nodes.get(node).is_some_and(|n| n.online);
    let storages = gate.world.storages.iter();
    storages
        .filter(|(name, storage)| {
            !storage.disabled && gate.has_any(&format!("/storage/{name}"), &SEEN)
        })
        .map(|(name, storage)| {
            let mut row = json!({
                "type": "storage", "id": format!("storage/{node}/{name}"), "node": node,
                "storage": name, "plugintype": storage.kind, "shared": 0,
                "content": storage.content.join(","), "status": "unknown",
            });
            if online {
                row["status"] = json!("available");
                row["disk"] = json!(used(gate.world, node, name));
                row["maxdisk"] = json!(size(name));
            }
            row
        })
        .collect()
}

fn template_row(storage: &str, template: &Template) -> Value {
    let format = match template.file.rsplit('.').next() {
        Some("xz") => "txz",
        Some("gz") => "tgz",
        Some("bz2") => "tbz2",
        _ => "tzst",
    };
    json!({
        "volid": format!("{storage}:vztmpl/{}", template.file), "content": "vztmpl",
        "format": format, "size": template.size, "ctime": template.ctime,
    })
}

fn content(call: &Call) -> Reply {
    let storage = known(call)?;
    let name = call.params.text("storage");
    let asked = call.params.get("content");
    let shown = |kind: &str| {
        asked.is_none_or(|asked| asked == kind) && storage.content.iter().any(|c| c == kind)
    };
    let mut rows = Vec::new();
    if shown("vztmpl") {
        let world = call.core.world();
        let templates = world.nodes.get(&call.node).map(|node| &node.templates);
        rows.extend(
            templates
                .into_iter()
                .flatten()
                .map(|t| template_row(name, t)),
        );
    }
    if shown("rootdir") {
        rows.extend(disks(call, name));
    }
    Ok(json!(rows).into())
}

/// Disks of the containers, for those who may see all of a storage.
fn disks(call: &Call, storage: &str) -> Vec<Value> {
    let only = call.params.number("vmid");
    let path = format!("/storage/{storage}");
    call.with_gate(|gate| {
        let everything = gate.has(&path, "Datastore.Allocate");
        let mut rows = Vec::new();
        for (vmid, guest) in &gate.world.containers {
            let asked = only.is_none_or(|only| only == u64::from(*vmid));
            let seen = everything || gate.has(&format!("/vms/{vmid}"), "VM.Config.Disk");
            if guest.node != call.node || !asked || !seen {
                continue;
            }
            for (_, keys) in guest.disks() {
                let volume = keys.get("volume").cloned().unwrap_or_default();
                if volume
                    .split_once(':')
                    .is_some_and(|(place, _)| place == storage)
                {
                    let size = keys.get("size").map_or(0, |s| crate::container::bytes(s));
                    rows.push(json!({
                        "volid": volume, "vmid": vmid, "content": "rootdir", "format": "raw",
                        "size": size, "used": size / 16, "ctime": guest.created / 1000,
                    }));
                }
            }
        }
        rows
    })
}

fn volume(call: &Call) -> Reply {
    let storage = known(call)?;
    let volume = call.params.text("volume");
    let file = volume.rsplit('/').next().unwrap_or_default();
    let world = call.core.world();
    let templates = world.nodes.get(&call.node).map(|node| &node.templates);
    let found = templates
        .into_iter()
        .flatten()
        .find(|template| template.file == file);
    let template =
        found.ok_or_else(|| Refusal::failed(format!("volume '{volume}' does not exist")))?;
    Ok(json!({
        "path": format!("{}/template/cache/{file}", storage.path), "format": "raw",
        "size": template.size, "used": template.size,
    })
    .into())
}

fn configuration(name: &str, storage: &Storage, digest: &str) -> Value {
    let mut row = json!({
        "storage": name, "type": storage.kind, "path": storage.path,
        "content": storage.content.join(","), "digest": digest,
    });
    if storage.kind == "btrfs" {
        row["is_mountpoint"] = json!("yes");
    }
    row
}

fn digest(world: &World) -> String {
    let text = format!("{:?}", world.storages);
    hex(&Sha256::digest(text))[..40].to_owned()
}

fn configured(call: &Call) -> Output {
    let rows: Vec<Value> = call.with_gate(|gate| {
        let digest = digest(gate.world);
        let storages = gate.world.storages.iter();
        storages
            .filter(|(name, _)| {
                gate.has_any(
                    &format!("/storage/{name}"),
                    &[SEEN[0], SEEN[1], "Datastore.Allocate"],
                )
            })
            .map(|(name, storage)| configuration(name, storage, &digest))
            .collect()
    });
    json!(rows).into()
}

fn one_configured(call: &Call) -> Reply {
    let name = call.params.text("storage");
    let world = call.core.world();
    let Some(storage) = world.storages.get(name) else {
        return Err(Refusal::failed(format!("storage '{name}' does not exist")));
    };
    Ok(configuration(name, storage, &digest(&world)).into())
}
