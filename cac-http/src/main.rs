//! `cac-http`: the web server as a program.

use std::process::ExitCode;

use cac_core::config::Program;
use cac_core::program;

fn main() -> ExitCode {
    program::run(
        "cac-http",
        "Serves the portal",
        Program::Http,
        cac_http::run,
    )
}
