//! The queue in the database: claims with a lease and a fencing number, renewals, ends. A late end touches no row.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Status;
use crate::db::{Dialect, Row, Tx};
use crate::{Core, Result, args, transaction};

/// Between two tries while the database is away.
const AGAIN: Duration = Duration::from_millis(500);

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
    /// How often it was put back for another try.
    pub(super) retries: i64,
    /// Somebody else held it before and let its lease lapse.
    pub(super) taken_over: bool,
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Claim {
    fn from_row(row: &Row, fence: i64, taken_over: bool) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            fence,
            command: row.get("command")?,
            kind: row.get("kind")?,
            payload: row.get("payload")?,
            checkpoint: row.get("checkpoint")?,
            cancel_requested: row.get("cancelRequested")?,
            retries: row.get("retries")?,
            taken_over,
        })
    }
}

/// The turn of a new job: right after the owner's last one, but not before those that wait at the head. So whoever has one job waiting
/// is not behind all of somebody else's.
pub(super) async fn turn(tx: &mut Tx, owner: Option<&str>) -> Result<i64> {
    let last = match owner {
        // What nobody asked for, such as mails, takes turns as if it were one more user's: a flood of it is in front of nobody.
        None => {
            r#"SELECT "turn" FROM "Jobs" WHERE "createdBy" IS NULL AND "turn" > 0 ORDER BY "id" DESC LIMIT 1"#
        }
        Some(_) => r#"SELECT "turn" FROM "Jobs" WHERE "createdBy" = ? ORDER BY "id" DESC LIMIT 1"#,
    };
    let given = owner.map_or_else(Vec::new, |owner| args![owner]);
    let last = tx.opt(last, given).await?;
    let last: i64 = last.map_or(Ok(0), |row| row.get("turn"))?;
    let head = r#"SELECT "turn" FROM "Jobs" WHERE "status" = 'pending' AND "turn" > 0
                  AND ("startAfter" IS NULL OR "startAfter" <= NOW_MS()) ORDER BY "turn" LIMIT 1"#;
    let head = match tx.opt(head, args![]).await? {
        Some(row) => row.get::<i64>("turn")?,
        // Turns never run ahead of ids.
        None => {
            let newest = r#"SELECT COALESCE(MAX("id"), 0) AS "id" FROM "Jobs""#;
            tx.one(newest, args![]).await?.get::<i64>("id")? + 1
        }
    };
    Ok(head.max(last + 1))
}

/// Claims up to `slots` pending jobs that may start, in their turn.
pub(super) async fn claim(core: &Core, runner: &str, slots: usize) -> Result<Vec<Claim>> {
    let slots = i64::try_from(slots).unwrap_or(i64::MAX);
    if core.db.dialect() != Dialect::MariaDb {
        let (lease, now) = (ms(core.config.runner.lease), core.clock.now());
        let rows = core
            .db
            .written(
                r#"UPDATE "Jobs" SET "status" = 'running', "fence" = "fence" + 1, "runner" = ?, "attempts" = "attempts" + 1,
                          "leaseUntil" = NOW_MS() + ?, "startedAt" = COALESCE("startedAt", ?), "updatedAt" = ?
                   WHERE "id" IN (SELECT "id" FROM "Jobs"
                                  WHERE "status" = 'pending' AND ("startAfter" IS NULL OR "startAfter" <= NOW_MS())
                                  ORDER BY "turn", "id" LIMIT ? FOR UPDATE SKIP LOCKED)
                   RETURNING "id", "turn", "fence", "command", "kind", "payload", "checkpoint", "cancelRequested", "retries""#,
                args![runner, lease, now, now, slots],
            )
            .await?;
        let mut claims = rows
            .iter()
            .map(|row| {
                Ok((
                    row.get("turn")?,
                    Claim::from_row(row, row.get("fence")?, false)?,
                ))
            })
            .collect::<Result<Vec<(i64, Claim)>>>()?;
        // The server returns them as it comes upon them.
        claims.sort_unstable_by_key(|(turn, claim)| (*turn, claim.id));
        let claims = claims.into_iter().map(|(_, claim)| claim).collect();
        return Ok(claims);
    }
    take(
        core,
        runner,
        slots,
        r#"SELECT "id", "fence", "command", "kind", "payload", "checkpoint", "cancelRequested", "retries" FROM "Jobs"
           WHERE "status" = 'pending' AND ("startAfter" IS NULL OR "startAfter" <= NOW_MS())
           ORDER BY "turn", "id" LIMIT ? FOR UPDATE SKIP LOCKED"#,
        false,
    )
    .await
}

/// Claims up to `slots` jobs whose runner let its lease lapse.
pub(super) async fn take_over(core: &Core, runner: &str, slots: usize) -> Result<Vec<Claim>> {
    // Outside a transaction first, since there is nearly always nothing.
    let lapsed = core
        .db
        .opt(
            r#"SELECT "id" FROM "Jobs" WHERE "status" = 'running' AND "leaseUntil" < NOW_MS() LIMIT 1"#,
            args![],
        )
        .await?;
    if lapsed.is_none() {
        return Ok(Vec::new());
    }
    take(
        core,
        runner,
        i64::try_from(slots).unwrap_or(i64::MAX),
        r#"SELECT "id", "fence", "command", "kind", "payload", "checkpoint", "cancelRequested", "retries" FROM "Jobs"
           WHERE "status" = 'running' AND "leaseUntil" < NOW_MS()
           ORDER BY "id" LIMIT ? FOR UPDATE SKIP LOCKED"#,
        true,
    )
    .await
}

/// Locks the rows that `sql` selects, `slots` at most, and makes them the runner's.
async fn take(
    core: &Core,
    runner: &str,
    slots: i64,
    sql: &'static str,
    taken_over: bool,
) -> Result<Vec<Claim>> {
    let (lease, now) = (ms(core.config.runner.lease), core.clock.now());
    transaction!(core.db, tx => {
        let rows = tx.all(sql, args![slots]).await?;
        let claims = rows
            .iter()
            .map(|row| Claim::from_row(row, row.get::<i64>("fence")? + 1, taken_over))
            .collect::<Result<Vec<_>>>()?;
        if !claims.is_empty() {
            tx.exec(
                r#"UPDATE "Jobs" SET "status" = 'running', "fence" = "fence" + 1, "runner" = ?, "attempts" = "attempts" + 1,
                          "leaseUntil" = NOW_MS() + ?, "startedAt" = COALESCE("startedAt", ?), "updatedAt" = ?
                   WHERE "id" IN ?"#,
                args![runner, lease, now, now, claims.iter().map(|c| c.id).collect::<Vec<_>>()],
            )
            .await?;
        }
        claims
    })
}

/// How long until the next delayed job may start; absent without one.
pub(super) async fn next_start(core: &Core) -> Result<Option<Duration>> {
    let row = core
        .db
        .one(
            r#"SELECT MIN("startAfter") - NOW_MS() AS "wait" FROM "Jobs" WHERE "status" = 'pending' AND "startAfter" IS NOT NULL"#,
            args![],
        )
        .await?;
    let wait: Option<i64> = row.get("wait")?;
    Ok(wait.map(|wait| Duration::from_millis(u64::try_from(wait).unwrap_or(0))))
}

/// Prolongs the leases of those jobs that are still this runner's.
pub(super) async fn renew(core: &Core, runner: &str, ids: Vec<i64>) -> Result<()> {
    core.db
        .exec(
            r#"UPDATE "Jobs" SET "leaseUntil" = NOW_MS() + ? WHERE "id" IN ? AND "runner" = ? AND "status" = 'running'"#,
            args![ms(core.config.runner.lease), ids, runner],
        )
        .await?;
    Ok(())
}

/// Which of those jobs are still this runner's: each with its fencing number, and whether it is to be cancelled.
pub(super) async fn held(
    core: &Core,
    runner: &str,
    ids: Vec<i64>,
) -> Result<HashMap<(i64, i64), bool>> {
    let rows = core
        .db
        .all(
            r#"SELECT "id", "fence", "cancelRequested" FROM "Jobs" WHERE "id" IN ? AND "runner" = ? AND "status" = 'running'"#,
            args![ids, runner],
        )
        .await?;
    let mut held = HashMap::new();
    for row in rows {
        held.insert(
            (row.get("id")?, row.get("fence")?),
            row.get("cancelRequested")?,
        );
    }
    Ok(held)
}

/// Ends jobs that the same thing is said of and that have the same fencing number; those that are no longer these claims'
/// are left alone.
pub(super) async fn finish(
    core: &Core,
    ids: Vec<i64>,
    fence: i64,
    status: Status,
    reason: Option<&str>,
) -> Result<()> {
    let now = core.clock.now();
    core.db
        .exec(
            r#"UPDATE "Jobs" SET "status" = ?, "reason" = ?, "finishedAt" = ?, "updatedAt" = ?, "leaseUntil" = NULL, "runner" = NULL
               WHERE "id" IN ? AND "fence" = ? AND "status" = 'running'"#,
            args![status.as_str(), reason, now, now, ids, fence],
        )
        .await?;
    core.wake.output();
    Ok(())
}

/// Gives a job back to the queue, for somebody else to go on at once.
pub(super) async fn hand_back(core: &Core, claim: &Claim) -> Result<()> {
    core.db
        .exec(
            r#"UPDATE "Jobs" SET "status" = 'pending', "startAfter" = NULL, "updatedAt" = ?, "leaseUntil" = NULL, "runner" = NULL
               WHERE "id" = ? AND "fence" = ? AND "status" = 'running'"#,
            args![core.clock.now(), claim.id, claim.fence],
        )
        .await?;
    core.wake.jobs();
    Ok(())
}

/// Puts a job back for another try after `after`.
pub(super) async fn retry(core: &Core, claim: &Claim, after: Duration, reason: &str) -> Result<()> {
    core.db
        .exec(
            r#"UPDATE "Jobs" SET "status" = 'pending', "startAfter" = NOW_MS() + ?, "retries" = "retries" + 1, "reason" = ?,
                      "updatedAt" = ?, "leaseUntil" = NULL, "runner" = NULL
               WHERE "id" = ? AND "fence" = ? AND "status" = 'running'"#,
            args![ms(after), reason, core.clock.now(), claim.id, claim.fence],
        )
        .await?;
    core.wake.jobs();
    Ok(())
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

/// Appends a chunk of output; `false` if the job is no longer this claim's. Nobody can claim it while the row is written, so
/// the rows of one job become visible in the order of their ids.
pub(super) async fn append(core: &Core, claim: &Claim, chunk: &str) -> Result<bool> {
    let now = core.clock.now();
    let changed = core
        .db
        .exec(
            r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt")
               SELECT "id", ?, ?, ? FROM "Jobs" WHERE "id" = ? AND "fence" = ? AND "status" = 'running' FOR SHARE"#,
            args![chunk, now, now, claim.id, claim.fence],
        )
        .await?;
    core.wake.output();
    Ok(changed == 1)
}

/// How many chunks of output the job has, once every chunk that is being written is.
pub(super) async fn chunks(core: &Core, claim: &Claim) -> Result<i64> {
    transaction!(core.db, tx => {
        tx.opt(r#"SELECT "id" FROM "Jobs" WHERE "id" = ? FOR UPDATE"#, args![claim.id]).await?;
        let row = tx
            .one(r#"SELECT COUNT(*) AS "n" FROM "JobStatuses" WHERE "jobId" = ?"#, args![claim.id])
            .await?;
        row.get::<i64>("n")?
    })
}

/// Repeats a call while the database is away, as long as somebody still waits for what it stores of these jobs; absent when
/// it was given up.
pub(super) async fn patiently<T, F>(
    what: &'static str,
    jobs: &[i64],
    limit: Duration,
    mut call: impl FnMut() -> F,
) -> Option<T>
where
    F: Future<Output = Result<T>>,
{
    let began = Instant::now();
    loop {
        match call().await {
            Ok(value) => return Some(value),
            // What the database refuses for good it refuses again: then the lease lapses, and another runner tries.
            Err(error) if error.retryable() && began.elapsed() < limit => {
                tracing::warn!(what, ?jobs, %error, "not stored yet, trying again");
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => {
                tracing::error!(what, ?jobs, %error, "not stored, given up");
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    /// Every error was tried again for a whole lease, also those that nothing can change.
    #[tokio::test]
    async fn only_what_may_pass_is_tried_again() {
        for again in [false, true] {
            let mut calls = 0;
            let limit = AGAIN / 2;
            let outcome: Option<()> = patiently("end", &[1], limit, || {
                calls += 1;
                let text = "the cause".to_owned();
                let error = match again {
                    true => Error::Unreachable(text),
                    false => Error::Internal(text),
                };
                std::future::ready(Err(error))
            })
            .await;
            assert!(outcome.is_none());
            assert_eq!(calls > 1, again, "{calls} calls");
        }
    }
}
