//! The job runner of Create-a-Container: any number of these work on one database, thin over [`cac_core::job::runner`].

use cac_core::{Config, Core, job};
use tokio_util::sync::CancellationToken;

/// Runs jobs until `stop`; then shell commands end as cancelled, and typed jobs are handed back for another runner or the
/// next start.
pub async fn run(
    config: Config,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error>> {
    let core = Core::start(config).await?;
    let runner = &core.config.runner;
    tracing::info!(concurrency = runner.concurrency, poll = ?runner.poll, "waiting for jobs");
    job::runner::run(core.clone(), stop).await;
    core.db.close().await;
    Ok(())
}
