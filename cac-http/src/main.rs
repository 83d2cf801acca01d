//! `cac-http`: the web server as a program.

use std::process::ExitCode;

const USAGE: &str = "usage: cac-http [--check]\n\
    Serves the portal with the configuration of the environment and `.env`; `--check` only checks that configuration.";

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let check = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match cac_http::run(check).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cac-http: {error}");
            ExitCode::FAILURE
        }
    }
}
