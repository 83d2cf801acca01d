//! Runs jobs: one claimer for the process, one task for each job, one renewer for all their leases.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::queue::{self, Claim};
use super::{Running, Status, Stop, output, registry, retention};
use crate::{Core, Result, secret};

struct Held {
    fence: i64,
    deadline: Arc<Mutex<Instant>>,
    cancel: CancellationToken,
    lost: CancellationToken,
}

type Jobs = Arc<Mutex<HashMap<i64, Held>>>;

/// Claims and runs jobs until `stop` is cancelled, then ends what runs (shell commands as cancelled, typed jobs handed back).
pub async fn run(core: Core, stop: CancellationToken) {
    let name = format!("{}-{}", std::process::id(), &secret::random()[..12]);
    let held: Jobs = Jobs::default();
    let mut tasks = JoinSet::new();
    let renewing = tokio::spawn(renew(core.clone(), name.clone(), Arc::clone(&held)));
    let removing = core.clone();
    let removing = tokio::spawn(async move { retention::keep(&removing).await });
    let mut quiet = false;
    while !stop.is_cancelled() {
        let free = core.config.runner.concurrency.saturating_sub(tasks.len());
        let mut claimed = 0;
        if free > 0 {
            match queue::claim(&core, &name, free).await {
                Ok(claims) => {
                    quiet = false;
                    claimed = claims.len();
                    for claim in claims {
                        begin(&core, claim, &held, &stop, &mut tasks);
                    }
                }
                Err(error) if !quiet => {
                    quiet = true;
                    tracing::error!(%error, "jobs cannot be claimed; trying again at every poll");
                }
                Err(_) => {}
            }
        }
        if claimed > 0 && claimed == free {
            continue;
        }
        tokio::select! {
            () = core.wake.wait_for_jobs() => {}
            () = tokio::time::sleep(core.config.runner.poll) => {}
            () = stop.cancelled() => {}
            Some(_) = tasks.join_next() => {}
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    renewing.abort();
    removing.abort();
}

fn begin(
    core: &Core,
    claim: Claim,
    held: &Jobs,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let lost = CancellationToken::new();
    let cancel = CancellationToken::new();
    if claim.cancel_requested {
        cancel.cancel();
    }
    let deadline = Arc::new(Mutex::new(Instant::now() + core.config.runner.lease));
    let entry = Held {
        fence: claim.fence,
        deadline: Arc::clone(&deadline),
        cancel: cancel.clone(),
        lost: lost.clone(),
    };
    held.lock()
        .expect("nothing panics while it holds the list")
        .insert(claim.id, entry);
    let (core, held, hand_back) = (core.clone(), Arc::clone(held), stop.clone());
    tasks.spawn(async move {
        let id = claim.id;
        let (sink, writer) = output::start(core.clone(), claim.clone(), lost.clone());
        let job = Running {
            core,
            claim,
            sink,
            deadline,
            cancel,
            hand_back,
            lost,
        };
        one(job, writer).await;
        held.lock()
            .expect("nothing panics while it holds the list")
            .remove(&id);
    });
}

async fn one(job: Running, writer: tokio::task::JoinHandle<()>) {
    let (core, claim, lost) = (job.core.clone(), job.claim.clone(), job.lost.clone());
    let result = if claim.taken_over && !registry::resumable(claim.kind.as_deref()) {
        Err(Stop::Failed("Its runner died while the command ran; it is not run twice unasked. Start it again if that is right.".to_owned()))
    } else {
        tokio::select! {
            result = registry::run(&job) => result,
            () = lost.cancelled() => Err(Stop::Lost),
        }
    };
    if let Err(Stop::Failed(reason) | Stop::Cancelled(reason)) = &result {
        job.line(reason).await;
    }
    tracing::debug!(job = claim.id, ok = result.is_ok(), "worked");
    drop(job);
    if writer.await.is_err() || lost.is_cancelled() {
        tracing::warn!(job = claim.id, "the job is no longer this runner's");
        return;
    }
    let began = Instant::now();
    while let Err(error) = end(&core, &claim, &result).await {
        tracing::warn!(job = claim.id, %error, "the job's end is not stored yet, trying again");
        if began.elapsed() > core.config.runner.lease {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn end(core: &Core, claim: &Claim, result: &Result<(), Stop>) -> Result<bool> {
    match result {
        Ok(()) => queue::finish(core, claim, Status::Success, None).await,
        Err(Stop::Failed(reason)) => {
            queue::finish(core, claim, Status::Failure, Some(reason)).await
        }
        Err(Stop::Cancelled(reason)) => {
            queue::finish(core, claim, Status::Cancelled, Some(reason)).await
        }
        Err(Stop::Retry { after, reason }) => {
            queue::put_back(core, claim, *after, Some(reason)).await
        }
        Err(Stop::HandBack) => queue::put_back(core, claim, Duration::ZERO, None).await,
        Err(Stop::Lost) => Ok(false),
    }
}

/// Renews all leases and hands on requests to cancel. Looks every second, or at once when woken in this process.
async fn renew(core: Core, name: String, held: Jobs) {
    let mut woken = core.wake.watch_output();
    let every = (core.config.runner.lease / 5).min(Duration::from_secs(1));
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _ = tokio::time::timeout(every, woken.changed()).await;
        woken.mark_unchanged();
        let ids: Vec<i64> = held
            .lock()
            .expect("nothing panics while it holds the list")
            .keys()
            .copied()
            .collect();
        if ids.is_empty() {
            continue;
        }
        // Counted from before the call: the database's lease can only end later than this.
        let until = Instant::now() + core.config.runner.lease;
        match queue::renew(&core, &name, ids.clone()).await {
            Ok(ours) => {
                let held = held.lock().expect("nothing panics while it holds the list");
                for id in ids {
                    let Some(job) = held.get(&id) else { continue };
                    match ours
                        .iter()
                        .find(|(ours, fence, _)| *ours == id && *fence == job.fence)
                    {
                        Some((_, _, cancel)) => {
                            *job.deadline
                                .lock()
                                .expect("nothing panics while it holds the deadline") = until;
                            if *cancel {
                                job.cancel.cancel();
                            }
                        }
                        // It has just ended, or somebody else has it; `finish` is fenced either way.
                        None => continue,
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "leases not renewed"),
        }
        let held = held.lock().expect("nothing panics while it holds the list");
        for job in held.values() {
            if Instant::now()
                >= *job
                    .deadline
                    .lock()
                    .expect("nothing panics while it holds the deadline")
            {
                job.lost.cancel();
            }
        }
    }
}
