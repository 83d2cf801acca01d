//! One migrating process at a time, and statements as they stand in a file: what `schema` needs beyond values in and rows
//! out.

use sqlx::{Connection as _, MySqlConnection, PgConnection};

use super::{Conn, Db, Dialect, Error, Pools, Tx, mysql_number};

/// A named lock of the server, held by a connection of its own, so that it falls with the connection.
///
/// SQLite needs none: there each statement runs in an immediate transaction that looks again first.
pub(crate) enum Exclusive {
    Sqlite,
    MariaDb(MySqlConnection),
    Postgres(PgConnection),
}

/// Any number: advisory locks belong to one database.
const POSTGRES_LOCK: i64 = 0x6361_6320_7570;

impl Exclusive {
    /// Closes the connection in an orderly way; dropping only cuts it.
    pub(crate) async fn release(self) {
        let outcome = match self {
            Self::Sqlite => Ok(()),
            Self::MariaDb(conn) => conn.close().await,
            Self::Postgres(conn) => conn.close().await,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "closing the lock's connection");
        }
    }
}

/// Whether a statement ran as it stands, or had done so before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    Now,
    Before,
}

impl Db {
    /// Waits for the lock of this database, at most ten minutes on MariaDB.
    pub(crate) async fn exclusive(&self) -> Result<Exclusive, Error> {
        match &self.0 {
            Pools::Sqlite { .. } => Ok(Exclusive::Sqlite),
            Pools::MariaDb(pool) => {
                let mut conn = pool.acquire().await?.detach();
                // Locks are the server's, so the name holds the database's; MySQL allows 64 characters.
                let sql = "SELECT GET_LOCK(CONCAT('cac ', SHA1(DATABASE())), 600)";
                let got: Option<i64> = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
                match got {
                    Some(1) => Ok(Exclusive::MariaDb(conn)),
                    _ => Err(Error::Busy(
                        "another process is migrating this database".to_owned(),
                    )),
                }
            }
            Pools::Postgres(pool) => {
                let mut conn = pool.acquire().await?.detach();
                let query = sqlx::query("SELECT pg_advisory_lock($1)").bind(POSTGRES_LOCK);
                query.execute(&mut conn).await?;
                Ok(Exclusive::Postgres(conn))
            }
        }
    }

    /// A statement as it stands, outside any transaction; for MariaDB, whose DDL commits by itself.
    ///
    /// With `resumed`, an error that says that its work is already there counts as done.
    pub(crate) async fn ddl(&self, sql: &str, resumed: bool) -> Result<Ran, Error> {
        /// Table, column, key or constraint exists already, or is already gone.
        const ALREADY: [u16; 6] = [1050, 1051, 1060, 1061, 1091, 1826];
        let outcome = match &self.0 {
            Pools::MariaDb(pool) => {
                let mut conn = pool.acquire().await?;
                Conn::MariaDb(&mut conn).raw(sql).await
            }
            Pools::Sqlite { .. } | Pools::Postgres(_) => {
                return Err(Error::Other(
                    "DDL belongs into a transaction here".to_owned(),
                ));
            }
        };
        match outcome {
            Ok(()) => Ok(Ran::Now),
            Err(error) if resumed && mysql_number(&error).is_some_and(|n| ALREADY.contains(&n)) => {
                Ok(Ran::Before)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Tx {
    /// A statement as it stands, inside this transaction.
    pub(crate) async fn ddl(&mut self, sql: &str) -> Result<(), Error> {
        let outcome = self.conn().raw(sql).await.map_err(Error::from);
        self.note(outcome)
    }

    /// Which kind of database this transaction is on.
    pub(crate) fn dialect(&self) -> Dialect {
        match &self.inner {
            super::tx::Inner::Sqlite(_) => Dialect::Sqlite,
            super::tx::Inner::MariaDb(_) => Dialect::MariaDb,
            super::tx::Inner::Postgres(_) => Dialect::Postgres,
        }
    }
}
