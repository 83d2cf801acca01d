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
        /// Only those that are pending, declined, approved, done, or unconfirmed: the person has not followed the link to confirm the
        /// e-mail address yet
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
    /// Decline requests: each person gets the reason by mail
    Decline {
        /// The requests' ids
        #[arg(value_name = "REQUEST", required_unless_present = "network")]
        ids: Vec<i64>,
        /// All that wait and came from this network, such as 192.0.2.0/24
        #[arg(long)]
        network: Option<String>,
        /// Why
        #[arg(long, required_unless_present = "without_mail")]
        reason: Option<String>,
        /// Mail nobody
        #[arg(long)]
        without_mail: bool,
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
            Command::Decline {
                ids,
                network,
                reason,
                without_mail,
            } => {
                if let ([id], None) = (ids.as_slice(), &network) {
                    let request = client.account_request_decline().id(*id);
                    let body = types::DeclineRequest {
                        answer: reason,
                        without_mail: Some(without_mail),
                    };
                    show(&request.body(body).send().await.told()?, json)?;
                } else {
                    let body = types::DeclineAllRequest {
                        ids,
                        network,
                        answer: reason,
                        without_mail: Some(without_mail),
                    };
                    let request = client.account_request_decline_all().body(body);
                    let outcome = request.send().await.told()?;
                    if json {
                        print::json(&outcome)?;
                    } else {
                        let skipped = outcome.skipped.len();
                        print::data(&format!(
                            "Declined {} requests; {skipped} were decided before or do not exist.\n",
                            outcome.declined.len()
                        ))?;
                    }
                }
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
            confirmed(row).to_owned(),
            shown(row.network.as_ref()),
            time(Some(&row.created_at)),
        ]
    });
    let titles = [
        "ID",
        "STATUS",
        "USER",
        "NAME",
        "MAIL",
        "CONFIRMED",
        "NETWORK",
        "ASKED",
    ];
    print::table(titles, rows)
}

/// Whether the person has proved that the address is theirs.
fn confirmed(row: &types::AccountRequest) -> &'static str {
    if row.email_confirmed { "yes" } else { "no" }
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
        ("mail confirmed", confirmed(row).to_owned()),
        ("network", shown(row.network.as_ref())),
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
