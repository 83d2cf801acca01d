//! From adding a job to its first instruction in another process, polling left at its default.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use cac_core::job::{self, NewJob, Runner, Wanted, Work};
use cac_core::{Actor, Core, testing};
use tokio_util::sync::CancellationToken;

use crate::bare::Bare;
use crate::lab::Running;
use crate::place::{core, databases, fresh};

const JOBS: usize = 300;
/// This program as a runner of jobs that say when they begin.
pub(crate) const MODE: &str = "runner";

pub(crate) async fn measure() {
    for name in databases() {
        let database = fresh(name).await;
        let core = core(&database.url, &[]).await;
        let mut bare = bare(&database.url).await;
        let bare = format!(
            "{} (add + claim, one process)",
            crate::percentiles(&mut bare)
        );
        let mut typed = typed(&core, &database.url).await;
        let what = "enqueue → first instruction, typed job";
        crate::row(what, name, &crate::percentiles(&mut typed), &bare, "");
        let mut shell = shell(&core, &database.url).await;
        let what = "enqueue → `date` in a shell job";
        let mut start = shell_alone();
        let bare = format!("{} (`sh -c date` alone)", crate::percentiles(&mut start));
        crate::row(what, name, &crate::percentiles(&mut shell), &bare, "");
    }
}

/// Adding and claiming one job after the other: what any engine needs.
async fn bare(url: &str) -> Vec<Duration> {
    let mut conn = Bare::open(url).await;
    let mut times = Vec::new();
    for _ in 0..JOBS {
        rest().await;
        let began = Instant::now();
        conn.add().await;
        let ids = conn.claim(1).await;
        times.push(began.elapsed());
        conn.finish(&ids).await;
    }
    times
}

/// So that a job meets everything idle, at any moment of any timer.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(20..60))).await;
}

/// A runner as a process of its own; ended with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other process's side.
pub(crate) async fn runner(url: &str) {
    let core = core(url, &[]).await;
    let runner = Runner::new(core).kind("moment", async |_| {
        println!("{}", crate::nanoseconds());
        std::io::stdout().flush().unwrap();
        Ok(())
    });
    runner.run(CancellationToken::new()).await;
}

fn start(url: &str) -> (Process, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([MODE, url]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (Process(child), out)
}

async fn typed(core: &Core, url: &str) -> Vec<Duration> {
    let (_process, mut out) = start(url);
    let mut times = Vec::new();
    // The first ones warm connections up.
    for number in 0..JOBS + 20 {
        rest().await;
        let began = crate::nanoseconds();
        let mut tx = core.db.write().await.unwrap();
        let new = NewJob {
            kind: "moment",
            title: "a moment".to_owned(),
            payload: serde_json::Value::Null,
            container_id: None,
            created_by: Some("admin"),
        };
        job::create(&mut tx, core, new).await.unwrap();
        tx.commit().await.unwrap();
        core.wake.jobs();
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            (out, line)
        });
        let line;
        (out, line) = read.await.unwrap();
        if number >= 20 {
            times.push(between(began, &line));
        }
    }
    times
}

fn between(began: u128, printed: &str) -> Duration {
    let then: u128 = printed.trim().parse().unwrap();
    Duration::from_nanos(u64::try_from(then - began).unwrap())
}

async fn shell(core: &Core, url: &str) -> Vec<Duration> {
    let runner = Running::start("cac-runner", &[], &[("DATABASE_URL", url)]);
    let mut times = Vec::new();
    for number in 0..JOBS / 2 + 20 {
        rest().await;
        let began = crate::nanoseconds();
        let wanted = Wanted {
            work: Work::Shell("date +%s%N"),
            start_after: None,
            key: None,
        };
        let job = job::ask(core, &Actor::new("admin", true), wanted)
            .await
            .unwrap();
        testing::ended(core, job.id).await;
        if number >= 20 {
            times.push(between(began, &testing::log(core, job.id).await));
        }
    }
    runner.stop();
    times
}

/// The shell and `date`, without anything around them.
fn shell_alone() -> Vec<Duration> {
    let one = || {
        let began = crate::nanoseconds();
        let output = Command::new("/bin/sh")
            .args(["-c", "date +%s%N"])
            .output()
            .unwrap();
        between(began, std::str::from_utf8(&output.stdout).unwrap())
    };
    (0..JOBS / 2).map(|_| one()).collect()
}
