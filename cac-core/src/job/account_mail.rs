//! The job that mails about an account request. A mail server that is away is waited for; what is sent twice has the same id.

use std::str::FromStr as _;

use lettre::Address;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::{NewJob, Running, Stop};
use crate::account_request::{self, AccountRequest, LINK_DAYS};
use crate::db::Tx;
use crate::mail::{self, Mail};
use crate::{Core, Error, Result};

/// `Jobs.kind`
pub const KIND: &str = "account_mail";
/// Tries that follow the first one; with pauses of up to five minutes they last for three days.
const RETRIES: i64 = 870;

/// What the mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// To the admins: somebody asks.
    Asked,
    /// To the person: no.
    Declined,
    /// To the person: the link.
    Approved,
}

#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    request: i64,
    what: What,
    /// Where the portal is, as the web server knows it and a runner need not.
    portal: Url,
}

/// Adds the job; `by` is the admin who decided.
pub(crate) async fn add(
    tx: &mut Tx,
    core: &Core,
    request: i64,
    what: What,
    by: Option<&str>,
) -> Result<i64> {
    let whom = match what {
        What::Asked => "the admins",
        What::Declined | What::Approved => "the person",
    };
    let portal = core.config.public_url.clone();
    let payload = serde_json::to_value(Payload {
        request,
        what,
        portal,
    });
    let new = NewJob {
        kind: KIND,
        title: format!("mail {whom} about account request {request}"),
        payload: payload.map_err(|error| Error::Internal(error.to_string()))?,
        container_id: None,
        created_by: by,
    };
    super::create(tx, core, new).await
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    let request = account_request::find_any(&job.core, payload.request).await?;
    job.go_on()?;
    let Some(mail) = write(job, &request, &payload).await? else {
        job.line("The request was decided otherwise meanwhile; nothing is sent.")
            .await;
        return Ok(());
    };
    let to: Vec<String> = mail.to.iter().map(|to| to.email.to_string()).collect();
    job.line(format!("To {}", to.join(", "))).await;
    match mail::send(&job.core, &mail).await {
        Ok(()) => {
            job.line("The mail server has taken it.").await;
            Ok(())
        }
        Err(error) if error.passing && job.retries() < RETRIES => {
            job.line(format!("{error}; it will be tried again.")).await;
            Err(Stop::Retry {
                after: None,
                reason: error.text,
            })
        }
        Err(error) => Err(Stop::Failed(error.text)),
    }
}

/// The mail as the request is now; `None` when there is nothing to say any more.
async fn write(
    job: &Running,
    request: &AccountRequest,
    payload: &Payload,
) -> Result<Option<Mail>, Stop> {
    let (core, what) = (&job.core, payload.what);
    let (status, name, subject) = match what {
        What::Asked => (
            "pending",
            "asked",
            format!("{} asks for an account", request.name),
        ),
        What::Declined => (
            "declined",
            "declined",
            "Your account request was declined".to_owned(),
        ),
        What::Approved => (
            "approved",
            "approved",
            "Your account: choose a password".to_owned(),
        ),
    };
    if request.status != status {
        return Ok(None);
    }
    let to = match (what, &core.config.mail) {
        (What::Asked, Some(settings)) => settings.admins.clone(),
        _ => {
            let address = Address::from_str(&request.email);
            let address = address.map_err(|error| Stop::Failed(error.to_string()))?;
            vec![Mailbox::new(Some(request.name.clone()), address)]
        }
    };
    // Made anew with each try and stored as a hash alone, so that no row ever holds it.
    let link = match what {
        What::Approved => account_request::new_link(core, &payload.portal, request.id).await?,
        _ => String::new(),
    };
    let values = json!({
        "portal": payload.portal.as_str(),
        "id": request.id,
        "name": request.name,
        "username": request.username,
        "email": request.email,
        "reason": request.reason,
        "answer": request.answer.as_deref().unwrap_or_default(),
        "link": link,
        "days": LINK_DAYS,
    });
    let (text, html) = mail::render(name, &values)?;
    Ok(Some(Mail {
        to,
        subject,
        text,
        html,
        id: format!("{}-{}-{}", core.installation, KIND, job.id()),
    }))
}
