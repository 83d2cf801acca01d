//! Wake-ups inside one process: they make things quick; polling makes them sure.

use tokio::sync::{Notify, watch};

/// Signals that carry nothing: whoever is woken looks at the database.
#[derive(Debug)]
pub struct Wake {
    jobs: Notify,
    output: watch::Sender<u64>,
    routes: watch::Sender<u64>,
}

impl Default for Wake {
    fn default() -> Self {
        Self {
            jobs: Notify::new(),
            output: watch::Sender::new(0),
            routes: watch::Sender::new(0),
        }
    }
}

impl Wake {
    /// A job was added, cancelled or handed back.
    pub fn jobs(&self) {
        self.jobs.notify_one();
        self.output();
    }

    /// Resolves at the next [`Wake::jobs`], or at once if one came since the last wait.
    pub async fn wait_for_jobs(&self) {
        self.jobs.notified().await;
    }

    /// Output or the status of some job changed.
    pub fn output(&self) {
        self.output.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// A receiver that changes with [`Wake::output`].
    pub fn watch_output(&self) -> watch::Receiver<u64> {
        self.output.subscribe()
    }

    /// Something that `/nginx.conf` shows changed.
    pub fn routes(&self) {
        self.routes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// A receiver that changes with [`Wake::routes`].
    pub fn watch_routes(&self) -> watch::Receiver<u64> {
        self.routes.subscribe()
    }
}
