//! `cac container snapshot`

use clap::{Args, Subcommand};

use super::{Named, changed};
use crate::api::types;
use crate::cmd::{shown, sure, time};
use crate::portal::{Portal, Told as _, segment};
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the snapshots
    List(Named),
    /// Take a snapshot
    Create {
        #[command(flatten)]
        container: Named,
        /// 2 to 40 letters, digits, `-` and `_`, beginning with a letter
        snapshot: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a snapshot
    Delete(Which),
    /// Roll back to a snapshot: what was written since is lost
    Rollback {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
struct Which {
    #[command(flatten)]
    container: Named,
    /// The snapshot's name
    snapshot: String,
}

impl Snapshot {
    pub(crate) async fn run(self, portal: &Portal, json: bool) -> Result<(), Failure> {
        match self.command {
            Command::List(one) => {
                let id = portal.container(&one.name).await?.id;
                let rows = portal.client.snapshot_list().id(id).send().await.told()?;
                list(&rows, json)
            }
            Command::Create {
                container,
                snapshot,
                description,
            } => {
                let id = portal.container(&container.name).await?.id;
                let body = types::SnapshotRequest {
                    name: snapshot,
                    description,
                };
                let answer = portal
                    .client
                    .snapshot_create()
                    .id(id)
                    .body(body)
                    .send()
                    .await;
                changed(portal, id, answer, json).await
            }
            Command::Delete(which) => {
                let id = portal.container(&which.container.name).await?.id;
                let request = portal
                    .client
                    .snapshot_delete()
                    .id(id)
                    .name(segment("a snapshot", &which.snapshot)?);
                changed(portal, id, request.send().await, json).await
            }
            Command::Rollback { which, yes } => {
                let id = portal.container(&which.container.name).await?.id;
                let what = format!("What was written since `{}` will be lost.", which.snapshot);
                sure(&which.snapshot, &what, yes)?;
                let request = portal
                    .client
                    .snapshot_rollback()
                    .id(id)
                    .name(segment("a snapshot", &which.snapshot)?);
                changed(portal, id, request.send().await, json).await
            }
        }
    }
}

fn list(rows: &[types::Snapshot], json: bool) -> Result<(), Failure> {
    if json {
        return print::json(&rows);
    }
    if rows.is_empty() {
        print::note("There is no snapshot.");
        return Ok(());
    }
    let rows = rows.iter().map(|row| {
        [
            row.name.clone(),
            time(row.created_at.as_ref()),
            shown(row.description.as_ref()),
        ]
    });
    print::table(["NAME", "TAKEN", "DESCRIPTION"], rows)
}
