//! From a URL to pools: options of each database, how its sessions are set up, and which server versions are served.

use std::fs::{OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Executor as _};

use super::{Db, Error, Pools};
use crate::secret;

const ACQUIRE: Duration = Duration::from_secs(10);
const BUSY: Duration = Duration::from_secs(5);
/// A connection that rested for longer than this may have been closed by the other side: it is asked before it is used.
const RESTED: Duration = Duration::from_secs(1);
const SQLITE_READERS: u32 = 4;

/// Text literals mean the same on all three databases (no backslash escapes, `||` joins), and bad values are errors.
const MARIADB_SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,\
     NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT', \
     SESSION innodb_lock_wait_timeout = 20; \
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

const FORMS: &str = "use sqlite:PATH, mysql://USER:PASSWORD@HOST:PORT/DATABASE or postgres://USER:PASSWORD@HOST:PORT/DATABASE";

/// With up to that many connections to a server; SQLite has a number of its own.
pub(super) async fn connect(url: &str, connections: u32) -> Result<Db, Error> {
    let pools = match url.split_once(':') {
        Some(("sqlite", _)) => sqlite(url).await?,
        Some(("mysql" | "mariadb", _)) => Pools::MariaDb(mariadb(url, connections).await?),
        Some(("postgres" | "postgresql", _)) => Pools::Postgres(postgres(url, connections).await?),
        _ => {
            return Err(Error::Other(format!(
                "the database URL has an unknown form: {FORMS}"
            )));
        }
    };
    Ok(Db(pools))
}

/// Waiting for SQLite's one writer in vain means that it is busy, not that it is gone.
pub(super) fn writer_busy(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::PoolTimedOut => Error::Busy("the one writer was not free in time".to_owned()),
        error => Error::from(error),
    }
}

/// The file of a SQLite URL; `None` for other databases, and where none is named.
pub(crate) fn sqlite_file(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("sqlite:")?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.strip_suffix("?mode=rwc").unwrap_or(path);
    let named = !path.is_empty() && !path.contains(":memory:") && !path.contains('?');
    named.then_some(path)
}

async fn sqlite(url: &str) -> Result<Pools, Error> {
    let path = sqlite_file(url).ok_or_else(|| {
        Error::Other(
            "a SQLite URL is sqlite:PATH with the path of a file, without parameters".to_owned(),
        )
    })?;
    create_private(Path::new(path))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        // Whoever reads many rows is not woken up for each few of them.
        .row_buffer_size(1000)
        .busy_timeout(BUSY);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE)
        .connect_with(options.clone())
        .await
        .map_err(|error| cannot_open(path, &error))?;
    let readers = SqlitePoolOptions::new()
        .max_connections(SQLITE_READERS)
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE)
        .connect_lazy_with(options.pragma("query_only", "ON"));
    Ok(Pools::Sqlite { readers, writer })
}

fn cannot_open(path: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Unreachable(format!("cannot open {path}: {error}"))
}

/// The file holds node secrets, so a new one is for its owner only, or for a group that the directory is made for; SQLite gives
/// its companions the same mode.
fn create_private(path: &Path) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600);
    let opened = match options.clone().create_new(true).open(path) {
        // Past the umask, which programs of one group need not have alike.
        Ok(file) => {
            let mode = secret::file_mode(path.parent().unwrap_or(Path::new("")));
            file.set_permissions(Permissions::from_mode(mode))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(path).map(drop),
        Err(error) => Err(error),
    };
    opened.map_err(|error| cannot_open(&path.display().to_string(), &error))
}

/// Parse errors of the drivers may quote the URL, and with it the password.
fn malformed(_: sqlx::Error) -> Error {
    Error::Other(format!("the database URL is malformed: {FORMS}"))
}

fn no_answer(error: sqlx::Error, host: &str, port: u16) -> Error {
    match Error::from(error) {
        Error::Unreachable(text) => Error::Unreachable(format!("{host}:{port}: {text}")),
        error => error,
    }
}

/// Whether a connection may be used; asking costs as much as a small statement.
async fn answers<C: Connection>(
    conn: &mut C,
    rested: PoolConnectionMetadata,
) -> Result<bool, sqlx::Error> {
    Ok(rested.idle_for < RESTED || conn.ping().await.is_ok())
}

async fn mariadb(url: &str, connections: u32) -> Result<MySqlPool, Error> {
    let options = MySqlConnectOptions::from_str(url)
        .map_err(malformed)?
        .charset("utf8mb4")
        .timezone(String::from("+00:00"));
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    let pool = MySqlPoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false)
        .before_acquire(|conn, rested| Box::pin(answers(conn, rested)))
        .acquire_timeout(ACQUIRE)
        .after_connect(|conn, _| {
            Box::pin(async move {
                conn.execute(sqlx::raw_sql(MARIADB_SESSION)).await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .map_err(|error| no_answer(error, &host, port))?;
    let version: String = sqlx::query_scalar("SELECT VERSION()")
        .fetch_one(&pool)
        .await?;
    check_mariadb(&version)?;
    Ok(pool)
}

async fn postgres(url: &str, connections: u32) -> Result<PgPool, Error> {
    let options = PgConnectOptions::from_str(url)
        .map_err(malformed)?
        .options([("timezone", "UTC"), ("standard_conforming_strings", "on")]);
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false)
        .before_acquire(|conn, rested| Box::pin(answers(conn, rested)))
        .acquire_timeout(ACQUIRE)
        .connect_with(options)
        .await
        .map_err(|error| no_answer(error, &host, port))?;
    let version: String = sqlx::query_scalar("SHOW server_version_num")
        .fetch_one(&pool)
        .await?;
    check_postgres(&version)?;
    Ok(pool)
}

fn check_mariadb(version: &str) -> Result<(), Error> {
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let release = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version.contains("MariaDB") {
        if release < (10, 6) {
            return Err(too_old("MariaDB", version, "MariaDB 10.6"));
        }
    } else if release < (8, 0) {
        return Err(too_old(
            "MySQL",
            version,
            "MariaDB 10.6 (or, untested, MySQL 8)",
        ));
    } else {
        tracing::warn!(
            version,
            "this is a MySQL server: it should work, but only MariaDB is tested"
        );
    }
    Ok(())
}

fn check_postgres(version: &str) -> Result<(), Error> {
    if version.parse::<u32>().unwrap_or(0) < 130_000 {
        return Err(too_old("PostgreSQL", version, "PostgreSQL 13"));
    }
    Ok(())
}

fn too_old(product: &str, version: &str, least: &str) -> Error {
    Error::Other(format!(
        "the database server is {product} {version}, which is too old: use {least} or newer"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_versions() {
        for good in [
            "10.11.19-MariaDB-0+deb12u1",
            "10.6.0-MariaDB",
            "11.4.2-MariaDB-log",
            "8.0.36",
            "9.1.0",
        ] {
            check_mariadb(good).unwrap();
        }
        for old in [
            "10.5.29-MariaDB",
            "5.7.44-log",
            "5.5.68-MariaDB",
            "nonsense",
        ] {
            let text = check_mariadb(old).unwrap_err().to_string();
            assert!(text.contains("too old") && text.contains("10.6"), "{text}");
        }
        check_postgres("130000").unwrap();
        assert!(
            check_postgres("120020")
                .unwrap_err()
                .to_string()
                .contains("PostgreSQL 13")
        );
    }

    #[tokio::test]
    async fn malformed_urls_are_refused_without_the_password() {
        for url in [
            "mysql://u:hunter2@[/db",
            "postgres://u:hunter2@host:notaport/db",
            "oracle://u:hunter2@host/db",
            "sqlite::memory:",
            "sqlite:",
            "",
        ] {
            let text = connect(url, 4).await.err().expect("refused").to_string();
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("sqlite:PATH"), "{text}");
        }
    }
}
