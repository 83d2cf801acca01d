//! `/nodes/{node}/lxc/{vmid}/snapshot`: list, take, show, roll back, delete; and `resize`, which works alike: what is wrong
//! with a name is said by the task.

use serde_json::{Value, json};

use super::{Call, lxc, power};
use crate::answer::{Refusal, Reply};
use crate::container::{read_keys, shown};
use crate::task::{Outcome, Worker};
use crate::world::{Container, Snapshot, World, now};

/// Time that a storage takes for any of it.
const WORK: std::time::Duration = std::time::Duration::from_millis(50);

pub(crate) fn unknown(name: &str) -> String {
    format!("snapshot '{name}' does not exist")
}

/// Raw images on a directory cannot be snapshotted.
pub(crate) fn possible(world: &World, container: &Container) -> bool {
    container.disks().iter().all(|(option, keys)| {
        let volume = keys.get("volume").map(String::as_str).unwrap_or_default();
        let storage = volume.split(':').next().unwrap_or_default();
        let kind = world.storages.get(storage).map(|s| s.kind.as_str());
        kind == Some("btrfs") || (option != "rootfs" && volume.starts_with('/'))
    })
}

pub(crate) fn list(call: &Call) -> Reply {
    let world = call.core.world();
    let container = lxc::find(&world, call)?;
    let mut rows: Vec<Value> = Vec::new();
    for (name, snapshot) in &container.snapshots {
        let mut row = json!({"name": name, "snaptime": snapshot.time, "description": ""});
        if !snapshot.description.is_empty() {
            row["description"] = json!(format!("{}\n", snapshot.description));
        }
        if let Some(parent) = &snapshot.parent {
            row["parent"] = json!(parent);
        }
        rows.push(row);
    }
    rows.sort_by_key(|row| row["snaptime"].as_u64());
    let mut current = json!({
        "name": "current", "description": "You are here!", "digest": container.digest(),
        "running": u8::from(container.running.is_some()),
    });
    if let Some(parent) = &container.parent {
        current["parent"] = json!(parent);
    }
    rows.push(current);
    Ok(json!(rows).into())
}

pub(crate) fn feature(call: &Call) -> Reply {
    let world = call.core.world();
    let container = lxc::find(&world, call)?;
    let has = match call.params.text("feature") {
        "snapshot" => possible(&world, container),
        // Linked, which only a template's disks can be the base of.
        "clone" => container.config.contains_key("template") && possible(&world, container),
        _ => true,
    };
    Ok(json!({"hasFeature": u8::from(has)}).into())
}

pub(crate) fn config(call: &Call) -> Reply {
    let world = call.core.world();
    let container = lxc::find(&world, call)?;
    let name = call.params.text("snapname");
    let snapshot = container.snapshots.get(name);
    let snapshot = snapshot.ok_or_else(|| Refusal::failed(unknown(name)))?;
    let mut all: serde_json::Map<String, Value> = snapshot
        .config
        .iter()
        .map(|(option, text)| (option.clone(), shown(option, text)))
        .collect();
    all.insert("snaptime".to_owned(), json!(snapshot.time));
    all.insert(
        "description".to_owned(),
        json!(format!("{}\n", snapshot.description)),
    );
    Ok(Value::Object(all).into())
}

pub(crate) fn create(call: &Call) -> Reply {
    let name = call.params.text("snapname").to_owned();
    if name == "current" {
        let text = "unable to use snapshot name 'current' (reserved name)";
        return Err(Refusal::failed(text));
    }
    let description = call.params.text("description").trim_end().to_owned();
    work(call, "vzsnapshot", move |world, vmid| {
        let able = possible(world, &world.containers[&vmid]);
        let container = held(world, vmid)?;
        if container.snapshots.contains_key(&name) {
            return Err(format!("snapshot name '{name}' already used"));
        }
        if !able {
            return Err("snapshot feature is not available".to_owned());
        }
        let mut config = container.config.clone();
        config.remove("description");
        let snapshot = Snapshot {
            time: now(),
            description,
            parent: container.parent.replace(name.clone()),
            config,
        };
        container.snapshots.insert(name, snapshot);
        Ok(())
    })
}

pub(crate) fn delete(call: &Call) -> Reply {
    let name = call.params.text("snapname").to_owned();
    work(call, "vzdelsnapshot", move |world, vmid| {
        let container = held(world, vmid)?;
        let Some(gone) = container.snapshots.remove(&name) else {
            return Err(unknown(&name));
        };
        for child in container.snapshots.values_mut() {
            if child.parent.as_ref() == Some(&name) {
                child.parent.clone_from(&gone.parent);
            }
        }
        if container.parent.as_ref() == Some(&name) {
            container.parent = gone.parent;
        }
        Ok(())
    })
}

/// Leaves the container stopped, unless it is to be started.
pub(crate) fn rollback(call: &Call) -> Reply {
    lxc::find(&call.core.world(), call)?;
    let name = call.params.text("snapname").to_owned();
    let (vmid, start) = (call.params.vmid(), call.params.flag("start"));
    let upid = call.work("vzrollback", vmid.to_string(), move |worker| async move {
        {
            let _lock = worker.lock(vmid).await?;
            {
                let mut world = worker.core.change();
                let container = held(&mut world, vmid)?;
                if !container.snapshots.contains_key(&name) {
                    return Err(unknown(&name).into());
                }
            }
            worker.strike().await?;
            worker.pause(WORK).await?;
            power::put_down(&worker.core, vmid).await;
            let mut world = worker.core.change();
            let container = held(&mut world, vmid)?;
            let snapshot = container.snapshots.get(&name).cloned();
            let snapshot = snapshot.ok_or_else(|| unknown(&name))?;
            // The description stays what it is.
            let description = container.config.remove_entry("description");
            container.config = snapshot.config;
            container.config.extend(description);
            container.parent = Some(name);
        }
        if start {
            power::start_worker(&worker, vmid, false).await?;
        }
        Ok(())
    });
    Ok(json!(upid).into())
}

fn work(
    call: &Call,
    kind: &str,
    change: impl FnOnce(&mut World, u32) -> Result<(), String> + Send + 'static,
) -> Reply {
    lxc::find(&call.core.world(), call)?;
    let vmid = call.params.vmid();
    let upid = call.work(kind, vmid.to_string(), move |worker| async move {
        locked(&worker, vmid, change).await
    });
    Ok(json!(upid).into())
}

async fn locked(
    worker: &Worker,
    vmid: u32,
    change: impl FnOnce(&mut World, u32) -> Result<(), String>,
) -> Outcome {
    let _lock = worker.lock(vmid).await?;
    worker.strike().await?;
    worker.pause(WORK).await?;
    let mut world = worker.core.change();
    if !world.containers.contains_key(&vmid) {
        return Err(power::missing(&worker.node, vmid).into());
    }
    Ok(change(&mut world, vmid)?)
}

/// The container, when nothing else works on it.
fn held(world: &mut World, vmid: u32) -> Result<&mut Container, String> {
    let container = world.containers.get_mut(&vmid);
    let container = container.ok_or_else(|| format!("CT {vmid} is gone"))?;
    match container.config.get("lock") {
        Some(lock) => Err(format!("CT is locked ({lock})")),
        None => Ok(container),
    }
}

/// The disk of a `resize` call with its new size in bytes, or why it cannot be.
pub(crate) fn resize(call: &Call) -> Reply {
    let vmid = call.params.vmid();
    let disk = call.params.text("disk").to_owned();
    let size = call.params.text("size").to_owned();
    if !call.who.is_root() {
        // Proxmox VE takes the parameter `disk` for an option of the container that it does not know.
        let path = format!("/vms/{vmid}");
        call.with_gate(|gate| gate.need(&path, &["VM.Config.Options"]))?;
    }
    let (grown, same) = {
        let world = call.core.world();
        let container = lxc::find(&world, call)?;
        lxc::unlocked(container)?;
        let Some(text) = container.config.get(&disk) else {
            return Err(Refusal::failed("format error"));
        };
        let old = read_keys(&disk, text);
        let old = crate::container::bytes(old.get("size").map(String::as_str).unwrap_or("0"));
        let new = match size.strip_prefix('+') {
            Some(more) => old + crate::container::bytes(more),
            None => crate::container::bytes(&size),
        };
        if new < old {
            return Err(Refusal::failed("unable to shrink disk size"));
        }
        (new, new == old)
    };
    if same {
        return Err(Refusal::failed("disk is already at specified size"));
    }
    let upid = call.work("resize", vmid.to_string(), move |worker| async move {
        let log = worker.clone();
        locked(&worker, vmid, move |world, vmid| {
            let container = held(world, vmid)?;
            let text = container.config.get(&disk).cloned().unwrap_or_default();
            let mut keys = read_keys(&disk, &text);
            if keys
                .get("volume")
                .is_some_and(|volume| volume.ends_with(".subvol"))
            {
                return Err("can't resize this image format".to_owned());
            }
            keys.insert("size".to_owned(), crate::container::size_text(grown));
            let text = crate::container::print_keys(&disk, &keys);
            container.config.insert(disk, text);
            Ok(())
        })
        .await?;
        log.log("Image resized.");
        Ok(())
    });
    Ok(json!(upid).into())
}
