//! What the tests stand on: a core on a database, and runners in this process.

use std::collections::BTreeMap;
use std::sync::Mutex;

use cac_core::config::{Config, Program, Vars};
use cac_core::job::{self, Job, NewJob, Runner};
use cac_core::testing::{self, TestDb};
use cac_core::{Actor, Core, args};
use tokio_util::sync::CancellationToken;

pub(crate) use cac_core::testing::{PATIENCE, until};

pub(crate) struct Lab {
    pub(crate) core: Core,
    pub(crate) database: TestDb,
    runners: Mutex<Vec<(CancellationToken, tokio::task::JoinHandle<()>)>>,
}

pub(crate) fn alice() -> Actor {
    Actor::new("alice", false)
}

pub(crate) fn admin() -> Actor {
    Actor::new("admin", true)
}

fn config(database_url: &str, more: &[(&str, &str)]) -> Config {
    let mut vars = Vars(BTreeMap::new());
    vars.set("DATABASE_URL", database_url);
    vars.set("SESSION_SECRET", "a secret for tests only");
    vars.set("JOB_RUNNER_POLL_MS", "100");
    vars.set("JOB_RUNNER_LEASE_SECONDS", "3");
    for (name, value) in more {
        vars.set(name, *value);
    }
    Config::load(&vars, Program::Http).unwrap()
}

impl Lab {
    pub(crate) async fn new(database: TestDb) -> Self {
        Self::with(database, &[]).await
    }

    pub(crate) async fn with(database: TestDb, more: &[(&str, &str)]) -> Self {
        Self {
            core: core(&database, more).await,
            database,
            runners: Mutex::default(),
        }
    }

    /// Starts a runner of our own kinds in this process.
    pub(crate) fn runner(&self) -> CancellationToken {
        self.run(Runner::new(self.core.clone()))
    }

    pub(crate) fn run(&self, runner: Runner) -> CancellationToken {
        let stop = CancellationToken::new();
        let running = tokio::spawn(runner.run(stop.clone()));
        self.runners.lock().unwrap().push((stop.clone(), running));
        stop
    }

    /// Inserts a command by hand, as the documentation of the original shows; times never decide whether it may run.
    pub(crate) async fn insert(&self, command: &str) -> i64 {
        let now = chrono::Utc::now() - chrono::Duration::hours(5);
        let mut tx = self.core.db.write().await.unwrap();
        let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt") VALUES (?, 'pending', ?, ?)"#;
        let id = tx.insert(sql, args![command, now, now]).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Adds a typed job.
    pub(crate) async fn add(&self, kind: &'static str) -> i64 {
        let mut tx = self.core.db.write().await.unwrap();
        let new = NewJob {
            kind,
            title: format!("a test of {kind}"),
            payload: serde_json::json!({"number": 7}),
            container_id: None,
            created_by: Some("alice"),
        };
        let id = job::create(&mut tx, &self.core, new).await.unwrap();
        tx.commit().await.unwrap();
        self.core.wake.jobs();
        id
    }

    pub(crate) async fn job(&self, id: i64) -> Job {
        testing::ended(&self.core, id).await
    }

    pub(crate) async fn log(&self, id: i64) -> String {
        testing::log(&self.core, id).await
    }

    pub(crate) async fn end(self) {
        self.stop().await;
    }

    /// Stops all runners and waits for their end.
    pub(crate) async fn stop(&self) {
        let runners = std::mem::take(&mut *self.runners.lock().unwrap());
        for (stop, running) in runners {
            stop.cancel();
            running.await.unwrap();
        }
    }
}

/// Another process's view of the same database.
pub(crate) async fn core(database: &TestDb, more: &[(&str, &str)]) -> Core {
    core_at(&database.url, more).await
}

/// The same by another way to it.
pub(crate) async fn core_at(url: &str, more: &[(&str, &str)]) -> Core {
    Core::start(config(url, more)).await.unwrap()
}
