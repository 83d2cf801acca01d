//! The ends of jobs: those that wait while others are being stored go together in one statement.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Status;
use super::queue::{self, Claim};
use crate::{Core, Error, Result};

/// Ends of one statement at most.
const BATCH: usize = 200;

/// Stores ends; clones share the task behind it, which ends with the last one.
#[derive(Clone)]
pub(super) struct Finisher(mpsc::Sender<End>);

struct End {
    claim: Arc<Claim>,
    status: Status,
    reason: Option<String>,
    stored: oneshot::Sender<Result<()>>,
}

impl Finisher {
    pub(super) fn start(core: Core) -> Self {
        let (sender, ends) = mpsc::channel(BATCH);
        tokio::spawn(store(core, ends));
        Self(sender)
    }

    /// Stores the end of a job, unless it is no longer this claim's.
    pub(super) async fn finish(
        &self,
        claim: &Arc<Claim>,
        status: Status,
        reason: Option<&str>,
    ) -> Result<()> {
        let (stored, told) = oneshot::channel();
        let end = End {
            claim: Arc::clone(claim),
            status,
            reason: reason.map(str::to_owned),
            stored,
        };
        let gone = || Error::Internal("the task that stores ends is gone".to_owned());
        self.0.send(end).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

async fn store(core: Core, mut ends: mpsc::Receiver<End>) {
    let mut batch = Vec::with_capacity(BATCH);
    while ends.recv_many(&mut batch, BATCH).await > 0 {
        let mut alike: HashMap<(i64, &'static str, Option<String>), Vec<End>> = HashMap::new();
        for end in batch.drain(..) {
            let key = (end.claim.fence, end.status.as_str(), end.reason.clone());
            alike.entry(key).or_default().push(end);
        }
        for ((fence, _, reason), ends) in alike {
            let ids = ends.iter().map(|end| end.claim.id).collect();
            let stored = queue::finish(&core, ids, fence, ends[0].status, reason.as_deref()).await;
            let problem = stored.err().map(|error| error.to_string());
            for end in ends {
                let told = match &problem {
                    None => Ok(()),
                    Some(problem) => Err(Error::Internal(problem.clone())),
                };
                // Whoever waited may be gone with its runner.
                let _ = end.stored.send(told);
            }
        }
    }
}
