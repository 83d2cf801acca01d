//! `cac user`: users, former owners, and whose a name is, for admins.

use std::process::ExitCode;

use cac_core::user::{self, Person};
use clap::{Args, Subcommand, ValueEnum};

use super::{Common, shown, time};
use crate::api::types;
use crate::portal::{Portal, Told as _, segment};
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct User {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List everyone who owns something or has signed in, and former owners
    List,
    /// Decide whose a name is that was missing in Proxmox VE and exists again
    ///
    /// `same` gives suspended tokens back, or a former owner's containers; `new` deletes tokens and gives everything else to a former
    /// owner. Example: `cac user update frank --person same`
    Update {
        /// The user's name, or `former owner NAME`
        user: String,
        /// The person who had the name before, or a new one
        #[arg(long)]
        person: Who,
        /// Work on the database of this machine, past the portal: for when no admin can sign in
        #[arg(long)]
        local: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Who {
    Same,
    New,
}

impl User {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        match self.command {
            Command::List => {
                let portal = Portal::open(common)?;
                let rows = portal.client.user_list().send().await.told()?;
                match common.json {
                    true => print::json(&rows)?,
                    false => list(&rows)?,
                }
            }
            Command::Update {
                user,
                person,
                local: true,
            } => locally(&user, person, common).await?,
            Command::Update { user, person, .. } => {
                let portal = Portal::open(common)?;
                let word = match person {
                    Who::Same => "same",
                    Who::New => "new",
                };
                let body = types::UserRequest {
                    person: word.to_owned(),
                };
                let request = portal
                    .client
                    .user_update()
                    .username(segment("a user", &user)?);
                let row = request.body(body).send().await.told()?;
                match common.json {
                    true => print::json(&row)?,
                    false => list(std::slice::from_ref(&row))?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn locally(name: &str, person: Who, common: &Common) -> Result<(), Failure> {
    let core = super::core().await?;
    let person = match person {
        Who::Same => Person::Same,
        Who::New => Person::New,
    };
    let row = user::update(&core, &super::local(), name, person).await?;
    if common.json {
        return print::json(&row);
    }
    print::data(&format!("{} is {} now.\n", row.username, row.state.name()))
}

fn list(rows: &[types::User]) -> Result<(), Failure> {
    let rows = rows.iter().map(|row| {
        [
            row.username.clone(),
            shown(Some(&row.state)),
            time(row.missing_since.as_ref()),
            row.containers.to_string(),
            row.tokens.to_string(),
            row.sessions.to_string(),
        ]
    });
    print::table(
        [
            "USER",
            "STATE",
            "MISSING SINCE",
            "CONTAINERS",
            "TOKENS",
            "SESSIONS",
        ],
        rows,
    )
}
