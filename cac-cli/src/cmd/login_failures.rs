//! `cac login-failures`: who was slowed down for failed sign-ins.

use std::process::ExitCode;

use cac_core::login_failure;
use clap::{Args, Subcommand};

use super::{Common, time};
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct LoginFailures {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List failed sign-ins that still slow somebody down, by user, network, device and address
    List,
    /// Forget the failed sign-ins of a user or an address, so that the next one is let through at once
    Clear {
        /// A user's name or an IP address; left out, all are forgotten
        name: Option<String>,
    },
}

impl LoginFailures {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let core = super::core().await?;
        match self.command {
            Command::List => {
                let rows = login_failure::list(&core).await?;
                if common.json {
                    print::json(&rows)?;
                    return Ok(ExitCode::SUCCESS);
                }
                let rows = rows.iter().map(|row| {
                    [
                        row.name.clone(),
                        row.failures.to_string(),
                        time(Some(&row.last_at)),
                        format!("{} s", row.wait),
                    ]
                });
                print::table(["COUNTED FOR", "FAILURES", "LAST", "WAIT"], rows)?;
            }
            Command::Clear { name } => {
                let cleared = login_failure::clear(&core, &super::local(), name.as_deref()).await?;
                let text = match cleared {
                    0 => "There were no failed sign-ins to forget.".to_owned(),
                    1 => "Forgot 1 count of failed sign-ins.".to_owned(),
                    n => format!("Forgot {n} counts of failed sign-ins."),
                };
                match common.json {
                    true => print::json(&serde_json::json!({"cleared": cleared}))?,
                    false => print::data(&format!("{text}\n"))?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
