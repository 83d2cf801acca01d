//! The audit entries of changes of the schema, written in the transaction that makes the change or records it. Not [`crate::audit::Change`]:
//! it writes the newest columns of `AuditEntries`, and here the table may have only those that it was made with.

use chrono::Utc;

use super::migration::MIGRATIONS;
use crate::actor::Origin;
use crate::args;
use crate::db::{self, Tx};

/// The migration that makes `AuditEntries`.
const AUDIT: &str = "audit";

/// What an entry says was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Apply,
    Undo,
    Adopt,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "migration_apply",
            Self::Undo => "migration_undo",
            Self::Adopt => "database_adopt",
        }
    }
}

/// Whether `AuditEntries` is there before and after this migration runs.
pub(super) fn has_log(number: i32) -> bool {
    let mut all = MIGRATIONS.iter();
    all.any(|migration| migration.name == AUDIT && migration.number < number)
}

/// Writes the entry; `title` names the migration.
pub(super) async fn write(
    tx: &mut Tx,
    origin: &Origin,
    action: Action,
    title: &str,
    detail: Option<&str>,
) -> Result<(), db::Error> {
    let detail: Vec<&str> = detail.into_iter().chain(origin.note.as_deref()).collect();
    let detail = Some(detail.join("; ")).filter(|detail| !detail.is_empty());
    let sql = r#"INSERT INTO "AuditEntries" ("via", "action", "target", "status", "detail", "createdAt") VALUES (?, ?, ?, 200, ?, ?)"#;
    let args = args![
        origin.via.name(),
        action.name(),
        format!("/migrations/{title}"),
        detail.as_deref(),
        Utc::now()
    ];
    tx.exec(sql, args).await.map(drop)
}
