//! A transaction of any kind. Dropped without `commit`, it is rolled back.

use sqlx::{MySql, Postgres, Sqlite, Transaction};

use super::{Arg, Conn, Done, Error, Pools, Row, connect, exactly_one, render};

/// An open transaction.
pub struct Tx {
    pub(super) inner: Inner,
    busy: bool,
}

pub(super) enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    MariaDb(Transaction<'static, MySql>),
    Postgres(Transaction<'static, Postgres>),
}

pub(super) enum Mode {
    Read,
    Write,
}

impl Tx {
    pub(super) async fn begin(pools: &Pools, mode: Mode) -> Result<Self, Error> {
        let inner = match (pools, mode) {
            (Pools::Sqlite { readers, .. }, Mode::Read) => Inner::Sqlite(readers.begin().await?),
            // A deferred BEGIN that reads and then writes fails at once (517) when another wrote in between.
            (Pools::Sqlite { writer, .. }, Mode::Write) => {
                let begun = writer.begin_with("BEGIN IMMEDIATE").await;
                Inner::Sqlite(begun.map_err(connect::writer_busy)?)
            }
            // Connections stand at READ COMMITTED, which takes no gap locks and so deadlocks less.
            (Pools::MariaDb(pool), Mode::Write) => Inner::MariaDb(pool.begin().await?),
            (Pools::MariaDb(pool), Mode::Read) => Inner::MariaDb(
                pool.begin_with(
                    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION READ ONLY",
                )
                .await?,
            ),
            (Pools::Postgres(pool), Mode::Write) => Inner::Postgres(pool.begin().await?),
            (Pools::Postgres(pool), Mode::Read) => Inner::Postgres(
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await?,
            ),
        };
        Ok(Self { inner, busy: false })
    }

    pub(super) fn conn(&mut self) -> Conn<'_> {
        match &mut self.inner {
            Inner::Sqlite(tx) => Conn::Sqlite(tx),
            Inner::MariaDb(tx) => Conn::MariaDb(tx),
            Inner::Postgres(tx) => Conn::Postgres(tx),
        }
    }

    pub(super) fn note<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        self.busy |= outcome.as_ref().is_err_and(Error::busy);
        outcome
    }

    async fn execute(&mut self, sql: &str, args: Vec<Arg>) -> Result<Done, Error> {
        let outcome = self.conn().execute(sql, args).await;
        self.note(outcome)
    }

    async fn fetch(&mut self, sql: &str, args: Vec<Arg>) -> Result<Vec<Row>, Error> {
        let outcome = self.conn().fetch(sql, args).await;
        self.note(outcome)
    }

    /// Whether a statement of this transaction met a busy database, so that only a repetition of the whole helps.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.busy
    }

    /// All rows of a SELECT.
    pub async fn all(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<Row>, Error> {
        self.fetch(sql, args).await
    }

    /// The first row of a SELECT, if there is one.
    pub async fn opt(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Option<Row>, Error> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// The first row of a SELECT that always has one, such as a COUNT.
    pub async fn one(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Row, Error> {
        exactly_one(self.fetch(sql, args).await?, sql)
    }

    /// A write; returns the number of rows it matched, changed or not.
    pub async fn exec(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<u64, Error> {
        Ok(self.execute(sql, args).await?.rows)
    }

    /// An INSERT of one row into a table with a generated `"id"`, which is returned.
    pub async fn insert(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<i64, Error> {
        if !matches!(self.inner, Inner::Postgres(_)) {
            // Not RETURNING: MySQL has none.
            return Ok(self.execute(sql, args).await?.last_id);
        }
        let rows = self.fetch(&format!("{sql} RETURNING \"id\""), args).await?;
        exactly_one(rows, sql)?.get("id")
    }

    /// Inserts many rows: `sql` ends in one `VALUES (?, …)`, which is repeated. Batches stay below the databases'
    /// limits on values for up to 150 columns.
    pub async fn insert_all(
        &mut self,
        sql: &'static str,
        rows: Vec<Vec<Arg>>,
    ) -> Result<u64, Error> {
        let mut inserted = 0;
        let mut rows = rows.into_iter();
        loop {
            let batch: Vec<Vec<Arg>> = rows.by_ref().take(200).collect();
            if batch.is_empty() {
                return Ok(inserted);
            }
            let text = render::repeat_values(sql, batch.len())?;
            inserted += self
                .execute(&text, batch.into_iter().flatten().collect())
                .await?
                .rows;
        }
    }

    /// Waits until no other transaction holds the lock of that name (a row of `Locks`); held until this one ends.
    pub async fn lock(&mut self, name: &'static str) -> Result<(), Error> {
        let sql = r#"UPDATE "Locks" SET "name" = "name" WHERE "name" = ?"#;
        match self.execute(sql, vec![Arg::from(name)]).await?.rows {
            0 => Err(Error::Other(format!("there is no lock named {name}"))),
            _ => Ok(()),
        }
    }

    /// Makes everything permanent. A busy error means that nothing was.
    pub async fn commit(self) -> Result<(), Error> {
        match self.inner {
            Inner::Sqlite(tx) => tx.commit().await?,
            Inner::MariaDb(tx) => tx.commit().await?,
            Inner::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    /// Undoes everything now; dropping does it a little later. A failure means that the connection is gone, and
    /// with it the transaction.
    pub async fn rollback(self) {
        let outcome = match self.inner {
            Inner::Sqlite(tx) => tx.rollback().await,
            Inner::MariaDb(tx) => tx.rollback().await,
            Inner::Postgres(tx) => tx.rollback().await,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "rollback");
        }
    }
}
