//! Waiting for a task of Proxmox VE inside a job: its log flows into the job's, and what ends the job ends the waiting.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Running, Stop};
use crate::pve::{ExitStatus, Pve, Upid};

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

    pub(super) fn well(self) -> Result<(), Stop> {
        match self {
            Self::Well => Ok(()),
            Self::Badly(reason) => Err(Stop::Failed(reason)),
        }
    }
}

/// Waits for a task of Proxmox VE while its log flows into the job's; on a cancel, when it is heeded, the task is stopped first.
pub(super) async fn wait_for_task(
    job: &Running,
    pve: &Pve,
    upid: &Upid,
    limit: Duration,
    heed_cancel: bool,
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
            () = job.cancel.cancelled(), if heed_cancel => {
                job.line("Stopping the task of Proxmox VE…").await;
                let _ = job.ask(|| pve.task_stop(upid)).await;
                return Err(Stop::Cancelled("Cancelled.".to_owned()));
            }
        }
    };
    while let Ok(line) = lines.try_recv() {
        job.line(format!("  {line}")).await;
    }
    job.allowed()?;
    match result {
        Ok(exit) => Ok(Ended::from(exit)),
        Err(error) => Err(Stop::Failed(format!("{}: {error}", upid.kind()))),
    }
}
