//! The job that tells a user by mail what was done in their name: a new API token, one that expires soon, a sign-in from another place. Where
//! no address of theirs is known, nothing is sent.

use std::net::IpAddr;
use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use lettre::Address;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::{NewJob, Running, Stop, account_mail};
use crate::db::Tx;
use crate::mail::{self, Mail};
use crate::{Core, Error, Result, account_request, user};

/// `Jobs.kind`
pub const KIND: &str = "user_mail";
/// Further looks for the address while Proxmox VE is away.
const LOOKS: i64 = 20;

/// What the user is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "what",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Notice {
    TokenCreated {
        name: String,
        /// The token's first characters.
        beginning: String,
        scopes: Vec<String>,
        expires: DateTime<Utc>,
    },
    TokenExpires {
        name: String,
        beginning: String,
        expires: DateTime<Utc>,
    },
    NewDevice {
        address: Option<IpAddr>,
        user_agent: Option<String>,
        at: DateTime<Utc>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    username: String,
    notice: Notice,
    /// Where the portal is, as the web server knows it and a runner need not.
    portal: Url,
}

/// Adds the job where mail can be sent; call [`crate::wake::Wake::jobs`] after the commit.
pub(crate) async fn add(tx: &mut Tx, core: &Core, username: &str, notice: &Notice) -> Result<()> {
    if !mail::on(core) {
        return Ok(());
    }
    let payload = Payload {
        username: username.to_owned(),
        notice: notice.clone(),
        portal: core.config.public_url.clone(),
    };
    let about = match notice {
        Notice::TokenCreated { .. } => "a new API token",
        Notice::TokenExpires { .. } => "an API token that expires soon",
        Notice::NewDevice { .. } => "a sign-in from a new place",
    };
    let new = NewJob {
        kind: KIND,
        title: format!("mail {username} about {about}"),
        payload: serde_json::to_value(payload)
            .map_err(|error| Error::Internal(error.to_string()))?,
        container_id: None,
        created_by: None,
    };
    super::create(tx, core, new).await?;
    Ok(())
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    let Some(to) = address(job, &payload.username).await? else {
        job.line("No e-mail address of this user is known; nothing is sent.")
            .await;
        return Ok(());
    };
    job.go_on()?;
    let mail = write(job, &payload, to)?;
    account_mail::deliver(job, &mail).await
}

/// The address that Proxmox VE has of the user, else the one of the account request that made the account.
pub(super) async fn address(job: &Running, username: &str) -> Result<Option<Address>, Stop> {
    let core = &job.core;
    let userid = core.proxmox_user(username);
    let told = match user::service(core).await {
        Ok(service) => service.user(&userid).await.map_err(Error::from),
        Err(error) => Err(error),
    };
    let away = match told {
        Ok(told) => {
            let address = told
                .email
                .and_then(|text| Address::from_str(text.trim()).ok());
            if address.is_some() {
                return Ok(address);
            }
            None
        }
        Err(error) => Some(error),
    };
    let requested = account_request::email_of(core, username).await?;
    match (requested, away) {
        (None, Some(error)) if job.retries() < LOOKS => Err(Stop::Retry {
            after: None,
            reason: format!("The user's address cannot be looked up: {error}"),
        }),
        (requested, _) => Ok(requested.and_then(|text| Address::from_str(&text).ok())),
    }
}

fn write(job: &Running, payload: &Payload, to: Address) -> Result<Mail, Stop> {
    let minute = |time: &DateTime<Utc>| time.format("%Y-%m-%d %H:%M UTC").to_string();
    let (template, subject, values) = match &payload.notice {
        Notice::TokenCreated {
            name,
            beginning,
            scopes,
            expires,
        } => (
            "token_created",
            "A new API token was created",
            json!({"name": name, "beginning": beginning, "scopes": scopes.join(", "), "expires": minute(expires)}),
        ),
        Notice::TokenExpires {
            name,
            beginning,
            expires,
        } => (
            "token_expires",
            "An API token expires soon",
            json!({"name": name, "beginning": beginning, "expires": minute(expires)}),
        ),
        Notice::NewDevice {
            address,
            user_agent,
            at,
        } => (
            "new_device",
            "A sign-in from a new place",
            json!({
                "address": address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
                "browser": user_agent.as_deref().unwrap_or("unknown"),
                "at": minute(at),
            }),
        ),
    };
    let mut values = values;
    values["username"] = json!(payload.username);
    values["portal"] = json!(payload.portal.as_str());
    let (text, html) = mail::render(template, &values)?;
    Ok(Mail {
        to: to.into(),
        subject: subject.to_owned(),
        text,
        html,
        id: format!("{}-{}-{}", job.core.installation, KIND, job.id()),
    })
}
