//! How long rows are kept that nobody asks for any more: audit entries, finished jobs, idempotency keys and failed sign-ins. Removal runs
//! in small steps, so that nobody waits for it, in one process at a time, and begins a week after an installation first knew of it: whoever
//! upgrades has time to choose other limits. The output of jobs is [`crate::job::retention`]'s matter.

use std::time::Duration;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde::Serialize;

use crate::actor::Origin;
use crate::clock::Clock;
use crate::config::Retention;
use crate::db::{Arg, Db, Row, Tx};
use crate::{Core, Result, args, audit, secret, setting, transaction};

/// Rows of one step.
const STEP: u32 = 500;
/// Between two steps.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks when there is nothing to remove.
const LOOK: Duration = Duration::from_secs(600);
/// From the first release that removes rows to the first removal.
const GRACE: TimeDelta = TimeDelta::days(7);
/// When removal begins.
const FROM: &str = "retention.from";
/// Which process removes, and until when it may.
const LEASE: &str = "retention.lease";
const LEASE_TIME: TimeDelta = TimeDelta::seconds(60);

/// Rows of one kind that grow old.
struct Kind {
    name: &'static str,
    setting: &'static str,
    age: fn(&Retention) -> Option<Duration>,
    /// Counts those that are older than the argument, as `n`.
    count: &'static str,
    /// Finds their ids; tried in turn, the next one where the former found nothing. The last one removes what is counted.
    steps: &'static [Step],
    /// Whether the audit log says how many were removed.
    is_recorded: bool,
}

struct Step {
    find: &'static str,
    ids: fn(&[Row]) -> Result<Arg>,
    remove: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "audit entries",
        setting: "AUDIT_DAYS",
        age: |retention| retention.audit,
        count: r#"SELECT COUNT(*) AS "n" FROM "AuditEntries" WHERE "createdAt" < ?"#,
        steps: &[Step {
            find: r#"SELECT "id" FROM "AuditEntries" WHERE "createdAt" < ? ORDER BY "id" LIMIT ?"#,
            ids: numbers,
            remove: r#"DELETE FROM "AuditEntries" WHERE "id" IN ?"#,
        }],
        is_recorded: true,
    },
    Kind {
        name: "finished jobs",
        setting: "JOB_DAYS",
        age: |retention| retention.jobs,
        count: r#"SELECT COUNT(*) AS "n" FROM "Jobs" j WHERE j."status" IN ('success', 'failure', 'cancelled')
            AND COALESCE(j."finishedAt", j."updatedAt") < ?
            AND NOT EXISTS (SELECT 1 FROM "Containers" c WHERE c."jobId" = j."id" OR c."deletionJobId" = j."id")"#,
        steps: &[
            // Output first: one job may have very much of it.
            Step {
                find: r#"SELECT s."id" FROM "JobStatuses" s JOIN "Jobs" j ON j."id" = s."jobId"
                    WHERE j."status" IN ('success', 'failure', 'cancelled') AND COALESCE(j."finishedAt", j."updatedAt") < ?
                    AND NOT EXISTS (SELECT 1 FROM "Containers" c WHERE c."jobId" = j."id" OR c."deletionJobId" = j."id") ORDER BY s."id" LIMIT ?"#,
                ids: numbers,
                remove: r#"DELETE FROM "JobStatuses" WHERE "id" IN ?"#,
            },
            Step {
                find: r#"SELECT j."id" FROM "Jobs" j WHERE j."status" IN ('success', 'failure', 'cancelled')
                    AND COALESCE(j."finishedAt", j."updatedAt") < ?
                    AND NOT EXISTS (SELECT 1 FROM "Containers" c WHERE c."jobId" = j."id" OR c."deletionJobId" = j."id") ORDER BY j."id" LIMIT ?"#,
                ids: numbers,
                remove: r#"DELETE FROM "Jobs" WHERE "id" IN ?"#,
            },
        ],
        is_recorded: true,
    },
    Kind {
        name: "idempotency keys",
        setting: "IDEMPOTENCY_DAYS",
        age: |retention| retention.idempotency,
        count: r#"SELECT COUNT(*) AS "n" FROM "IdempotencyKeys" WHERE "createdAt" < ?"#,
        steps: &[Step {
            find: r#"SELECT "id" FROM "IdempotencyKeys" WHERE "createdAt" < ? ORDER BY "id" LIMIT ?"#,
            ids: numbers,
            remove: r#"DELETE FROM "IdempotencyKeys" WHERE "id" IN ?"#,
        }],
        is_recorded: false,
    },
    Kind {
        name: "failed sign-ins",
        setting: "LOGIN_FAILURE_DAYS",
        age: |retention| retention.login_failures,
        count: r#"SELECT COUNT(*) AS "n" FROM "LoginFailures" WHERE "lastAt" < ?"#,
        steps: &[Step {
            find: r#"SELECT "name" AS "id" FROM "LoginFailures" WHERE "lastAt" < ? ORDER BY "name" LIMIT ?"#,
            ids: names,
            remove: r#"DELETE FROM "LoginFailures" WHERE "name" IN ?"#,
        }],
        is_recorded: false,
    },
];

/// What would be removed now of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OldRows {
    /// `audit entries`, …
    pub kind: &'static str,
    pub count: i64,
    /// The setting that says how long they stay.
    pub setting: &'static str,
    /// No row is removed before.
    pub from: DateTime<Utc>,
}

/// The rows that are older than they are kept, by kind; for whoever runs `cac migrate up`. The first call sets the time from which they
/// are removed.
pub async fn preview(db: &Db, retention: &Retention, clock: &Clock) -> Result<Vec<OldRows>> {
    let from = begin(db, clock).await?;
    let mut old = Vec::new();
    for kind in &KINDS {
        let Some(before) = before(retention, kind, clock) else {
            continue;
        };
        let count = db.one(kind.count, args![before]).await?.get("n")?;
        if count > 0 {
            old.push(OldRows {
                kind: kind.name,
                count,
                setting: kind.setting,
                from,
            });
        }
    }
    Ok(old)
}

fn before(retention: &Retention, kind: &Kind, clock: &Clock) -> Option<DateTime<Utc>> {
    let age = TimeDelta::from_std((kind.age)(retention)?).ok()?;
    let before = clock.now().checked_sub_signed(age)?;
    // What is recorded grows old once a day, or each look would remove a few rows and add one.
    match kind.is_recorded {
        true => before.duration_trunc(TimeDelta::days(1)).ok(),
        false => Some(before),
    }
}

/// When removal begins; said once, at the first start of a release that removes.
async fn begin(db: &Db, clock: &Clock) -> Result<DateTime<Utc>> {
    let read = |text: Option<String>| text.and_then(|text| text.parse::<DateTime<Utc>>().ok());
    if let Some(from) = read(setting::value(db, FROM).await?) {
        return Ok(from);
    }
    transaction!(db, tx => {
        tx.lock("settings").await?;
        match read(setting::find(tx, FROM).await?) {
            Some(from) => from,
            None => {
                let from = clock.now() + GRACE;
                setting::update(tx, clock, FROM, &from.to_rfc3339()).await?;
                from
            }
        }
    })
}

/// Removes rows as they grow old, for as long as it is polled. Any number of processes may call it.
pub(crate) async fn keep(core: &Core) {
    let holder = secret::random();
    loop {
        let pause = match step(core, &holder).await {
            Ok(0) => LOOK,
            Ok(_) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, "old rows are not removed now");
                LOOK
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Removes one step of rows; how many. None before removal begins, and while another `holder` is at it.
pub async fn step(core: &Core, holder: &str) -> Result<usize> {
    if core.clock.now() < begin(&core.db, &core.clock).await? {
        return Ok(0);
    }
    for kind in &KINDS {
        let Some(before) = before(&core.config.retention, kind, &core.clock) else {
            continue;
        };
        for (number, step) in (1..).zip(kind.steps) {
            let rows = core.db.all(step.find, args![before, STEP]).await?;
            if rows.is_empty() {
                continue;
            }
            if !lease(core, holder).await? {
                return Ok(0);
            }
            let ids = (step.ids)(&rows)?;
            let removed = transaction!(core.db, tx => {
                let run = match kind.is_recorded {
                    true => Some(Run::begin(tx, core, kind, before).await?),
                    false => None,
                };
                let removed = tx.exec(step.remove, vec![ids.clone()]).await?;
                if let Some(run) = run {
                    let counted = if number == kind.steps.len() { removed } else { 0 };
                    run.go_on(tx, core, kind, counted).await?;
                }
                removed
            })?;
            tracing::debug!(kind = kind.name, rows = removed, "old rows removed");
            return Ok(usize::try_from(removed).unwrap_or(0));
        }
    }
    Ok(0)
}

/// A run removes what is old on one day, in many steps, and has one audit entry.
struct Run {
    before: String,
    /// Rows that the entry speaks of and that are still there.
    left: u64,
}

impl Run {
    fn setting(kind: &Kind) -> String {
        format!("retention.run.{}", kind.setting)
    }

    /// The run that this step is part of. The first step writes how many rows will go, and commits together with its removal.
    async fn begin(tx: &mut Tx, core: &Core, kind: &Kind, before: DateTime<Utc>) -> Result<Self> {
        tx.lock("settings").await?;
        let day = before.format("%Y-%m-%d").to_string();
        let known = setting::find(tx, &Self::setting(kind)).await?;
        let known = known.as_deref().and_then(|text| text.split_once(' '));
        let left = known.and_then(|(before, left)| (before == day).then(|| left.parse().ok())?);
        if let Some(left) = left.filter(|left| *left > 0) {
            return Ok(Self { before: day, left });
        }
        let left: i64 = tx.one(kind.count, args![before]).await?.get("n")?;
        audit::Change::new("retention_remove", "/retention")
            .deleted()
            .detail(format!(
                "{left} {} older than {day}, by {}",
                kind.name, kind.setting
            ))
            .write_for(tx, core, None, &Origin::default())
            .await?;
        Ok(Self {
            before: day,
            left: u64::try_from(left).unwrap_or(0),
        })
    }

    async fn go_on(self, tx: &mut Tx, core: &Core, kind: &Kind, removed: u64) -> Result<()> {
        let left = self.left.saturating_sub(removed);
        let value = format!("{} {left}", self.before);
        setting::update(tx, &core.clock, &Self::setting(kind), &value).await
    }
}

fn numbers(rows: &[Row]) -> Result<Arg> {
    let ids: Result<Vec<i64>, _> = rows.iter().map(|row| row.get("id")).collect();
    Ok(ids?.into())
}

fn names(rows: &[Row]) -> Result<Arg> {
    let ids: Result<Vec<String>, _> = rows.iter().map(|row| row.get("id")).collect();
    Ok(ids?.into())
}

/// Whether this holder may remove for the next minute.
async fn lease(core: &Core, holder: &str) -> Result<bool> {
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let now = core.clock.now();
        let held = setting::find(tx, LEASE).await?;
        let held = held.as_deref().and_then(|text| text.split_once(' '));
        let other = held.is_some_and(|(until, who)| {
            who != holder && until.parse().is_ok_and(|until: DateTime<Utc>| now < until)
        });
        if !other {
            let until = (now + LEASE_TIME).to_rfc3339();
            setting::update(tx, &core.clock, LEASE, &format!("{until} {holder}")).await?;
        }
        !other
    })
}
