//! `cac request`: who asks for an account, for admins.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Common, shown, time};
use crate::api::types;
use crate::portal::{Portal, Told as _};
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Request {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the requests
    List {
        /// Only those that are pending, declined, approved or done
        #[arg(long)]
        status: Option<types::AccountRequestListStatus>,
    },
    /// Show one request
    Show(Which),
    /// Approve a request: the person gets a link by mail
    Approve {
        #[command(flatten)]
        which: Which,
        /// You know what exists under the name (`cac request show`); a new person gets none of it
        #[arg(long)]
        accept_existing: bool,
    },
    /// Decline a request: the person gets the reason by mail
    Decline {
        #[command(flatten)]
        which: Which,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

#[derive(Args)]
struct Which {
    /// The request's id
    #[arg(value_name = "REQUEST")]
    id: i64,
}

impl Request {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let portal = Portal::open(common)?;
        let client = &portal.client;
        let json = common.json;
        match self.command {
            Command::List { status } => {
                let mut request = client.account_request_list().limit(1000);
                if let Some(status) = status {
                    request = request.status(status);
                }
                list(&request.send().await.told()?, json)?;
            }
            Command::Show(one) => {
                show(
                    &client
                        .account_request_find()
                        .id(one.id)
                        .send()
                        .await
                        .told()?,
                    json,
                )?;
            }
            Command::Approve {
                which,
                accept_existing,
            } => {
                let mut request = client.account_request_approve().id(which.id);
                if accept_existing {
                    request = request.accept_existing(true);
                }
                show(&request.send().await.told()?, json)?;
            }
            Command::Decline { which, reason } => {
                let request = client.account_request_decline().id(which.id);
                let body = types::DeclineRequest { answer: reason };
                show(&request.body(body).send().await.told()?, json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(rows: &[types::AccountRequest], json: bool) -> Result<(), Failure> {
    if json {
        return print::json(&rows);
    }
    let rows = rows.iter().map(|row| {
        [
            row.id.to_string(),
            row.status.clone(),
            row.username.clone(),
            row.name.clone(),
            row.email.clone(),
            time(Some(&row.created_at)),
        ]
    });
    print::table(["ID", "STATUS", "USER", "NAME", "MAIL", "ASKED"], rows)
}

fn show(row: &types::AccountRequest, json: bool) -> Result<(), Failure> {
    if json {
        return print::json(row);
    }
    print::sheet([
        ("request", row.id.to_string()),
        ("status", row.status.clone()),
        ("user", row.username.clone()),
        ("name", row.name.clone()),
        ("mail", row.email.clone()),
        ("reason", row.reason.clone()),
        ("asked", time(Some(&row.created_at))),
        ("decided by", shown(row.decided_by.as_ref())),
        ("decided", time(row.decided_at.as_ref())),
        ("answer", shown(row.answer.as_ref())),
        ("link", shown(row.link.as_ref())),
        (
            "exists under the name",
            row.existing.as_ref().map(existing).unwrap_or_default(),
        ),
    ])
}

/// What exists under the name, in words.
fn existing(all: &types::NameUse) -> String {
    let counts = [
        (all.containers, "containers"),
        (all.tokens, "API tokens"),
        (all.jobs, "jobs"),
        (all.former_containers, "containers of a former owner"),
    ];
    let counts = counts.into_iter().filter(|(n, _)| *n > 0);
    let account = all.account.as_ref().map(|state| format!("account {state}"));
    let parts: Vec<String> = counts
        .map(|(n, what)| format!("{n} {what}"))
        .chain(account)
        .collect();
    parts.join(", ")
}
