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
use crate::Core;

/// Ends of one statement at most.
const BATCH: usize = 200;
/// Ends that come so soon after others were stored wait for more.
const RUSH: Duration = Duration::from_millis(10);
/// How long they wait.
const MOMENT: Duration = Duration::from_millis(1);
/// Between two tries while the database is away.
const AGAIN: Duration = Duration::from_millis(500);

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
        let storing = Storing { core, held };
        if alone {
            tasks.spawn(storing.each(ends, tasks.clone()));
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

    async fn each(self, mut ends: mpsc::Receiver<End>, tasks: TaskTracker) {
        while let Some(end) = ends.recv().await {
            let storing = self.clone();
            tasks.spawn(async move { storing.store(vec![end]).await });
        }
    }

    /// Stores ends of which the same is said.
    async fn store(&self, ends: Vec<End>) {
        let ids: Vec<i64> = ends.iter().map(|end| end.claim.id).collect();
        let (fence, status, reason) = (ends[0].claim.fence, ends[0].status, &ends[0].reason);
        let began = Instant::now();
        while let Err(error) =
            queue::finish(&self.core, ids.clone(), fence, status, reason.as_deref()).await
        {
            tracing::warn!(jobs = ?ids, %error, "the end of jobs is not stored yet, trying again");
            if began.elapsed() > self.core.config.runner.lease {
                // Then somebody else has them, or will soon.
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.held.leave(ends.iter().map(|end| &*end.claim));
        // Together, so that one claim fills them again.
        let places = ends.into_iter().map(|end| end.place);
        drop(places.reduce(|mut all, one| {
            all.merge(one);
            all
        }));
    }
}
