//! The job that mails about an account request. A mail server that is away is waited for; what is sent twice has the same id.

use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lettre::Address;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::{NewJob, Running, Stop};
use crate::account_request::{self, AccountRequest, CONFIRM_HOURS, LINK_DAYS, Link};
use crate::db::Tx;
use crate::mail::{self, Mail};
use crate::{Core, Error, Result, transaction};

/// `Jobs.kind`
pub const KIND: &str = "account_mail";
/// Tries that follow the first one; with pauses of up to five minutes they last for three days.
const RETRIES: i64 = 870;

/// What the mail is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// To the person: the link that proves the e-mail address.
    Confirm,
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
    /// The admin who is told, as `MAIL_ADMIN` names them. Absent for the person, and in jobs of an older release that were for all admins.
    #[serde(default)]
    admin: Option<String>,
    /// Where the portal is, as the web server knows it and a runner need not.
    portal: Url,
}

/// Adds the job that mails the person; `by` is the admin who decided.
pub(crate) async fn add(
    tx: &mut Tx,
    core: &Core,
    request: i64,
    what: What,
    by: Option<&str>,
) -> Result<()> {
    let payload = Payload {
        request,
        what,
        admin: None,
        portal: core.config.public_url.clone(),
    };
    let title = format!("mail the person about account request {request}");
    add_job(tx, core, payload, title, by).await
}

/// Adds a job for each admin: an address that bounces keeps the mail from nobody else, and each is tried again by itself.
pub(crate) async fn tell_admins(tx: &mut Tx, core: &Core, request: i64) -> Result<()> {
    let admins = core.config.mail.iter().flat_map(|mail| &mail.admins);
    for admin in admins {
        let payload = Payload {
            request,
            what: What::Asked,
            admin: Some(admin.to_string()),
            portal: core.config.public_url.clone(),
        };
        let title = format!("mail {} about account request {request}", admin.email);
        add_job(tx, core, payload, title, None).await?;
    }
    Ok(())
}

async fn add_job(
    tx: &mut Tx,
    core: &Core,
    payload: Payload,
    title: String,
    by: Option<&str>,
) -> Result<()> {
    let new = NewJob {
        kind: KIND,
        title,
        payload: serde_json::to_value(payload)
            .map_err(|error| Error::Internal(error.to_string()))?,
        container_id: None,
        created_by: by,
    };
    super::create(tx, core, new).await?;
    Ok(())
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    let request = match account_request::find_any(&job.core, payload.request).await {
        Ok(request) => request,
        Err(Error::NotFound(_)) => {
            job.line("The request was not confirmed in time and is gone; nothing is sent.")
                .await;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    job.go_on()?;
    if payload.what == What::Asked && payload.admin.is_none() {
        let core = &job.core;
        transaction!(core.db, tx => { tell_admins(tx, core, request.id).await? })?;
        core.wake.jobs();
        job.line("Each admin is mailed by a job of its own.").await;
        return Ok(());
    }
    let Some(mail) = write(job, &request, &payload).await? else {
        job.line("The request was decided otherwise meanwhile; nothing is sent.")
            .await;
        return Ok(());
    };
    deliver(job, &mail).await
}

/// Mails that this process sends now.
static SENDING: AtomicUsize = AtomicUsize::new(0);
/// After this long a mail that had to let others go first is tried.
const BUSY: Duration = Duration::from_secs(2);
/// Longer than any mail takes.
const MOST: Duration = Duration::from_secs(600);

/// A place among the mails that are sent at once.
struct Place;

impl Place {
    /// Half of what the runner works on at once: a mail server that says nothing would keep all containers waiting otherwise.
    fn take(job: &Running) -> Result<Self, Stop> {
        let most = (job.core.config.runner.concurrency / 2).max(1);
        let next = |now: usize| (now < most).then_some(now + 1);
        match SENDING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(Self),
            Err(_) => Err(Stop::Retry {
                after: Some(BUSY),
                reason: "Other mails are sent just now.".to_owned(),
            }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        SENDING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends a mail; a mail server that is away is waited for.
pub(super) async fn deliver(job: &Running, mail: &Mail) -> Result<(), Stop> {
    let _place = Place::take(job)?;
    job.line(format!("To {}", mail.to.email)).await;
    let sent = tokio::select! {
        sent = mail::send(&job.core, mail) => sent,
        ended = job.pause(MOST) => return ended.and(Err(Stop::HandBack)),
    };
    match sent {
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
        What::Confirm => (
            "unconfirmed",
            "confirm",
            "Confirm your e-mail address".to_owned(),
        ),
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
    let to = match &payload.admin {
        Some(admin) => Mailbox::from_str(admin).map_err(|error| Stop::Failed(error.to_string()))?,
        None => {
            let address = Address::from_str(&request.email);
            let address = address.map_err(|error| Stop::Failed(error.to_string()))?;
            Mailbox::new(Some(request.name.clone()), address)
        }
    };
    // Made anew with each try and stored as a hash alone, so that no row ever holds it.
    let link = match what {
        What::Approved => Some(Link::Password),
        What::Confirm => Some(Link::Confirmation),
        What::Asked | What::Declined => None,
    };
    let link = match link {
        Some(link) => account_request::new_link(core, &payload.portal, request.id, link).await?,
        None => String::new(),
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
        "hours": CONFIRM_HOURS,
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
