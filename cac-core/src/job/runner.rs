//! Runs jobs: one claimer for the process, one task for each job, one renewer for all their leases, one finisher for their ends.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::finisher::{End, Finisher};
use super::kinds::Kinds;
use super::output::Output;
use super::queue::{self, Claim};
use super::{Running, Status, Stop, retention};
use crate::supervise::supervise;
use crate::wake::{Channel, listen};
use crate::{Core, container, infrastructure, secret};

/// The first pause before another try, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// How long a claim waits for more free places while not even half of them are.
const MOMENT: Duration = Duration::from_millis(1);

/// Works on jobs: shell commands, and typed jobs of our own kinds and of those that the program adds.
pub struct Runner {
    core: Core,
    kinds: Kinds,
    ends_alone: bool,
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
#[derive(Clone, Default)]
pub(super) struct Jobs(Arc<Mutex<HashMap<i64, Held>>>);

impl Jobs {
    /// These are no longer held.
    pub(super) fn leave<'a>(&self, claims: impl Iterator<Item = &'a Claim>) {
        let mut held = self.lock();
        for claim in claims {
            // This process may have claimed the job again already.
            if held
                .get(&claim.id)
                .is_some_and(|job| job.fence == claim.fence)
            {
                held.remove(&claim.id);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Held>> {
        self.0
            .lock()
            .expect("nothing panics while it holds the list")
    }
}

impl Runner {
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self {
            core,
            kinds: Kinds::new(),
            ends_alone: false,
        }
    }

    /// Stores each job's end by a statement of its own, for comparisons with engines that do.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn ends_alone(mut self) -> Self {
        self.ends_alone = true;
        self
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
        let held = Jobs::default();
        let (finisher, finishing) = Finisher::start(core.clone(), held.clone(), self.ends_alone);
        let at_work = AtWork {
            name: format!("{}-{}", std::process::id(), &secret::random()[..12]),
            kinds: Arc::new(self.kinds),
            room: Arc::new(Semaphore::new(core.config.runner.concurrency)),
            tasks: TaskTracker::new(),
            held,
            finisher,
            stop,
            core,
        };
        let (core, name, held) = (
            at_work.core.clone(),
            at_work.name.clone(),
            at_work.held.clone(),
        );
        let renewing = tokio::spawn(async move {
            let renewing = || renew(core.clone(), name.clone(), held.clone());
            supervise(&core, "lease renewal", renewing).await;
        });
        let core = at_work.core.clone();
        let removing = tokio::spawn(async move {
            supervise(&core, "output retention", || retention::keep(&core)).await;
        });
        let core = at_work.core.clone();
        let removing_rows = tokio::spawn(async move {
            supervise(&core, "retention", || crate::retention::keep(&core)).await;
        });
        let core = at_work.core.clone();
        let settling = tokio::spawn(async move {
            supervise(&core, "settling containers", || {
                container::keep_settling(&core)
            })
            .await;
        });
        let (core, stop) = (at_work.core.clone(), at_work.stop.clone());
        let publishing = tokio::spawn(async move {
            let publish = || infrastructure::publish(core.clone(), None, stop.clone());
            supervise(&core, "own addresses", publish).await;
        });
        at_work.claim_and_run().await;
        at_work.tasks.close();
        at_work.tasks.wait().await;
        drop(at_work);
        finishing.wait().await;
        renewing.abort();
        removing.abort();
        removing_rows.abort();
        settling.abort();
        publishing.abort();
        listening.end().await;
    }
}

/// A runner that runs.
struct AtWork {
    core: Core,
    name: String,
    kinds: Arc<Kinds>,
    /// A permit for each job that may be held.
    room: Arc<Semaphore>,
    held: Jobs,
    tasks: TaskTracker,
    finisher: Finisher,
    stop: CancellationToken,
}

impl AtWork {
    async fn claim_and_run(&self) {
        let mut woken = self.core.wake.watch_jobs();
        let mut look = Look::Whole;
        let mut poll = tokio::time::Instant::now();
        let (mut away, mut backlog, mut waited) = (false, false, false);
        while !self.stop.is_cancelled() {
            let free = self.room.available_permits();
            if free > 0 && look != Look::Nothing {
                // While more wait than there is room for, places stay free for a moment, so that one claim fills most.
                let all = self.core.config.runner.concurrency;
                if backlog && 2 * free <= all && !waited {
                    waited = true;
                    let places = self
                        .room
                        .acquire_many(u32::try_from(all).unwrap_or(u32::MAX));
                    drop(tokio::time::timeout(MOMENT, places).await);
                    continue;
                }
                waited = false;
                woken.mark_unchanged();
                let asked = Instant::now();
                match self.claim(free, look).await {
                    Ok(claims) => {
                        away = false;
                        // Fewer than there is room for: nothing is left that may start.
                        backlog = claims.len() == free;
                        self.begin(claims, asked);
                        if !backlog {
                            poll = self.next_poll(look, poll).await;
                            look = Look::Nothing;
                        }
                    }
                    Err(error) => {
                        if !away {
                            tracing::error!(%error, "jobs cannot be claimed; trying again at every poll");
                        }
                        away = true;
                        look = Look::Nothing;
                        poll = tokio::time::Instant::now() + self.core.config.runner.poll;
                    }
                }
                continue;
            }
            tokio::select! {
                changed = woken.changed(), if look == Look::Nothing => {
                    // The other end lives in `core`.
                    drop(changed);
                    look = Look::Pending;
                }
                () = tokio::time::sleep_until(poll), if look != Look::Whole => look = Look::Whole,
                () = self.stop.cancelled() => {}
                place = self.room.acquire(), if look != Look::Nothing => drop(place),
            }
        }
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

    /// Begins jobs that were claimed after `asked`: all are held before the first one begins.
    fn begin(&self, claims: Vec<Claim>, asked: Instant) {
        // Counted from before the call: the database's leases can only end later than this.
        let lease = asked + self.core.config.runner.lease;
        let jobs: Vec<Running> = claims.into_iter().map(|c| self.job(c, lease)).collect();
        {
            let mut held = self.held.lock();
            for job in &jobs {
                let entry = Held {
                    fence: job.claim.fence,
                    deadline: Arc::clone(&job.deadline),
                    cancel: job.cancel.clone(),
                    lost: job.lost.clone(),
                };
                held.insert(job.claim.id, entry);
            }
        }
        for job in jobs {
            let place = Arc::clone(&self.room).try_acquire_owned();
            let place = place.expect("only as many are claimed as there are places");
            let (kinds, finisher, held) = (
                Arc::clone(&self.kinds),
                self.finisher.clone(),
                self.held.clone(),
            );
            self.tasks.spawn(async move {
                let claim = Arc::clone(&job.claim);
                if let Some(place) = one(job, &kinds, &finisher, place).await {
                    held.leave(std::iter::once(&*claim));
                    drop(place);
                }
            });
        }
    }

    fn job(&self, claim: Claim, lease: Instant) -> Running {
        let lost = CancellationToken::new();
        let cancel = CancellationToken::new();
        if claim.cancel_requested {
            cancel.cancel();
        }
        let claim = Arc::new(claim);
        let output = Output::new(self.core.clone(), Arc::clone(&claim), lost.clone());
        Running {
            core: self.core.clone(),
            claim,
            output: Arc::new(output),
            deadline: Arc::new(Mutex::new(lease)),
            cancel,
            hand_back: self.stop.clone(),
            lost,
        }
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

/// Works on a job to its end, stored or on its way. Its place is given back where it is not held any more.
async fn one(
    job: Running,
    kinds: &Kinds,
    finisher: &Finisher,
    place: OwnedSemaphorePermit,
) -> Option<OwnedSemaphorePermit> {
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
        return Some(place);
    }
    // What is not stored by then is taken over by somebody else.
    let lease = job.core.config.runner.lease;
    let (status, reason) = match result {
        Ok(()) => (Status::Success, None),
        Err(Stop::Failed(reason)) => (Status::Failure, Some(reason)),
        Err(Stop::Cancelled(reason)) => (Status::Cancelled, Some(reason)),
        Err(Stop::Retry { after, reason }) => {
            let after = after.unwrap_or_else(|| back_off(job.claim.retries));
            let put = || queue::retry(&job.core, &job.claim, after, &reason);
            queue::patiently("another try", &[job.claim.id], lease, put).await;
            return Some(place);
        }
        Err(Stop::HandBack) => {
            let put = || queue::hand_back(&job.core, &job.claim);
            queue::patiently("hand-back", &[job.claim.id], lease, put).await;
            return Some(place);
        }
        Err(Stop::Lost) => return Some(place),
    };
    let end = End {
        claim: Arc::clone(&job.claim),
        status,
        reason,
    };
    finisher.finish(end, place).await;
    None
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
            let held = held.lock();
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
                let held = held.lock();
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
        let held = held.lock();
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
