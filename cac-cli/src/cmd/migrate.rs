//! `cac migrate`: the database's schema.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use cac_core::db::Db;
use cac_core::schema;
use clap::{Args, Subcommand};

use super::Common;
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Migrate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the database to the newest schema; one of the original program is adopted in place
    Up {
        /// Adopt a database of the original without asking: the original is stopped
        #[arg(long)]
        yes: bool,
    },
    /// Where each change of the schema stands
    Status,
    /// Undo the last change; tables of the original stay
    Down,
    /// Begin a new change of the schema: six empty files, for developers of cac
    New {
        /// 1 to 40 of a-z, 0-9 and _
        name: String,
        /// The project's folder of migrations
        #[arg(long, default_value = "migrations")]
        dir: PathBuf,
    },
}

const STOP_FIRST: &str = "This is a database of the original program. Stop the original and its job runner first \
    (`systemctl stop create-a-container job-runner`), and have a backup (`mysqldump`): \
    everybody is signed out, jobs that stand at `running` fail, old pending ones will run.";

impl Migrate {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        match self.command {
            Command::New { name, dir } => {
                let files = schema::new(&dir, &name)?;
                match common.json {
                    true => print::json(&files)?,
                    false => {
                        let lines = files.iter().map(|file| format!("{}\n", file.display()));
                        print::data(&lines.collect::<String>())?;
                    }
                }
            }
            Command::Up { yes } => {
                let db = connect().await?;
                if schema::is_original(&db).await? && !yes && !agreed()? {
                    return Err("Nothing was changed.".into());
                }
                let report = schema::up(&db).await?;
                match common.json {
                    true => print::json(&report)?,
                    false => print::data(&report.to_string())?,
                }
            }
            Command::Status => {
                let db = connect().await?;
                if schema::is_original(&db).await? {
                    print::note(
                        "This is a database of the original program that is not adopted yet; `cac migrate up` does it.",
                    );
                }
                let all = schema::status(&db).await?;
                match common.json {
                    true => print::json(&all)?,
                    false => {
                        let lines = all.iter().map(|status| format!("{status}\n"));
                        print::data(&lines.collect::<String>())?;
                    }
                }
            }
            Command::Down => {
                let undone = schema::down(&connect().await?).await?;
                match common.json {
                    true => print::json(&serde_json::json!({"undone": undone}))?,
                    false => print::data(&format!("Undone: {undone}\n"))?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn connect() -> Result<Db, Failure> {
    Ok(Db::connect(super::config()?.database_url.expose()).await?)
}

/// Says what is to be done first, and asks where somebody can answer; a script has read the documentation.
fn agreed() -> Result<bool, Failure> {
    print::note(STOP_FIRST);
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    let _ = write!(std::io::stderr(), "Is the original stopped? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
