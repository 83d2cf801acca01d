//! Ending a container: rights and state are checked here, the work is a durable job.

use std::time::{Duration, Instant};

use super::{Container, refused};
use crate::actor::Actor;
use crate::db::Tx;
use crate::job::{self, Status, container_delete};
use crate::{Core, Error, Result, args, transaction};

/// How a request to delete stands when the answer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, in Proxmox VE and here.
    Done,
    /// The job goes on.
    Going { job_id: i64 },
}

/// Deletes a container and waits up to `limit` for it. One that is still being created has its creation cancelled.
/// A stranger is told that it is not theirs, as scripts expect of this one call.
pub async fn delete(core: &Core, actor: &Actor, id: i64, limit: Duration) -> Result<Deletion> {
    end(core, actor, id, limit, What::Delete).await
}

/// Lets go of a row whose container is not in Proxmox VE or is another one there; for admins. Nothing is destroyed.
pub async fn forget(core: &Core, actor: &Actor, id: i64, limit: Duration) -> Result<Deletion> {
    if !actor.admin {
        return Err(Error::Forbidden(
            "Only admins may forget a container.".to_owned(),
        ));
    }
    end(core, actor, id, limit, What::Forget).await
}

/// What the job is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Delete,
    Forget,
    Undo,
}

async fn end(core: &Core, actor: &Actor, id: i64, limit: Duration, what: What) -> Result<Deletion> {
    let not_found = || Error::NotFound(format!("There is no container {id}."));
    let container = super::find_any(core, id).await?.ok_or_else(not_found)?;
    if !actor.may_see(Some(&container.username)) {
        return Err(Error::Forbidden(
            "This container belongs to somebody else.".to_owned(),
        ));
    }
    if container.protected && what == What::Delete {
        let message =
            "This container is protected; take the protection away first (`protected: false`).";
        return Err(Error::conflict("protected", message));
    }
    let deadline = Instant::now() + limit;
    loop {
        let Some(job_id) = transaction!(core.db, tx => {
            tx.lock("names").await?;
            begin(tx, core, actor, &container, what).await?
        })?
        else {
            return Ok(Deletion::Done);
        };
        core.wake.jobs();
        let job = job::wait(
            core,
            job_id,
            deadline.saturating_duration_since(Instant::now()),
        )
        .await?;
        if super::find_any(core, id).await?.is_none() {
            return Ok(Deletion::Done);
        }
        if !job.status.ended() || Instant::now() >= deadline {
            return Ok(Deletion::Going { job_id });
        }
        let stays = matches!(job.status, Status::Failure | Status::Cancelled);
        if stays && job.kind.as_deref() == Some(container_delete::KIND) {
            return Err(refused(job.reason));
        }
        // A creation that ended before the cancel reached it, or one whose rest is still being removed: look again.
    }
}

/// The job that will end the container; `None` when the row is gone meanwhile.
async fn begin(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    container: &Container,
    what: What,
) -> Result<Option<i64>> {
    let row = tx
        .opt(
            r#"SELECT c."state", j."id" AS "job" FROM "Containers" c
               LEFT JOIN "Jobs" j ON j."id" = c."jobId" AND j."status" IN ('pending', 'running')
               WHERE c."id" = ?"#,
            args![container.id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let state: Option<String> = row.get("state")?;
    if let Some(job_id) = row.get::<Option<i64>>("job")? {
        if what == What::Forget {
            let message = format!("Job {job_id} works on this container; wait until it has ended.");
            return Err(Error::conflict("id", message));
        }
        if state.as_deref() == Some("creating") {
            job::request_cancel(tx, core, job_id).await?;
        }
        return Ok(Some(job_id));
    }
    let job_id = add_job(tx, core, container, &actor.username, what).await?;
    tx.exec(
        r#"UPDATE "Containers" SET "state" = 'deleting', "jobId" = ?, "updatedAt" = ? WHERE "id" = ?"#,
        args![job_id, core.clock.now(), container.id],
    )
    .await?;
    Ok(Some(job_id))
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
