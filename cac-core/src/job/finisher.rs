//! The ends of jobs: those that come together are stored by one statement. Whoever has ended leaves its place in the runner
//! before that, so that the next one need not wait for the database.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::Status;
use super::queue::{self, Claim};
use super::runner::Jobs;
use crate::{Core, Result};

/// Ends of one statement at most.
const BATCH: usize = 500;
/// Ends that wait to be stored; when there are more, their jobs keep their places.
const WAITING: usize = 2 * BATCH;

/// Takes ends; the task behind it stores them.
#[derive(Clone)]
pub(super) struct Finisher {
    ends: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// A job that has ended.
pub(super) struct End {
    pub(super) claim: Arc<Claim>,
    pub(super) status: Status,
    pub(super) reason: Option<String>,
}

/// An end that is not stored yet.
struct Waiting {
    end: End,
    _room: OwnedSemaphorePermit,
}

impl Finisher {
    /// With `alone`, each end is stored by a statement of its own. The tracker has ended when all of them are stored.
    pub(super) fn start(core: Core, held: Jobs, alone: bool) -> (Self, TaskTracker) {
        let (sender, ends) = mpsc::channel(WAITING);
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
        let room = Arc::new(Semaphore::new(WAITING));
        (Self { ends: sender, room }, tasks)
    }

    /// Stores the end of a job, unless it is no longer this claim's; the job is held until then, its place in the runner is not.
    pub(super) async fn finish(&self, end: End, place: OwnedSemaphorePermit) {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let waiting = Waiting {
            end,
            _room: room.expect("nobody closes it"),
        };
        let sent = self.ends.send(waiting).await;
        sent.expect("the other side ends after all senders");
        drop(place);
    }
}

#[derive(Clone)]
struct Storing {
    core: Core,
    held: Jobs,
    tasks: TaskTracker,
}

impl Storing {
    async fn together(self, mut ends: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while ends.recv_many(&mut batch, BATCH).await > 0 {
            let mut alike: HashMap<(i64, &'static str, Option<String>), Vec<Waiting>> =
                HashMap::new();
            for waiting in batch.drain(..) {
                let end = &waiting.end;
                let key = (end.claim.fence, end.status.as_str(), end.reason.clone());
                alike.entry(key).or_default().push(waiting);
            }
            for ends in alike.into_values() {
                self.store(ends).await;
            }
        }
    }

    async fn each(self, mut ends: mpsc::Receiver<Waiting>) {
        while let Some(end) = ends.recv().await {
            let storing = self.clone();
            self.tasks
                .spawn(async move { storing.store(vec![end]).await });
        }
    }

    /// Stores ends of which the same is said; those that cannot be stored now keep no others waiting.
    async fn store(&self, ends: Vec<Waiting>) {
        match self.once(&ends).await {
            Ok(()) => self.leave(ends),
            Err(error) => {
                tracing::warn!(%error, "the end of a job is not stored yet, trying again");
                let storing = self.clone();
                self.tasks.spawn(async move {
                    let ids: Vec<i64> = ends.iter().map(|waiting| waiting.end.claim.id).collect();
                    let lease = storing.core.config.runner.lease;
                    queue::patiently("end", &ids, lease, || storing.once(&ends)).await;
                    storing.leave(ends);
                });
            }
        }
    }

    async fn once(&self, ends: &[Waiting]) -> Result<()> {
        let ids = ends.iter().map(|waiting| waiting.end.claim.id).collect();
        let End {
            claim,
            status,
            reason,
        } = &ends[0].end;
        queue::finish(&self.core, ids, claim.fence, *status, reason.as_deref()).await
    }

    /// These jobs are no longer held.
    fn leave(&self, ends: Vec<Waiting>) {
        self.held
            .leave(ends.iter().map(|waiting| &*waiting.end.claim));
    }
}
