//! Reading the program's own secrets; with SQLite it makes them itself.

use std::io::ErrorKind;
use std::path::Path;

use super::Program;
use super::reader::Reader;
use crate::db::sqlite_file;
use crate::pve::Secret;

/// What becomes of files with secrets that are not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    Made,
    /// Whoever only looks makes none.
    Read,
}

impl Files {
    fn secret(self, path: &Path) -> std::io::Result<Option<Secret>> {
        match self {
            Self::Made => crate::secret::in_file(path).map(Some),
            Self::Read => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(Secret::new(text.trim()))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

/// From the environment; with SQLite else from `file`.
pub(super) fn session_secret(
    r: &mut Reader<'_>,
    program: Program,
    file: Option<&Path>,
    files: Files,
) -> Secret {
    if let Some(secret) = r.vars.get("SESSION_SECRET") {
        if secret.len() < 16 {
            r.problem(
                "SESSION_SECRET",
                "must have at least 16 characters; `openssl rand -hex 32` makes a good one",
            );
        }
        return Secret::new(secret);
    }
    if program != Program::Http {
        return Secret::new("");
    }
    let Some(file) = file else {
        r.problem(
            "SESSION_SECRET",
            "must be set when the database is not SQLite; `openssl rand -hex 32` makes a good one",
        );
        return Secret::new("");
    };
    if !r.problems.is_empty() {
        return Secret::new("");
    }
    match files.secret(file) {
        Ok(secret) => secret.unwrap_or_else(|| Secret::new("")),
        Err(error) => {
            r.problem(
                "CAC_DATA_DIR",
                format!("must name a directory that this user may write: {error}"),
            );
            Secret::new("")
        }
    }
}

/// From the environment; with SQLite else from a file beside the database.
pub(super) fn secret_key(
    r: &mut Reader<'_>,
    program: Program,
    database_url: &str,
    files: Files,
) -> Option<Secret> {
    if let Some(text) = r.vars.get("CAC_SECRET_KEY") {
        if crate::cipher::key(text).is_none() {
            r.problem(
                "CAC_SECRET_KEY",
                "must have 64 hexadecimal digits; `cac secret new` makes one",
            );
        }
        return Some(Secret::new(text));
    }
    let Some(path) = sqlite_file(database_url) else {
        let server = !database_url.starts_with("sqlite:");
        if server && r.production && program == Program::Http {
            r.problem("CAC_SECRET_KEY", "must be set, so that the database alone reveals no secret; `cac secret new` makes one");
        }
        return None;
    };
    if !r.problems.is_empty() {
        return None;
    }
    let file = std::path::Path::new(path).with_file_name("secret-key");
    match files.secret(&file) {
        Ok(secret) => secret,
        Err(error) => {
            r.problem(
                "DATABASE_URL",
                format!(
                    "must lie in a directory that this user may write ({}: {error})",
                    file.display()
                ),
            );
            None
        }
    }
}
