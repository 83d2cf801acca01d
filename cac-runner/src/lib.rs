//! The job runner of Create-a-Container: any number of these work on one database, thin over [`cac_core::job::runner`].

use cac_core::config::Environment;
use cac_core::job::{self, supervisor};
use cac_core::{Config, Core};
use tokio_util::sync::CancellationToken;

/// Runs jobs until `stop`; then shell commands end as cancelled, and typed jobs are handed back for another runner or the
/// next start.
pub async fn run(
    mut config: Config,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error>> {
    config.runner.supervisor = Some(supervisor::own_program());
    let core = Core::start(config).await?;
    let runner = &core.config.runner;
    if runner.shell_jobs && runner.runs_as_root() {
        tracing::warn!(
            "shell jobs run as root here: set JOB_RUNNER_USER to an account with fewer rights, or SHELL_JOBS=off"
        );
    }
    if runner.shell_jobs
        && runner.user.is_none()
        && core.config.environment == Environment::Production
    {
        tracing::warn!(
            "shell jobs run as this runner's own user and can read its settings and its database: set JOB_RUNNER_USER to another account, or SHELL_JOBS=off"
        );
    }
    tracing::info!(concurrency = runner.concurrency, poll = ?runner.poll, "waiting for jobs");
    job::runner::run(core.clone(), stop).await;
    core.db.close().await;
    Ok(())
}
