//! One error for the whole library. It knows nothing of HTTP: each edge (API, pages, CLI, jobs) maps it once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::db;

/// What went wrong, in terms of what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thing does not exist, or the actor may not know that it does.
    #[error("{0}")]
    NotFound(String),
    /// A name, port or address is already taken; `field` is the input field that asked for it.
    #[error("{message}")]
    Conflict {
        field: &'static str,
        message: String,
    },
    /// Bad input, one message for each field.
    #[error("{0}")]
    Invalid(Fields),
    /// The actor is known and may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// Nobody is signed in, or the credentials were refused.
    #[error("{0}")]
    Unauthenticated(String),
    /// Try the same call again after `after`.
    #[error("{message}")]
    Busy { message: String, after: Duration },
    /// Too many attempts; the next one counts after `after`.
    #[error("{message}")]
    TooMany { message: String, after: Duration },
    /// Proxmox VE, the mail server or another program refused or failed; the text is fit for the caller.
    #[error("{0}")]
    Upstream(String),
    /// Proxmox VE or another program that we need cannot be reached now; the text is fit for the caller.
    #[error("{0}")]
    Unreachable(String),
    /// A defect or a failed dependency; the text is for the log only.
    #[error("{0}")]
    Internal(String),
}

/// Shorthand used by every fallible function of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Messages by input field, in field order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub BTreeMap<&'static str, String>);

impl Fields {
    /// Adds a message; the first one for a field stays.
    pub fn add(&mut self, field: &'static str, message: impl Into<String>) {
        self.0.entry(field).or_insert_with(|| message.into());
    }

    /// `Ok` when nothing was added, else [`Error::Invalid`] with everything that was.
    pub fn into_result(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self))
        }
    }
}

impl std::fmt::Display for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut between = "";
        for (field, message) in &self.0 {
            write!(f, "{between}{field}: {message}")?;
            between = if message.ends_with('.') { " " } else { "; " };
        }
        Ok(())
    }
}

impl Error {
    /// Bad input in one field.
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        let mut fields = Fields::default();
        fields.add(field, message);
        Self::Invalid(fields)
    }

    /// A name, port or address that is already taken.
    pub fn conflict(field: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict {
            field,
            message: message.into(),
        }
    }

    /// Whether the same call may succeed later without any change.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable(_))
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Busy(_) => Self::Busy {
                message: "The database is busy; try again in a moment.".to_owned(),
                after: Duration::from_secs(1),
            },
            db::Error::Unreachable(cause) => {
                tracing::warn!(cause, "the database cannot be reached");
                Self::Unreachable(
                    "The database cannot be reached now; try again in a moment.".to_owned(),
                )
            }
            db::Error::Unable(cause) => {
                tracing::error!(cause, "the database cannot serve a statement");
                Self::Unreachable(
                    "The database cannot store or read this now; the log has the cause.".to_owned(),
                )
            }
            other => Self::Internal(format!("database: {other}")),
        }
    }
}
