//! What `cac migrate up` would do, without doing it.

use std::fmt;

use serde::Serialize;

use super::migration::MIGRATIONS;
use super::naming::{self, NamingViolation};
use super::{inspect, report};
use crate::args;
use crate::db::Db;
use crate::{Result, schema::MigrationState};

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Titles (`0002_cac`) of the migrations that would run.
    pub pending: Vec<String>,
    /// Set on a database of the original program.
    pub adoption: Option<AdoptionPlan>,
}

impl Plan {
    /// Whether no table is there yet.
    #[must_use]
    pub fn is_of_new_database(&self) -> bool {
        self.adoption.is_none() && self.pending.len() == MIGRATIONS.len()
    }
}

/// What would become of the original's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptionPlan {
    /// Rows of `Sessions` that would be dropped.
    pub sessions: i64,
    /// Jobs at `running` that would be set to `failure`.
    pub running: i64,
    /// Shell commands at `pending`: they would run as soon as a runner starts.
    pub commands: Vec<PendingCommand>,
    /// Rows whose names would not be served.
    pub violations: Vec<NamingViolation>,
}

/// A shell command that nobody has run yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingCommand {
    /// The job's id.
    pub id: i64,
    pub command: String,
    pub created_by: Option<String>,
}

pub(super) async fn find(db: &Db) -> Result<Plan> {
    let records = inspect::look(db).await?;
    let statuses = report::statuses(db.dialect(), &records);
    let pending = MIGRATIONS.iter().zip(statuses);
    let pending = pending.filter(|(_, status)| !matches!(status.state, MigrationState::Applied(_)));
    let pending = pending.map(|(migration, _)| migration.title()).collect();
    let adoption = match inspect::is_original(db).await? {
        true => Some(adoption(db).await?),
        false => None,
    };
    Ok(Plan { pending, adoption })
}

async fn adoption(db: &Db) -> Result<AdoptionPlan> {
    let sql = r#"SELECT (SELECT COUNT(*) FROM "Sessions") AS "sessions",
                 (SELECT COUNT(*) FROM "Jobs" WHERE "status" = 'running') AS "running""#;
    let counts = db.one(sql, args![]).await?;
    let sql = r#"SELECT "id", "command", "createdBy" FROM "Jobs" WHERE "status" = 'pending' ORDER BY "id""#;
    let mut commands = Vec::new();
    for row in db.all(sql, args![]).await? {
        commands.push(PendingCommand {
            id: row.get("id")?,
            command: row.get("command")?,
            created_by: row.get("createdBy")?,
        });
    }
    Ok(AdoptionPlan {
        sessions: counts.get("sessions")?,
        running: counts.get("running")?,
        commands,
        violations: naming::naming_violations(db).await?,
    })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pending.is_empty() {
            writeln!(f, "Nothing to migrate: the database is up to date.")?;
        }
        for title in &self.pending {
            writeln!(f, "Would migrate: {title}")?;
        }
        match &self.adoption {
            Some(adoption) => write!(f, "{adoption}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AdoptionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The original's database would be adopted.")?;
        writeln!(f, "  sessions to drop: {}", self.sessions)?;
        writeln!(f, "  running jobs to set to failure: {}", self.running)?;
        writeln!(
            f,
            "  pending shell commands that will run when cac-runner starts: {}",
            self.commands.len()
        )?;
        for command in &self.commands {
            let PendingCommand {
                id,
                command,
                created_by,
            } = command;
            let by = created_by.as_deref().unwrap_or("unknown");
            writeln!(f, "    job {id} by {by}: {command}")?;
        }
        if !self.commands.is_empty() {
            writeln!(
                f,
                "    To keep one from running: UPDATE Jobs SET status = 'cancelled' WHERE id = …"
            )?;
        }
        if !self.violations.is_empty() {
            writeln!(f, "  rows whose names will not be served:")?;
        }
        for violation in &self.violations {
            writeln!(f, "    {violation}")?;
        }
        Ok(())
    }
}
