//! Whether requests can be served, looked at in the background: `/readyz` may be asked thousands of times a second by anybody, so it
//! asks nobody itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cac_core::{Core, overview};
use tokio_util::sync::CancellationToken;

/// Between two looks; a load balancer learns of a lost database this much later.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the last look found.
#[derive(Default)]
pub(crate) struct Readiness(AtomicBool);

impl Readiness {
    pub(crate) fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Looks once.
    pub(crate) async fn look(&self, core: &Core) {
        let looked = tokio::time::timeout(PATIENCE, overview::database_answers(core)).await;
        let ready = matches!(looked, Ok(Ok(())));
        if self.0.swap(ready, Ordering::Relaxed) != ready {
            match looked {
                Ok(Ok(())) => tracing::info!("ready"),
                Ok(Err(error)) => tracing::warn!(%error, "not ready"),
                Err(_) => tracing::warn!("not ready, the database does not answer"),
            }
        }
    }

    /// Looks again and again until `stop`.
    pub(crate) async fn keep_looking(&self, core: &Core, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(INTERVAL))
            .await
            .is_some()
        {
            self.look(core).await;
        }
    }
}
