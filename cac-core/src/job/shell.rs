//! Shell commands: rows without a kind, started by `/bin/sh -c`.

use super::{Running, SWITCHED_OFF, Stop, process};

/// Why a command whose runner died is not started again.
pub(super) const NOT_TWICE: &str = "Its runner died while the command ran; it is not run twice unasked. Start it again if that is right.";

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let settings = &job.core.config.runner;
    if job.taken_over() {
        return Err(Stop::Failed(NOT_TWICE.to_owned()));
    }
    if !settings.shell_jobs {
        return Err(Stop::Failed(SWITCHED_OFF.to_owned()));
    }
    let words = ["/bin/sh", "-c", &job.claim.command].map(str::to_owned);
    let limit = (settings.shell_limit, "SHELL_JOB_LIMIT_SECONDS");
    let ended = process::run(job, &words, limit).await?;
    ended.well().map_err(Stop::Failed)
}
