//! `cac`: the command line. Local administration now: the database, the nodes, and a demo of the whole.
//!
//! - `cmd.rs` the words; `cmd/<noun>.rs` what each does; `print.rs` how it is told
//! - `demo.rs` portal, runner, nginx and a simulated Proxmox VE in one process

mod cmd;
#[cfg(feature = "demo")]
mod demo;
mod print;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match cmd::Cac::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            print::error(&*error);
            ExitCode::FAILURE
        }
    }
}
