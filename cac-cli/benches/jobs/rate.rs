//! Typed jobs that do nothing, claimed and completed per second by one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cac_core::job::Runner;
use cac_core::testing;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::bare::Bare;
use crate::place::{add, all_well, core, databases, fresh};

const JOBS: usize = 50_000;
/// Jobs beside graphile-worker, which has not come to an end of 50,000 in minutes.
pub(crate) const FEWER: usize = 20_000;
/// Jobs at once, so the largest batch of a claim.
const SLOTS: usize = 100;
/// Ends of one statement at most, as the engine has it.
const ENDS: usize = 500;
/// Ours and the bare loop take turns; the median counts.
const ROUNDS: usize = 3;

pub(crate) async fn measure() {
    for name in databases() {
        let (mut engine, mut limit) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            limit.push(bare(name).await);
            engine.push(ours(name, JOBS, SLOTS, false).await);
        }
        let what = format!("no-op typed jobs, {SLOTS} at once");
        let is = "bare SQL loop, same batches";
        crate::rates(&what, name, crate::median(engine), crate::median(limit), is);
    }
}

/// Jobs per second of the engine.
pub(crate) async fn ours(name: &str, jobs: usize, slots: usize, alone: bool) -> f64 {
    let database = fresh(name).await;
    add(&database, jobs, "# nothing", Some("nothing")).await;
    let slots = slots.to_string();
    let mut settings = vec![("JOB_RUNNER_CONCURRENCY", slots.as_str())];
    if alone {
        // As many as graphile-worker gets.
        settings.push(("DATABASE_CONNECTIONS", "26"));
    }
    let core = core(&database.url, &settings).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let mut runner = Runner::new(core).kind("nothing", move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(()))
    });
    if alone {
        runner = runner.ends_alone();
    }
    let stop = CancellationToken::new();
    let began = Instant::now();
    let running = tokio::spawn(runner.run(stop.clone()));
    while begun.load(Ordering::Relaxed) < jobs || testing::open(&database.db).await > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    stop.cancel();
    running.await.unwrap();
    all_well(&database.db, jobs).await;
    per_second(jobs, took)
}

/// The same loop without an engine: one claims as many as there is room for, one ends what is there.
async fn bare(name: &str) -> f64 {
    let database = fresh(name).await;
    add(&database, JOBS, "# nothing", Some("nothing")).await;
    let claimer = Arc::new(Mutex::new(Bare::open(&database.url).await));
    // SQLite has one writer.
    let finisher = match name {
        "sqlite" => Arc::clone(&claimer),
        _ => Arc::new(Mutex::new(Bare::open(&database.url).await)),
    };
    let room = Arc::new(Semaphore::new(SLOTS));
    let (claimed, mut ends) = mpsc::channel(SLOTS);
    let began = Instant::now();
    let slots = Arc::clone(&room);
    let claiming = tokio::spawn(async move {
        loop {
            slots.acquire().await.unwrap().forget();
            let free = 1 + slots.available_permits();
            let ids = claimer.lock().await.claim(free).await;
            // The one that was acquired is among them.
            for _ in 1..ids.len() {
                slots.acquire().await.unwrap().forget();
            }
            if ids.is_empty() {
                return;
            }
            for id in ids {
                claimed.send(id).await.unwrap();
            }
        }
    });
    let mut batch = Vec::with_capacity(ENDS);
    while ends.recv_many(&mut batch, ENDS).await > 0 {
        finisher.lock().await.finish(&batch).await;
        room.add_permits(batch.len());
        batch.clear();
    }
    let took = began.elapsed();
    claiming.await.unwrap();
    all_well(&database.db, JOBS).await;
    per_second(JOBS, took)
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
pub(crate) fn per_second(number: usize, took: Duration) -> f64 {
    number as f64 / took.as_secs_f64()
}
