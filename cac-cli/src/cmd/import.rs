//! `cac import`: the original's port map.

use std::path::PathBuf;
use std::process::ExitCode;

use cac_core::container::{self, Outcome, Taken};
use clap::Args;

use super::{Common, shown};
use crate::print::{self, Exit, Failure};

#[derive(Args)]
pub(crate) struct Import {
    /// The JSON file: `{"name": {"ip": …, "user": …, "os_release": …, "ctid": …, "mac": …, "ports": {"ssh": 2344, "http": 8080}}}`
    file: PathBuf,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// All are on this node; left out, Proxmox VE is asked, or there is only one
    #[arg(long)]
    node: Option<String>,
}

impl Import {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Exit::usage(&format!("{}: {error}", self.file.display())))?;
        let core = super::new_core().await?;
        let node = self.node.as_deref();
        let taken = container::take(&core, &super::local(), &text, node, self.dry_run).await?;
        if common.json {
            print::json(&taken)?;
        } else {
            table(&taken, self.dry_run)?;
        }
        let refused = taken.iter().any(|one| one.outcome == Outcome::Refused);
        Ok(if refused {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn table(taken: &[Taken], dry_run: bool) -> Result<(), Failure> {
    let rows = taken.iter().map(|one| {
        let outcome = match one.outcome {
            Outcome::Imported if dry_run => "would be imported",
            Outcome::Imported => "imported",
            Outcome::Known => "there already",
            Outcome::Refused => "refused",
        };
        [
            one.hostname.clone(),
            outcome.to_owned(),
            shown(one.id.as_ref()),
            one.services.join(", "),
            shown(one.reason.as_ref()),
        ]
    });
    print::table(["NAME", "OUTCOME", "ID", "SERVICES", "WHY"], rows)
}
