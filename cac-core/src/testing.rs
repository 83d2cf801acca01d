//! For tests: a fresh database on each of SQLite, MariaDB and PostgreSQL, gone when dropped, and waiting for jobs and other
//! things. Never in a release.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _};

pub mod nginx;
mod relay;

pub use relay::{Passing, Relay};

use crate::db::{Db, Dialect};
use crate::job::{self, Job};
use crate::{Core, schema};

/// Long enough for a busy machine, short enough to end a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `check` holds.
pub async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "never came true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a job has ended; the job as it then is.
pub async fn ended(core: &Core, id: i64) -> Job {
    let job = job::wait(core, id, PATIENCE)
        .await
        .expect("the test's job can be read");
    assert!(
        job.status.ended(),
        "{} ({}): job {id} has not ended: {}",
        core.db.dialect().name(),
        job.status.as_str(),
        log(core, id).await
    );
    job
}

/// A job's whole output.
pub async fn log(core: &Core, id: i64) -> String {
    let rows = job::output(core, id, 10_000, 0)
        .await
        .expect("the test's job can be read");
    rows.into_iter().map(|row| row.output).collect()
}

/// The folders of `migrations/`, oldest first.
pub fn migrations() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let entries = std::fs::read_dir(folder).expect("the folder of the migrations");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("a plain name"))
        .collect();
    names.sort();
    names
}

/// How many jobs have not ended.
pub async fn open(db: &Db) -> i64 {
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Jobs" WHERE "status" IN ('pending', 'running')"#;
    let row = db.one(sql, vec![]).await.expect("jobs can be counted");
    row.get("n").expect("a count is a number")
}

/// A database of one test; it is dropped with this value.
pub struct TestDb {
    pub db: Db,
    /// `sqlite`, `mariadb` or `postgres`.
    pub name: &'static str,
    /// For a second handle: `Db::connect(&test.url)`.
    pub url: String,
    _place: Place,
}

enum Place {
    Directory { _directory: tempfile::TempDir },
    Server { admin: String, database: String },
}

/// A fresh, migrated database on each of the three.
pub async fn databases() -> Vec<TestDb> {
    let databases = empty_databases().await;
    for test in &databases {
        schema::up(&test.db)
            .await
            .expect("a fresh database can be migrated");
    }
    databases
}

/// A database without any table on each of the three.
pub async fn empty_databases() -> Vec<TestDb> {
    vec![sqlite().await, mariadb().await, postgres().await]
}

/// An empty SQLite database in a temporary directory.
pub async fn sqlite() -> TestDb {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", directory.path().join("cac.db").display());
    test_db(
        url,
        Place::Directory {
            _directory: directory,
        },
    )
    .await
}

/// An empty database on the MariaDB server of `CAC_TEST_MARIADB_URL`, in the server's default character set.
pub async fn mariadb() -> TestDb {
    server("CAC_TEST_MARIADB_URL").await
}

/// An empty database on the PostgreSQL server of `CAC_TEST_POSTGRES_URL`.
pub async fn postgres() -> TestDb {
    server("CAC_TEST_POSTGRES_URL").await
}

async fn test_db(url: String, place: Place) -> TestDb {
    let db = Db::connect(&url)
        .await
        .expect("the test's database answers");
    TestDb {
        name: db.dialect().name(),
        db,
        url,
        _place: place,
    }
}

async fn server(variable: &str) -> TestDb {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let admin = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run the tests by `.ci/test`, or any command by `.ci/servers COMMAND`")
    });
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let database = format!(
        "cac_test_{}_{number}_{:08x}",
        std::process::id(),
        rand::random::<u32>()
    );
    run(&admin, &format!("CREATE DATABASE {database}"))
        .await
        .expect("the administrator's URL works");
    let mut url = url::Url::parse(&admin).expect("the administrator's URL is well-formed");
    url.set_path(&database);
    test_db(url.into(), Place::Server { admin, database }).await
}

async fn run(admin: &str, sql: &str) -> Result<(), sqlx::Error> {
    let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
    if admin.starts_with("postgres") {
        let mut conn = sqlx::postgres::PgConnectOptions::from_url(&url(admin))?
            .connect()
            .await?;
        conn.execute(sqlx::raw_sql(sql)).await?;
        conn.close().await
    } else {
        let mut conn = sqlx::mysql::MySqlConnectOptions::from_url(&url(admin))?
            .connect()
            .await?;
        conn.execute(sqlx::raw_sql(sql)).await?;
        conn.close().await
    }
}

/// Ends the connections first: an open transaction would make MariaDB wait for ever, and its test waits for us.
async fn drop_database(admin: &str, database: &str) -> Result<(), sqlx::Error> {
    if admin.starts_with("postgres") {
        return run(admin, &format!("DROP DATABASE {database} WITH (FORCE)")).await;
    }
    let options = sqlx::mysql::MySqlConnectOptions::from_url(&url(admin))?;
    let mut conn = options.connect().await?;
    let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = ?";
    let open: Vec<i64> = sqlx::query_scalar(sql)
        .bind(database)
        .fetch_all(&mut conn)
        .await?;
    conn.close().await?;
    for id in open {
        // It may have ended by itself meanwhile.
        let _ = run(admin, &format!("KILL {id}")).await;
    }
    run(admin, &format!("DROP DATABASE {database}")).await
}

fn url(text: &str) -> url::Url {
    url::Url::parse(text).expect("the administrator's URL is well-formed")
}

impl TestDb {
    /// Statements as they stand, such as a dump; on its own connection and not rendered.
    pub async fn script(&self, sql: &str) {
        let outcome = match self.db.dialect() {
            Dialect::Sqlite => {
                let path = self.url.trim_start_matches("sqlite:");
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut conn = options.connect().await.expect("the file opens");
                conn.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()).into_sql_str()))
                    .await
                    .map(drop)
            }
            Dialect::MariaDb | Dialect::Postgres => run(&self.url, sql).await,
        };
        outcome.expect("the script runs");
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let Place::Server { admin, database } = &self._place else {
            return;
        };
        let (admin, database) = (admin.clone(), database.clone());
        // Dropping is not async and may happen inside a runtime, so it gets a thread and a runtime of its own.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.is_ok_and(|runtime| runtime.block_on(drop_database(&admin, &database)).is_ok())
        });
        if !dropped.join().unwrap_or(false) {
            eprintln!("the test's database was left behind");
        }
    }
}
