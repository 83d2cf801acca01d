//! Jobs: durable work. This file is the noun (rows of `Jobs` and `JobStatuses`); `job/queue.rs` claims and finishes,
//! `job/runner.rs` runs, `job/<kind>.rs` is one kind of work each, `job/follow.rs` shows a job to many at once.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::db::{Db, Row, Tx};
use crate::idempotency::{Key, Made};
use crate::{Core, Error, Result, args, audit, transaction};

pub mod account_mail;
pub(crate) mod address_mail;
pub mod container_access;
pub mod container_change;
pub mod container_create;
pub mod container_delete;
mod finisher;
mod follow;
mod guest;
mod identity;
mod kinds;
mod output;
mod process;
mod pve_task;
mod queue;
pub mod retention;
pub mod runner;
mod running;
mod shell;
pub mod supervisor;
pub mod task;
pub mod user_mail;

pub(crate) use follow::Feeds;
pub use follow::{Follower, Happening, follow};
pub(crate) use identity::{Mismatch, identity};
pub use runner::Runner;
pub use running::{Running, Stop};

/// The five values of `Jobs.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Running,
    Success,
    Failure,
    Cancelled,
}

impl Status {
    /// The stored word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job will not change any more.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Cancelled)
    }
}

impl std::str::FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [
            Self::Pending,
            Self::Running,
            Self::Success,
            Self::Failure,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| Error::Internal(format!("unknown job status `{text}`")))
    }
}

/// A row of `Jobs`, as people see it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub id: i64,
    /// A shell command, or for typed jobs one readable line starting with `#`.
    pub command: String,
    pub status: Status,
    pub created_by: Option<String>,
    /// Absent for shell commands.
    pub kind: Option<String>,
    /// Row id of the container that the job works on.
    pub container_id: Option<i64>,
    /// Why it ended otherwise than well.
    pub reason: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// It does not begin before this time.
    pub start_after: Option<DateTime<Utc>>,
    /// Of a named task: which one, with which values.
    #[serde(skip)]
    pub task: Option<task::Payload>,
}

impl Job {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: Option<String> = row.get("kind")?;
        let payload = match kind.as_deref() {
            Some(task::KIND) => row.get::<Option<String>>("payload")?,
            _ => None,
        };
        Ok(Self {
            task: payload.and_then(|text| serde_json::from_str(&text).ok()),
            id: row.get("id")?,
            command: row.get("command")?,
            status: row.get::<String>("status")?.parse()?,
            created_by: row.get("createdBy")?,
            kind,
            container_id: row.get("containerId")?,
            reason: row.get("reason")?,
            created_at: row.get("createdAt")?,
            updated_at: row.get("updatedAt")?,
            started_at: row.get("startedAt")?,
            finished_at: row.get("finishedAt")?,
            start_after: row
                .get::<Option<i64>>("startAfter")?
                .and_then(DateTime::from_timestamp_millis),
        })
    }
}

/// A chunk of output: a row of `JobStatuses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    pub id: i64,
    pub job_id: i64,
    pub output: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A typed job to be added in the transaction that creates the need for it.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    pub kind: &'static str,
    /// One readable line; `# ` is put before it.
    pub title: String,
    pub payload: serde_json::Value,
    pub container_id: Option<i64>,
    /// Absent: it is for admins alone.
    pub created_by: Option<&'a str>,
}

/// Adds a typed job; call [`crate::wake::Wake::jobs`] after the commit.
pub async fn create(tx: &mut Tx, core: &Core, new: NewJob<'_>) -> Result<i64> {
    let now = core.clock.now();
    let command = format!("# {}", new.title.replace(['\n', '\r'], " "));
    let turn = queue::turn(tx, new.created_by).await?;
    Ok(tx
        .insert(
            r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt", "createdBy", "kind", "payload", "containerId", "turn")
               VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?)"#,
            args![command, now, now, new.created_by, new.kind, new.payload.to_string(), new.container_id, turn],
        )
        .await?)
}

/// Why a shell command is refused, when it is added and when it would run.
const SWITCHED_OFF: &str = "Shell commands are switched off here (SHELL_JOBS=off).";
/// The longest text that `Jobs.command` holds.
const COMMAND: usize = 2000;
/// How far ahead a job may be put.
const AHEAD: chrono::Duration = chrono::Duration::days(366);

/// Work that somebody asks for.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub work: Work<'a>,
    /// Not before this time.
    pub start_after: Option<DateTime<Utc>>,
    /// The same key of the same owner within 24 h adds one job.
    pub key: Option<&'a str>,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Work<'a> {
    /// A command for `/bin/sh -c`; for admins.
    Shell(&'a str),
    /// A named task with its parameters; for those whom it allows.
    Task(&'a str, &'a crate::task::Values),
}

/// Adds a job that somebody asks for.
pub async fn ask(core: &Core, actor: &Actor, wanted: Wanted<'_>) -> Result<Job> {
    let (command, kind, payload) = match wanted.work {
        Work::Shell(command) => (checked_command(core, actor, command)?, None, None),
        Work::Task(name, values) => {
            let (command, payload) = checked_task(core, actor, name, values)?;
            (command, Some(task::KIND), Some(payload))
        }
    };
    let start = wanted.start_after.map(|time| start_after(core, time));
    let start = start.transpose()?;
    let key = wanted
        .key
        .map(|key| {
            let start = start.map(|ms| format!(" {ms}")).unwrap_or_default();
            let what = kind.unwrap_or("shell");
            let with = payload.as_deref().unwrap_or(&command);
            Key::new(key, &format!("{what} {with}{start}"))
        })
        .transpose()?;
    let id = transaction!(core.db, tx => {
        if let Some(key) = &key {
            // Two requests at once with one key: the second waits here and finds the first.
            tx.lock("names").await?;
            if let Some(before) = key.find(tx, core, actor).await? {
                return Ok(before.job);
            }
        }
        let (now, turn) = (core.clock.now(), queue::turn(tx, Some(&actor.username)).await?);
        let id = tx
            .insert(
                r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt", "createdBy", "kind", "payload", "startAfter", "turn")
                   VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?)"#,
                args![&command, now, now, &actor.username, kind, &payload, start, turn],
            )
            .await?;
        if let Some(key) = &key {
            key.create(tx, core, actor, Made { container: None, job: id }).await?;
        }
        audit::Change::new("job_create", format!("/jobs/{id}"))
            .created()
            .new_field("command", &command)
            .write(tx, core, actor)
            .await?;
        id
    })?;
    core.wake.jobs();
    find(core, actor, id).await
}

fn checked_command(core: &Core, actor: &Actor, command: &str) -> Result<String> {
    if !actor.admin {
        return Err(Error::Forbidden(
            "Only admins may add shell commands.".to_owned(),
        ));
    }
    if !core.config.runner.shell_jobs {
        return Err(Error::Forbidden(SWITCHED_OFF.to_owned()));
    }
    if command.trim().is_empty() || command.chars().count() > COMMAND || command.contains('\0') {
        let message = format!("Give a shell command of 1 to {COMMAND} characters.");
        return Err(Error::invalid("command", message));
    }
    Ok(command.to_owned())
}

/// The readable line and the payload of a task that the actor may start so.
fn checked_task(
    core: &Core,
    actor: &Actor,
    name: &str,
    values: &crate::task::Values,
) -> Result<(String, String)> {
    let Some(known) = core.config.tasks.get(name).filter(|t| t.allows(actor)) else {
        let allowed: Vec<&str> = core
            .config
            .tasks
            .allowed(actor)
            .map(|(name, _)| name)
            .collect();
        let message = if allowed.is_empty() {
            format!("There is no task `{name}` that you may start, nor any other.")
        } else {
            format!(
                "There is no task `{name}` that you may start; there is {}.",
                allowed.join(", ")
            )
        };
        return Err(Error::invalid("task", message));
    };
    known.words(values).map_err(Error::Invalid)?;
    let mut line = format!("# {name}");
    for (parameter, value) in values {
        line.push_str(&format!(" {parameter}={value}"));
    }
    if line.chars().count() > COMMAND {
        line = line.chars().take(COMMAND - 1).chain(['…']).collect();
    }
    let payload = task::Payload {
        task: name.to_owned(),
        parameters: values.clone(),
    };
    let payload =
        serde_json::to_string(&payload).map_err(|error| Error::Internal(error.to_string()))?;
    Ok((line, payload))
}

fn start_after(core: &Core, time: DateTime<Utc>) -> Result<i64> {
    if time > core.clock.now() + AHEAD {
        return Err(Error::invalid(
            "startAfter",
            "Give a time within a year from now.",
        ));
    }
    Ok(time.timestamp_millis())
}

/// The job, if it is the actor's or the actor is an admin; else it does not exist for them.
pub async fn find(core: &Core, actor: &Actor, id: i64) -> Result<Job> {
    let job = find_any(&core.db, id).await?;
    if job
        .as_ref()
        .is_some_and(|job| actor.may_see(job.created_by.as_deref()))
    {
        return Ok(job.expect("just seen"));
    }
    Err(Error::NotFound(format!("There is no job {id}.")))
}

/// A waiting job's place among those that wait, from 1. Jobs that come later may be taken before it: those of whoever has fewer
/// waiting.
pub async fn place(core: &Core, job: &Job) -> Result<Option<i64>> {
    if job.status != Status::Pending {
        return Ok(None);
    }
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Jobs" o JOIN "Jobs" j ON j."id" = ?
                 WHERE o."status" = 'pending' AND j."status" = 'pending'
                   AND (o."turn" < j."turn" OR o."turn" = j."turn" AND o."id" <= j."id")"#;
    let place: i64 = core.db.one(sql, args![job.id]).await?.get("n")?;
    Ok(Some(place).filter(|place| *place > 0))
}

async fn find_any(db: &Db, id: i64) -> Result<Option<Job>> {
    let row = db
        .opt(r#"SELECT * FROM "Jobs" WHERE "id" = ?"#, args![id])
        .await?;
    row.as_ref().map(Job::from_row).transpose()
}

/// Which jobs a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those that work on the container with this row id, or did.
    pub container: Option<i64>,
    pub status: Option<Status>,
    /// Only those of this user; for admins, others have their own anyway.
    pub user: Option<String>,
    /// Newest first.
    pub newest: bool,
    pub limit: u32,
    pub offset: u32,
}

/// The conditions of a [`Filter`]; each begins with whether it is to be left out.
macro_rules! matching {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#" FROM "Jobs" WHERE (? OR "createdBy" = ?) AND (? OR "containerId" = ?) AND (? OR "status" = ?)"#,
            $after
        )
    };
}

/// A page of jobs in order of their ids, and how many there are: the actor's own, or for admins everyone's.
pub async fn list(core: &Core, actor: &Actor, filter: &Filter) -> Result<(Vec<Job>, i64)> {
    let user = filter.user.as_deref();
    if user.is_some_and(|user| !actor.may_see(Some(user))) {
        let message = "Only admins may see the jobs of others.";
        return Err(Error::Forbidden(message.to_owned()));
    }
    let who = user.or((!actor.admin).then_some(actor.username.as_str()));
    let status = filter.status.map(Status::as_str);
    let (container, any) = (filter.container, filter.container.is_none());
    let mut given = args![who.is_none(), who, any, container, status.is_none(), status];
    let mut tx = core.db.read().await?;
    let total = matching!(r#"SELECT COUNT(*) AS "n""#, "");
    let total = tx.one(total, given.clone()).await?.get("n")?;
    let sql = if filter.newest {
        matching!("SELECT *", r#" ORDER BY "id" DESC LIMIT ? OFFSET ?"#)
    } else {
        matching!("SELECT *", r#" ORDER BY "id" LIMIT ? OFFSET ?"#)
    };
    given.extend(args![filter.limit, filter.offset]);
    let rows = tx.all(sql, given).await?;
    let jobs = rows.iter().map(Job::from_row).collect::<Result<_>>()?;
    Ok((jobs, total))
}

/// A page of output in order. Rights: [`find`] was called before.
pub async fn output(core: &Core, id: i64, limit: u32, offset: u32) -> Result<Vec<Output>> {
    let rows = core
        .db
        .all(
            r#"SELECT * FROM "JobStatuses" WHERE "jobId" = ? ORDER BY "id" LIMIT ? OFFSET ?"#,
            args![id, limit, offset],
        )
        .await?;
    rows.iter().map(output_row).collect()
}

/// How many pieces of output there are. Rights: [`find`] was called before.
pub async fn output_count(core: &Core, id: i64) -> Result<i64> {
    let sql = r#"SELECT COUNT(*) AS "n" FROM "JobStatuses" WHERE "jobId" = ?"#;
    Ok(core.db.one(sql, args![id]).await?.get("n")?)
}

/// Output after the row `after`, in order, at most `limit` rows.
async fn output_after(db: &Db, id: i64, after: i64, limit: u32) -> Result<Vec<Output>> {
    let rows = db
        .all(
            r#"SELECT * FROM "JobStatuses" WHERE "jobId" = ? AND "id" > ? ORDER BY "id" LIMIT ?"#,
            args![id, after, limit],
        )
        .await?;
    rows.iter().map(output_row).collect()
}

fn output_row(row: &Row) -> Result<Output> {
    Ok(Output {
        id: row.get("id")?,
        job_id: row.get("jobId")?,
        output: row.get::<Option<String>>("output")?.unwrap_or_default(),
        created_at: row.get("createdAt")?,
        updated_at: row.get("updatedAt")?,
    })
}

/// Asks a job to stop. A pending one ends at once; a running one is stopped by its runner.
pub async fn cancel(core: &Core, actor: &Actor, id: i64) -> Result<Job> {
    let job = find(core, actor, id).await?;
    if !job.status.ended() {
        transaction!(core.db, tx => {
            // It may have ended since it was looked at.
            match request_cancel(tx, core, id).await? {
                true => audit::Change::new("job_cancel", format!("/jobs/{id}")).write(tx, core, actor).await?,
                false => actor.origin.entry_written(),
            }
        })?;
        core.wake.jobs();
    }
    find(core, actor, id).await
}

/// Marks a job as to be cancelled. Typed jobs other than named tasks end themselves even when pending, since they may have
/// something to undo. Whether it had not ended yet.
pub async fn request_cancel(tx: &mut Tx, core: &Core, id: i64) -> Result<bool> {
    let now = core.clock.now();
    let ended = tx.exec(
        r#"UPDATE "Jobs" SET "status" = 'cancelled', "reason" = 'Cancelled before it began.', "updatedAt" = ?, "finishedAt" = ?
           WHERE "id" = ? AND "status" = 'pending' AND ("kind" IS NULL OR "kind" = ?)"#,
        args![now, now, id, task::KIND],
    )
    .await?;
    let marked = tx
        .exec(
            r#"UPDATE "Jobs" SET "cancelRequested" = ?, "startAfter" = NULL, "updatedAt" = ?
           WHERE "id" = ? AND "status" IN ('pending', 'running')"#,
            args![true, now, id],
        )
        .await?;
    Ok(ended + marked > 0)
}

/// Ends a typed job that has not begun its work: it waits in the queue and has stored no progress. `false` if it is not so.
pub(crate) async fn withdraw(tx: &mut Tx, core: &Core, id: i64, reason: &str) -> Result<bool> {
    let now = core.clock.now();
    let sql = r#"UPDATE "Jobs" SET "status" = 'cancelled', "reason" = ?, "updatedAt" = ?, "finishedAt" = ?
                 WHERE "id" = ? AND "status" = 'pending' AND "checkpoint" IS NULL"#;
    Ok(tx.exec(sql, args![reason, now, now, id]).await? == 1)
}

/// Waits until the job has ended, `limit` at most; the job as it then is. Rights: none are checked.
pub async fn wait(core: &Core, id: i64, limit: Duration) -> Result<Job> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut changed = core.wake.watch_output();
    loop {
        changed.mark_unchanged();
        let job = find_any(&core.db, id)
            .await?
            .ok_or_else(|| Error::NotFound(format!("There is no job {id}.")))?;
        if job.status.ended() || tokio::time::Instant::now() >= deadline {
            return Ok(job);
        }
        let poll = tokio::time::Instant::now() + Duration::from_millis(300);
        let _ = tokio::time::timeout_at(poll.min(deadline), changed.changed()).await;
    }
}
