//! Reading the program's own secrets; with SQLite it makes them itself.

use super::Program;
use super::reader::Reader;
use crate::db::sqlite_file;
use crate::pve::Secret;

pub(super) fn session_secret(
    r: &mut Reader<'_>,
    program: Program,
    sqlite: bool,
    data_dir: &std::path::Path,
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
    if !sqlite {
        r.problem(
            "SESSION_SECRET",
            "must be set when the database is not SQLite; `openssl rand -hex 32` makes a good one",
        );
        return Secret::new("");
    }
    if !r.problems.is_empty() {
        return Secret::new("");
    }
    match crate::secret::in_file(&data_dir.join("session-secret")) {
        Ok(secret) => secret,
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
    match crate::secret::in_file(&file) {
        Ok(secret) => Some(secret),
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
