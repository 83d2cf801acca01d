//! `POST /nodes/{node}/lxc`: the checks that answer at once, and the worker that makes the container.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::{Call, power, unpack};
use crate::answer::{Refusal, Reply};
use crate::api::change;
use crate::container::{self, Keys, read_keys, size_text};
use crate::core::Core;
use crate::task::{self, Ending, Order, Outcome, Worker};
use crate::world::{Container, now_ms, random_uuid};

/// A container that is to be made.
struct Plan {
    vmid: u32,
    template: String,
    /// Options without disks.
    options: BTreeMap<String, String>,
    /// Disks by option name, as `STORAGE:SIZE` and further keys.
    disks: BTreeMap<String, Keys>,
    unprivileged: bool,
    pool: Option<String>,
    start: bool,
}

pub(crate) fn create(mut call: Call) -> Reply {
    let vmid = call.params.vmid();
    unused(&call.core, vmid)?;
    let plan = plan(&mut call)?;
    reserve(&call.core, vmid, &call.node)?;
    let upid = call.work("vzcreate", vmid.to_string(), |worker| make(worker, plan));
    Ok(json!(upid).into())
}

/// Fails when the number is taken anywhere in the cluster.
pub(crate) fn unused(core: &Core, vmid: u32) -> Result<(), Refusal> {
    match core.world().containers.get(&vmid) {
        None => Ok(()),
        Some(taken) => Err(Refusal::failed(format!(
            "CT {vmid} already exists on node '{}'",
            taken.node
        ))),
    }
}

/// Takes the number: from here on nobody else can create it, and its configuration holds nothing but the lock.
pub(crate) fn reserve(core: &Core, vmid: u32, node: &str) -> Result<(), Refusal> {
    let mut world = core.change();
    if let Some(taken) = world.containers.get(&vmid) {
        let text = format!(
            "unable to create CT {vmid} - CT {vmid} already exists on node '{}'",
            taken.node
        );
        return Err(Refusal::failed(text));
    }
    let container = Container {
        node: node.to_owned(),
        config: BTreeMap::from([("lock".to_owned(), "create".to_owned())]),
        created: now_ms(),
        ..Container::default()
    };
    world.containers.insert(vmid, container);
    Ok(())
}

/// The checks in the order of the real call.
fn plan(call: &mut Call) -> Result<Plan, Refusal> {
    let mut take = |name: &str| call.params.take(name);
    let vmid = take("vmid")
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let unprivileged = take("unprivileged").as_deref() == Some("1");
    let (keys, pool) = (take("ssh-public-keys"), take("pool"));
    let template = take("ostemplate").unwrap_or_default();
    let storage = take("storage").unwrap_or_else(|| "local".to_owned());
    let start = take("start").as_deref() == Some("1");
    let restore = take("restore").as_deref() == Some("1");
    for name in [
        "node",
        "password",
        "unique",
        "force",
        "ignore-unpack-errors",
        "bwlimit",
    ] {
        take(name);
    }
    if keys.is_some_and(|text| !keys_are_good(&text)) {
        return Err(Refusal::failed("SSH public key validation error"));
    }
    may_create(call, vmid, pool.as_deref())?;
    let scope = change::Scope {
        vmid,
        pool: pool.as_deref(),
        unprivileged,
        old: &BTreeMap::new(),
    };
    change::may_change(call, &scope, &call.params.0)?;
    template_is_good(call, &template, restore)?;
    let disks = disks(call, &storage)?;
    let mut options: BTreeMap<String, String> = std::mem::take(&mut call.params).0;
    options.retain(|name, _| !container::is_disk(name));
    Ok(Plan {
        vmid,
        template,
        options,
        disks,
        unprivileged,
        pool,
        start,
    })
}

fn keys_are_good(text: &str) -> bool {
    let kinds = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .all(|line| {
            let mut words = line.split_whitespace();
            words.any(|word| kinds.iter().any(|kind| word.starts_with(kind)))
                && words.next().is_some_and(|key| key.len() > 20)
        })
}

pub(crate) fn pool_exists(call: &Call, pool: Option<&str>) -> Result<(), Refusal> {
    match pool {
        Some(pool) if !call.core.world().pools.contains_key(pool) => {
            Err(Refusal::forbidden(format!("pool '{pool}' does not exist")))
        }
        _ => Ok(()),
    }
}

fn may_create(call: &Call, vmid: u32, pool: Option<&str>) -> Result<(), Refusal> {
    pool_exists(call, pool)?;
    let allowed = call.with_gate(|gate| {
        gate.has(&format!("/vms/{vmid}"), "VM.Allocate")
            || pool.is_some_and(|pool| gate.has(&format!("/pool/{pool}"), "VM.Allocate"))
    });
    if allowed {
        Ok(())
    } else {
        Err(Refusal::forbidden(""))
    }
}

/// Storage and kind of the template are looked at here, the file itself only by the task.
fn template_is_good(call: &Call, template: &str, restore: bool) -> Result<(), Refusal> {
    let wanted = if restore { "backup" } else { "vztmpl" };
    let Some((storage, volume)) = template.split_once(':') else {
        if call.who.is_root() {
            return Ok(());
        }
        return Err(Refusal::failed(
            "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 658.",
        ));
    };
    if !call.core.world().storages.contains_key(storage) {
        return Err(Refusal::failed(format!(
            "storage '{storage}' does not exist"
        )));
    }
    let (kind, file) = volume.split_once('/').unwrap_or((volume, ""));
    if file.is_empty() || file.contains('/') || !matches!(kind, "vztmpl" | "iso" | "backup") {
        return Err(Refusal::failed(format!(
            "unable to parse directory volume name '{volume}'"
        )));
    }
    if kind != wanted {
        return Err(Refusal::failed(format!(
            "unable to use volume {template} - content type needs to be '{wanted}'"
        )));
    }
    let path = format!("/storage/{storage}");
    call.with_gate(|gate| {
        gate.need_any(
            &path,
            &[
                "Datastore.Audit",
                "Datastore.AllocateSpace",
                "Datastore.Allocate",
            ],
        )
    })
}

/// The storage of a disk must exist, be enabled and take containers; the caller must have space on it.
pub(crate) fn storage_is_good(call: &Call, storage: &str) -> Result<(), Refusal> {
    {
        let world = call.core.world();
        let Some(known) = world.storages.get(storage) else {
            return Err(Refusal::failed(format!(
                "storage '{storage}' does not exist"
            )));
        };
        if known.disabled {
            return Err(Refusal::failed(format!("storage '{storage}' is disabled")));
        }
        if !known.content.iter().any(|content| content == "rootdir") {
            let text = format!("storage '{storage}' does not support container directories");
            return Err(Refusal::param("storage", text));
        }
    }
    let path = format!("/storage/{storage}");
    call.with_gate(|gate| gate.need(&path, &["Datastore.AllocateSpace"]))
}

fn disks(call: &Call, storage: &str) -> Result<BTreeMap<String, Keys>, Refusal> {
    let mut disks = BTreeMap::new();
    for (option, text) in call.params.0.iter().filter(|(o, _)| container::is_disk(o)) {
        let mut keys = read_keys(option, text);
        let volume = keys.entry("volume".to_owned()).or_default();
        if volume.parse::<f64>().is_ok() {
            *volume = format!("{storage}:{volume}");
        }
        disks.insert(option.clone(), keys);
    }
    if disks.is_empty() {
        storage_is_good(call, storage)?;
        let keys = Keys::from([("volume".to_owned(), format!("{storage}:4"))]);
        return Ok(BTreeMap::from([("rootfs".to_owned(), keys)]));
    }
    if !disks.contains_key("rootfs") {
        return Err(Refusal::failed(
            "mount points configured, but 'rootfs' not set - aborting",
        ));
    }
    for keys in disks.values() {
        let volume = &keys["volume"];
        if volume.starts_with('/') {
            continue;
        }
        let Some((storage, _)) = volume.split_once(':') else {
            return Err(Refusal::failed(format!(
                "unable to parse volume ID '{volume}'"
            )));
        };
        storage_is_good(call, storage)?;
    }
    Ok(disks)
}

/// The work of a `vzcreate` task. Whatever goes wrong, nothing is left behind.
async fn make(worker: Worker, plan: Plan) -> Outcome {
    let core = Arc::clone(&worker.core);
    let _lock = worker.lock(plan.vmid).await?;
    match build(&worker, &plan).await {
        Ok(config) => {
            finish(&core, &plan, config);
            worker.pause(core.delay.create / 4).await.ok();
        }
        Err(ending) => {
            core.change().containers.remove(&plan.vmid);
            let text = match ending {
                Ending::Failed(text) => text,
                Ending::Interrupted => format!("{} failed: received interrupt", tar(&plan)),
            };
            let text = format!("unable to create CT {} - {text}", plan.vmid);
            return Err(Ending::Failed(text));
        }
    }
    if plan.start {
        let vmid = plan.vmid;
        let order = Order {
            node: &worker.node,
            kind: "vzstart",
            id: vmid.to_string(),
            who: &worker.who,
            fault: None,
        };
        // A task of its own: the creation is well even when the start is not.
        task::spawn(&core, order, |starter| async move {
            power::start_worker(&starter, vmid, false).await
        });
    }
    Ok(())
}

fn finish(core: &Core, plan: &Plan, config: BTreeMap<String, String>) {
    let mut world = core.change();
    if let Some(container) = world.containers.get_mut(&plan.vmid) {
        container.config = config;
    }
    if let Some(pool) = plan
        .pool
        .as_ref()
        .and_then(|name| world.pools.get_mut(name))
    {
        pool.guests.insert(plan.vmid);
    }
}

async fn build(worker: &Worker, plan: &Plan) -> Result<BTreeMap<String, String>, Ending> {
    let core = &worker.core;
    let mut config = options(plan);
    for (index, (option, keys)) in disk_order(&plan.disks).into_iter().enumerate() {
        let text = disk(worker, plan.vmid, index, option, keys)?;
        config.insert(option.clone(), text);
    }
    worker.pause(core.delay.create / 4).await?;
    let size = find_template(core, &worker.node, &plan.template)?;
    let file = plan.template.rsplit('/').next().unwrap_or_default();
    worker.log(format!(
        "extracting archive '/var/lib/vz/template/cache/{file}'"
    ));
    worker.strike().await?;
    worker.pause(core.delay.create / 2).await?;
    if file.starts_with("broken") {
        worker.log("/*stdin*\\ : Read error (39) : premature end ");
        worker.log("tar: Child returned status 1");
        worker.log("tar: Error is not recoverable: exiting now");
        return Err(Ending::Failed(format!("{} failed: exit code 2", tar(plan))));
    }
    let root = config
        .get("rootfs")
        .map(|text| read_keys("rootfs", text))
        .unwrap_or_default();
    let room = root
        .get("size")
        .map(|size| container::bytes(size))
        .unwrap_or_default();
    let unpacked = size * 2;
    // A plain directory (size 0) has the room of its storage.
    if room > 0 && room < unpacked {
        worker.log("tar: Exiting with failure status due to previous errors");
        return Err(Ending::Failed(format!("{} failed: exit code 2", tar(plan))));
    }
    worker.log(format!(
        "Total bytes read: {unpacked} ({}MiB, 346MiB/s)",
        unpacked >> 20
    ));
    unpack::detect_system(worker, file, &mut config);
    Ok(config)
}

fn disk_order(disks: &BTreeMap<String, Keys>) -> Vec<(&String, &Keys)> {
    let mut order: Vec<_> = disks.iter().collect();
    // The root disk gets number 0.
    order.sort_by_key(|(option, _)| (option.as_str() != "rootfs", option.as_str()));
    order
}

/// All options but the disks, with the defaults that are stored.
fn options(plan: &Plan) -> BTreeMap<String, String> {
    let mut config: BTreeMap<String, String> = plan
        .options
        .iter()
        .map(|(option, text)| (option.clone(), change::stored(option, text)))
        .collect();
    config
        .entry("hostname".to_owned())
        .or_insert_with(|| format!("CT{}", plan.vmid));
    for option in ["memory", "swap"] {
        config
            .entry(option.to_owned())
            .or_insert_with(|| "512".to_owned());
    }
    if plan.unprivileged {
        config.insert("unprivileged".to_owned(), "1".to_owned());
    }
    config
}

/// Allocates one disk; answers with the stored form of its option.
pub(crate) fn disk(
    worker: &Worker,
    vmid: u32,
    index: usize,
    option: &str,
    keys: &Keys,
) -> Result<String, Ending> {
    let mut keys = keys.clone();
    let volume = keys.get("volume").cloned().unwrap_or_default();
    let Some((storage, size)) = volume.split_once(':') else {
        return Ok(container::print_keys(option, &keys));
    };
    if size.parse::<f64>().is_err() {
        let text = format!("unable to parse directory volume name '{size}'");
        return Err(Ending::Failed(text));
    }
    let bytes = container::scaled(size, 30);
    let (name, shown) = if bytes == 0 {
        (
            format!("subvol-{vmid}-disk-{index}.subvol"),
            "0T".to_owned(),
        )
    } else {
        // Images grow in steps of whole KiB.
        (
            format!("vm-{vmid}-disk-{index}.raw"),
            size_text(bytes & !1023),
        )
    };
    if bytes > 0 {
        log_format(worker, storage, vmid, &name, bytes & !1023);
    }
    keys.insert("volume".to_owned(), format!("{storage}:{vmid}/{name}"));
    keys.insert("size".to_owned(), shown);
    Ok(container::print_keys(option, &keys))
}

/// What qemu-img and mkfs print for a new image.
pub(crate) fn log_format(worker: &Worker, storage: &str, vmid: u32, name: &str, bytes: u64) {
    let is_dir = worker
        .core
        .world()
        .storages
        .get(storage)
        .is_some_and(|s| s.kind == "dir");
    if is_dir {
        worker.log(format!(
            "Formatting '/var/lib/vz/images/{vmid}/{name}', fmt=raw size={bytes} preallocation=off"
        ));
    }
    let blocks = bytes / 4096;
    worker.log(format!(
        "Creating filesystem with {blocks} 4k blocks and {} inodes",
        blocks / 4
    ));
    worker.log(format!("Filesystem UUID: {}", random_uuid()));
    worker.log("Superblock backups stored on blocks: ");
    let places = [
        32_768u64, 98_304, 163_840, 229_376, 294_912, 819_200, 884_736, 1_605_632,
    ];
    let list: Vec<String> = places
        .iter()
        .filter(|place| **place < blocks)
        .map(u64::to_string)
        .collect();
    worker.log(format!("\t{}", list.join(", ")));
}

/// Size of the template file; the task fails when it is not there.
fn find_template(core: &Core, node: &str, template: &str) -> Result<u64, Ending> {
    let world = core.world();
    let Some((_, volume)) = template.split_once(':') else {
        return Err(Ending::Failed(format!("can't find file '{template}'")));
    };
    let file = volume.rsplit('/').next().unwrap_or_default();
    world
        .nodes
        .get(node)
        .and_then(|node| node.templates.iter().find(|known| known.file == file))
        .map(|known| known.size)
        .ok_or_else(|| Ending::Failed(format!("volume '{template}' does not exist")))
}

fn tar(plan: &Plan) -> String {
    unpack::tar(&plan.template, plan.vmid, plan.unprivileged)
}
