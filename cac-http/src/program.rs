//! `cac-http` as a program: configuration, log and signals around [`crate::serve`].

use std::io::IsTerminal as _;

use cac_core::config::{Config, Program, environment};
use cac_core::{Core, user};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Serves with the configuration of the environment until SIGTERM or SIGINT; with `check` only checks the configuration.
pub async fn run(check: bool) -> Result<(), Box<dyn std::error::Error>> {
    let vars = environment();
    log(vars.get("CAC_LOG").unwrap_or("info,poem=warn"))?;
    let config = Config::load(&vars, Program::Http)?;
    if check {
        println!("The configuration is good.");
        return Ok(());
    }
    let listen = config.listen;
    let core = Core::start(config).await?;
    user::check_start(&core).await?;
    let listener = crate::bind(listen).await?;
    let stop = stop_on_signals()?;
    tracing::info!("listening on http://{listen}");
    crate::serve(core, listener, stop).await?;
    Ok(())
}

fn log(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("CAC_LOG must be a level or a filter such as `info,cac_core=debug`: {error}")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        asked.cancel();
    });
    Ok(stop)
}
