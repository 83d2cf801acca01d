//! `cac quota`: how much each user may have.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Common;
use crate::api::types;
use crate::portal::{Portal, Told as _, segment};
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Quota {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show your own, or for admins a user's
    Show {
        /// The user's name
        user: Option<String>,
    },
    /// List everyone's, for admins
    List,
    /// Give a user limits of their own, for admins; limits that are left out go back to the configured ones
    Set {
        /// The user's name
        user: String,
        /// At most this many containers
        #[arg(long)]
        containers: Option<i64>,
        /// At most this many processors
        #[arg(long)]
        cores: Option<i64>,
        /// At most this much memory, in MiB
        #[arg(long)]
        memory: Option<i64>,
        /// At most this much disk, in GiB
        #[arg(long)]
        disk: Option<i64>,
        /// At most this many services of all containers
        #[arg(long)]
        services: Option<i64>,
        /// At most this many external ports of all containers
        #[arg(long)]
        ports: Option<i64>,
    },
}

impl Quota {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let portal = Portal::open(common)?;
        let client = &portal.client;
        let one = match self.command {
            Command::Show { user: None } => client.quota_own().send().await.told()?,
            Command::Show { user: Some(user) } => client
                .quota_find()
                .username(segment("a user", &user)?)
                .send()
                .await
                .told()?,
            Command::List => {
                let rows = client.quota_list().send().await.told()?;
                match common.json {
                    true => print::json(&rows)?,
                    false => list(&rows)?,
                }
                return Ok(ExitCode::SUCCESS);
            }
            Command::Set {
                user,
                containers,
                cores,
                memory,
                disk,
                services,
                ports,
            } => {
                let body = types::QuotaRequest {
                    containers,
                    cores,
                    memory,
                    disk,
                    services,
                    ports,
                };
                let request = client
                    .quota_update()
                    .username(segment("a user", &user)?)
                    .body(body);
                request.send().await.told()?
            }
        };
        match common.json {
            true => print::json(&one)?,
            false => list(std::slice::from_ref(&one))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `1 of 5`, or only what is used where nothing limits it.
fn list(rows: &[types::Quota]) -> Result<(), Failure> {
    let of = |used: Option<i64>, limit: Option<i64>| {
        let used = used.unwrap_or(0);
        limit.map_or(used.to_string(), |limit| format!("{used} of {limit}"))
    };
    let rows = rows.iter().map(|row| {
        let (used, limits) = (&row.used, &row.limits);
        [
            row.username.clone(),
            of(used.containers, limits.containers),
            of(used.cores, limits.cores),
            of(used.memory, limits.memory),
            of(used.disk, limits.disk),
            of(used.services, limits.services),
            of(used.ports, limits.ports),
        ]
    });
    print::table(
        [
            "USER",
            "CONTAINERS",
            "CORES",
            "MEMORY (MiB)",
            "DISK (GiB)",
            "SERVICES",
            "PORTS",
        ],
        rows,
    )
}
