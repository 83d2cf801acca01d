//! `cac audit`: the audit log in the database of this installation.

use std::process::ExitCode;

use cac_core::Actor;
use cac_core::audit::{self, Entry, Filter};
use chrono::{DateTime, Utc};
use clap::Args;

use super::{Common, shown, time};
use crate::print::{self, Failure};

/// Entries in one question to the database.
const PAGE: u32 = 1000;

#[derive(Args)]
pub(crate) struct Audit {
    /// Only what this user did
    #[arg(long)]
    user: Option<String>,
    /// Only this, such as container_delete
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this or below it, such as /containers/7
    #[arg(long)]
    target: Option<String>,
    /// From this time on, such as 2030-01-31T15:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
    /// Only so many, from the newest back
    #[arg(long)]
    limit: Option<u32>,
}

impl Audit {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let core = super::core().await?;
        let mut rows: Vec<Entry> = Vec::new();
        loop {
            let have = u32::try_from(rows.len())?;
            let left = self.limit.map_or(PAGE, |limit| limit.saturating_sub(have));
            let filter = Filter {
                username: self.user.clone(),
                action: self.action.clone(),
                target: self.target.clone(),
                since: self.since,
                until: self.until,
                newest: self.limit.is_some(),
                limit: left.min(PAGE),
                offset: have,
            };
            let (page, _) = audit::list(&core, &Actor::local(), &filter).await?;
            let last = page.len() < usize::try_from(filter.limit.max(1))?;
            rows.extend(page);
            if last || self.limit.is_some_and(|limit| rows.len() >= limit as usize) {
                break;
            }
        }
        if self.limit.is_some() {
            rows.reverse();
        }
        if common.json {
            print::json(&rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = rows.iter().map(|row| {
            [
                time(Some(&row.created_at)),
                shown(row.username.as_ref()),
                row.via.name().to_owned(),
                shown(row.address.as_ref()),
                row.action.clone(),
                row.target.clone(),
                row.status.to_string(),
                row.lines().join("; "),
            ]
        });
        print::table(
            [
                "TIME", "USER", "BY", "FROM", "ACTION", "TARGET", "STATUS", "DETAIL",
            ],
            rows,
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
