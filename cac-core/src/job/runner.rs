//! Runs jobs: one claimer for the process, one task for each job, one renewer for all their leases, one finisher for their ends.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::finisher::Finisher;
use super::kinds::Kinds;
use super::output::Output;
use super::queue::{self, Claim};
use super::{Running, Status, Stop, retention};
use crate::wake::{Channel, listen};
use crate::{Core, secret};

/// The first pause before another try, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Works on jobs: shell commands, and typed jobs of our own kinds and of those that the program adds.
pub struct Runner {
    core: Core,
    kinds: Kinds,
}

/// Claims and runs jobs until `stop` is cancelled, as [`Runner::run`] with our own kinds.
pub async fn run(core: Core, stop: CancellationToken) {
    Runner::new(core).run(stop).await;
}

struct Held {
    fence: i64,
    deadline: Arc<Mutex<Instant>>,
    cancel: CancellationToken,
    lost: CancellationToken,
}

/// The jobs that are in this process's hands.
type Jobs = Arc<Mutex<HashMap<i64, Held>>>;

impl Runner {
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self {
            core,
            kinds: Kinds::new(),
        }
    }

    /// Adds a kind of typed job ([`super::create`] adds jobs of it). Work that was begun by a runner that died is begun again
    /// elsewhere: what must not happen twice is recorded in a checkpoint before and after ([`Running::save`]).
    #[must_use]
    pub fn kind<W, F>(mut self, kind: &'static str, work: W) -> Self
    where
        W: Fn(Running) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Stop>> + Send + 'static,
    {
        self.kinds.add(kind, work);
        self
    }

    /// Claims and runs jobs until `stop` is cancelled, then ends what runs (commands as cancelled, typed jobs handed back).
    pub async fn run(self, stop: CancellationToken) {
        let core = self.core;
        let listening = listen(&core, Channel::Jobs).await;
        let at_work = AtWork {
            name: format!("{}-{}", std::process::id(), &secret::random()[..12]),
            kinds: Arc::new(self.kinds),
            held: Jobs::default(),
            finisher: Finisher::start(core.clone()),
            stop,
            core,
        };
        let renewing = tokio::spawn(renew(
            at_work.core.clone(),
            at_work.name.clone(),
            Arc::clone(&at_work.held),
        ));
        let removing = at_work.core.clone();
        let removing = tokio::spawn(async move { retention::keep(&removing).await });
        at_work.claim_and_run().await;
        renewing.abort();
        removing.abort();
        listening.end().await;
    }
}

/// A runner that runs.
struct AtWork {
    core: Core,
    name: String,
    kinds: Arc<Kinds>,
    held: Jobs,
    finisher: Finisher,
    stop: CancellationToken,
}

impl AtWork {
    async fn claim_and_run(&self) {
        let mut woken = self.core.wake.watch_jobs();
        let mut tasks = JoinSet::new();
        let mut look = Look::Whole;
        let mut poll = tokio::time::Instant::now();
        let mut away = false;
        while !self.stop.is_cancelled() {
            let settings = &self.core.config.runner;
            let free = settings.concurrency.saturating_sub(tasks.len());
            if free > 0 && look != Look::Nothing {
                woken.mark_unchanged();
                match self.claim(free, look).await {
                    Ok(claims) => {
                        away = false;
                        // Fewer than there is room for: nothing is left that may start.
                        if claims.len() < free {
                            poll = self.next_poll(look, poll).await;
                            look = Look::Nothing;
                        }
                        for claim in claims {
                            self.begin(claim, &mut tasks);
                        }
                    }
                    Err(error) => {
                        if !away {
                            tracing::error!(%error, "jobs cannot be claimed; trying again at every poll");
                        }
                        away = true;
                        look = Look::Nothing;
                        poll = tokio::time::Instant::now() + settings.poll;
                    }
                }
                if look != Look::Nothing {
                    continue;
                }
            }
            tokio::select! {
                changed = woken.changed(), if look == Look::Nothing => {
                    // The other end lives in `core`.
                    drop(changed);
                    look = Look::Pending;
                }
                () = tokio::time::sleep_until(poll), if look != Look::Whole => look = Look::Whole,
                () = self.stop.cancelled() => {}
                Some(_) = tasks.join_next() => {}
            }
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn claim(&self, free: usize, look: Look) -> crate::Result<Vec<Claim>> {
        let mut claims = if look == Look::Whole {
            queue::take_over(&self.core, &self.name, free).await?
        } else {
            Vec::new()
        };
        if claims.len() < free {
            match queue::claim(&self.core, &self.name, free - claims.len()).await {
                Ok(more) => claims.extend(more),
                Err(error) if claims.is_empty() => return Err(error),
                // What is ours already is begun.
                Err(error) => tracing::warn!(%error, "no more jobs can be claimed now"),
            }
        }
        Ok(claims)
    }

    /// When to make the next whole look: at the poll, or when a delayed job may start.
    async fn next_poll(&self, look: Look, before: tokio::time::Instant) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        let poll = match look {
            Look::Whole => now + self.core.config.runner.poll,
            _ => before,
        };
        match queue::next_start(&self.core).await {
            Ok(Some(wait)) => poll.min(now + wait.max(Duration::from_millis(5))),
            _ => poll,
        }
    }

    fn begin(&self, claim: Claim, tasks: &mut JoinSet<()>) {
        let lost = CancellationToken::new();
        let cancel = CancellationToken::new();
        if claim.cancel_requested {
            cancel.cancel();
        }
        let deadline = Arc::new(Mutex::new(Instant::now() + self.core.config.runner.lease));
        let entry = Held {
            fence: claim.fence,
            deadline: Arc::clone(&deadline),
            cancel: cancel.clone(),
            lost: lost.clone(),
        };
        self.held
            .lock()
            .expect("nothing panics while it holds the list")
            .insert(claim.id, entry);
        let claim = Arc::new(claim);
        let output = Output::new(self.core.clone(), Arc::clone(&claim), lost.clone());
        let job = Running {
            core: self.core.clone(),
            claim,
            output: Arc::new(output),
            deadline,
            cancel,
            hand_back: self.stop.clone(),
            lost,
        };
        let (kinds, finisher, held) = (
            Arc::clone(&self.kinds),
            self.finisher.clone(),
            Arc::clone(&self.held),
        );
        tasks.spawn(async move {
            let (id, fence) = (job.claim.id, job.claim.fence);
            one(job, &kinds, &finisher).await;
            let mut held = held.lock().expect("nothing panics while it holds the list");
            // This process may have claimed the job again already.
            if held.get(&id).is_some_and(|job| job.fence == fence) {
                held.remove(&id);
            }
        });
    }
}

/// What the claimer looks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Pending jobs, lapsed leases, and when the next delayed job may start.
    Whole,
    Pending,
    /// There is nothing that it knows of.
    Nothing,
}

async fn one(job: Running, kinds: &Kinds, finisher: &Finisher) {
    let lost = job.lost.clone();
    let result = tokio::select! {
        result = AssertUnwindSafe(kinds.run(job.clone())).catch_unwind() => result.unwrap_or_else(|_| {
            // The panic itself was told on standard error.
            Err(Stop::Failed("An internal error; the log of the runner has the cause.".to_owned()))
        }),
        () = lost.cancelled() => Err(Stop::Lost),
    };
    if let Err(Stop::Failed(reason) | Stop::Cancelled(reason)) = &result {
        job.line(reason).await;
    }
    tracing::debug!(job = job.claim.id, ok = result.is_ok(), "worked");
    if !job.output.close().await || lost.is_cancelled() {
        tracing::warn!(job = job.claim.id, "the job is no longer this runner's");
        return;
    }
    let began = Instant::now();
    while let Err(error) = end(&job, finisher, &result).await {
        tracing::warn!(job = job.claim.id, %error, "the job's end is not stored yet, trying again");
        if began.elapsed() > job.core.config.runner.lease {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn end(job: &Running, finisher: &Finisher, result: &Result<(), Stop>) -> crate::Result<()> {
    let (core, claim) = (&job.core, &job.claim);
    match result {
        Ok(()) => finisher.finish(claim, Status::Success, None).await,
        Err(Stop::Failed(reason)) => finisher.finish(claim, Status::Failure, Some(reason)).await,
        Err(Stop::Cancelled(reason)) => {
            finisher
                .finish(claim, Status::Cancelled, Some(reason))
                .await
        }
        Err(Stop::Retry { after, reason }) => {
            let after = after.unwrap_or_else(|| back_off(claim.retries));
            queue::retry(core, claim, after, reason).await
        }
        Err(Stop::HandBack) => queue::hand_back(core, claim).await,
        Err(Stop::Lost) => Ok(()),
    }
}

/// Doubles with each try, a little off so that many jobs that failed together do not try together.
fn back_off(retries: i64) -> Duration {
    let (first, most) = BACK_OFF;
    let doubled = first * 2_u32.pow(u32::try_from(retries.clamp(0, 16)).unwrap_or(16));
    doubled.min(most).mul_f64(rand::random_range(0.8..1.2))
}

/// Renews all leases and hands on requests to cancel: looks every second, or at once when woken.
async fn renew(core: Core, name: String, held: Jobs) {
    let lease = core.config.runner.lease;
    let mut woken = core.wake.watch_jobs();
    let every = (lease / 5).min(Duration::from_secs(1));
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _ = tokio::time::timeout(every, woken.changed()).await;
        woken.mark_unchanged();
        let now = Instant::now();
        let (ids, aged) = {
            let held = held.lock().expect("nothing panics while it holds the list");
            let aged = |job: &Held| now + lease.mul_f64(0.8) >= *deadline(job);
            let aged: Vec<i64> = held
                .iter()
                .filter(|(_, job)| aged(job))
                .map(|(id, _)| *id)
                .collect();
            (held.keys().copied().collect::<Vec<i64>>(), aged)
        };
        if ids.is_empty() {
            continue;
        }
        let renewed = async {
            if !aged.is_empty() {
                queue::renew(&core, &name, aged.clone()).await?;
            }
            queue::held(&core, &name, ids.clone()).await
        };
        match renewed.await {
            Ok(ours) => {
                let held = held.lock().expect("nothing panics while it holds the list");
                for (id, job) in held.iter() {
                    // One that is not there has just ended or was just claimed, or somebody else has it; writes are fenced.
                    let Some(cancel) = ours.get(&(*id, job.fence)) else {
                        continue;
                    };
                    if aged.contains(id) {
                        // Counted from before the call: the database's lease can only end later than this.
                        *deadline(job) = now + lease;
                    }
                    if *cancel {
                        job.cancel.cancel();
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "leases not renewed"),
        }
        let held = held.lock().expect("nothing panics while it holds the list");
        for job in held.values() {
            if Instant::now() >= *deadline(job) {
                job.lost.cancel();
            }
        }
    }
}

fn deadline(job: &Held) -> std::sync::MutexGuard<'_, Instant> {
    job.deadline
        .lock()
        .expect("nothing panics while it holds the deadline")
}
