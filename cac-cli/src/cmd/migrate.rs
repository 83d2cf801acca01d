//! `cac migrate`: the database's schema.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use cac_core::clock::Clock;
use cac_core::config::Config;
use cac_core::db::Db;
use cac_core::hostname;
use cac_core::retention::{self, OldRows};
use cac_core::schema::{self, AdoptionPlan};
use clap::{Args, Subcommand};

use super::Common;
use crate::print::{self, Exit, Failure};

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
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Where each change of the schema stands
    Status,
    /// Undo the last change; tables of the original stay, and what would be lost is named
    Down {
        /// Lose what would be lost
        #[arg(long)]
        discard: bool,
    },
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
            Command::Up { dry_run: true, .. } => {
                let config = super::inspected_config()?;
                let plan = match existing(&config).await? {
                    Some(db) => {
                        let plan = schema::plan(&db).await?;
                        if !plan.is_of_new_database() {
                            note_names(&db, &config).await;
                        }
                        plan
                    }
                    None => schema::plan_of_none(),
                };
                match common.json {
                    true => print::json(&plan)?,
                    false => print::data(&plan.to_string())?,
                }
            }
            Command::Up { yes, .. } => {
                let config = super::config()?;
                let db = Db::connect(config.database_url.expose()).await?;
                if let Some(adoption) = schema::plan(&db).await?.adoption {
                    agree(&adoption, yes)?;
                }
                let report = schema::up_by(&db, &super::local()).await?;
                for old in retention::preview(&db, &config.retention, &Clock::System).await? {
                    let OldRows {
                        kind,
                        count,
                        setting,
                        from,
                    } = old;
                    let from = from.format("%Y-%m-%d");
                    print::note(&format!(
                        "From {from} on old {kind} are removed, {count} of them now; {setting} says how long they stay (0: for ever)."
                    ));
                }
                note_names(&db, &config).await;
                match common.json {
                    true => print::json(&report)?,
                    false => print::data(&report.to_string())?,
                }
            }
            Command::Status => {
                let all = match existing(&super::inspected_config()?).await? {
                    None => {
                        print::note("There is no database yet; `cac migrate up` makes it.");
                        schema::status_of_none()
                    }
                    Some(db) => {
                        if schema::is_original(&db).await? {
                            print::note(
                                "This is a database of the original program that is not adopted yet; `cac migrate up` does it.",
                            );
                        }
                        schema::status(&db).await?
                    }
                };
                match common.json {
                    true => print::json(&all)?,
                    false => {
                        let lines = all.iter().map(|status| format!("{status}\n"));
                        print::data(&lines.collect::<String>())?;
                    }
                }
            }
            Command::Down { discard } => {
                let db = connect().await?;
                let undone = schema::down_by(&db, &super::local(), discard).await?;
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

/// Names that are printed; `cac doctor` has them all.
const NAMES: usize = 20;

/// Says which names nobody would be given today. They stay served, so that this is no reason to fail.
async fn note_names(db: &Db, config: &Config) {
    let names = match hostname::questionable(db, config).await {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "names were not compared with today's rules");
            return;
        }
    };
    for name in names.iter().take(NAMES) {
        print::note(&name.to_string());
    }
    if let Some(more) = names.len().checked_sub(NAMES).filter(|more| *more > 0) {
        print::note(&format!(
            "And {more} more such names; `cac doctor` lists them."
        ));
    }
}

/// The configured database, if there is one: whoever only looks makes none.
async fn existing(config: &Config) -> Result<Option<Db>, Failure> {
    match Db::is_missing(config.database_url.expose()) {
        true => Ok(None),
        false => Ok(Some(Db::connect(config.database_url.expose()).await?)),
    }
}

/// Says what is to be done first and what would happen. Nothing happens before somebody has agreed.
fn agree(adoption: &AdoptionPlan, yes: bool) -> Result<(), Failure> {
    print::note(STOP_FIRST);
    print::note(adoption.to_string().trim_end());
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Exit::usage(
            "Nothing was changed. Say --yes once the original is stopped; --dry-run shows again what would be done.",
        ));
    }
    let _ = write!(std::io::stderr(), "Is the original stopped? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err("Nothing was changed.".into()),
    }
}
