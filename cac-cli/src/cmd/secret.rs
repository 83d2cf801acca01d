//! `cac secret`: the key that secrets in the database are encrypted with.

use std::path::PathBuf;
use std::process::ExitCode;

use cac_core::pve::Secret as Text;
use cac_core::{cipher, secret};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Common;
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Secret {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print a new key, for CAC_SECRET_KEY of all programs
    New,
    /// Encrypt the secrets that stand in plain text, as after an adoption
    Encrypt,
    /// Encrypt all secrets with a new key; set it for all programs then
    Rotate {
        /// A file with the new key, as `cac secret new` prints it
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
    /// Put all secrets back in plain text, for going back to the original program
    Export {
        /// Yes, whoever reads the database may then act on the nodes
        #[arg(long, required = true)]
        in_plain_text: bool,
    },
}

impl Secret {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let (count, told) = match self.command {
            Command::New => {
                let key = secret::random();
                return match common.json {
                    true => print::json(&json!({"key": key})),
                    false => print::data(&format!("{key}\n")),
                }
                .map(|()| ExitCode::SUCCESS);
            }
            Command::Encrypt => (
                cipher::encrypt(&super::core().await?, &super::local()).await?,
                "secrets were encrypted.",
            ),
            Command::Rotate { key_file } => {
                let key = Text::new(super::small(&key_file)?.trim());
                let core = super::core().await?;
                (
                    cipher::rotate(&core, &super::local(), &key).await?,
                    "secrets have the new key. Set it for all programs (CAC_SECRET_KEY) and start them again.",
                )
            }
            Command::Export { .. } => (
                cipher::export(&super::core().await?, &super::local()).await?,
                "secrets stand in plain text now; `cac secret encrypt` takes that back.",
            ),
        };
        match common.json {
            true => print::json(&json!({"secrets": count}))?,
            false => print::data(&format!("{count} {told}\n"))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
