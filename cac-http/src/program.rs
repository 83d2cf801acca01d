//! `cac-http` as a program: what happens between its configuration and [`crate::serve`].

use cac_core::{Config, Core, user};
use tokio_util::sync::CancellationToken;

/// Serves until `stop`. A login node that has changed is refused here, before anybody signs in as somebody else.
pub async fn run(
    config: Config,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error>> {
    let listen = config.listen;
    let core = Core::start(config).await?;
    user::check_start(&core).await?;
    let listener = crate::bind(listen, "CAC_LISTEN").await?;
    tracing::info!("listening on http://{listen}");
    crate::serve(core.clone(), listener, stop).await?;
    core.db.close().await;
    Ok(())
}
