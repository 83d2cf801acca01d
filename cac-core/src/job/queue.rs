//! The queue in the database: claims with a lease and a fencing number, renewals, ends. A late end touches no row.

use std::time::Duration;

use super::Status;
use crate::db::Row;
use crate::{Core, Result, args, transaction};

/// A job that this process holds.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) id: i64,
    /// Only writes that carry it count; every claim raises it.
    pub(super) fence: i64,
    pub(super) command: String,
    pub(super) kind: Option<String>,
    pub(super) payload: Option<String>,
    pub(super) checkpoint: Option<String>,
    pub(super) cancel_requested: bool,
    /// Somebody else held it before and let its lease lapse.
    pub(super) taken_over: bool,
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn claim_row(row: &Row) -> Result<Claim> {
    Ok(Claim {
        id: row.get("id")?,
        fence: row.get::<i64>("fence")? + 1,
        command: row.get("command")?,
        kind: row.get("kind")?,
        payload: row.get("payload")?,
        checkpoint: row.get("checkpoint")?,
        cancel_requested: row.get("cancelRequested")?,
        taken_over: row.get::<String>("status")? == "running",
    })
}

/// Claims up to `slots` jobs, oldest first: pending ones that may start, and running ones whose lease has lapsed.
pub(super) async fn claim(core: &Core, runner: &str, slots: usize) -> Result<Vec<Claim>> {
    let slots = i64::try_from(slots).unwrap_or(i64::MAX);
    transaction!(core.db, tx => {
        let rows = tx
            .all(
                r#"SELECT * FROM "Jobs"
                   WHERE ("status" = 'pending' AND ("startAfter" IS NULL OR "startAfter" <= NOW_MS()))
                      OR ("status" = 'running' AND "leaseUntil" < NOW_MS())
                   ORDER BY "id" LIMIT ? FOR UPDATE SKIP LOCKED"#,
                args![slots],
            )
            .await?;
        let claims = rows.iter().map(claim_row).collect::<Result<Vec<_>>>()?;
        if !claims.is_empty() {
            let now = core.clock.now();
            tx.exec(
                r#"UPDATE "Jobs" SET "status" = 'running', "fence" = "fence" + 1, "runner" = ?, "attempts" = "attempts" + 1,
                          "leaseUntil" = NOW_MS() + ?, "startedAt" = COALESCE("startedAt", ?), "updatedAt" = ?
                   WHERE "id" IN ?"#,
                args![runner, ms(core.config.runner.lease), now, now, claims.iter().map(|c| c.id).collect::<Vec<_>>()],
            )
            .await?;
        }
        claims
    })
}

/// Prolongs the leases of the jobs that are still this runner's; returns those, with whether each is to be cancelled.
pub(super) async fn renew(
    core: &Core,
    runner: &str,
    ids: Vec<i64>,
) -> Result<Vec<(i64, i64, bool)>> {
    transaction!(core.db, tx => {
        tx.exec(
            r#"UPDATE "Jobs" SET "leaseUntil" = NOW_MS() + ? WHERE "id" IN ? AND "runner" = ? AND "status" = 'running'"#,
            args![ms(core.config.runner.lease), ids.clone(), runner],
        )
        .await?;
        let rows = tx
            .all(
                r#"SELECT "id", "fence", "cancelRequested" FROM "Jobs" WHERE "id" IN ? AND "runner" = ? AND "status" = 'running'"#,
                args![ids.clone(), runner],
            )
            .await?;
        let mut held = Vec::new();
        for row in rows {
            held.push((row.get("id")?, row.get("fence")?, row.get("cancelRequested")?));
        }
        held
    })
}

/// Ends a job; `false` if it is no longer this claim's.
pub(super) async fn finish(
    core: &Core,
    claim: &Claim,
    status: Status,
    reason: Option<&str>,
) -> Result<bool> {
    let now = core.clock.now();
    let changed = core
        .db
        .exec(
            r#"UPDATE "Jobs" SET "status" = ?, "reason" = ?, "finishedAt" = ?, "updatedAt" = ?, "leaseUntil" = NULL, "runner" = NULL
               WHERE "id" = ? AND "fence" = ? AND "status" = 'running'"#,
            args![status.as_str(), reason, now, now, claim.id, claim.fence],
        )
        .await?;
    core.wake.output();
    Ok(changed == 1)
}

/// Gives a job back to the queue, to be claimed again after `after`.
pub(super) async fn put_back(
    core: &Core,
    claim: &Claim,
    after: Duration,
    reason: Option<&str>,
) -> Result<bool> {
    let changed = core
        .db
        .exec(
            r#"UPDATE "Jobs" SET "status" = 'pending', "startAfter" = NOW_MS() + ?, "reason" = ?, "updatedAt" = ?, "leaseUntil" = NULL, "runner" = NULL
               WHERE "id" = ? AND "fence" = ? AND "status" = 'running'"#,
            args![ms(after), reason, core.clock.now(), claim.id, claim.fence],
        )
        .await?;
    core.wake.output();
    Ok(changed == 1)
}

/// Stores what a typed job needs to go on after its runner died; `false` if it is no longer this claim's.
pub(super) async fn save(core: &Core, claim: &Claim, checkpoint: &str) -> Result<bool> {
    let changed = core
        .db
        .exec(
            r#"UPDATE "Jobs" SET "checkpoint" = ?, "updatedAt" = ? WHERE "id" = ? AND "fence" = ? AND "status" = 'running'"#,
            args![checkpoint, core.clock.now(), claim.id, claim.fence],
        )
        .await?;
    Ok(changed == 1)
}

/// Appends a chunk of output; `false` if the job is no longer this claim's.
pub(super) async fn append(core: &Core, claim: &Claim, chunk: &str) -> Result<bool> {
    let now = core.clock.now();
    let changed = core
        .db
        .exec(
            r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt")
               SELECT "id", ?, ?, ? FROM "Jobs" WHERE "id" = ? AND "fence" = ? AND "status" = 'running'"#,
            args![chunk, now, now, claim.id, claim.fence],
        )
        .await?;
    core.wake.output();
    Ok(changed == 1)
}
