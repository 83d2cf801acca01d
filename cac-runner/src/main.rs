//! `cac-runner`: the job runner as a program.

use std::process::ExitCode;

use cac_core::config::Program;
use cac_core::program;

fn main() -> ExitCode {
    program::run("cac-runner", "Runs jobs", Program::Runner, cac_runner::run)
}
