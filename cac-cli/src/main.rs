//! `cac`: the command line. Containers and everything about them by a portal's API, and local administration: the database, secrets, a demo of the whole.
//!
//! - `cmd.rs` the words; `cmd/<noun>.rs` what each does; `print.rs` how it is told and how it ends
//! - `portal.rs` whom commands talk to, `api.rs` the generated client, `context.rs` who is signed in where, `follow.rs` a job as it goes on
//! - `demo.rs` portal, runner, nginx and a simulated Proxmox VE in one process

#![allow(
    rustdoc::bare_urls,
    reason = "what commands say of themselves is for terminals"
)]

mod api;
mod cmd;
mod context;
#[cfg(feature = "demo")]
mod demo;
mod follow;
mod portal;
mod print;

use std::process::ExitCode;

use cac_core::{job, program};
use clap::Parser as _;

fn main() -> ExitCode {
    if let Some(code) = job::supervisor::asked() {
        return code;
    }
    job::supervisor::hide();
    let cac = cmd::Cac::parse();
    match program::block_on(cac.run()) {
        Ok(code) => code,
        Err(error) => {
            print::error(&*error);
            ExitCode::from(print::status(&*error))
        }
    }
}
