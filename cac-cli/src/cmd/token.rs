//! `cac token`: API tokens, for scripts.

use std::process::ExitCode;

use chrono::{DateTime, Duration, Utc};
use clap::{Args, Subcommand};

use super::{Common, time};
use crate::api::types;
use crate::portal::{Portal, Told as _};
use crate::print::{self, Exit, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the tokens
    List {
        /// Everyone's, for admins
        #[arg(long)]
        all: bool,
    },
    /// Make a token; it is shown this once
    Create {
        /// 1 to 64 characters, to know it by
        name: String,
        /// What it may be used for: containers:read, containers:write, containers:register (admins), jobs, nginx:read and nginx:report (admins), or admin for everything
        /// that you may do; several with commas
        #[arg(long, value_delimiter = ',', required = true)]
        scope: Vec<String>,
        /// When it ends, such as 2030-01-31T15:00:00Z
        #[arg(long, value_name = "TIME", conflicts_with = "days")]
        expires: Option<DateTime<Utc>>,
        /// Days until it expires; with neither, as many as the portal allows (TOKEN_MAX_DAYS)
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: Option<u32>,
    },
    /// Delete a token
    Delete {
        /// The token's id
        #[arg(value_name = "TOKEN")]
        id: i64,
    },
}

impl Token {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let portal = Portal::open(common)?;
        match self.command {
            Command::List { all } => {
                let mut request = portal.client.token_list().limit(1000);
                if all {
                    request = request.all(true);
                }
                list(&request.send().await.told()?, common.json)?;
            }
            Command::Create {
                name,
                scope,
                expires,
                days,
            } => {
                let body = types::TokenRequest {
                    name,
                    scopes: scopes(&scope)?,
                    expires: expires.or(days.map(|days| Utc::now() + Duration::days(days.into()))),
                };
                let made = portal
                    .client
                    .token_create()
                    .body(body)
                    .send()
                    .await
                    .told()?;
                if common.json {
                    print::json(&made)?;
                } else {
                    print::data(&format!("{}\n", made.token))?;
                    print::note(&format!("That is token {}; it is shown only now.", made.id));
                }
            }
            Command::Delete { id } => {
                portal.client.token_delete().id(id).send().await.told()?;
                print::done("The token is deleted.", common.json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As the contract names them.
pub(crate) fn scopes(words: &[String]) -> Result<Vec<types::TokenRequestScopesItem>, Failure> {
    let parsed = words.iter().map(|word| {
        word.trim().parse().map_err(|_| {
            Exit::usage(&format!(
                "`{word}` is not a scope; `cac token create --help` shows those there are."
            ))
        })
    });
    parsed.collect()
}

fn list(rows: &[types::Token], json: bool) -> Result<(), Failure> {
    if json {
        return print::json(&rows);
    }
    let rows = rows.iter().map(|row| {
        let end = time(row.expires.as_ref());
        let state = match (row.suspended, row.expires_soon) {
            (true, _) => "suspended".to_owned(),
            (false, true) => format!("{end} (soon)"),
            (false, false) => end,
        };
        [
            row.id.to_string(),
            row.name.clone(),
            row.username.clone(),
            format!("{}…", row.beginning),
            row.scopes.join(","),
            state,
            time(row.last_used_at.as_ref()),
        ]
    });
    print::table(
        [
            "ID",
            "NAME",
            "OWNER",
            "TOKEN",
            "SCOPES",
            "ENDS",
            "LAST USED",
        ],
        rows,
    )
}
