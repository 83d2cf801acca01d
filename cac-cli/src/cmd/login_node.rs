//! `cac login-node`: where people sign in.

use std::process::ExitCode;

use cac_core::user;
use clap::{Args, Subcommand};

use super::Common;
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct LoginNode {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Confirm that user names mean the accounts of the Proxmox VE and realm that are configured now
    Confirm,
}

impl LoginNode {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Confirm => {
                let core = super::core().await?;
                let confirmed = user::confirm_login_node(&core, &super::local()).await?;
                match common.json {
                    true => print::json(&serde_json::json!({"loginNode": confirmed}))?,
                    false => print::data(&format!("People sign in at {confirmed} from now on.\n"))?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
