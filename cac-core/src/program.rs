//! What each of our programs does around the library: words, environment, log, signals. Programs that embed the library
//! have their own.

use std::error::Error;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Program, Vars, environment};
use crate::job::supervisor;

/// What is logged where `CAC_LOG` says nothing.
const LOG: &str = "info,poem=warn";

/// The whole of a program `NAME [--check]`: 0 when it ended well, 1 with a sentence on standard error when it did not, 2 when
/// its words were not understood. `work` ends soon after the token is cancelled. Call it before any thread is started.
pub fn run<W>(name: &str, does: &str, program: Program, work: W) -> ExitCode
where
    W: AsyncFnOnce(Config, CancellationToken) -> Result<(), Box<dyn Error>>,
{
    if let Some(code) = supervisor::asked() {
        return code;
    }
    supervisor::hide();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let check = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        ["--version"] => {
            println!("{name} {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        ref others => {
            eprintln!(
                "usage: {name} [--check | --version]\n\
                 {does} with the configuration of the environment and `.env`; `--check` only checks that configuration."
            );
            let asked = matches!(others, ["-h" | "--help"]);
            return ExitCode::from(if asked { 0 } else { 2 });
        }
    };
    match block_on(start(program, check, work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("{name}: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` on all cores.
pub fn block_on<T>(
    work: impl Future<Output = Result<T, Box<dyn Error>>>,
) -> Result<T, Box<dyn Error>> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().build()?.block_on(work)
}

async fn start<W>(program: Program, check: bool, work: W) -> Result<(), Box<dyn Error>>
where
    W: AsyncFnOnce(Config, CancellationToken) -> Result<(), Box<dyn Error>>,
{
    let vars = environment()?;
    log(&vars, LOG)?;
    let config = Config::load(&vars, program)?;
    if check {
        println!("The configuration is good.");
        return Ok(());
    }
    work(config, stop_on_signals()?).await
}

/// Logs to standard error as `CAC_LOG` says, else as `default`.
pub fn log(vars: &Vars, default: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(vars.get("CAC_LOG").unwrap_or(default)).map_err(|error| {
        format!("CAC_LOG must be a level or a filter such as `info,cac_core=debug`: {error}.")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Cancelled by the first SIGTERM, SIGINT or SIGHUP; a second one ends the process at once.
pub fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    let asked = stop.clone();
    tokio::spawn(async move {
        let [term, int, hup] = &mut signals;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hup.recv() => {}
            }
            if asked.is_cancelled() {
                std::process::exit(130);
            }
            asked.cancel();
        }
    });
    Ok(stop)
}
