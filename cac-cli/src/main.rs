//! `cac`: the command line. Local administration now: the database, the nodes, and a demo of the whole.
//!
//! - `cmd.rs` the words; `cmd/<noun>.rs` what each does; `print.rs` how it is told
//! - `demo.rs` portal, runner, nginx and a simulated Proxmox VE in one process

mod cmd;
#[cfg(feature = "demo")]
mod demo;
mod print;

use std::process::ExitCode;

use cac_core::{job, program};
use clap::Parser as _;

fn main() -> ExitCode {
    if let Some(code) = job::supervisor::asked() {
        return code;
    }
    let cac = cmd::Cac::parse();
    match program::block_on(cac.run()) {
        Ok(code) => code,
        Err(error) => {
            print::error(&*error);
            ExitCode::FAILURE
        }
    }
}
