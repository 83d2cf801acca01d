//! Waiting for a task of Proxmox VE inside a job: its log flows into the job's, and what ends the job ends the waiting.

use std::time::Duration;

use tokio::sync::mpsc;

use super::running::Asked;
use super::{Running, Stop};
use crate::pve::{ExitStatus, Pve, Upid, is_lock_text};

/// How a task of Proxmox VE ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    Badly(String),
}

impl Ended {
    pub(super) fn from(exit: ExitStatus) -> Self {
        match exit {
            ExitStatus::Ok | ExitStatus::Warnings(_) => Self::Well,
            ExitStatus::Failed(reason) => Self::Badly(reason),
        }
    }

    /// Whether it ended on a lock that somebody else held, which may be free the next time.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Badly(reason) if is_lock_text(reason))
    }

    pub(super) fn well(self) -> Result<(), Stop> {
        match self {
            Self::Well => Ok(()),
            Self::Badly(reason) => Err(Stop::Failed(reason)),
        }
    }
}

/// How long a task that is told to stop gets; Proxmox VE kills it after five seconds.
const STOPPING: Duration = Duration::from_secs(15);

/// Waits for a task of Proxmox VE while its log flows into the job's. One that has not ended after `limit` is stopped, and so is one
/// on a cancel.
pub(super) async fn wait_for_task(
    job: &Running,
    pve: &Pve,
    upid: &Upid,
    limit: Duration,
) -> Result<Ended, Stop> {
    let (sender, mut lines) = mpsc::unbounded_channel::<String>();
    let wait = pve.task_wait(upid, limit, move |line| {
        let _ = sender.send(line);
    });
    tokio::pin!(wait);
    let result = loop {
        tokio::select! {
            biased;
            Some(line) = lines.recv() => job.line(format!("  {line}")).await,
            result = &mut wait => break result,
            () = job.lost.cancelled() => return Err(Stop::Lost),
            () = job.hand_back.cancelled() => return Err(Stop::HandBack),
            () = job.cancel.cancelled() => {
                job.line("Stopping the task of Proxmox VE…").await;
                stop(job, pve, upid).await?;
                return job.go_on().map(|()| Ended::Well);
            }
        }
    };
    while let Ok(line) = lines.try_recv() {
        job.line(format!("  {line}")).await;
    }
    job.allowed()?;
    match result {
        Ok(exit) => Ok(Ended::from(exit)),
        // Passing trouble is waited out: this is the limit.
        Err(error) if error.is_transient() => {
            let reason = format!(
                "The task of Proxmox VE ({}) has not ended after {} s",
                upid.kind(),
                limit.as_secs()
            );
            job.line(format!("{reason}; stopping it…")).await;
            stop(job, pve, upid).await?;
            Ok(Ended::Badly(format!("{reason} and was stopped.")))
        }
        Err(error) => Err(Stop::Failed(format!("{}: {error}", upid.kind()))),
    }
}

/// Tells a task to stop and waits a little for its end.
async fn stop(job: &Running, pve: &Pve, upid: &Upid) -> Result<(), Stop> {
    let job = job.to_the_end();
    if let Err(Asked::Stop(stop)) = job.ask(|| pve.task_stop(upid)).await {
        return Err(stop);
    }
    // Whether it has ended is seen by whoever looks at its container next.
    let _ = pve.task_wait(upid, STOPPING, |_| ()).await;
    job.allowed()
}
