//! The loop that keeps a private nginx alive and on the newest file, whoever makes that file.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Rendered;
use super::proxy::{Applied, Proxy, ProxyConfig, ProxyError};

/// Wait before nginx is started again: doubled each time it does not live for [`STEADY`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const STEADY: Duration = Duration::from_secs(30);
/// A file that was refused for a reason outside itself is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// What nginx serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Of the file in force.
    pub etag: String,
    pub since: DateTime<Utc>,
    /// Why the newest file is not in force, or nginx does not run.
    pub trouble: Option<Fault>,
}

/// Why something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Of the file with this tag.
    Refused { etag: String, words: String },
    /// nginx does not run.
    Down { words: String },
}

/// A private nginx that is being kept.
#[derive(Debug)]
pub struct Kept {
    pub live: watch::Receiver<Live>,
    task: JoinHandle<()>,
}

impl Kept {
    /// Resolves after `stop`, when nginx and all its processes are gone.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the loop around nginx failed");
        }
    }
}

/// Starts nginx on the newest file and follows until `stop`. An error only where nginx cannot be started at all.
pub async fn keep(
    config: ProxyConfig,
    mut newest: watch::Receiver<Arc<Rendered>>,
    stop: CancellationToken,
) -> Result<Kept, ProxyError> {
    let interval = config.min_interval;
    let first = newest.borrow_and_update().clone();
    let proxy = Proxy::start(config, &first).await?;
    let (state, live) = watch::channel(Live {
        etag: first.etag.clone(),
        since: Utc::now(),
        trouble: None,
    });
    let keeper = Keeper {
        proxy,
        newest,
        state,
        interval,
        due: None,
        earliest: Instant::now(),
        wait: FIRST_WAIT,
        started: Instant::now(),
    };
    let task = tokio::spawn(keeper.run(stop));
    Ok(Kept { live, task })
}

struct Keeper {
    proxy: Proxy,
    newest: watch::Receiver<Arc<Rendered>>,
    state: watch::Sender<Live>,
    interval: Duration,
    /// When the newest file is to be applied, if it is not in force.
    due: Option<Instant>,
    /// Not before this, whatever changes.
    earliest: Instant,
    wait: Duration,
    started: Instant,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        // What is under way when `stop` comes may be dropped: nginx ends next.
        stop.run_until_cancelled(self.follow()).await;
        self.proxy.stop().await;
    }

    async fn follow(&mut self) {
        loop {
            let due = self.due;
            tokio::select! {
                how = self.proxy.ended() => self.revive(&how).await,
                () = sleep_until(due.unwrap_or(self.earliest)), if due.is_some() => self.apply().await,
                // Without a sender nothing will change any more.
                Ok(()) = self.newest.changed() => self.due = Some(self.earliest),
            }
        }
    }

    async fn apply(&mut self) {
        self.due = None;
        let newest = self.newest.borrow_and_update().clone();
        let applied = self.proxy.apply(&newest).await;
        self.earliest = Instant::now() + self.interval;
        match applied {
            Ok(Applied::Unchanged) => self.state.send_modify(|live| live.trouble = None),
            Ok(Applied::Live { check, reload }) => {
                tracing::info!(etag = newest.etag, ?check, ?reload, "nginx is up to date");
                self.state.send_replace(Live {
                    etag: newest.etag.clone(),
                    since: Utc::now(),
                    trouble: None,
                });
            }
            Err(error) => {
                tracing::error!(etag = newest.etag, %error, "nginx stays on its old configuration");
                self.due = error.may_pass().then(|| Instant::now() + AGAIN);
                let (etag, words) = (newest.etag.clone(), error.to_string());
                self.trouble(match error {
                    ProxyError::Ended { .. } => Fault::Down { words },
                    _ => Fault::Refused { etag, words },
                });
            }
        }
    }

    fn trouble(&self, trouble: Fault) {
        self.state.send_modify(|live| live.trouble = Some(trouble));
    }

    fn down(&self, words: String) {
        self.trouble(Fault::Down { words });
    }

    async fn revive(&mut self, how: &str) {
        tracing::error!(how, "nginx ended and is started again");
        self.down(format!("nginx ended: {how}"));
        if self.started.elapsed() > STEADY {
            self.wait = FIRST_WAIT;
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        self.started = Instant::now();
        match self.proxy.restart().await {
            Ok(()) => {
                tracing::info!("nginx runs again");
                self.state.send_modify(|live| live.trouble = None);
                self.due = Some(self.earliest);
            }
            Err(error) => {
                tracing::error!(%error, "nginx cannot be started");
                self.down(error.to_string());
            }
        }
    }
}
