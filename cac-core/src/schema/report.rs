//! What was done and where each migration stands, for whoever runs `cac migrate`.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::adoption::Adoption;
use super::migration::{Direction, MIGRATIONS, Migration};
use super::record::Records;
use crate::db::Dialect;

/// What a run of [`up`](super::up) did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Titles (`0002_cac`) of the migrations that ran, wholly or to the end.
    pub applied: Vec<String>,
    /// Set when this run finished an adoption.
    pub adoption: Option<Adoption>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.applied.is_empty() {
            writeln!(f, "Nothing to migrate: the database is up to date.")?;
        }
        for title in &self.applied {
            writeln!(f, "Migrated: {title}")?;
        }
        match &self.adoption {
            Some(adoption) => write!(f, "{adoption}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The original's database was adopted.")?;
        writeln!(f, "  sessions dropped: {}", self.sessions_dropped)?;
        writeln!(f, "  running jobs set to failure: {}", self.jobs_failed)?;
        writeln!(f, "  old pending jobs that will run: {}", self.jobs_pending)?;
        for (label, node) in &self.labelled {
            writeln!(f, "  node {node} has the label {label}")?;
        }
        for label in &self.unplaced {
            writeln!(
                f,
                "  label {label} does not stand on one node of its own: set it on a node by hand"
            )?;
        }
        if !self.violations.is_empty() {
            writeln!(
                f,
                "  rows that break the naming rules; they stay, but get no public name:"
            )?;
        }
        for violation in &self.violations {
            writeln!(f, "    {violation}")?;
        }
        Ok(())
    }
}

/// One migration and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    pub number: i32,
    pub name: &'static str,
    pub state: MigrationState,
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MigrationState {
    Pending,
    /// Interrupted after so many of its statements.
    Partly {
        done: usize,
        of: usize,
    },
    /// Its undoing was interrupted.
    Undoing,
    Applied(DateTime<Utc>),
}

impl fmt::Display for MigrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}_{}: ", self.number, self.name)?;
        match self.state {
            MigrationState::Pending => f.write_str("pending"),
            MigrationState::Partly { done, of } => {
                write!(f, "interrupted after {done} of {of} statements")
            }
            MigrationState::Undoing => f.write_str("undoing was interrupted"),
            MigrationState::Applied(at) => {
                write!(f, "applied {}", at.format("%Y-%m-%d %H:%M:%S UTC"))
            }
        }
    }
}

pub(super) fn statuses(dialect: Dialect, records: &Records) -> Vec<MigrationStatus> {
    let status = |migration: &Migration| MigrationStatus {
        number: migration.number,
        name: migration.name,
        state: state(dialect, records, migration),
    };
    MIGRATIONS.iter().map(status).collect()
}

fn state(dialect: Dialect, records: &Records, migration: &Migration) -> MigrationState {
    let of = migration.statements(Direction::Up, dialect).len();
    let done = records.count(migration.number, Direction::Up);
    if records.undoing() == Some(migration.number) {
        return MigrationState::Undoing;
    }
    let mine = records
        .0
        .iter()
        .filter(|record| record.key.number == migration.number);
    let announced = mine.clone().count() > 0;
    match mine.filter_map(|record| record.applied).max() {
        Some(at) if done == of => MigrationState::Applied(at),
        _ if announced => MigrationState::Partly { done, of },
        _ => MigrationState::Pending,
    }
}
