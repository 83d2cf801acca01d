//! What becomes of a container when the job that works on it gives it up: it is free again, or the deletion that was requested
//! meanwhile takes it over, in one transaction. Every job that works on a container ends here; [`settle`] finds the containers of
//! those jobs that finished without, because their work panicked or nobody could read what they were to do.

use std::time::Duration;

use super::{Container, find_any};
use crate::db::{Row, Tx};
use crate::{Core, Error, Result, args, transaction};

/// Between two looks of [`keep_settling`]. What it repairs is rare; who waits for a deletion is rather woken by [`release`].
const SETTLE_EVERY: Duration = Duration::from_secs(10);

/// Frees the container if this job works on it, or hands it to the job of a requested deletion; whether it did that, so that
/// [`crate::wake::Wake::jobs`] is due after the commit. The caller holds the lock `names`.
pub(crate) async fn release(tx: &mut Tx, core: &Core, container: i64, job: i64) -> Result<bool> {
    let sql = r#"UPDATE "Containers" SET "state" = NULL, "jobId" = NULL, "updatedAt" = ? WHERE "id" = ? AND "jobId" = ?"#;
    let freed = tx
        .exec(sql, args![core.clock.now(), container, job])
        .await?;
    match freed {
        0 => Ok(false),
        _ => hand_over(tx, core, container).await,
    }
}

/// Gives a free container to the job of its requested deletion, if there is one; as [`release`].
pub(crate) async fn hand_over(tx: &mut Tx, core: &Core, container: i64) -> Result<bool> {
    let sql = r#"SELECT j."id" FROM "Containers" c JOIN "Jobs" j ON j."id" = c."deletionJobId"
                 WHERE c."id" = ? AND c."state" IS NULL AND j."status" IN ('pending', 'running')"#;
    let Some(row) = tx.opt(sql, args![container]).await? else {
        return Ok(false);
    };
    let job: i64 = row.get("id")?;
    take(tx, core, container, job).await?;
    // It waits between two looks.
    let sql = r#"UPDATE "Jobs" SET "startAfter" = NULL WHERE "id" = ? AND "status" = 'pending'"#;
    tx.exec(sql, args![job]).await?;
    Ok(true)
}

pub(super) async fn take(tx: &mut Tx, core: &Core, container: i64, job: i64) -> Result<()> {
    let sql = r#"UPDATE "Containers" SET "state" = 'deleting', "jobId" = ?, "updatedAt" = ? WHERE "id" = ?"#;
    tx.exec(sql, args![job, core.clock.now(), container])
        .await?;
    Ok(())
}

/// Whether a job that is to delete a container may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The container is this job's.
    Granted,
    /// Another job works on the container.
    Waits { job: i64 },
    /// The request was withdrawn, or another one took its place.
    Withdrawn,
    /// There is no such container any more.
    Gone,
}

/// Takes the container for the job that is to delete it, once no other job works on it.
pub(crate) async fn admit_deletion(core: &Core, container: i64, job: i64) -> Result<Admission> {
    transaction!(core.db, tx => {
        tx.lock("names").await?;
        let sql = r#"SELECT c."jobId", c."deletionJobId", j."id" AS "other" FROM "Containers" c
                     LEFT JOIN "Jobs" j ON j."id" = c."jobId" AND j."status" IN ('pending', 'running') WHERE c."id" = ?"#;
        let Some(row) = tx.opt(sql, args![container]).await? else {
            return Ok(Admission::Gone);
        };
        if row.get::<Option<i64>>("jobId")? == Some(job) {
            return Ok(Admission::Granted);
        }
        if row.get::<Option<i64>>("deletionJobId")? != Some(job) {
            return Ok(Admission::Withdrawn);
        }
        if let Some(job) = row.get("other")? {
            return Ok(Admission::Waits { job });
        }
        take(tx, core, container, job).await?;
        Admission::Granted
    })
}

/// Frees the container of a deletion that did not happen. With an `error` the request stays, to be seen, tried again or withdrawn;
/// without one it is withdrawn. The caller holds the lock `names`.
pub(crate) async fn end_deletion(
    tx: &mut Tx,
    core: &Core,
    container: i64,
    job: i64,
    error: Option<&str>,
) -> Result<()> {
    let now = core.clock.now();
    match error {
        Some(error) => {
            let sql = r#"UPDATE "Containers" SET "deletionJobId" = NULL, "deletionError" = ?, "updatedAt" = ?
                         WHERE "id" = ? AND "deletionJobId" = ?"#;
            tx.exec(sql, args![error, now, container, job]).await?;
        }
        None => {
            let sql = r#"UPDATE "Containers" SET "deletionJobId" = NULL, "deletionRequestedAt" = NULL, "deletionRequestedBy" = NULL,
                                "deletionError" = NULL, "updatedAt" = ? WHERE "id" = ? AND "deletionJobId" = ?"#;
            tx.exec(sql, args![now, container, job]).await?;
        }
    }
    release(tx, core, container, job).await?;
    Ok(())
}

/// Settles what jobs left behind, now and every few seconds, for as long as it is polled. Any number of runners may do so.
pub(crate) async fn keep_settling(core: &Core) {
    loop {
        match settle(core).await {
            Ok(0) => {}
            Ok(settled) => tracing::warn!(settled, "containers freed whose job gave none up"),
            Err(error) => tracing::warn!(%error, "containers cannot be settled now"),
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
}

/// A container whose job or whose deletion's job has finished, as [`settle`] reads it.
struct Leftover {
    id: i64,
    state: Option<String>,
    job: Option<i64>,
    job_finished: bool,
    job_reason: Option<String>,
    deletion: Option<i64>,
    deletion_finished: bool,
    deletion_reason: Option<String>,
}

impl Leftover {
    fn from_row(row: &Row) -> Result<Self> {
        // A job that is no longer there has finished long ago.
        let finished = |name: &str| {
            let status = row.get::<Option<String>>(name)?;
            Ok::<_, Error>(!matches!(status.as_deref(), Some("pending" | "running")))
        };
        Ok(Self {
            id: row.get("id")?,
            state: row.get("state")?,
            job: row.get("jobId")?,
            job_finished: finished("jobStatus")?,
            job_reason: row.get("jobReason")?,
            deletion: row.get("deletionJobId")?,
            deletion_finished: finished("deletionStatus")?,
            deletion_reason: row.get("deletionReason")?,
        })
    }
}

/// Frees containers whose job has finished without doing so, and begins deletions that nothing keeps waiting; how many there were.
pub async fn settle(core: &Core) -> Result<usize> {
    let sql = r#"SELECT c."id", c."state", c."jobId", c."deletionJobId", j."status" AS "jobStatus", j."reason" AS "jobReason",
                        d."status" AS "deletionStatus", d."reason" AS "deletionReason"
                 FROM "Containers" c LEFT JOIN "Jobs" j ON j."id" = c."jobId" LEFT JOIN "Jobs" d ON d."id" = c."deletionJobId"
                 WHERE c."state" IS NOT NULL OR c."deletionJobId" IS NOT NULL"#;
    let mut settled = 0;
    for row in core.db.all(sql, args![]).await? {
        let leftover = Leftover::from_row(&row)?;
        settled += usize::from(settle_one(core, &leftover).await?);
    }
    if settled > 0 {
        core.wake.jobs();
        core.wake.routes();
    }
    Ok(settled)
}

/// Job ids are never reused and a finished job stays finished: whoever settled it first leaves nothing that still names the job.
async fn settle_one(core: &Core, leftover: &Leftover) -> Result<bool> {
    let reason = |reason: &Option<String>| {
        let unknown = || "The job finished without giving a reason.".to_owned();
        reason.clone().unwrap_or_else(unknown)
    };
    if let Some(job) = leftover.deletion.filter(|_| leftover.deletion_finished) {
        let error = reason(&leftover.deletion_reason);
        transaction!(core.db, tx => {
            tx.lock("names").await?;
            end_deletion(tx, core, leftover.id, job, Some(&error)).await?;
        })?;
        return Ok(true);
    }
    if leftover.state.is_none() {
        return transaction!(core.db, tx => {
            tx.lock("names").await?;
            hand_over(tx, core, leftover.id).await?
        });
    }
    let Some(job) = leftover.job.filter(|_| leftover.job_finished) else {
        return Ok(false);
    };
    match leftover.state.as_deref() {
        Some("creating") => {
            let Some(container) = find_any(core, leftover.id).await? else {
                return Ok(false);
            };
            transaction!(core.db, tx => { undo(tx, core, &container, job).await? })
        }
        // What is left of a failed creation is not free; whoever deletes it tries again.
        Some("undoing") => Ok(false),
        _ => {
            let error = reason(&leftover.job_reason);
            transaction!(core.db, tx => {
                tx.lock("names").await?;
                let sql = r#"UPDATE "Containers" SET "changeError" = ? WHERE "id" = ? AND "jobId" = ? AND "state" = 'changing'"#;
                tx.exec(sql, args![&error, leftover.id, job]).await?;
                release(tx, core, leftover.id, job).await?;
            })?;
            Ok(true)
        }
    }
}

/// Leaves what a failed creation made to a job that removes it, if `job` still works on the container.
pub(crate) async fn undo(
    tx: &mut Tx,
    core: &Core,
    container: &Container,
    job: i64,
) -> Result<bool> {
    tx.lock("names").await?;
    let sql = r#"SELECT "id" FROM "Containers" WHERE "id" = ? AND "jobId" = ?"#;
    if tx.opt(sql, args![container.id, job]).await?.is_none() {
        return Ok(false);
    }
    let undo = super::delete::add_undo(tx, core, container).await?;
    let sql = r#"UPDATE "Containers" SET "state" = 'undoing', "lane" = NULL, "jobId" = ?, "updatedAt" = ? WHERE "id" = ?"#;
    tx.exec(sql, args![undo, core.clock.now(), container.id])
        .await?;
    Ok(true)
}
