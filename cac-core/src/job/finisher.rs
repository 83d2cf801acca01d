//! The ends of jobs: those that come together are stored by one statement, and their places in the runner become free at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Status;
use super::queue::{self, Claim};
use super::runner::Jobs;
use crate::{Core, Result};

/// Ends of one statement at most.
const BATCH: usize = 200;
/// Ends that come so soon after others were stored wait for more.
const RUSH: Duration = Duration::from_millis(10);
/// How long they wait.
const MOMENT: Duration = Duration::from_millis(1);

/// Takes ends; the task behind it stores them.
#[derive(Clone)]
pub(super) struct Finisher(mpsc::Sender<End>);

/// A job that has ended.
pub(super) struct End {
    pub(super) claim: Arc<Claim>,
    pub(super) status: Status,
    pub(super) reason: Option<String>,
    /// Its place in the runner.
    pub(super) place: OwnedSemaphorePermit,
}

impl Finisher {
    /// With `alone`, each end is stored by a statement of its own. The tracker has ended when all of them are stored.
    pub(super) fn start(core: Core, held: Jobs, alone: bool) -> (Self, TaskTracker) {
        let (sender, ends) = mpsc::channel(BATCH);
        let tasks = TaskTracker::new();
        let storing = Storing {
            core,
            held,
            tasks: tasks.clone(),
        };
        if alone {
            tasks.spawn(storing.each(ends));
        } else {
            tasks.spawn(storing.together(ends));
        }
        tasks.close();
        (Self(sender), tasks)
    }

    /// Stores the end of a job, unless it is no longer this claim's; the job is held until then.
    pub(super) async fn finish(&self, end: End) {
        let sent = self.0.send(end).await;
        sent.expect("the other side ends after all senders");
    }
}

#[derive(Clone)]
struct Storing {
    core: Core,
    held: Jobs,
    tasks: TaskTracker,
}

impl Storing {
    async fn together(self, mut ends: mpsc::Receiver<End>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut stored = Instant::now();
        while ends.recv_many(&mut batch, BATCH).await > 0 {
            if stored.elapsed() < RUSH {
                self.gather(&mut ends, &mut batch).await;
            }
            let mut alike: HashMap<(i64, &'static str, Option<String>), Vec<End>> = HashMap::new();
            for end in batch.drain(..) {
                let key = (end.claim.fence, end.status.as_str(), end.reason.clone());
                alike.entry(key).or_default().push(end);
            }
            for ends in alike.into_values() {
                self.store(ends).await;
            }
            stored = Instant::now();
        }
    }

    /// Takes what ends in this moment, too; there is nothing to wait for when all that runs has ended.
    async fn gather(&self, ends: &mut mpsc::Receiver<End>, batch: &mut Vec<End>) {
        let deadline = Instant::now() + MOMENT;
        while batch.len() < BATCH.min(self.held.len())
            && let Ok(Some(end)) = tokio::time::timeout_at(deadline, ends.recv()).await
        {
            batch.push(end);
        }
    }

    async fn each(self, mut ends: mpsc::Receiver<End>) {
        while let Some(end) = ends.recv().await {
            let storing = self.clone();
            self.tasks
                .spawn(async move { storing.store(vec![end]).await });
        }
    }

    /// Stores ends of which the same is said; those that cannot be stored now keep no others waiting.
    async fn store(&self, ends: Vec<End>) {
        match self.once(&ends).await {
            Ok(()) => self.leave(ends),
            Err(error) => {
                tracing::warn!(%error, "the end of a job is not stored yet, trying again");
                let storing = self.clone();
                self.tasks.spawn(async move {
                    let ids: Vec<i64> = ends.iter().map(|end| end.claim.id).collect();
                    let lease = storing.core.config.runner.lease;
                    queue::patiently("end", &ids, lease, || storing.once(&ends)).await;
                    storing.leave(ends);
                });
            }
        }
    }

    async fn once(&self, ends: &[End]) -> Result<()> {
        let ids = ends.iter().map(|end| end.claim.id).collect();
        let (fence, status, reason) = (ends[0].claim.fence, ends[0].status, &ends[0].reason);
        queue::finish(&self.core, ids, fence, status, reason.as_deref()).await
    }

    /// These jobs are no longer held; all their places become free together, so that one claim fills them again.
    fn leave(&self, ends: Vec<End>) {
        self.held.leave(ends.iter().map(|end| &*end.claim));
        let places = ends.into_iter().map(|end| end.place);
        drop(places.reduce(|mut all, one| {
            all.merge(one);
            all
        }));
    }
}
