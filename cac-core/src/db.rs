//! The one door to three databases: real pools behind one enum, one SQL text rendered for each, values in, rows out.
//!
//! SQL is `&'static str` with `?`, `"quoted"` names, `NOW_MS()` (the database's clock, epoch milliseconds) and
//! `IN ?` for [`Arg::Ids`] and [`Arg::Texts`]; it is never assembled outside this module. Nothing else knows that there
//! is more than one database. Not here: tables (`schema`) and what they mean (the noun files).

mod arg;
mod connect;
mod error;
mod exclusive;
mod notify;
mod render;
mod retry;
mod row;
mod tx;

pub use arg::Arg;
pub(crate) use connect::sqlite_file;
pub use error::Error;
pub(crate) use notify::Notices;
#[doc(hidden)]
pub use retry::Retry;
pub use row::{Column, Row};
pub use tx::Tx;

use error::mysql_number;

use sqlx::mysql::{MySqlConnection, MySqlPool};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

/// A handle to one database; clones share its pools.
#[derive(Clone)]
pub struct Db(Pools);

#[derive(Clone)]
enum Pools {
    /// One writer: SQLite has one anyway, and waiting in our queue is fairer than its busy handler.
    Sqlite {
        readers: SqlitePool,
        writer: SqlitePool,
    },
    MariaDb(MySqlPool),
    Postgres(PgPool),
}

/// Which kind of database, where a statement must differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    /// Also MySQL.
    MariaDb,
    Postgres,
}

impl Dialect {
    /// `sqlite`, `mariadb` or `postgres`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::MariaDb => "mariadb",
            Self::Postgres => "postgres",
        }
    }
}

/// A connection of any kind, borrowed from a pool or a transaction.
enum Conn<'c> {
    Sqlite(&'c mut SqliteConnection),
    MariaDb(&'c mut MySqlConnection),
    Postgres(&'c mut PgConnection),
}

/// A query of the database's own kind, with every value bound.
macro_rules! query {
    ($dialect:ident, $sql:expr, $args:expr, $time:expr) => {{
        let rendered = render::render(Dialect::$dialect, $sql, $args)?;
        let mut query = sqlx::query(AssertSqlSafe(rendered.sql).into_sql_str());
        for arg in rendered.args {
            query = match arg {
                Arg::Int(value) => query.bind(value),
                Arg::Bool(value) => query.bind(value),
                Arg::Text(value) => query.bind(value.map(without_nul)),
                Arg::Time(value) => query.bind(value.map($time)),
                Arg::Ids(_) | Arg::Texts(_) => unreachable!("render() expands lists"),
            };
        }
        query
    }};
}

/// Text of a `LIKE … ESCAPE '!'` in which no wildcard is the caller's.
pub(crate) fn without_wildcards(text: &str) -> String {
    let marked = |c: char| "!%_".contains(c).then_some('!').into_iter().chain([c]);
    text.chars().flat_map(marked).collect()
}

fn without_nul(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

/// The three databases keep milliseconds at most, so that a value read back equals the one bound.
fn milliseconds(time: chrono::DateTime<chrono::Utc>) -> chrono::DateTime<chrono::Utc> {
    use chrono::SubsecRound as _;
    time.trunc_subsecs(3)
}

/// MariaDB takes a `DateTime` as its TIMESTAMP, which outside 1970 to 2038 is stored as NULL without an error.
fn datetime(time: chrono::DateTime<chrono::Utc>) -> chrono::NaiveDateTime {
    milliseconds(time).naive_utc()
}

/// SQLite compares times as text, so there is one form only.
fn time_text(time: chrono::DateTime<chrono::Utc>) -> String {
    milliseconds(time).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// What a statement did that gives no rows.
struct Done {
    rows: u64,
    /// The number given to the first row by an auto-increment key; 0 on PostgreSQL.
    last_id: i64,
}

impl Conn<'_> {
    async fn fetch(self, sql: &str, args: Vec<Arg>) -> Result<Vec<Row>, Error> {
        fn all<R>(rows: Vec<R>, wrap: fn(R) -> row::Inner) -> Vec<Row> {
            rows.into_iter().map(|row| Row(wrap(row))).collect()
        }
        Ok(match self {
            Self::Sqlite(conn) => {
                let query = query!(Sqlite, sql, args, time_text);
                all(query.fetch_all(conn).await?, row::Inner::Sqlite)
            }
            Self::MariaDb(conn) => {
                let query = query!(MariaDb, sql, args, datetime);
                all(query.fetch_all(conn).await?, row::Inner::MariaDb)
            }
            Self::Postgres(conn) => {
                let query = query!(Postgres, sql, args, milliseconds);
                all(query.fetch_all(conn).await?, row::Inner::Postgres)
            }
        })
    }

    async fn execute(self, sql: &str, args: Vec<Arg>) -> Result<Done, Error> {
        Ok(match self {
            Self::Sqlite(conn) => {
                let done = query!(Sqlite, sql, args, time_text).execute(conn).await?;
                Done {
                    rows: done.rows_affected(),
                    last_id: done.last_insert_rowid(),
                }
            }
            Self::MariaDb(conn) => {
                let done = query!(MariaDb, sql, args, datetime).execute(conn).await?;
                Done {
                    rows: done.rows_affected(),
                    last_id: i64::try_from(done.last_insert_id())
                        .map_err(|_| Error::Other("a key beyond 63 bits".to_owned()))?,
                }
            }
            Self::Postgres(conn) => {
                let done = query!(Postgres, sql, args, milliseconds)
                    .execute(conn)
                    .await?;
                Done {
                    rows: done.rows_affected(),
                    last_id: 0,
                }
            }
        })
    }

    /// Several statements as they stand, without values and without rendering.
    async fn raw(self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
        match self {
            Self::Sqlite(conn) => sqlx::raw_sql(sql).execute(conn).await.map(drop),
            Self::MariaDb(conn) => sqlx::raw_sql(sql).execute(conn).await.map(drop),
            Self::Postgres(conn) => sqlx::raw_sql(sql).execute(conn).await.map(drop),
        }
    }
}

fn exactly_one(rows: Vec<Row>, sql: &str) -> Result<Row, Error> {
    rows.into_iter()
        .next()
        .ok_or_else(|| Error::Other(format!("no row for: {sql}")))
}

/// Connections of a process to a database server at most, unless it asks for another number.
pub const CONNECTIONS: u32 = 10;

impl Db {
    /// Opens the pools and checks the server's version.
    ///
    /// `sqlite:PATH` (also `sqlite://PATH`), `mysql://…` or `mariadb://…`, `postgres://…` or `postgresql://…`.
    /// Error texts never hold the password.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, CONNECTIONS).await
    }

    /// Whether connecting would make the database: a SQLite file that is not there.
    #[must_use]
    pub fn is_missing(url: &str) -> bool {
        sqlite_file(url).is_some_and(|path| !std::path::Path::new(path).exists())
    }

    /// The same with up to `connections` to a server; SQLite always has one writer and four readers.
    pub async fn connect_with(url: &str, connections: u32) -> Result<Self, Error> {
        connect::connect(url, connections).await
    }

    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match &self.0 {
            Pools::Sqlite { .. } => Dialect::Sqlite,
            Pools::MariaDb(_) => Dialect::MariaDb,
            Pools::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        match &self.0 {
            Pools::Sqlite { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::MariaDb(pool) => pool.close().await,
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    /// A transaction that sees one state of the database and writes nothing.
    pub async fn read(&self) -> Result<Tx, Error> {
        Tx::begin(&self.0, tx::Mode::Read).await
    }

    /// A transaction that writes. On SQLite it holds the one writer until it ends: no slow call inside.
    pub async fn write(&self) -> Result<Tx, Error> {
        Tx::begin(&self.0, tx::Mode::Write).await
    }

    /// All rows of a SELECT.
    pub async fn all(&self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<Row>, Error> {
        match &self.0 {
            Pools::Sqlite { readers, .. } => {
                let mut conn = readers.acquire().await?;
                Conn::Sqlite(&mut conn).fetch(sql, args).await
            }
            Pools::MariaDb(pool) => {
                let mut conn = pool.acquire().await?;
                Conn::MariaDb(&mut conn).fetch(sql, args).await
            }
            Pools::Postgres(pool) => {
                let mut conn = pool.acquire().await?;
                Conn::Postgres(&mut conn).fetch(sql, args).await
            }
        }
    }

    /// The rows that a single writing statement returns (`RETURNING`, which MariaDB's UPDATE does not have); not repeated.
    pub async fn written(&self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<Row>, Error> {
        match &self.0 {
            Pools::Sqlite { writer, .. } => {
                let mut conn = writer.acquire().await.map_err(connect::writer_busy)?;
                Conn::Sqlite(&mut conn).fetch(sql, args).await
            }
            _ => self.all(sql, args).await,
        }
    }

    /// The first row of a SELECT, if there is one.
    pub async fn opt(&self, sql: &'static str, args: Vec<Arg>) -> Result<Option<Row>, Error> {
        Ok(self.all(sql, args).await?.into_iter().next())
    }

    /// The first row of a SELECT that always has one, such as a COUNT.
    pub async fn one(&self, sql: &'static str, args: Vec<Arg>) -> Result<Row, Error> {
        exactly_one(self.all(sql, args).await?, sql)
    }

    /// A write of one statement, repeated while the database is busy; returns the number of rows it matched.
    pub async fn exec(&self, sql: &'static str, args: Vec<Arg>) -> Result<u64, Error> {
        let mut retry = Retry::default();
        loop {
            match self.execute(sql, args.clone()).await {
                Err(error) if error.busy() && retry.again().await => {}
                outcome => return outcome.map(|done| done.rows),
            }
        }
    }

    async fn execute(&self, sql: &str, args: Vec<Arg>) -> Result<Done, Error> {
        match &self.0 {
            Pools::Sqlite { writer, .. } => {
                let mut conn = writer.acquire().await.map_err(connect::writer_busy)?;
                Conn::Sqlite(&mut conn).execute(sql, args).await
            }
            Pools::MariaDb(pool) => {
                let mut conn = pool.acquire().await?;
                Conn::MariaDb(&mut conn).execute(sql, args).await
            }
            Pools::Postgres(pool) => {
                let mut conn = pool.acquire().await?;
                Conn::Postgres(&mut conn).execute(sql, args).await
            }
        }
    }
}
