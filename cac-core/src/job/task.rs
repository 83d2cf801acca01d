//! Named tasks (`task.rs` of the library): programs that the runner's own file describes, started without a shell.

use serde::{Deserialize, Serialize};

use super::{Running, Stop, process, shell};
use crate::task::Values;

pub const KIND: &str = "task";

/// Which task, with which values.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Payload {
    pub task: String,
    pub parameters: Values,
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    let Some(task) = job.core.config.tasks.get(&payload.task) else {
        return Err(Stop::Failed(format!(
            "This runner knows no task `{}`: its file (JOB_TASKS_FILE) must describe it, too.",
            payload.task
        )));
    };
    if job.taken_over() && !task.repeatable {
        return Err(Stop::Failed(shell::NOT_TWICE.to_owned()));
    }
    shell::must_still_be_allowed(job, |owner| task.allows(owner)).await?;
    // The runner's description counts, whatever stands in the row.
    let words = task
        .words(&payload.parameters)
        .map_err(|fields| Stop::Failed(fields.to_string()))?;
    let setting = format!("time_limit_seconds of the task `{}`", payload.task);
    let ended = process::run(job, &words, (task.time_limit, &setting)).await?;
    let Err(reason) = ended.well() else {
        return Ok(());
    };
    let worth = matches!(ended, process::Ended::Exit(code) if task.retry_on.contains(&code));
    if worth && job.retries() < i64::from(task.retries) {
        job.line(format!("{reason} It will be tried again.")).await;
        return Err(Stop::Retry {
            after: task.retry_after,
            reason,
        });
    }
    Err(Stop::Failed(reason))
}
