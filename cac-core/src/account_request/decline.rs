//! Declining account requests: one, or the many that a flood leaves.

use ipnet::IpNet;

use super::{AccountRequest, Decision, decide, find_any};
use crate::actor::Actor;
use crate::db::Tx;
use crate::job::account_mail::{self, What};
use crate::{Core, Error, Result, args, mail, transaction};

/// Requests that are declined at once.
const MOST: usize = 1000;

/// How a request is declined.
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    /// Why. The person reads it; without a mail it may be empty.
    pub answer: String,
    /// Nobody is mailed, as for made-up addresses.
    pub without_mail: bool,
}

/// Which requests are declined together: these, and those from this network that wait.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub ids: Vec<i64>,
    /// As [`AccountRequest::network`] has it.
    pub network: Option<String>,
}

/// What became of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declined {
    pub declined: Vec<i64>,
    /// Those that there are not, or that are declined or done already.
    pub skipped: Vec<i64>,
}

impl Refusal {
    fn check(&self) -> Result<Option<&str>> {
        let answer = self.answer.trim();
        if answer.chars().count() > 2000 || (answer.is_empty() && !self.without_mail) {
            return Err(Error::invalid(
                "answer",
                "Say why, in at most 2,000 characters; the person reads it.",
            ));
        }
        Ok(Some(answer).filter(|answer| !answer.is_empty()))
    }
}

/// Declines a request; the person is told why by mail.
pub async fn decline(
    core: &Core,
    actor: &Actor,
    id: i64,
    refusal: &Refusal,
) -> Result<AccountRequest> {
    actor.must_be_admin()?;
    refusal.check()?;
    transaction!(core.db, tx => {
        decline_in(tx, core, actor, id, refusal).await?;
    })?;
    core.wake.jobs();
    find_any(core, id).await
}

async fn decline_in(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    id: i64,
    refusal: &Refusal,
) -> Result<()> {
    let decision = Decision::Declined(refusal.check()?);
    let before = decide(tx, core, actor, id, decision).await?;
    // An address that was never confirmed may be a stranger's.
    if mail::on(core) && !refusal.without_mail && before != "unconfirmed" {
        account_mail::add(tx, core, id, What::Declined, Some(&actor.username)).await?;
    }
    Ok(())
}

/// Declines many requests, all or none of those that wait.
pub async fn decline_all(
    core: &Core,
    actor: &Actor,
    selection: &Selection,
    refusal: &Refusal,
) -> Result<Declined> {
    actor.must_be_admin()?;
    refusal.check()?;
    let network = selection.network.as_deref().map(str::trim);
    if selection.ids.is_empty() && network.is_none() {
        return Err(Error::invalid(
            "ids",
            "Choose at least one request, or a network.",
        ));
    }
    if selection.ids.len() > MOST {
        return Err(Error::invalid(
            "ids",
            format!("Choose at most {MOST} requests at once."),
        ));
    }
    if network.is_some_and(|text| text != "local" && text.parse::<IpNet>().is_err()) {
        return Err(Error::invalid(
            "network",
            "Give a network such as `192.0.2.0/24`, as the list shows it.",
        ));
    }
    let declined = transaction!(core.db, tx => {
        tx.lock("account_requests").await?;
        let mut ids = selection.ids.clone();
        if let Some(network) = network {
            let sql = r#"SELECT "id" FROM "AccountRequests" WHERE "network" = ? AND "status" IN ('pending', 'unconfirmed') ORDER BY "id" LIMIT ?"#;
            for row in tx.all(sql, args![network, u32::try_from(MOST).unwrap_or(u32::MAX)]).await? {
                ids.push(row.get("id")?);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let mut outcome = Declined::default();
        for id in ids {
            match decline_in(tx, core, actor, id, refusal).await {
                Ok(()) => outcome.declined.push(id),
                Err(Error::NotFound(_) | Error::Conflict { .. }) => outcome.skipped.push(id),
                Err(error) => return Err(error),
            }
        }
        outcome
    })?;
    core.wake.jobs();
    Ok(declined)
}
