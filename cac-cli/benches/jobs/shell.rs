//! `true` as a shell job, per second, beside the same tree of processes without an engine.

use std::process::Stdio;
use std::time::Instant;

use tokio::io::AsyncReadExt as _;

use crate::lab::{self, Running};
use crate::place::{add, all_well, databases, ended, fresh, span};
use crate::rate::per_second;

const JOBS: usize = 2_000;
/// The runner's default.
const SLOTS: usize = 8;

pub(crate) async fn measure() {
    for name in databases() {
        let limit = bare().await;
        let engine = ours(name).await;
        let is = "same process tree, nothing stored";
        crate::rates("`true` as a shell job", name, engine, limit, is);
    }
}

async fn ours(name: &str) -> f64 {
    let database = fresh(name).await;
    add(&database, JOBS, "true", None).await;
    let runner = Running::start("cac-runner", &[], &[("DATABASE_URL", &database.url)]);
    ended(&database.db).await;
    runner.stop();
    all_well(&database.db, JOBS).await;
    per_second(JOBS, span(&database.db).await)
}

/// Supervisor, shell, pipe and socket as a runner starts them.
async fn bare() -> f64 {
    let one = async |number: usize| {
        for _ in (number..JOBS).step_by(SLOTS) {
            let words = ["supervise-job", "5000", "/bin/sh", "-c", "true"];
            let mut command =
                tokio::process::Command::from(lab::command("cac-runner", &words, &[]));
            let (mut ours, theirs) = tokio::net::UnixStream::pair().unwrap();
            let theirs = theirs.into_std().unwrap();
            theirs.set_nonblocking(false).unwrap();
            command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            drop(command);
            let mut printed = Vec::new();
            let mut out = child.stdout.take().unwrap();
            let mut said = String::new();
            ours.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "exit 0\n");
            out.read_to_end(&mut printed).await.unwrap();
            child.wait().await.unwrap();
        }
    };
    // Builds the program, should it not be there.
    lab::run("cac-runner", &["--version"], &[]);
    let began = Instant::now();
    futures_util::future::join_all((0..SLOTS).map(one)).await;
    per_second(JOBS, began.elapsed())
}
