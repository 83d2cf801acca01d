//! Which kind of work a job is. Everything else about a kind is in its own file.

use super::{Running, Stop, container_create, container_delete, shell};

/// Runs a claimed job to its end.
pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    match job.claim.kind.as_deref() {
        None => shell::run(job).await,
        Some(container_create::KIND) => container_create::run(job).await,
        Some(container_delete::KIND) => container_delete::run(job).await,
        Some(other) => Err(Stop::Failed(format!(
            "This release does not know the job kind `{other}`; a newer one may have added it."
        ))),
    }
}

/// Whether a job goes on after its runner died or was stopped. Shell commands must not run twice unasked.
pub(super) fn resumable(kind: Option<&str>) -> bool {
    kind.is_some()
}
