//! What the tests stand on: a core on a database, and runners in this process.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use cac_core::config::{Config, Program, Vars};
use cac_core::job::{self, Job, NewJob, Runner};
use cac_core::testing::TestDb;
use cac_core::{Actor, Core};
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine, short enough to end a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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

    /// Adds a typed job.
    pub(crate) async fn add(&self, kind: &'static str) -> i64 {
        let mut tx = self.core.db.write().await.unwrap();
        let new = NewJob {
            kind,
            title: format!("a test of {kind}"),
            payload: serde_json::json!({"number": 7}),
            container_id: None,
            created_by: "alice",
        };
        let id = job::create(&mut tx, &self.core, new).await.unwrap();
        tx.commit().await.unwrap();
        self.core.wake.jobs();
        id
    }

    pub(crate) async fn job(&self, id: i64) -> Job {
        let job = job::wait(&self.core, id, PATIENCE).await.unwrap();
        assert!(
            job.status.ended(),
            "{} ({}): job {id} has not ended: {}",
            self.database.name,
            job.status.as_str(),
            self.log(id).await
        );
        job
    }

    pub(crate) async fn log(&self, id: i64) -> String {
        let rows = job::output(&self.core, id, 10_000, 0).await.unwrap();
        rows.into_iter().map(|row| row.output).collect()
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
    Core::start(config(&database.url, more)).await.unwrap()
}

/// Polls until `check` holds.
pub(crate) async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "never came true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
