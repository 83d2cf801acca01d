//! The one door to three databases.

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
    /// The server cannot be reached.
    #[error("database cannot be reached: {0}")]
    Unreachable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}
