//! Starting, stopping and rebooting containers, and waking them after the simulator itself was started.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Call;
use crate::answer::{Refusal, Reply};
use crate::core::Core;
use crate::guest::Card;
use crate::task::{Ending, Outcome, Worker};
use crate::world::{Running, now_ms};

/// What keeps a container from being worked on.
pub(crate) fn missing(node: &str, vmid: u32) -> String {
    format!("Configuration file 'nodes/{node}/lxc/{vmid}.conf' does not exist")
}

pub(crate) fn is_running(core: &Core, node: &str, vmid: u32) -> bool {
    let world = core.world();
    let container = world.containers.get(&vmid).filter(|c| c.node == node);
    container.is_some_and(|container| container.running.is_some())
}

/// Only root@pam may pass over a lock.
fn skiplock(call: &Call) -> Result<bool, Refusal> {
    let skip = call.params.flag("skiplock");
    if skip && !call.who.is_root() {
        return Err(Refusal::param("skiplock", "Only root may use this option."));
    }
    Ok(skip)
}

/// Fails when the container is unknown on the node or locked.
fn free(core: &Core, node: &str, vmid: u32, skip: bool) -> Result<(), String> {
    let world = core.world();
    let container = world.containers.get(&vmid).filter(|c| c.node == node);
    let container = container.ok_or_else(|| missing(node, vmid))?;
    match container.config.get("lock") {
        Some(lock) if !skip => Err(format!("CT is locked ({lock})")),
        _ => Ok(()),
    }
}

pub(crate) fn start(call: &Call) -> Reply {
    let vmid = call.params.vmid();
    let skip = skiplock(call)?;
    if is_running(&call.core, &call.node, vmid) {
        return Err(Refusal::failed(format!("CT {vmid} already running")));
    }
    let upid = call.work("vzstart", vmid.to_string(), |worker| async move {
        start_worker(&worker, vmid, skip).await
    });
    Ok(json!(upid).into())
}

/// The work of a `vzstart` task.
pub(crate) async fn start_worker(worker: &Worker, vmid: u32, skip: bool) -> Outcome {
    let core = &worker.core;
    let _lock = worker.lock(vmid).await?;
    free(core, &worker.node, vmid, skip)?;
    startable(core, vmid)?;
    if is_running(core, &worker.node, vmid) {
        return Err(Ending::Failed(format!("CT {vmid} already running")));
    }
    worker.pause(core.delay.start).await?;
    worker.strike().await?;
    if boots(core, vmid)? {
        wake(core, vmid).await?;
    }
    Ok(())
}

/// What Proxmox VE looks at only when a container starts.
fn startable(core: &Core, vmid: u32) -> Result<(), String> {
    let world = core.world();
    let container = &world.containers[&vmid];
    if container.config.contains_key("template") {
        return Err("you can't start a CT if it's a template".to_owned());
    }
    let known = world.nodes.get(&container.node).map(|node| &node.bridges);
    for (_, net) in container.nets() {
        let bridge = net.get("bridge").cloned().unwrap_or_default();
        if !bridge.is_empty() && !known.is_some_and(|bridges| bridges.contains(&bridge)) {
            return Err(format!("bridge '{bridge}' does not exist"));
        }
    }
    Ok(())
}

/// Whether what was unpacked gets going: `Ok(false)` for a guest that dies at once, which Proxmox VE does not notice.
fn boots(core: &Core, vmid: u32) -> Result<bool, String> {
    let world = core.world();
    let container = world.containers.get(&vmid);
    let option = |name: &str| {
        container
            .and_then(|c| c.config.get(name))
            .map(String::as_str)
    };
    if option("ostype") == Some("unmanaged") {
        return Err(format!("startup for container '{vmid}' failed"));
    }
    let host_name = option("hostname").unwrap_or_default();
    Ok(host_name.split('.').all(|label| label.len() <= 64))
}

/// Makes the guest answer on the network and marks the container as running.
async fn wake(core: &Arc<Core>, vmid: u32) -> Result<(), String> {
    let (card, description, wanted, taken) = {
        let world = core.world();
        let Some(container) = world.containers.get(&vmid) else {
            return Err(format!("CT {vmid} is gone"));
        };
        let card = Card {
            vmid,
            name: container.hostname(vmid),
            node: container.node.clone(),
        };
        let taken: BTreeSet<_> = world
            .containers
            .iter()
            .filter(|(other, _)| **other != vmid)
            .filter_map(|(_, container)| container.address)
            .collect();
        let description = container.config.get("description").cloned();
        let wanted = container.loopback_address().or(container.address);
        (card, description.unwrap_or_default(), wanted, taken)
    };
    let address = core
        .guests
        .start(&card, &description, wanted, &taken)
        .await?;
    let mut world = core.change();
    let pid = world.take_pid();
    if let Some(container) = world.containers.get_mut(&vmid) {
        container.address = Some(address);
        container.running = Some(Running {
            pid,
            since: now_ms(),
        });
    }
    Ok(())
}

/// Wakes the containers that ran when the simulator was stopped.
pub(crate) async fn wake_all(core: &Arc<Core>) {
    let running: Vec<u32> = {
        let world = core.world();
        let all = world.containers.iter();
        all.filter(|(_, c)| c.running.is_some())
            .map(|(v, _)| *v)
            .collect()
    };
    for vmid in running {
        if let Err(error) = wake(core, vmid).await {
            tracing::warn!(vmid, %error, "this container stays down");
            put_down(core, vmid).await;
        }
    }
}

/// Silences the guest and marks the container as stopped.
pub(crate) async fn put_down(core: &Core, vmid: u32) {
    core.guests.stop(vmid).await;
    if let Some(container) = core.change().containers.get_mut(&vmid) {
        container.running = None;
    }
}

fn need_running(call: &Call, what: &str) -> Result<u32, Refusal> {
    let vmid = call.params.vmid();
    if is_running(&call.core, &call.node, vmid) {
        return Ok(vmid);
    }
    Err(Refusal::failed(format!("{what} {vmid} not running")))
}

pub(crate) fn stop(call: &Call) -> Reply {
    let skip = skiplock(call)?;
    let vmid = need_running(call, "CT")?;
    let overrule = call.params.flag("overrule-shutdown");
    let upid = call.work("vzstop", vmid.to_string(), move |worker| async move {
        if overrule {
            overrule_shutdowns(&worker, vmid);
        }
        let _lock = worker.lock(vmid).await?;
        free(&worker.core, &worker.node, vmid, skip)?;
        worker.pause(worker.core.delay.stop).await?;
        worker.strike().await?;
        put_down(&worker.core, vmid).await;
        Ok(())
    });
    Ok(json!(upid).into())
}

/// Aborts the running shutdown tasks of a container.
fn overrule_shutdowns(worker: &Worker, vmid: u32) {
    let id = vmid.to_string();
    let upids: Vec<String> = {
        let world = worker.core.world();
        let tasks = world.tasks.iter();
        tasks
            .filter(|t| t.kind == "vzshutdown" && t.id == id && t.status.is_none())
            .map(|t| t.upid.clone())
            .collect()
    };
    if !upids.is_empty() {
        worker.log(format!("overruled vzshutdown tasks: {}", upids.join(", ")));
        upids.iter().for_each(|upid| worker.core.aborts.abort(upid));
    }
}

pub(crate) fn shutdown(call: &Call) -> Reply {
    let vmid = need_running(call, "CT")?;
    let timeout = call.params.number("timeout").unwrap_or(60);
    let force = call.params.flag("forceStop");
    let upid = call.work("vzshutdown", vmid.to_string(), move |worker| async move {
        let _lock = worker.lock(vmid).await?;
        free(&worker.core, &worker.node, vmid, false)?;
        orderly_stop(&worker, vmid, timeout, force).await
    });
    Ok(json!(upid).into())
}

/// Asks the guest to go. A guest that was made to hang does not, and is stopped hard only when that was asked for.
async fn orderly_stop(worker: &Worker, vmid: u32, timeout: u64, force: bool) -> Outcome {
    let patience = Duration::from_secs(timeout);
    let asked = async {
        worker.pause(worker.core.delay.shutdown).await?;
        worker.strike().await
    };
    let command = format!("command 'lxc-stop -n {vmid} --nokill --timeout {timeout}' failed");
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok(())) => {}
        Ok(Err(Ending::Interrupted)) => {
            worker.log(format!("{command}: received interrupt"));
            return Err(Ending::Interrupted);
        }
        Ok(Err(failed)) => return Err(failed),
        Err(_) => {
            worker.log(format!("{command}: exit code 1"));
            if !force {
                return Err(Ending::Failed("container did not stop".to_owned()));
            }
        }
    }
    put_down(&worker.core, vmid).await;
    Ok(())
}

pub(crate) fn reboot(call: &Call) -> Reply {
    // The real text says VM for a container, too.
    let vmid = need_running(call, "VM")?;
    let timeout = call.params.number("timeout").unwrap_or(60);
    let upid = call.work("vzreboot", vmid.to_string(), move |worker| async move {
        let _lock = worker.lock(vmid).await?;
        free(&worker.core, &worker.node, vmid, false)?;
        orderly_stop(&worker, vmid, timeout, true).await?;
        worker.pause(worker.core.delay.start).await?;
        wake(&worker.core, vmid).await?;
        Ok(())
    });
    Ok(json!(upid).into())
}

/// Needs CRIU, which no stock Proxmox VE has: the task always fails.
pub(crate) fn suspend(call: &Call) -> Reply {
    let vmid = need_running(call, "CT")?;
    let upid = call.work("vzsuspend", vmid.to_string(), move |worker| async move {
        worker.log(format!(
            "lxc-checkpoint: {vmid}: ../src/lxc/criu.c: criu_version_ok: 767 No such file or directory - execing criu failed, is it installed?"
        ));
        worker.log(format!(
            "lxc-checkpoint: {vmid}: ../src/lxc/tools/lxc_checkpoint.c: checkpoint: 182 Checkpointing {vmid} failed"
        ));
        let command = format!("command 'lxc-checkpoint -n {vmid} -s -D /var/lib/vz/dump'");
        Err(Ending::Failed(format!("{command} failed: exit code 1")))
    });
    Ok(json!(upid).into())
}
