//! Shell commands: rows without a kind, started by `/bin/sh -c`.

use super::{Running, SWITCHED_OFF, Stop, process};
use crate::user::{self, Standing};
use crate::{Actor, args};

/// Why a command whose runner died is not started again.
pub(super) const NOT_TWICE: &str = "Its runner died while the command ran; it is not run twice unasked. Start it again if that is right.";

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let settings = &job.core.config.runner;
    if job.taken_over() {
        return Err(Stop::Failed(NOT_TWICE.to_owned()));
    }
    if !settings.shell_jobs {
        return Err(Stop::Failed(SWITCHED_OFF.to_owned()));
    }
    must_still_be_allowed(job, |_| false).await?;
    let words = ["/bin/sh", "-c", &job.claim.command].map(str::to_owned);
    let limit = (settings.shell_limit, "SHELL_JOB_LIMIT_SECONDS");
    let ended = process::run(job, &words, limit).await?;
    ended.well().map_err(Stop::Failed)
}

/// Cancels a job whose owner may no longer ask for it: he was an admin, or had an account, when he did. `others` tells which users may that
/// are no admins. Where Proxmox VE cannot say, the job runs as it was allowed to. One that was inserted by hand (without a turn) always runs:
/// whoever writes into the database may name anybody there.
pub(super) async fn must_still_be_allowed(
    job: &Running,
    others: impl FnOnce(&Actor) -> bool,
) -> Result<(), Stop> {
    let core = &job.core;
    let sql = r#"SELECT "createdBy" FROM "Jobs" WHERE "id" = ? AND "turn" > 0 AND "createdBy" IS NOT NULL"#;
    let row = core.db.opt(sql, args![job.id()]).await;
    let Some(row) = row.map_err(crate::Error::from)? else {
        return Ok(());
    };
    let owner: String = row.get("createdBy").map_err(crate::Error::from)?;
    let allowed = match user::standing(core, &owner).await {
        Standing::Admin | Standing::Unknown => true,
        Standing::User => others(&Actor::new(&owner, false)),
        Standing::Nobody => false,
    };
    if allowed {
        return Ok(());
    }
    Err(Stop::Cancelled(format!(
        "{owner} may not run this any more. Somebody who may can ask for it again."
    )))
}
