//! The bare limits: the least SQL that claims, ends and adds jobs and stores output, straight on a driver's connection.

use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

pub(crate) enum Bare {
    Sqlite(SqliteConnection),
    MariaDb(MySqlConnection),
    Postgres(PgConnection),
}

/// Identifiers as they stand in a list.
fn list(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    ids.join(",")
}

impl Bare {
    pub(crate) async fn open(url: &str) -> Self {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let options = SqliteConnectOptions::new()
                .filename(path)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal);
            return Self::Sqlite(SqliteConnection::connect_with(&options).await.unwrap());
        }
        if url.starts_with("mysql") {
            let mut conn = MySqlConnection::connect(url).await.unwrap();
            conn.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                .await
                .unwrap();
            return Self::MariaDb(conn);
        }
        Self::Postgres(PgConnection::connect(url).await.unwrap())
    }

    /// Claims pending jobs.
    pub(crate) async fn claim(&mut self, slots: usize) -> Vec<i64> {
        let slots = i64::try_from(slots).unwrap();
        match self {
            Self::Sqlite(conn) => sqlx::query_scalar(
                r#"UPDATE "Jobs" SET "status" = 'running' WHERE "id" IN
                   (SELECT "id" FROM "Jobs" WHERE "status" = 'pending' ORDER BY "turn", "id" LIMIT ?) RETURNING "id""#,
            )
            .bind(slots)
            .fetch_all(conn)
            .await
            .unwrap(),
            Self::Postgres(conn) => {
                let ids: Vec<i32> = sqlx::query_scalar(
                    r#"UPDATE "Jobs" SET "status" = 'running' WHERE "id" IN
                       (SELECT "id" FROM "Jobs" WHERE "status" = 'pending' ORDER BY "turn", "id" LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING "id""#,
                )
                .bind(slots)
                .fetch_all(conn)
                .await
                .unwrap();
                ids.into_iter().map(i64::from).collect()
            }
            Self::MariaDb(conn) => {
                let mut tx = conn.begin().await.unwrap();
                let sql = "SELECT `id` FROM `Jobs` WHERE `status` = 'pending' ORDER BY `turn`, `id` LIMIT ? FOR UPDATE SKIP LOCKED";
                let ids: Vec<i64> = sqlx::query_scalar(sql).bind(slots).fetch_all(&mut *tx).await.unwrap();
                if !ids.is_empty() {
                    let sql = format!("UPDATE `Jobs` SET `status` = 'running' WHERE `id` IN ({})", list(&ids));
                    tx.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
                }
                tx.commit().await.unwrap();
                ids
            }
        }
    }

    /// Ends claimed jobs.
    pub(crate) async fn finish(&mut self, ids: &[i64]) {
        match self {
            Self::Sqlite(conn) => {
                let sql = format!(
                    r#"UPDATE "Jobs" SET "status" = 'success' WHERE "id" IN ({})"#,
                    list(ids)
                );
                conn.execute(sqlx::raw_sql(AssertSqlSafe(sql)))
                    .await
                    .unwrap();
            }
            Self::Postgres(conn) => {
                let sql = r#"UPDATE "Jobs" SET "status" = 'success' WHERE "id" = ANY($1)"#;
                sqlx::query(sql).bind(ids).execute(conn).await.unwrap();
            }
            Self::MariaDb(conn) => {
                let sql = format!(
                    "UPDATE `Jobs` SET `status` = 'success' WHERE `id` IN ({})",
                    list(ids)
                );
                conn.execute(sqlx::raw_sql(AssertSqlSafe(sql)))
                    .await
                    .unwrap();
            }
        }
    }

    /// Adds a job.
    pub(crate) async fn add(&mut self) {
        let now = chrono::Utc::now();
        let command = "# bare";
        match self {
            Self::Sqlite(conn) => {
                let sql =
                    r#"INSERT INTO "Jobs" ("command", "createdAt", "updatedAt") VALUES (?, ?, ?)"#;
                let query = sqlx::query(sql).bind(command).bind(now).bind(now);
                query.execute(conn).await.unwrap();
            }
            Self::Postgres(conn) => {
                let sql = r#"INSERT INTO "Jobs" ("command", "createdAt", "updatedAt") VALUES ($1, $2, $3)"#;
                let query = sqlx::query(sql).bind(command).bind(now).bind(now);
                query.execute(conn).await.unwrap();
            }
            Self::MariaDb(conn) => {
                let sql =
                    "INSERT INTO `Jobs` (`command`, `createdAt`, `updatedAt`) VALUES (?, ?, ?)";
                let query = sqlx::query(sql).bind(command).bind(now).bind(now);
                query.execute(conn).await.unwrap();
            }
        }
    }

    /// Stores a row of output.
    pub(crate) async fn append(&mut self, job: i32, chunk: &str) {
        let now = chrono::Utc::now();
        match self {
            Self::Sqlite(conn) => {
                let sql = r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
                let query = sqlx::query(sql).bind(job).bind(chunk).bind(now).bind(now);
                query.execute(conn).await.unwrap();
            }
            Self::Postgres(conn) => {
                let sql = r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") VALUES ($1, $2, $3, $4)"#;
                let query = sqlx::query(sql).bind(job).bind(chunk).bind(now).bind(now);
                query.execute(conn).await.unwrap();
            }
            Self::MariaDb(conn) => {
                let sql = "INSERT INTO `JobStatuses` (`jobId`, `output`, `createdAt`, `updatedAt`) VALUES (?, ?, ?, ?)";
                let query = sqlx::query(sql).bind(job).bind(chunk).bind(now).bind(now);
                query.execute(conn).await.unwrap();
            }
        }
    }
}
