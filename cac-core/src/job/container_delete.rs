//! The job that destroys a container: proves that it is ours, destroys it, proves that it is gone, then lets go of the row.
//! Also undoes what is left of a creation that failed.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::identity::{has_marker, identity, locate, prove, refuse_duplicates};
use super::pve_task::{Ended, wait_for_task};
use super::{Running, Stop};
use crate::container::{self, Admission, Container};
use crate::node::{self, Node};
use crate::pve::{Pve, TaskStatus, Upid};
use crate::{args, transaction};

/// `Jobs.kind`
pub const KIND: &str = "container_delete";
pub use super::identity::{DUPLICATE, MISMATCH};
/// How a reason begins when a row that is to be forgotten has its container.
pub const OURS: &str = "The container still exists in Proxmox VE";

/// Between two looks at a container that another job works on.
const WAIT: Duration = Duration::from_secs(5);

const ADVICE: &str = "; an admin may forget the row (`DELETE /containers/{id}?forget=true`).";

/// `Jobs.payload`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Payload {
    pub container: i64,
    /// It is what is left of a failed creation: tried again until it is gone.
    #[serde(default)]
    pub undo: bool,
    /// Only the row is to go: refused where Proxmox VE has this very container.
    #[serde(default)]
    pub forget: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Checkpoint {
    /// From here on the request cannot be withdrawn: a job that waits for its container has no checkpoint.
    begun: bool,
    upid: Option<Upid>,
    tries: u32,
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    // An undo must not be cancelled: half a container would be left.
    let job = &if payload.undo {
        job.to_the_end()
    } else {
        job.clone()
    };
    let mut checkpoint: Checkpoint = job.checkpoint()?;
    let result = match begin(job, payload.container, &mut checkpoint).await {
        Ok(Some(container)) => end(job, &payload, &container, &mut checkpoint).await,
        Ok(None) => return Ok(()),
        Err(stop) => Err(stop),
    };
    match result {
        Err(Stop::Failed(reason)) if payload.undo => {
            checkpoint.tries += 1;
            checkpoint.upid = None;
            job.save(&checkpoint).await?;
            let after = Duration::from_secs(5 << checkpoint.tries.min(7));
            job.line(format!("{reason} Trying again in {} s.", after.as_secs()))
                .await;
            Err(Stop::Retry {
                after: Some(after),
                reason,
            })
        }
        Err(stop @ (Stop::Failed(_) | Stop::Cancelled(_))) => {
            give_up(job, payload.container, &stop).await?;
            Err(stop)
        }
        other => other,
    }
}

/// Gets the container that is to go, once no other job works on it; `None` when it is gone.
async fn begin(
    job: &Running,
    id: i64,
    checkpoint: &mut Checkpoint,
) -> Result<Option<Container>, Stop> {
    job.go_on()?;
    match container::admit_deletion(&job.core, id, job.id()).await? {
        Admission::Granted | Admission::Gone => {}
        Admission::Withdrawn => {
            return Err(Stop::Cancelled("The deletion was withdrawn.".to_owned()));
        }
        // Whoever gives the container up wakes this job; the look is for one that died without.
        Admission::Waits { job: other } => {
            return Err(Stop::Retry {
                after: Some(WAIT),
                reason: format!("Waiting for job {other}, which works on the container."),
            });
        }
    }
    let container = container::find_any(&job.core, id).await?;
    if container.is_none() {
        job.line("The container is gone already.").await;
    } else if !checkpoint.begun {
        checkpoint.begun = true;
        job.save(checkpoint).await?;
    }
    Ok(container)
}

async fn end(
    job: &Running,
    payload: &Payload,
    container: &Container,
    checkpoint: &mut Checkpoint,
) -> Result<(), Stop> {
    if payload.forget {
        check_foreign(job, container).await?;
    } else {
        destroy(job, container, checkpoint).await?;
    }
    job.line("The row is removed; its name and ports are free again.")
        .await;
    forget(job, container.id).await
}

/// Nothing was deleted: the container is free again. The request stays with the reason, unless it was cancelled.
async fn give_up(job: &Running, id: i64, stop: &Stop) -> Result<(), Stop> {
    job.allowed()?;
    let core = &job.core;
    let error = match stop {
        Stop::Failed(reason) => Some(reason.as_str()),
        _ => None,
    };
    transaction!(core.db, tx => {
        tx.lock("names").await?;
        container::end_deletion(tx, core, id, job.id(), error).await?;
    })
    .map_err(|error: crate::Error| Stop::from(error))
}

/// Whether the row may be forgotten: nothing in Proxmox VE is this container.
async fn check_foreign(job: &Running, container: &Container) -> Result<(), Stop> {
    let (Some(vmid), Some(node)) = (container.container_id, container.node_id) else {
        job.line("The row names nothing in Proxmox VE.").await;
        return Ok(());
    };
    let node = node::find(&job.core, node).await?;
    let pve = job.core.pve(&node)?;
    let Some((_, config)) = locate(job, &pve, &node, vmid).await? else {
        job.line(format!("CT {vmid} does not exist any more in Proxmox VE."))
            .await;
        return Ok(());
    };
    match identity(&job.core, container, &config) {
        Err(mismatch) => {
            job.line(mismatch.to_string()).await;
            Ok(())
        }
        Ok(()) => Err(Stop::Failed(format!(
            "{OURS}: CT {vmid} is the container of this row. Delete it instead of forgetting it."
        ))),
    }
}

async fn destroy(
    job: &Running,
    container: &Container,
    checkpoint: &mut Checkpoint,
) -> Result<(), Stop> {
    let Some(vmid) = container.container_id else {
        return Ok(());
    };
    let node = match container.node_id {
        Some(id) => node::find(&job.core, id).await?,
        None => {
            let reason = "The container's node is not configured; an admin can set it.";
            return Err(Stop::Failed(reason.to_owned()));
        }
    };
    let pve = job.core.pve(&node)?;
    // Once it is asked for, nothing brings it back.
    let last = job.to_the_end();
    if let Some(upid) = checkpoint.upid.clone() {
        job.line("Going on after an interruption.").await;
        if wait_for_task(&last, &pve, &upid, job.limits().task).await? == Ended::Well {
            return Ok(());
        }
    }
    job.step(1, 2, &format!("check that CT {vmid} is this container"))
        .await;
    let Some((found_on, config)) = locate(job, &pve, &node, vmid).await? else {
        job.line(format!("CT {vmid} does not exist any more in Proxmox VE."))
            .await;
        return Ok(());
    };
    prove(job, container, &config, ADVICE).await?;
    refuse_duplicates(job, container).await?;
    job.go_on()?;
    let job = &last;
    job.step(2, 2, &format!("destroy CT {vmid} on {found_on}"))
        .await;
    if carry_out(job, &pve, (&found_on, vmid), Some(checkpoint)).await? {
        return Ok(());
    }
    prove_gone(job, &pve, &node, vmid).await
}

/// Undoes a creation: ends its task, then removes the container if it is there and carries our marker.
pub(super) async fn remove(
    job: &Running,
    container: &Container,
    pve: &Pve,
    task: Option<&Upid>,
) -> Result<(), Stop> {
    let (Some(vmid), Some(node)) = (container.container_id, container.node_id) else {
        return Ok(());
    };
    let node = node::find(&job.core, node).await?;
    if let Some(upid) = task
        && job.ask(|| pve.task_status(upid)).await? == TaskStatus::Running
    {
        let _ = job.ask(|| pve.task_stop(upid)).await;
        wait_for_task(job, pve, upid, job.limits().task).await?;
    }
    let Some((found_on, config)) = locate(job, pve, &node, vmid).await? else {
        return Ok(());
    };
    if !has_marker(&config, &container.marker_line(&job.core.installation)) {
        // Somebody else's, made under the number that we meant to use.
        return Ok(());
    }
    if carry_out(job, pve, (&found_on, vmid), None).await? {
        return Ok(());
    }
    prove_gone(job, pve, &node, vmid).await
}

/// Destroys it; `false` when an earlier call, whose answer was lost, has been carried out meanwhile.
async fn carry_out(
    job: &Running,
    pve: &Pve,
    (node, vmid): (&str, u32),
    mut checkpoint: Option<&mut Checkpoint>,
) -> Result<bool, Stop> {
    let began = Instant::now();
    loop {
        let Some(upid) = send_destroy(job, pve, node, vmid).await? else {
            return Ok(false);
        };
        if let Some(checkpoint) = checkpoint.as_deref_mut() {
            checkpoint.upid = Some(upid.clone());
            job.save(checkpoint).await?;
        }
        let ended = wait_for_task(job, pve, &upid, job.limits().task).await?;
        if !ended.may_pass() || began.elapsed() >= job.core.config.runner.patience {
            return ended.well().map(|()| true);
        }
        job.pause(Duration::from_secs(1)).await?;
    }
}

async fn prove_gone(job: &Running, pve: &Pve, node: &Node, vmid: u32) -> Result<(), Stop> {
    match locate(job, pve, node, vmid).await? {
        None => Ok(()),
        Some((on, _)) => Err(Stop::Failed(format!("CT {vmid} is still on {on}."))),
    }
}

/// Sends the request to destroy; `None` when an earlier one, whose answer was lost, has been carried out meanwhile.
async fn send_destroy(
    job: &Running,
    pve: &Pve,
    node: &str,
    vmid: u32,
) -> Result<Option<Upid>, Stop> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(200);
    let mut repeated = false;
    loop {
        job.allowed()?;
        match pve.lxc_destroy(node, vmid).await {
            Ok(upid) => return Ok(Some(upid)),
            Err(error) if repeated && error.is_does_not_exist() => return Ok(None),
            // Destroying twice is no harm: the second finds nothing, and the first one's lock is waited for.
            Err(error)
                if began.elapsed() < job.core.config.runner.patience
                    && (error.is_transient()
                        || error.may_have_happened()
                        || error.is_locked_or_lock_timeout()) =>
            {
                job.line(format!("{error}; trying again…")).await;
                job.pause(pause).await?;
                pause = (pause * 2).min(Duration::from_secs(5));
                repeated = true;
            }
            Err(error) => return Err(Stop::Failed(error.to_string())),
        }
    }
}

/// Removes the row and its services: name and ports are free again.
pub(super) async fn forget(job: &Running, container: i64) -> Result<(), Stop> {
    job.allowed()?;
    let core = &job.core;
    transaction!(core.db, tx => {
        tx.lock("names").await?;
        // A requested deletion that waits for this job finds at once that there is nothing left to do.
        let waiting = r#"UPDATE "Jobs" SET "startAfter" = NULL WHERE "status" = 'pending'
                         AND "id" IN (SELECT "deletionJobId" FROM "Containers" WHERE "id" = ?)"#;
        tx.exec(waiting, args![container]).await?;
        tx.exec(r#"DELETE FROM "Services" WHERE "containerId" = ?"#, args![container]).await?;
        tx.exec(r#"DELETE FROM "Containers" WHERE "id" = ?"#, args![container]).await?;
    })?;
    core.wake.routes();
    core.wake.jobs();
    Ok(())
}
