//! Account requests: a person asks for an account and, where mail can be sent, proves the e-mail address (`account_request/confirm.rs`,
//! with the limits on how many are taken); an admin declines (`account_request/decline.rs`) or approves; and the person chooses a password
//! by a link that works once. Only then is the user made in Proxmox VE, with one call; the password is never kept.

use std::collections::HashMap;
use std::str::FromStr as _;

use chrono::{DateTime, Duration, Utc};
use lettre::Address;
use serde::Serialize;
use url::Url;

use crate::actor::Actor;
use crate::audit::{self, Origin};
use crate::db::{Row, Tx};
use crate::error::Fields;
use crate::job::account_mail::{self, What};
use crate::pve::{self, NewUser, Pve, Secret};
use crate::user::NameUse;
use crate::{Core, Error, Result, args, mail, secret, transaction, user};

mod confirm;
mod decline;

pub(crate) use confirm::remove_expired;
pub use confirm::{CONFIRM_HOURS, Limits, Received, by_confirmation, confirm, create};
pub use decline::{Declined, Refusal, Selection, decline, decline_all};

/// How a request can stand.
pub const STATUSES: [&str; 5] = ["pending", "declined", "approved", "done", "unconfirmed"];
/// How long the link to choose a password works.
pub const LINK_DAYS: i64 = 7;
/// What Proxmox VE asks of a password.
const PASSWORD: std::ops::RangeInclusive<usize> = 8..=64;

/// A row of `AccountRequests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountRequest {
    pub id: i64,
    pub name: String,
    pub email: String,
    pub username: String,
    pub reason: String,
    /// `pending`, `declined`, `approved` (a link was sent), `done` (the user exists), or `unconfirmed`: the person has not followed
    /// the link yet that was mailed to the address, and nobody needs to decide.
    pub status: String,
    /// When the person proved that the e-mail address is theirs; absent: not proved.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// The network that the request came from, as [`decline_all`] takes it.
    pub network: Option<String>,
    pub decided_by: Option<String>,
    pub decided_at: Option<DateTime<Utc>>,
    /// Why it was declined.
    pub answer: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// What somebody asks for.
#[derive(Debug, Clone, Default)]
pub struct NewAccountRequest {
    pub name: String,
    pub email: String,
    pub username: String,
    pub reason: String,
}

impl AccountRequest {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            email: row.get("email")?,
            username: row.get("username")?,
            reason: row.get("reason")?,
            status: row.get("status")?,
            confirmed_at: row.get("confirmedAt")?,
            network: row.get("network")?,
            decided_by: row.get("decidedBy")?,
            decided_at: row.get("decidedAt")?,
            answer: row.get("answer")?,
            created_at: row.get("createdAt")?,
        })
    }
}

fn check(core: &Core, new: &NewAccountRequest) -> Result<NewAccountRequest> {
    let mut fields = Fields::default();
    let plain = |text: &str, most: usize| {
        !text.is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control)
    };
    let (name, email) = (new.name.trim(), new.email.trim());
    // It stands in mails, where a link would be the sender's and not ours, and text that runs backwards would hide what it is.
    let misleads = |c: char| {
        "/:@".contains(c)
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !plain(name, 100) || name.contains(misleads) {
        fields.add(
            "name",
            "Give your name, in 1 to 100 characters on one line, without `/`, `:` and `@`.",
        );
    }
    if !plain(email, 254) || Address::from_str(email).is_err() {
        fields.add(
            "email",
            "Give an e-mail address, such as `alice@example.org`.",
        );
    }
    let username = new.username.trim();
    let bare = user::canonical(core, username).is_ok_and(|stored| stored == username);
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !bare || !username.chars().all(good) {
        fields.add(
            "username",
            "Choose a user name of letters, digits, `-`, `_` and `.`.",
        );
    }
    let reason = new.reason.trim();
    let text = |c: char| !c.is_control() || c == '\n' || c == '\r' || c == '\t';
    if reason.is_empty() || reason.chars().count() > 2000 || !reason.chars().all(text) {
        fields.add(
            "reason",
            "Say what you need the account for, in at most 2,000 characters.",
        );
    }
    fields.into_result()?;
    Ok(NewAccountRequest {
        name: name.to_owned(),
        email: email.to_owned(),
        username: username.to_owned(),
        reason: reason.to_owned(),
    })
}

/// A page of requests in order of their ids, and how many there are; for admins. Unconfirmed ones only where they are asked for.
pub async fn list(
    core: &Core,
    actor: &Actor,
    status: Option<&str>,
    (limit, offset): (u32, u32),
) -> Result<(Vec<AccountRequest>, i64)> {
    actor.must_be_admin()?;
    if status.is_some_and(|status| !STATUSES.contains(&status)) {
        let message = "Use `pending`, `declined`, `approved`, `done` or `unconfirmed`.";
        return Err(Error::invalid("status", message));
    }
    let (any, status) = (status.is_none(), status.unwrap_or_default());
    let mut tx = core.db.read().await?;
    let sql = r#"SELECT COUNT(*) AS "n" FROM "AccountRequests" WHERE (? AND "status" <> 'unconfirmed' OR "status" = ?)"#;
    let total = tx.one(sql, args![any, status]).await?.get("n")?;
    let sql = r#"SELECT * FROM "AccountRequests" WHERE (? AND "status" <> 'unconfirmed' OR "status" = ?) ORDER BY "id" LIMIT ? OFFSET ?"#;
    let rows = tx.all(sql, args![any, status, limit, offset]).await?;
    let all = rows.iter().map(AccountRequest::from_row);
    Ok((all.collect::<Result<_>>()?, total))
}

/// One request; for admins.
pub async fn find(core: &Core, actor: &Actor, id: i64) -> Result<AccountRequest> {
    actor.must_be_admin()?;
    find_any(core, id).await
}

pub(crate) async fn find_any(core: &Core, id: i64) -> Result<AccountRequest> {
    let sql = r#"SELECT * FROM "AccountRequests" WHERE "id" = ?"#;
    match core.db.opt(sql, args![id]).await? {
        Some(row) => AccountRequest::from_row(&row),
        None => Err(missing(id)),
    }
}

fn missing(id: i64) -> Error {
    Error::NotFound(format!("There is no account request {id}."))
}

/// What exists under the names of requests that can still be decided, by name; for admins, who should know it before they approve.
pub async fn name_use(
    core: &Core,
    actor: &Actor,
    rows: &[AccountRequest],
) -> Result<HashMap<String, NameUse>> {
    actor.must_be_admin()?;
    let open = |row: &&AccountRequest| matches!(row.status.as_str(), "pending" | "approved");
    let names: Vec<String> = rows
        .iter()
        .filter(open)
        .map(|row| row.username.clone())
        .collect();
    user::name_use(core, &names).await
}

/// Approves a request: the person gets the link by mail. Without mail the link is returned, for the admin to hand over. Where
/// something exists under the name the admin must have `accepted` that.
pub async fn approve(
    core: &Core,
    actor: &Actor,
    id: i64,
    accepted: bool,
) -> Result<(AccountRequest, Option<String>)> {
    actor.must_be_admin()?;
    let request = find_any(core, id).await?;
    let found = name_use(core, actor, std::slice::from_ref(&request)).await?;
    let existing = found
        .get(&request.username)
        .filter(|existing| existing.needs_acceptance());
    if let Some(existing) = existing
        && !accepted
    {
        return Err(Error::conflict(
            "acceptExisting",
            format!(
                "The name `{}` is in use here: {}. A new person gets none of it; it goes to `former owner {}` when they choose their \
                 password. Approve again and accept this, or decline and ask for another name.",
                request.username,
                existing.in_words(),
                request.username
            ),
        ));
    }
    transaction!(core.db, tx => {
        decide(tx, core, actor, id, Decision::Approved { accepted: existing }).await?;
        if mail::on(core) {
            account_mail::add(tx, core, id, What::Approved, Some(&actor.username)).await?;
        }
    })?;
    core.wake.jobs();
    let link = if mail::on(core) {
        None
    } else {
        Some(new_link(core, &core.config.public_url, id, Link::Password).await?)
    };
    Ok((find_any(core, id).await?, link))
}

/// What an admin decides.
#[derive(Debug, Clone, Copy)]
enum Decision<'a> {
    Approved {
        /// What existed under the name, and was accepted by the admin.
        accepted: Option<&'a NameUse>,
    },
    /// With what the person is told.
    Declined(Option<&'a str>),
}

/// Stores a decision; how the request stood before. One that is approved may be approved again: an old link is replaced.
async fn decide(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    id: i64,
    decision: Decision<'_>,
) -> Result<String> {
    tx.lock("account_requests").await?;
    let sql = r#"SELECT "status" FROM "AccountRequests" WHERE "id" = ?"#;
    let row = tx.opt(sql, args![id]).await?.ok_or_else(|| missing(id))?;
    let before: String = row.get("status")?;
    let (status, answer) = match decision {
        Decision::Approved { .. } => ("approved", None),
        Decision::Declined(answer) => ("declined", answer),
    };
    match (before.as_str(), decision) {
        ("pending" | "approved", _) | ("unconfirmed", Decision::Declined(_)) => {}
        ("unconfirmed", Decision::Approved { .. }) => {
            let message = "The person has not confirmed the e-mail address yet; the request can be approved after that.";
            return Err(Error::conflict("status", message));
        }
        _ => {
            let message = format!("The request is {before} already.");
            return Err(Error::conflict("status", message));
        }
    }
    let sql = r#"UPDATE "AccountRequests" SET "status" = ?, "answer" = ?, "decidedBy" = ?, "decidedAt" = ?, "linkHash" = NULL,
                        "linkExpires" = NULL, "updatedAt" = ? WHERE "id" = ?"#;
    let now = core.clock.now();
    tx.exec(sql, args![status, answer, &actor.username, now, now, id])
        .await?;
    let (action, accepted) = match decision {
        Decision::Approved { accepted } => ("account_request_approve", accepted),
        Decision::Declined(_) => ("account_request_decline", None),
    };
    audit::Change::new(action, format!("/account-requests/{id}"))
        .field("status", &before, status)
        .new_field("answer", answer)
        .new_field("acceptedExisting", accepted.map(NameUse::in_words))
        .write(tx, core, actor)
        .await?;
    Ok(before)
}

/// What a one-time link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// To confirm the e-mail address.
    Confirmation,
    /// To choose a password.
    Password,
}

/// A new link of a request that waits for one; the one before works no more.
pub(crate) async fn new_link(core: &Core, portal: &Url, id: i64, link: Link) -> Result<String> {
    let text = secret::random();
    let now = core.clock.now();
    let (status, lifetime, path) = match link {
        Link::Confirmation => (
            "unconfirmed",
            Duration::hours(CONFIRM_HOURS),
            "account/confirm/",
        ),
        Link::Password => ("approved", Duration::days(LINK_DAYS), "account/"),
    };
    let sql = r#"UPDATE "AccountRequests" SET "linkHash" = ?, "linkExpires" = ?, "updatedAt" = ? WHERE "id" = ? AND "status" = ?"#;
    let given = args![secret::hash(&text), now + lifetime, now, id, status];
    if core.db.exec(sql, given).await? == 0 {
        return Err(Error::conflict(
            "status",
            format!("The request is not {status} any more."),
        ));
    }
    Ok(format!("{portal}{path}{text}"))
}

/// The e-mail address of the newest request that the account of this name was made by.
pub(crate) async fn email_of(core: &Core, username: &str) -> Result<Option<String>> {
    let sql = r#"SELECT "email" FROM "AccountRequests" WHERE "username" = ? AND "status" = 'done' ORDER BY "id" DESC LIMIT 1"#;
    let row = core.db.opt(sql, args![username]).await?;
    Ok(row.map(|row| row.get("email")).transpose()?)
}

/// The approved request that a link belongs to, while it works.
pub async fn by_link(core: &Core, link: &str) -> Result<AccountRequest> {
    let sql = r#"SELECT * FROM "AccountRequests" WHERE "linkHash" = ? AND "status" = 'approved' AND "linkExpires" > ?"#;
    match core
        .db
        .opt(sql, args![secret::hash(link), core.clock.now()])
        .await?
    {
        Some(row) => AccountRequest::from_row(&row),
        None => Err(Error::NotFound(
            "This link was used already, or is too old. Ask an admin for another one.".to_owned(),
        )),
    }
}

/// What the person, who is nobody yet, is told; the words of Proxmox VE are for the log.
fn not_made(cause: &dyn std::fmt::Display, away: bool) -> Error {
    tracing::error!(error = %cause, "a user cannot be created");
    let what = "Your account cannot be created right now. Your link still works: try again later";
    match away {
        true => Error::Unreachable(format!("{what}.")),
        false => Error::Upstream(format!(
            "{what}, or tell an admin, who finds the reason in the portal's log."
        )),
    }
}

/// Makes the user in Proxmox VE with the password that the person chose; the link works no more then.
pub async fn redeem(
    core: &Core,
    link: &str,
    password: &Secret,
    origin: &Origin,
) -> Result<AccountRequest> {
    let request = by_link(core, link).await?;
    if !PASSWORD.contains(&password.expose().chars().count()) {
        let message = format!(
            "Choose a password of {} to {} characters.",
            PASSWORD.start(),
            PASSWORD.end()
        );
        return Err(Error::invalid("password", message));
    }
    let (first, last) = request
        .name
        .split_once(' ')
        .unwrap_or((request.name.as_str(), ""));
    let new = NewUser {
        userid: core.proxmox_user(&request.username),
        password: password.clone(),
        groups: core.config.proxmox.user_group.iter().cloned().collect(),
        email: Some(request.email.clone()),
        firstname: Some(first.to_owned()),
        lastname: Some(last.to_owned()).filter(|last| !last.is_empty()),
        comment: Some(format!(
            "Account request {} of {}",
            request.id, core.config.public_url
        )),
    };
    let service = user::service(core).await;
    let service = service.map_err(|error| not_made(&error, false))?;
    let in_use = release_unused(core, &service, &request, origin).await?;
    let created = service.user_create(&new).await;
    // Whether it was made although the answer was lost, now or at an earlier try, is known by its comment.
    let made = match &created {
        Err(error) if error.is_already_exists() || error.may_have_happened() => {
            let found = service.user(&new.userid).await.ok();
            found.is_some_and(|found| found.comment.is_some() && found.comment == new.comment)
        }
        _ => false,
    };
    let earlier = made && created.as_ref().is_err_and(pve::Error::is_already_exists);
    match created {
        _ if made => {}
        // That it could be created proves that nobody had the name, also where the service token may not look users up.
        Ok(()) if in_use => user::release_name(core, &request.username, request.id, origin).await?,
        Ok(()) => {}
        Err(error) if error.is_already_exists() => {
            return Err(Error::conflict(
                "username",
                format!(
                    "There is a user `{}` already; ask an admin.",
                    request.username
                ),
            ));
        }
        Err(error) => {
            let away = matches!(Error::from(error.clone()), Error::Unreachable(_));
            return Err(not_made(&error, away));
        }
    }
    let sql = r#"UPDATE "AccountRequests" SET "status" = 'done', "linkHash" = NULL, "linkExpires" = NULL, "updatedAt" = ? WHERE "id" = ?"#;
    transaction!(core.db, tx => {
        tx.exec(sql, args![core.clock.now(), request.id]).await?;
        // The link opens something: the entry does not name it.
        audit::Change::new("account_create", format!("/account-requests/{}", request.id))
            .created()
            .new_field("username", &request.username)
            .write_for(tx, core, Some(request.username.clone()), origin)
            .await?;
    })?;
    if earlier {
        let message = "Your account was made at an earlier try, whose answer was lost. Sign in with the password that you chose then, or ask an admin for a new one.";
        return Err(Error::conflict("password", message));
    }
    find_any(core, request.id).await
}

/// Takes what a name owns from it if Proxmox VE knows no such user, so that it is not there for a moment when the new person can sign in.
/// Whether something existed under the name.
async fn release_unused(
    core: &Core,
    service: &Pve,
    request: &AccountRequest,
    origin: &Origin,
) -> Result<bool> {
    let username = &request.username;
    let found = user::name_use(core, std::slice::from_ref(username)).await?;
    let in_use = |existing: &NameUse| existing.owns() || existing.account.is_some();
    if !found.get(username).is_some_and(in_use) {
        return Ok(false);
    }
    let userid = core.proxmox_user(username);
    if let Err(error) = service.user(&userid).await
        && error.is_no_such_user(&userid)
    {
        user::release_name(core, username, request.id, origin).await?;
    }
    Ok(true)
}
