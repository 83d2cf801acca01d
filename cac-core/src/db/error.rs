//! What a statement can fail with, alike on all three databases; drivers' errors are sorted here and nowhere else.

use sqlx::error::ErrorKind;
use sqlx::mysql::MySqlDatabaseError;

/// What a statement can fail with, alike on all three databases.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unique key refused the row; the caller says what that means.
    #[error("unique key violated: {0}")]
    Unique(String),
    /// A foreign key refused the statement.
    #[error("foreign key violated: {0}")]
    ForeignKey(String),
    /// Locked, deadlocked or serialisation failure: repeat the whole transaction.
    #[error("database is busy: {0}")]
    Busy(String),
    /// The server cannot be reached. Whether the statement was carried out is not known.
    #[error("database cannot be reached: {0}")]
    Unreachable(String),
    /// The server cannot carry the statement out now: no room, read-only after a failover, a table that somebody moved away. The same
    /// statement may succeed later.
    #[error("database cannot serve this now: {0}")]
    Unable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Whether repeating the whole transaction may succeed.
    #[must_use]
    pub fn busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match &error {
            sqlx::Error::Database(cause) => sort(cause.as_ref(), text),
            // Half an answer: the other side broke off.
            sqlx::Error::Protocol(_)
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unreachable(text),
            sqlx::Error::RowNotFound => {
                Self::Other("the row that must exist is missing".to_owned())
            }
            _ => Self::Other(text),
        }
    }
}

fn sort(cause: &dyn sqlx::error::DatabaseError, text: String) -> Error {
    match cause.kind() {
        ErrorKind::UniqueViolation => return Error::Unique(text),
        ErrorKind::ForeignKeyViolation => return Error::ForeignKey(text),
        _ => {}
    }
    if let Some(mysql) = cause.try_downcast_ref::<MySqlDatabaseError>() {
        return match mysql.number() {
            1020 | 1205 | 1213 => Error::Busy(text),
            // Full disk, full table, no such table, read-only.
            1021 | 1114 | 1146 | 1290 | 1836 => Error::Unable(text),
            1040 | 1053 | 1927 => Error::Unreachable(text),
            _ => Error::Other(text),
        };
    }
    let code = cause.code();
    let code = code.as_deref().unwrap_or_default();
    if cause
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        // Extended codes (517 BUSY_SNAPSHOT, 261 BUSY_RECOVERY …) carry the primary one in the low byte.
        return match code.parse::<i32>().map(|code| code & 0xff) {
            Ok(5 | 6) => Error::Busy(text),
            // READONLY, IOERR, FULL, CANTOPEN.
            Ok(8 | 10 | 13 | 14) => Error::Unable(text),
            // It has no code of its own.
            _ if cause.message().starts_with("no such table") => Error::Unable(text),
            _ => Error::Other(text),
        };
    }
    match code {
        "40001" | "40P01" | "55P03" => Error::Busy(text),
        "53300" | "57P01" | "57P02" | "57P03" => Error::Unreachable(text),
        code if code.starts_with("08") => Error::Unreachable(text),
        // Read-only; no such table.
        "25006" | "42P01" => Error::Unable(text),
        // No resources; the system below.
        code if code.starts_with("53") || code.starts_with("58") => Error::Unable(text),
        _ => Error::Other(text),
    }
}

/// The number of a MariaDB error, for the few places where a particular one is expected.
pub(super) fn mysql_number(error: &sqlx::Error) -> Option<u16> {
    error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()
        .map(MySqlDatabaseError::number)
}
