//! One job in this process's hands: what a kind of work may do, and how it ends.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::output::{Output, Piece};
use super::queue::{self, Claim};
use crate::config::StepLimits;
use crate::{Core, Error, pve};

/// Why a job stops before its work is done.
#[derive(Debug)]
pub enum Stop {
    /// It cannot be done; the reason is for the owner.
    Failed(String),
    /// Somebody asked for it.
    Cancelled(String),
    /// Worth another try: after this time, or without one after a time that doubles with each try, up to five minutes.
    Retry {
        after: Option<Duration>,
        reason: String,
    },
    /// This process ends; somebody else goes on.
    HandBack,
    /// Somebody else has it already: touch nothing.
    Lost,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            error if error.retryable() => Self::Retry {
                after: None,
                reason: error.to_string(),
            },
            Error::Internal(cause) => {
                tracing::error!(%cause, "a job failed");
                Self::Failed("An internal error; the log of the runner has the cause.".to_owned())
            }
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<crate::db::Error> for Stop {
    fn from(error: crate::db::Error) -> Self {
        Error::from(error).into()
    }
}

fn cancelled() -> Stop {
    Stop::Cancelled("Cancelled.".to_owned())
}

/// A claimed job.
#[derive(Debug, Clone)]
pub struct Running {
    pub core: Core,
    pub(super) claim: Arc<Claim>,
    pub(super) output: Arc<Output>,
    /// By this host's monotonic clock; before the database's lease ends.
    pub(super) deadline: Arc<Mutex<Instant>>,
    pub(super) cancel: CancellationToken,
    pub(super) hand_back: CancellationToken,
    pub(super) lost: CancellationToken,
}

impl Running {
    /// The job's row id.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.claim.id
    }

    /// Whether another runner had it before and died, so that what it did is not known beyond the checkpoint.
    #[must_use]
    pub fn taken_over(&self) -> bool {
        self.claim.taken_over
    }

    /// How often it was put back for another try ([`Stop::Retry`]).
    #[must_use]
    pub fn retries(&self) -> i64 {
        self.claim.retries
    }

    /// How long each step may take.
    pub(super) fn limits(&self) -> &StepLimits {
        &self.core.config.runner.limits
    }

    /// Resolves when somebody asked for its end.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Writes a line of output.
    pub async fn line(&self, text: impl AsRef<str>) {
        // A closed sink means that the job is lost; the next checkpoint says so.
        let line = Piece::Ours(format!("{}\n", text.as_ref()));
        if let Some(sink) = self.output.sink() {
            let _ = sink.send(line).await;
        }
    }

    /// Says which step of how many begins.
    pub async fn step(&self, number: u8, of: u8, title: &str) {
        tracing::debug!(job = self.claim.id, number, title, "step");
        self.line(format!("[{number}/{of}] {title}")).await;
    }

    /// What it was created with.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Stop> {
        let text = self.claim.payload.as_deref().unwrap_or("null");
        serde_json::from_str(text)
            .map_err(|error| Stop::Failed(format!("The job's payload cannot be read: {error}")))
    }

    /// The progress that was stored last, or the default.
    pub fn checkpoint<T: DeserializeOwned + Default>(&self) -> Result<T, Stop> {
        match self.claim.checkpoint.as_deref() {
            None => Ok(T::default()),
            Some(text) => serde_json::from_str(text).map_err(|error| {
                Stop::Failed(format!("The job's stored progress cannot be read: {error}"))
            }),
        }
    }

    /// Stores the progress, after all that was said so far; call it before and after each outside effect.
    pub async fn save<T: Serialize>(&self, checkpoint: &T) -> Result<(), Stop> {
        let text =
            serde_json::to_string(checkpoint).map_err(|error| Stop::Failed(error.to_string()))?;
        self.output.flush().await;
        if queue::save(&self.core, &self.claim, &text).await? {
            self.allowed()
        } else {
            Err(Stop::Lost)
        }
    }

    /// Must hold before each outside effect: the lease is ours by our own clock.
    pub fn allowed(&self) -> Result<(), Stop> {
        let deadline = *self
            .deadline
            .lock()
            .expect("nothing panics while it holds the deadline");
        if self.lost.is_cancelled() || Instant::now() >= deadline {
            return Err(Stop::Lost);
        }
        if self.hand_back.is_cancelled() {
            return Err(Stop::HandBack);
        }
        Ok(())
    }

    /// [`Self::allowed`], and nobody asked for an end.
    pub fn go_on(&self) -> Result<(), Stop> {
        self.allowed()?;
        if self.cancel.is_cancelled() {
            return Err(cancelled());
        }
        Ok(())
    }

    /// The same job for work that nobody's wish to cancel may stop any more, such as an undo.
    #[must_use]
    pub fn to_the_end(&self) -> Self {
        Self {
            cancel: CancellationToken::new(),
            ..self.clone()
        }
    }

    /// Sleeps, unless something ends the job first.
    pub async fn pause(&self, time: Duration) -> Result<(), Stop> {
        tokio::select! {
            () = tokio::time::sleep(time) => self.allowed(),
            () = self.lost.cancelled() => Err(Stop::Lost),
            () = self.hand_back.cancelled() => Err(Stop::HandBack),
            () = self.cancel.cancelled() => Err(cancelled()),
        }
    }

    /// Repeats a call that may be made twice until it is answered, for as long as Proxmox VE may be away.
    pub(super) async fn ask<T, F, A>(&self, mut call: F) -> Result<T, Asked>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T, pve::Error>>,
    {
        let began = Instant::now();
        let mut pause = Duration::from_millis(200);
        let mut told = false;
        loop {
            let answer = tokio::select! {
                answer = call() => answer,
                () = self.cancel.cancelled() => return Err(cancelled().into()),
            };
            match answer {
                Err(error)
                    if error.is_transient()
                        && began.elapsed() < self.core.config.runner.patience =>
                {
                    if !told {
                        self.line(format!(
                            "Proxmox VE does not answer ({error}); trying again…"
                        ))
                        .await;
                        told = true;
                    }
                    self.pause(pause).await?;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(Asked::Proxmox(error)),
                Ok(value) => return Ok(value),
            }
        }
    }
}

/// Why [`Running::ask`] has no answer.
#[derive(Debug)]
pub(super) enum Asked {
    Proxmox(pve::Error),
    Stop(Stop),
}

impl From<Stop> for Asked {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Asked> for Stop {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Proxmox(error) => Self::Failed(error.to_string()),
            Asked::Stop(stop) => stop,
        }
    }
}
