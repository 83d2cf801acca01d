//! The jobs that mail about an address that two containers show: one for each admin, one for each owner whose address is known from their
//! account request, so that a recipient who cannot be reached silences no other.

use std::str::FromStr as _;

use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::{NewJob, Running, Stop, account_mail, user_mail};
use crate::container;
use crate::db::Tx;
use crate::mail::{self, Mail};
use crate::{Core, Error, Result};

/// `Jobs.kind`
pub(crate) const KIND: &str = "address_mail";

/// The containers that show one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Containers {
    /// The row id of the one that does not get it.
    pub(crate) newcomer: i64,
    /// The row id of the one that has it; absent where it is the installation's own.
    pub(crate) holder: Option<i64>,
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Recipient {
    /// As `MAIL_ADMIN` names them.
    Admin(String),
    /// The owner of the container with this row id.
    Owner(i64),
}

#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    address: String,
    containers: Containers,
    to: Recipient,
    /// Where the portal is, as the web server knows it and a runner need not.
    portal: Url,
}

/// Adds the jobs; the caller wakes the runners after its commit.
pub(crate) async fn add(
    tx: &mut Tx,
    core: &Core,
    address: &str,
    containers: Containers,
) -> Result<()> {
    let owners = [Some(containers.newcomer), containers.holder];
    let owners = owners.into_iter().flatten().map(Recipient::Owner);
    let admins = core.config.mail.iter().flat_map(|mail| &mail.admins);
    let admins = admins.map(|admin| Recipient::Admin(admin.to_string()));
    for to in admins.chain(owners) {
        let whom = match &to {
            Recipient::Admin(admin) => admin.clone(),
            Recipient::Owner(id) => format!("the owner of container {id}"),
        };
        let payload = serde_json::to_value(Payload {
            address: address.to_owned(),
            containers,
            to,
            portal: core.config.public_url.clone(),
        });
        let new = NewJob {
            kind: KIND,
            title: format!("mail {whom} about the address {address}"),
            payload: payload.map_err(|error| Error::Internal(error.to_string()))?,
            container_id: None,
            created_by: None,
        };
        super::create(tx, core, new).await?;
    }
    Ok(())
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    job.go_on()?;
    let Some(mail) = write(job, &payload).await? else {
        job.line("No address of theirs is known, or the container is gone; nothing is sent.")
            .await;
        return Ok(());
    };
    account_mail::deliver(job, &mail).await
}

async fn write(job: &Running, payload: &Payload) -> Result<Option<Mail>, Stop> {
    let core = &job.core;
    let newcomer = container::find_any(core, payload.containers.newcomer).await?;
    let holder = match payload.containers.holder {
        Some(id) => container::find_any(core, id).await?,
        None => None,
    };
    let (to, lines) = match &payload.to {
        Recipient::Admin(admin) => {
            let to = Mailbox::from_str(admin).map_err(|error| Stop::Failed(error.to_string()))?;
            let all = newcomer.iter().chain(&holder);
            let lines: Vec<String> = all
                .map(|row| {
                    format!(
                        "Container {}, {}, of {}",
                        row.id, row.hostname, row.username
                    )
                })
                .collect();
            (Some(to), lines)
        }
        Recipient::Owner(id) => {
            let row = newcomer.iter().chain(&holder).find(|row| row.id == *id);
            let Some(row) = row else { return Ok(None) };
            // Whose the other container is, an owner does not learn.
            let problem = row.address_problem.as_ref().map(ToString::to_string);
            let to = user_mail::address(job, &row.username).await?;
            let to = to.map(|address| Mailbox::new(None, address));
            let lines = std::iter::once(format!("Container {}", row.hostname)).chain(problem);
            (to, lines.collect())
        }
    };
    let Some(to) = to.filter(|_| !lines.is_empty()) else {
        return Ok(None);
    };
    let values = json!({
        "portal": payload.portal.as_str(),
        "address": payload.address,
        "lines": lines,
        "link": match &payload.to {
            Recipient::Admin(_) => payload.containers.newcomer,
            Recipient::Owner(id) => *id,
        },
    });
    let (text, html) = mail::render("address", &values)?;
    Ok(Some(Mail {
        to,
        subject: format!("Two containers show the address {}", payload.address),
        text,
        html,
        id: format!("{}-{}-{}", core.installation, KIND, job.id()),
    }))
}
