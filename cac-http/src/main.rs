//! `cac-http`: the web server as a program. `--check` only checks the configuration.

use std::process::ExitCode;

use cac_core::config::{Config, Program, environment};
use cac_core::{Core, user};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cac-http: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let vars = environment();
    let filter = EnvFilter::try_new(vars.get("CAC_LOG").unwrap_or("info")).map_err(|error| {
        format!("CAC_LOG must be a level or a filter such as `info,cac_core=debug`: {error}")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let config = Config::load(&vars, Program::Http)?;
    if std::env::args().any(|word| word == "--check") {
        println!("The configuration is good.");
        return Ok(());
    }
    let listen = config.listen;
    let core = Core::start(config).await?;
    user::check_start(&core).await?;
    let listener = cac_http::bind(listen).await?;
    let stop = CancellationToken::new();
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        asked.cancel();
    });
    tracing::info!("listening on http://{listen}");
    Ok(cac_http::serve(core, listener, stop).await?)
}
