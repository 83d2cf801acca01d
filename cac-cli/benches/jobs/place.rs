//! Databases, cores and rows for measurements.

use std::collections::BTreeMap;
use std::time::Duration;

use cac_core::config::{Config, Program, Vars};
use cac_core::db::Db;
use cac_core::testing::{self, TestDb};
use cac_core::{Core, args, schema};

/// Those that the command line names, or all.
pub(crate) fn asked<const N: usize>(known: [&'static str; N]) -> Vec<&'static str> {
    let words: Vec<String> = std::env::args().collect();
    let named = |known: &&str| words.iter().any(|word| word == known);
    let asked: Vec<_> = known.into_iter().filter(named).collect();
    if asked.is_empty() {
        known.into()
    } else {
        asked
    }
}

/// The databases to measure on.
pub(crate) fn databases() -> Vec<&'static str> {
    asked(["sqlite", "mariadb", "postgres"])
}

/// A fresh, migrated database.
pub(crate) async fn fresh(name: &str) -> TestDb {
    let database = match name {
        "sqlite" => testing::sqlite().await,
        "mariadb" => testing::mariadb().await,
        _ => testing::postgres().await,
    };
    schema::up(&database.db).await.unwrap();
    database
}

/// A process's view of a database, everything else at its default.
pub(crate) async fn core(url: &str, more: &[(&str, &str)]) -> Core {
    let mut vars = Vars(BTreeMap::new());
    vars.set("DATABASE_URL", url);
    vars.set("SESSION_SECRET", "a secret for measurements only");
    for (name, value) in more {
        vars.set(name, *value);
    }
    Core::start(Config::load(&vars, Program::Http).unwrap())
        .await
        .unwrap()
}

/// Adds jobs at once: of a kind, or shell commands.
pub(crate) async fn add(database: &TestDb, jobs: usize, command: &str, kind: Option<&str>) {
    let now = chrono::Utc::now();
    let sql = r#"INSERT INTO "Jobs" ("command", "kind", "payload", "createdBy", "createdAt", "updatedAt") VALUES (?, ?, ?, 'admin', ?, ?)"#;
    let row = |_| args![command, kind, kind.map(|_| "{}"), now, now];
    let mut tx = database.db.write().await.unwrap();
    tx.insert_all(sql, (0..jobs).map(row).collect())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    if database.name == "postgres" {
        // What the server does by itself on tables that stand longer than a moment.
        database.script("ANALYZE").await;
    }
}

/// Waits until every job has ended.
pub(crate) async fn ended(db: &Db) {
    while testing::open(db).await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From the first beginning to the last end.
pub(crate) async fn span(db: &Db) -> Duration {
    type Time = chrono::DateTime<chrono::Utc>;
    let sql = r#"SELECT MIN("startedAt") AS "first", MAX("finishedAt") AS "last" FROM "Jobs""#;
    let row = db.one(sql, args![]).await.unwrap();
    let (first, last): (Time, Time) = (row.get("first").unwrap(), row.get("last").unwrap());
    (last - first).to_std().unwrap()
}

/// All of them must have ended well.
pub(crate) async fn all_well(db: &Db, jobs: usize) {
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Jobs" WHERE "status" = 'success'"#;
    let well: i64 = db.one(sql, args![]).await.unwrap().get("n").unwrap();
    assert_eq!(usize::try_from(well).unwrap(), jobs);
}
