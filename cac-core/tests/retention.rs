//! What grows old is removed in time, and not before, on the three databases.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::sync::{Arc, Mutex};

use cac_core::clock::Clock;
use cac_core::config::{Config, Program, Vars};
use cac_core::db::Row;
use cac_core::testing::{self, TestDb};
use cac_core::{Core, args, retention};
use chrono::{DateTime, TimeDelta, Utc};

struct Lab {
    core: Core,
    time: Arc<Mutex<DateTime<Utc>>>,
}

impl Lab {
    async fn new(database: &TestDb, more: &[(&str, &str)]) -> Self {
        let mut vars = Vars::default();
        vars.set("DATABASE_URL", &database.url);
        vars.set("SESSION_SECRET", "a secret for tests only");
        for (name, value) in more {
            vars.set(name, *value);
        }
        let time = Arc::new(Mutex::new(Utc::now()));
        let config = Config::load(&vars, Program::Local).unwrap();
        let core = Core::with(database.db.clone(), config, Clock::Fixed(Arc::clone(&time)));
        Self {
            core: core.await.unwrap(),
            time,
        }
    }

    fn pass(&self, days: i64) {
        *self.time.lock().unwrap() += TimeDelta::days(days);
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.core
            .db
            .one(sql, args![])
            .await
            .unwrap()
            .get("n")
            .unwrap()
    }

    /// What is there: audit entries but for those of removals, jobs, output, keys, failures.
    async fn counts(&self) -> [i64; 5] {
        [
            self.count(r#"SELECT COUNT(*) AS "n" FROM "AuditEntries" WHERE "action" <> 'retention_remove'"#)
                .await,
            self.count(r#"SELECT COUNT(*) AS "n" FROM "Jobs""#).await,
            self.count(r#"SELECT COUNT(*) AS "n" FROM "JobStatuses""#)
                .await,
            self.count(r#"SELECT COUNT(*) AS "n" FROM "IdempotencyKeys""#)
                .await,
            self.count(r#"SELECT COUNT(*) AS "n" FROM "LoginFailures""#)
                .await,
        ]
    }

    /// One of each, and a job that is not finished.
    async fn fill(&self, number: i64, age: i64) {
        let at = self.core.clock.now() - TimeDelta::days(age);
        let db = &self.core.db;
        let sql = r#"INSERT INTO "AuditEntries" ("via", "action", "target", "status", "createdAt") VALUES ('local', 'a', 'b', 200, ?)"#;
        db.exec(sql, args![at]).await.unwrap();
        for status in ["success", "pending"] {
            let mut tx = db.write().await.unwrap();
            let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt") VALUES ('id', ?, ?, ?)"#;
            let job = tx.insert(sql, args![status, at, at]).await.unwrap();
            let sql = r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") VALUES (?, 'x', ?, ?)"#;
            tx.insert(sql, args![job, at, at]).await.unwrap();
            tx.commit().await.unwrap();
        }
        let sql = r#"INSERT INTO "IdempotencyKeys" ("username", "idempotencyKey", "requestHash", "jobId", "createdAt", "updatedAt")
                     VALUES ('alice', ?, 'x', 1, ?, ?)"#;
        db.exec(sql, args![format!("key {number}"), at, at])
            .await
            .unwrap();
        let sql = r#"INSERT INTO "LoginFailures" ("name", "failures", "lastAt") VALUES (?, 1, ?)"#;
        db.exec(sql, args![format!("user {number}"), at])
            .await
            .unwrap();
    }

    async fn add_entries(&self, count: u32, age: i64) {
        let at = self.core.clock.now() - TimeDelta::days(age);
        let mut tx = self.core.db.write().await.unwrap();
        for _ in 0..count {
            let sql = r#"INSERT INTO "AuditEntries" ("via", "action", "target", "status", "createdAt") VALUES ('local', 'a', 'b', 200, ?)"#;
            tx.insert(sql, args![at]).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// What the audit log says of removals.
    async fn removals(&self) -> Vec<String> {
        let sql = r#"SELECT "via", "username", "detail" FROM "AuditEntries" WHERE "action" = 'retention_remove' ORDER BY "id""#;
        let rows = self.core.db.all(sql, args![]).await.unwrap();
        let detail = |row: &Row| {
            assert_eq!(row.get::<Option<String>>("username").unwrap(), None);
            row.get("detail").unwrap()
        };
        rows.iter().map(detail).collect()
    }

    async fn remove(&self) -> usize {
        let mut removed = 0;
        loop {
            match retention::step(&self.core, "one").await.unwrap() {
                0 => return removed,
                some => removed += some,
            }
        }
    }
}

#[tokio::test]
async fn old_rows_go_a_week_after_an_upgrade_and_young_ones_stay() {
    for database in testing::databases().await {
        let lab = Lab::new(&database, &[("JOB_DAYS", "400")]).await;
        lab.fill(1, 500).await;
        lab.fill(2, 500).await;
        lab.fill(3, 0).await;
        // The operator reads what will be removed, and when.
        let (db, retained) = (&lab.core.db, &lab.core.config.retention);
        let announced = retention::preview(db, retained, &lab.core.clock)
            .await
            .unwrap();
        let counts: Vec<(&str, i64)> = announced.iter().map(|old| (old.kind, old.count)).collect();
        let expected = [
            ("audit entries", 2),
            ("finished jobs", 2),
            ("idempotency keys", 2),
            ("failed sign-ins", 2),
        ];
        assert_eq!(counts, expected, "{}", database.name);
        let from = lab.core.clock.now() + TimeDelta::days(7);
        assert!(announced.iter().all(|old| old.from == from));

        let all = lab.counts().await;
        assert_eq!(lab.remove().await, 0, "not yet");
        lab.pass(6);
        assert_eq!(lab.remove().await, 0, "not yet");
        assert_eq!(lab.counts().await, all);
        lab.pass(2);
        lab.fill(4, 0).await;
        assert_eq!(lab.remove().await, 2 + 2 + 2 + 3 + 2, "{}", database.name);
        assert_eq!(lab.counts().await, [2, 6, 6, 1, 2]);
        let jobs = "2 finished jobs older than ";
        let entries = lab.removals().await;
        assert!(
            entries.len() == 2
                && entries[0].starts_with("2 audit entries older than ")
                && entries[1].starts_with(jobs),
            "{}: {entries:?}",
            database.name
        );
    }
}

/// Audit entries one year, finished jobs for ever; 0 is for ever.
#[tokio::test]
async fn by_default_an_audit_entry_stays_a_year_and_a_job_for_ever() {
    for database in testing::databases().await {
        let lab = Lab::new(&database, &[]).await;
        lab.fill(1, 364).await;
        lab.fill(2, 366).await;
        lab.remove().await;
        lab.pass(8);
        lab.remove().await;
        assert_eq!(lab.counts().await, [0, 4, 4, 0, 0], "{}", database.name);
        let every = ["AUDIT_DAYS", "IDEMPOTENCY_DAYS", "LOGIN_FAILURE_DAYS"];
        let lab = Lab::new(&database, &every.map(|name| (name, "0"))).await;
        lab.fill(3, 5000).await;
        lab.pass(100);
        assert_eq!(lab.remove().await, 0);
    }
}

#[tokio::test]
async fn one_process_removes_at_a_time_and_another_goes_on_where_it_ended() {
    for database in testing::databases().await {
        let lab = Lab::new(&database, &[]).await;
        for number in 0..3 {
            lab.fill(number, 500).await;
        }
        lab.remove().await;
        lab.pass(8);
        assert_eq!(retention::step(&lab.core, "one").await.unwrap(), 3);
        assert_eq!(retention::step(&lab.core, "two").await.unwrap(), 0);
        assert_eq!(retention::step(&lab.core, "one").await.unwrap(), 3);
        *lab.time.lock().unwrap() += TimeDelta::seconds(61);
        assert_eq!(retention::step(&lab.core, "two").await.unwrap(), 3);
        assert_eq!(lab.counts().await, [0, 6, 6, 0, 0]);
        assert_eq!(lab.removals().await.len(), 1, "one run, one entry");
    }
}

/// Many steps are one run, and the next run has an entry of its own.
#[tokio::test]
async fn a_run_has_one_entry() {
    for database in testing::databases().await {
        let lab = Lab::new(&database, &[]).await;
        lab.add_entries(1200, 500).await;
        lab.remove().await;
        lab.pass(8);
        assert_eq!(lab.remove().await, 1200);
        let entries = lab.removals().await;
        assert!(
            entries.len() == 1 && entries[0].starts_with("1200 audit entries older than "),
            "{}: {entries:?}",
            database.name
        );
        lab.add_entries(1, 500).await;
        assert_eq!(lab.remove().await, 1);
        assert_eq!(lab.removals().await.len(), 2, "the first run was over");
        lab.pass(366);
        assert_eq!(lab.remove().await, 2);
        let entries = lab.removals().await;
        assert!(
            entries.len() == 1 && entries[0].starts_with("2 audit entries"),
            "{entries:?}"
        );
    }
}
