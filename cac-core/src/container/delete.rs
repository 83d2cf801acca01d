//! Requesting that a container is deleted, and withdrawing that: rights and state are checked here, the work is a durable job. How
//! that job gets a container that another job works on is `container/release.rs`.

use std::time::Duration;

use super::{Container, refused, release};
use crate::actor::Actor;
use crate::db::Tx;
use crate::job::{self, Status, container_delete};
use crate::{Core, Error, Result, args, audit, transaction};

/// How a request to delete stands when the answer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, in Proxmox VE and here.
    Done,
    /// The request is stored. The job deletes the container, and waits until no other job works on it.
    Going {
        job_id: i64,
        /// The job that works on the container now.
        waits_for: Option<i64>,
    },
}

/// Requests a container's deletion and waits up to `limit` for it. The request outlives the caller, this process and whatever works
/// on the container now: its job waits for that. One that is still being created has its creation cancelled. Requested again it is
/// the same request; one that failed is tried again. A stranger is told that it is not theirs, as scripts expect of this one call.
pub async fn delete(core: &Core, actor: &Actor, id: i64, limit: Duration) -> Result<Deletion> {
    let job_id = transaction!(core.db, tx => {
        tx.lock("names").await?;
        request(tx, core, actor, id).await?
    })?;
    finished(core, id, job_id, limit).await
}

/// Lets go of a row whose container is not in Proxmox VE or is another one there; for admins. Nothing is destroyed.
pub async fn forget(core: &Core, actor: &Actor, id: i64, limit: Duration) -> Result<Deletion> {
    if !actor.admin {
        return Err(Error::Forbidden(
            "Only admins may forget a container.".to_owned(),
        ));
    }
    let job_id = transaction!(core.db, tx => {
        tx.lock("names").await?;
        let row = Requested::read(tx, actor, id).await?;
        if let Some(job_id) = row.active {
            let message = format!("Job {job_id} works on this container; wait until it has ended.");
            return Err(Error::conflict("id", message));
        }
        let job_id = add_job(tx, core, &row.container, &actor.username, What::Forget).await?;
        release::take(tx, core, id, job_id).await?;
        entry(&row.container, job_id).detail(format!("forgotten by /status/{job_id}")).write(tx, core, actor).await?;
        job_id
    })?;
    finished(core, id, job_id, limit).await
}

/// Withdraws the request to delete a container, as long as the deletion has not begun; without a request it changes nothing. What an
/// admin requested only admins withdraw.
pub async fn keep(core: &Core, actor: &Actor, id: i64) -> Result<Container> {
    super::find(core, actor, id).await?;
    transaction!(core.db, tx => {
        tx.lock("names").await?;
        withdraw(tx, core, actor, id).await?;
    })?;
    core.wake.jobs();
    super::find(core, actor, id).await
}

async fn withdraw(tx: &mut Tx, core: &Core, actor: &Actor, id: i64) -> Result<()> {
    let row = Requested::read(tx, actor, id).await?;
    let container = &row.container;
    let Some(by) = &container.deletion_requested_by else {
        // Nothing changes, so there is nothing to write down.
        actor.origin.entry_written();
        return Ok(());
    };
    if by != &actor.username && !actor.admin {
        let message = format!("{by} requested this deletion; ask an admin to withdraw it.");
        return Err(Error::Forbidden(message));
    }
    if let Some(state @ ("creating" | "undoing")) = container.state.as_deref() {
        let message = format!(
            "The creation of this container was cancelled and is being undone ({state}). Create another one when it is gone."
        );
        return Err(Error::conflict("id", message));
    }
    let Some(job_id) = row.deletion else {
        let sql = r#"UPDATE "Containers" SET "deletionRequestedAt" = NULL, "deletionRequestedBy" = NULL, "deletionError" = NULL,
                            "updatedAt" = ? WHERE "id" = ?"#;
        tx.exec(sql, args![core.clock.now(), id]).await?;
        return withdrawn(container).write(tx, core, actor).await;
    };
    let dropped = job::withdraw(tx, core, job_id, "The deletion was withdrawn.").await?;
    if !dropped && container.job_id == Some(job_id) {
        let message = format!(
            "The deletion has begun and cannot be withdrawn any more. Cancelling job {job_id} may still stop it."
        );
        return Err(Error::conflict("id", message));
    }
    if !dropped {
        // A runner looks whether it may begin just now: it finds that it may not.
        job::request_cancel(tx, core, job_id).await?;
    }
    release::end_deletion(tx, core, id, job_id, None).await?;
    withdrawn(container).write(tx, core, actor).await
}

/// The audit entry of a request that was withdrawn.
fn withdrawn(container: &Container) -> audit::Change {
    audit::Change::new("container_keep", format!("/containers/{}", container.id))
        .old_field("deletionRequestedBy", &container.deletion_requested_by)
}

/// The audit entry of a container that a job ends.
fn entry(container: &Container, job_id: i64) -> audit::Change {
    audit::Change::new("container_delete", format!("/containers/{}", container.id))
        .job(job_id)
        .old_field("hostname", &container.hostname)
        .old_field("username", &container.username)
        .old_field("vmid", container.container_id)
}

/// Waits for the job of a deletion.
async fn finished(core: &Core, id: i64, job_id: i64, limit: Duration) -> Result<Deletion> {
    core.wake.jobs();
    let job = job::wait(core, job_id, limit).await?;
    let Some(row) = super::find_any(core, id).await? else {
        return Ok(Deletion::Done);
    };
    match job.status {
        Status::Cancelled => Err(Error::conflict(
            "id",
            job.reason
                .unwrap_or_else(|| "The deletion was cancelled.".to_owned()),
        )),
        status if status.ended() => Err(refused(job.reason)),
        _ => Ok(Deletion::Going {
            job_id,
            waits_for: row.job_id.filter(|other| *other != job_id),
        }),
    }
}

/// What the job is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Delete,
    Forget,
    Undo,
}

/// A container as a request about its deletion finds it, under the lock `names`.
struct Requested {
    container: Container,
    /// The unfinished job that works on it.
    active: Option<i64>,
    /// The unfinished job of an earlier request.
    deletion: Option<i64>,
}

impl Requested {
    async fn read(tx: &mut Tx, actor: &Actor, id: i64) -> Result<Self> {
        let sql = columns!(
            r#", j."id" AS "active", d."id" AS "deletion" FROM "Containers" c
               LEFT JOIN "Jobs" j ON j."id" = c."jobId" AND j."status" IN ('pending', 'running')
               LEFT JOIN "Jobs" d ON d."id" = c."deletionJobId" AND d."status" IN ('pending', 'running') WHERE c."id" = ?"#
        );
        let Some(row) = tx.opt(sql, args![id]).await? else {
            return Err(Error::NotFound(format!("There is no container {id}.")));
        };
        let container = Container::from_row(&row)?;
        if !actor.may_see(Some(&container.username)) {
            return Err(Error::Forbidden(
                "This container belongs to somebody else.".to_owned(),
            ));
        }
        Ok(Self {
            container,
            active: row.get("active")?,
            deletion: row.get("deletion")?,
        })
    }
}

/// Stores the request with its job, which begins once no other job works on the container; the job of an earlier request as it is.
async fn request(tx: &mut Tx, core: &Core, actor: &Actor, id: i64) -> Result<i64> {
    let row = Requested::read(tx, actor, id).await?;
    if let Some(job_id) = row.deletion {
        // It was requested before: nothing changes.
        actor.origin.entry_written();
        return Ok(job_id);
    }
    let container = &row.container;
    if container.protected {
        let message =
            "This container is protected; take the protection away first (`protected: false`).";
        return Err(Error::conflict("protected", message));
    }
    let job_id = add_job(tx, core, container, &actor.username, What::Delete).await?;
    let now = core.clock.now();
    let sql = r#"UPDATE "Containers" SET "deletionJobId" = ?, "deletionRequestedAt" = ?, "deletionRequestedBy" = ?,
                        "deletionError" = NULL, "updatedAt" = ? WHERE "id" = ?"#;
    tx.exec(sql, args![job_id, now, &actor.username, now, id])
        .await?;
    match row.active {
        None => release::take(tx, core, id, job_id).await?,
        Some(creation) if container.state.as_deref() == Some("creating") => {
            job::request_cancel(tx, core, creation).await?;
        }
        Some(_) => {}
    }
    entry(container, job_id).write(tx, core, actor).await?;
    Ok(job_id)
}

/// Adds the job that removes what is left of a creation that failed.
pub(crate) async fn add_undo(tx: &mut Tx, core: &Core, container: &Container) -> Result<i64> {
    add_job(tx, core, container, &container.username, What::Undo).await
}

async fn add_job(
    tx: &mut Tx,
    core: &Core,
    container: &Container,
    by: &str,
    what: What,
) -> Result<i64> {
    let words = match what {
        What::Delete => "delete",
        What::Forget => "forget",
        What::Undo => "remove what is left of",
    };
    let payload = container_delete::Payload {
        container: container.id,
        undo: what == What::Undo,
        forget: what == What::Forget,
    };
    let new = job::NewJob {
        kind: container_delete::KIND,
        title: format!(
            "{words} container {} of {}",
            container.hostname, container.username
        ),
        payload: serde_json::to_value(payload)
            .map_err(|error| Error::Internal(error.to_string()))?,
        container_id: Some(container.id),
        created_by: Some(by),
    };
    job::create(tx, core, new).await
}
