//! The tables, by numbered migrations: up, down, where they stand, and the adoption of the original's database.
//!
//! A migration is a directory of `migrations/` with a text for each direction and database, compiled in. Progress is
//! recorded for each statement in the table `Migrations`, so one that was killed is continued where it stood: on
//! SQLite and PostgreSQL a statement and its record commit together; MariaDB commits each DDL statement by itself, so
//! there it is announced before and confirmed after. Not here: what the tables mean (the noun files).

mod adoption;
mod inspect;
mod loss;
mod migration;
mod naming;
mod plan;
mod record;
mod report;
mod run;
mod trail;

pub use adoption::Adoption;
pub use migration::new;
pub use naming::{NamingViolation, naming_violations};
pub use plan::{AdoptionPlan, PendingCommand, Plan};
pub use report::{MigrationState, MigrationStatus, Report};

use crate::actor::{Actor, Origin};
use crate::db::{Db, Dialect};
use crate::{Error, Result};
use inspect::State;
use record::Records;
use run::{Runner, Stop};

/// Brings the database to the newest migration (`cac migrate up`), adopting one of the original program if it is one.
///
/// Whoever calls this says that the original is stopped. Foreign and half-migrated databases are refused untouched.
pub async fn up(db: &Db) -> Result<Report> {
    up_until(db, &mut Stop::never(), None).await
}

/// Like [`up`], with an audit entry for each migration of a database that was there, or for its adoption. Rights: none are checked.
pub async fn up_by(db: &Db, actor: &Actor) -> Result<Report> {
    up_until(db, &mut Stop::never(), Some(&actor.origin)).await
}

/// Brings a fresh database, or one that is already ours, to the newest migration; meant for the start of a program,
/// also of ten at once. A database of the original that nobody adopted yet is refused.
pub async fn start(db: &Db) -> Result<()> {
    let guard = db.exclusive().await?;
    match inspect::prepare(db, false).await? {
        State::Original => return Err(refused(NOT_ADOPTED)),
        State::Ours(records) if records.half_adopted() => return Err(refused(HALF_ADOPTED)),
        State::Ours(_) => {}
    }
    let outcome = Runner::new(db, &mut Stop::never(), None).up().await;
    guard.release().await;
    outcome.map(drop)
}

/// Whether this is a complete database of the original program that nobody adopted yet. Changes nothing; a database that is
/// neither empty nor ours nor the original's is refused.
pub async fn is_original(db: &Db) -> Result<bool> {
    inspect::is_original(db).await
}

/// Undoes the last migration (`cac migrate down`) and names it. Tables of the original are never dropped. Where something would be lost
/// that somebody would miss, it is refused, with what to do first.
pub async fn down(db: &Db) -> Result<String> {
    down_until(db, &mut Stop::never(), false, None).await
}

/// Like [`down`], but loses what would be lost.
pub async fn down_discarding(db: &Db) -> Result<String> {
    down_until(db, &mut Stop::never(), true, None).await
}

/// Like [`down`] or, with `discard`, [`down_discarding`], with an audit entry where the log is left. Rights: none are checked.
pub async fn down_by(db: &Db, actor: &Actor, discard: bool) -> Result<String> {
    down_until(db, &mut Stop::never(), discard, Some(&actor.origin)).await
}

/// What [`up`] would do. Changes nothing.
pub async fn plan(db: &Db) -> Result<Plan> {
    plan::find(db).await
}

/// What [`up`] would do where there is no database yet.
#[must_use]
pub fn plan_of_none() -> Plan {
    Plan {
        pending: migration::MIGRATIONS
            .iter()
            .map(migration::Migration::title)
            .collect(),
        adoption: None,
    }
}

/// Where each migration stands where there is no database yet.
#[must_use]
pub fn status_of_none() -> Vec<MigrationStatus> {
    report::statuses(Dialect::Sqlite, &Records::default())
}

/// Where each migration stands, oldest first. Changes nothing.
pub async fn status(db: &Db) -> Result<Vec<MigrationStatus>> {
    let records = inspect::look(db).await?;
    Ok(report::statuses(db.dialect(), &records))
}

/// Like [`up`], but fails as if killed after `statements` of them, with or without the last one's record.
#[cfg(feature = "testing")]
pub async fn up_stopping_after(db: &Db, statements: usize, before_record: bool) -> Result<Report> {
    up_until(db, &mut Stop::after(statements, before_record), None).await
}

/// Like [`down`], but fails as if killed after `statements` of them, with or without the last one's record.
#[cfg(feature = "testing")]
pub async fn down_stopping_after(
    db: &Db,
    statements: usize,
    before_record: bool,
) -> Result<String> {
    let mut stop = Stop::after(statements, before_record);
    down_until(db, &mut stop, true, None).await
}

const NOT_ADOPTED: &str = "this is a database of the original program that has not been adopted: \
     stop the original first, then run `cac migrate up`";
const HALF_ADOPTED: &str =
    "the adoption of the original's database was interrupted: run `cac migrate up` again";

async fn up_until(db: &Db, stop: &mut Stop, by: Option<&Origin>) -> Result<Report> {
    let guard = db.exclusive().await?;
    inspect::prepare(db, true).await?;
    let outcome = Runner::new(db, stop, by).up().await;
    guard.release().await;
    outcome
}

async fn down_until(
    db: &Db,
    stop: &mut Stop,
    discard: bool,
    by: Option<&Origin>,
) -> Result<String> {
    let guard = db.exclusive().await?;
    let outcome = Runner::new(db, stop, by).down(discard).await;
    guard.release().await;
    outcome
}

/// A state of the database that only its operator can change; the text says how.
fn refused(message: impl Into<String>) -> Error {
    Error::conflict("database", message)
}
