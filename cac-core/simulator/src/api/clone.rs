//! `POST /nodes/{node}/lxc/{vmid}/clone` and `/template`: a container as the pattern of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, change, create, lxc, snapshot};
use crate::answer::{Refusal, Reply};
use crate::container::{self, Keys, complete_net, print_keys, read_keys};
use crate::task::{Ending, Outcome, Worker};
use crate::world::{Container, World};

/// What a clone is to become.
struct Plan {
    source: u32,
    vmid: u32,
    full: bool,
    storage: Option<String>,
    pool: Option<String>,
    /// The new container's options but for its disks.
    options: BTreeMap<String, String>,
    disks: Vec<(String, Keys)>,
}

pub(crate) async fn clone(mut call: Call) -> Reply {
    let source = call.params.vmid();
    let (storage, pool) = (call.params.take("storage"), call.params.take("pool"));
    create::pool_exists(&call, pool.as_deref())?;
    if let Some(storage) = &storage {
        create::storage_is_good(&call, storage)?;
    }
    if let Some(target) = call.params.get("target")
        && !call.core.world().nodes.contains_key(target)
    {
        let text = format!("no such cluster node '{target}'");
        return Err(Refusal::failed(text));
    }
    let _lock = call.core.lock_call(source).await?;
    let plan = plan(&mut call, source, storage, pool)?;
    create::reserve(&call.core, plan.vmid, &call.node)?;
    lock(&call, source, Some("disk"));
    let upid = call.work("vzclone", source.to_string(), |worker| make(worker, plan));
    Ok(json!(upid).into())
}

fn lock(call: &Call, vmid: u32, name: Option<&str>) {
    hold(&mut call.core.change(), vmid, name);
}

/// Sets or takes away the `lock` of a container.
fn hold(world: &mut World, vmid: u32, name: Option<&str>) {
    if let Some(container) = world.containers.get_mut(&vmid) {
        match name {
            Some(name) => container.config.insert("lock".to_owned(), name.to_owned()),
            None => container.config.remove("lock"),
        };
    }
}

/// The checks in the order of the real call.
fn plan(
    call: &mut Call,
    source: u32,
    storage: Option<String>,
    pool: Option<String>,
) -> Result<Plan, Refusal> {
    let vmid = call.params.number("newid").unwrap_or_default();
    let vmid = u32::try_from(vmid).unwrap_or_default();
    let container = lxc::find(&call.core.world(), call)?.clone();
    lxc::unlocked(&container)?;
    let template = container.config.contains_key("template");
    let full = match call.params.get("full") {
        Some(_) => call.params.flag("full"),
        None => !template,
    };
    if storage.is_some() && !full {
        let text = "parameter 'storage' not allowed for linked clones";
        return Err(Refusal::failed(text));
    }
    let snapshot = call.params.take("snapname");
    let snapshot = snapshot.filter(|name| name != "current");
    let config = match &snapshot {
        None => container.config.clone(),
        Some(name) => match container.snapshots.get(name) {
            Some(snapshot) => snapshot.config.clone(),
            None => return Err(Refusal::failed(snapshot::unknown(name))),
        },
    };
    create::unused(&call.core, vmid)?;
    if container.running.is_some() && snapshot.is_none() {
        let text = "Cannot do full clones on a running container without snapshots";
        return Err(Refusal::failed(text));
    }
    let mut disks = Vec::new();
    for (option, text) in config.iter().filter(|(o, _)| container::is_disk(o)) {
        let keys = read_keys(option, text);
        let volume = keys.get("volume").cloned().unwrap_or_default();
        if volume.starts_with('/') {
            let text = format!("unable to clone mountpoint '{option}' (type bind)");
            return Err(Refusal::failed(text));
        }
        let linked = template && snapshot::possible(&call.core.world(), &container);
        if !full && !linked {
            let text = format!("Linked clone feature for '{volume}' is not available");
            return Err(Refusal::failed(text));
        }
        let on = volume.split(':').next().unwrap_or_default();
        create::storage_is_good(call, storage.as_deref().unwrap_or(on))?;
        disks.push((option.clone(), keys));
    }
    Ok(Plan {
        source,
        vmid,
        full,
        storage,
        pool,
        options: options(call, config),
        disks,
    })
}

/// The source's options with what the call says otherwise; every network gets a MAC address of its own.
fn options(call: &mut Call, config: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut options = config;
    options.retain(|option, _| {
        !container::is_disk(option) && !matches!(option.as_str(), "template" | "lock")
    });
    for (option, text) in &mut options {
        if container::is_net(option) {
            let mut keys = read_keys(option, text);
            keys.remove("hwaddr");
            *text = complete_net(option, &print_keys(option, &keys));
        }
    }
    for option in ["hostname", "description"] {
        if let Some(text) = call.params.take(option) {
            options.insert(option.to_owned(), change::stored(option, &text));
        }
    }
    options
}

/// The work of a `vzclone` task. Whatever goes wrong, the new container is gone and the source is free again.
async fn make(worker: Worker, plan: Plan) -> Outcome {
    let core = Arc::clone(&worker.core);
    let built = copy(&worker, &plan).await;
    let mut world = core.change();
    hold(&mut world, plan.source, None);
    match built {
        Ok(config) => {
            if let Some(container) = world.containers.get_mut(&plan.vmid) {
                container.config = config;
            }
            if let Some(pool) = plan.pool.and_then(|name| world.pools.get_mut(&name)) {
                pool.guests.insert(plan.vmid);
            }
            Ok(())
        }
        Err(ending) => {
            world.containers.remove(&plan.vmid);
            Err(Ending::Failed(match ending {
                Ending::Failed(text) => format!("clone failed: {text}"),
                Ending::Interrupted => "clone failed: received interrupt".to_owned(),
            }))
        }
    }
}

async fn copy(worker: &Worker, plan: &Plan) -> Result<BTreeMap<String, String>, Ending> {
    let mut config = plan.options.clone();
    for (index, (option, keys)) in plan.disks.iter().enumerate() {
        let volume = keys.get("volume").cloned().unwrap_or_default();
        let on = volume.split(':').next().unwrap_or_default();
        let storage = plan.storage.as_deref().unwrap_or(on);
        let name = format!("vm-{}-disk-{index}.raw", plan.vmid);
        if plan.full {
            let size = keys.get("size").map(|size| container::bytes(size));
            worker.log(format!(
                "create full clone of mountpoint {option} ({volume})"
            ));
            create::log_format(worker, storage, plan.vmid, &name, size.unwrap_or_default());
        } else {
            worker.log(format!(
                "create linked clone of mount point {option} ({volume})"
            ));
        }
        worker.strike().await?;
        worker.pause(worker.core.delay.create).await?;
        if plan.full {
            log_copy(worker);
        }
        let mut keys = keys.clone();
        keys.insert(
            "volume".to_owned(),
            format!("{storage}:{}/{name}", plan.vmid),
        );
        config.insert(option.clone(), print_keys(option, &keys));
    }
    Ok(config)
}

/// What rsync prints when it has copied a small system.
fn log_copy(worker: &Worker) {
    for line in [
        "",
        "Number of files: 323 (reg: 17, dir: 28, link: 278)",
        "Number of created files: 321 (reg: 17, dir: 26, link: 278)",
        "Number of deleted files: 0",
        "Number of regular files transferred: 17",
        "Total file size: 1,988,175 bytes",
        "Total transferred file size: 1,984,839 bytes",
        "Literal data: 1,984,839 bytes",
        "Matched data: 0 bytes",
        "File list size: 0",
        "File list generation time: 0.001 seconds",
        "File list transfer time: 0.000 seconds",
        "Total bytes sent: 1,995,461",
        "Total bytes received: 1,296",
        "",
        "sent 1,995,461 bytes  received 1,296 bytes  3,993,514.00 bytes/sec",
        "total size is 1,988,175  speedup is 1.00",
    ] {
        worker.log(line);
    }
}

/// Makes a container a template: it never runs again, and its disks are bases of clones.
pub(crate) async fn template(call: Call) -> Reply {
    let vmid = call.params.vmid();
    let _lock = call.core.lock_call(vmid).await?;
    let mut world = call.core.change();
    let container: &Container = lxc::find(&world, &call)?;
    if container.config.contains_key("template") {
        let text = "you can't convert a template to a template";
        return Err(Refusal::failed(text));
    }
    lxc::unlocked(container)?;
    if container.running.is_some() {
        let text = "you can't convert a running container to template";
        return Err(Refusal::failed(text));
    }
    if let Some(container) = world.containers.get_mut(&vmid) {
        become_template(container);
    }
    Ok(Value::Null.into())
}

pub(crate) fn become_template(container: &mut Container) {
    for (option, text) in &mut container.config {
        if container::is_disk(option) {
            *text = text.replace("/vm-", "/base-");
        }
    }
    let one = "1".to_owned();
    container.config.insert("template".to_owned(), one);
}
