//! The words of the command line. What a command does is in its own file.

use std::process::ExitCode;

use cac_core::config::{Config, Program, environment};
use cac_core::{Core, program};
use clap::{Parser, Subcommand};

use crate::print::Failure;

#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod login_node;
mod migrate;
mod node;
mod secret;
#[cfg(feature = "demo")]
mod simulator;

/// Create-a-Container: LXC containers on Proxmox VE, reached by name.
///
/// Commands of local administration read the same environment and `.env` as the programs.
/// Exit status: 0 done, 1 failed or found a problem, 2 the words were not understood.
#[derive(Parser)]
#[command(name = "cac", version, arg_required_else_help = true)]
pub(crate) struct Cac {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The database's schema: bring it up to date, look at it, undo a change
    Migrate(migrate::Migrate),
    /// The Proxmox VE hosts that containers are made on
    Node(node::Node),
    /// The Proxmox VE where people sign in
    LoginNode(login_node::LoginNode),
    /// The key that secrets in the database are encrypted with
    Secret(secret::Secret),
    /// Look at everything an installation stands on, and say what to do
    Doctor(doctor::Doctor),
    /// Try everything on this machine: portal, runner, nginx and a simulated Proxmox VE in one process
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    /// A simulated Proxmox VE alone, for tests and other clients
    #[cfg(feature = "demo")]
    Simulator(simulator::Simulator),
}

impl Cac {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Migrate(migrate) => migrate.run().await,
            Command::Node(node) => node.run().await,
            Command::LoginNode(login_node) => login_node.run().await,
            Command::Secret(secret) => secret.run().await,
            Command::Doctor(doctor) => doctor.run().await,
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run().await,
            #[cfg(feature = "demo")]
            Command::Simulator(simulator) => simulator.run().await,
        }
    }
}

/// The configuration of a local command.
fn config() -> Result<Config, Failure> {
    let vars = environment()?;
    program::log(&vars, "warn")?;
    Ok(Config::load(&vars, Program::Local)?)
}

/// The library on the configured database.
async fn core() -> Result<Core, Failure> {
    Ok(Core::start(config()?).await?)
}
