//! Account requests: somebody asks for an account, an admin declines or approves, and the person chooses a password by a link that
//! works once. Only then is the user made in Proxmox VE, with one call; the password is never kept.

use std::collections::HashMap;
use std::str::FromStr as _;

use chrono::{DateTime, Duration, Utc};
use lettre::Address;
use serde::Serialize;
use url::Url;

use crate::actor::Actor;
use crate::db::{Row, Tx};
use crate::error::Fields;
use crate::job::account_mail;
use crate::pve::{NewUser, Pve, Secret};
use crate::user::NameUse;
use crate::{Core, Error, Result, args, mail, secret, transaction, user};

/// How a request can stand.
pub const STATUSES: [&str; 4] = ["pending", "declined", "approved", "done"];
/// How long a link works.
pub const LINK_DAYS: i64 = 7;
/// Requests that may wait for a decision at once.
const WAITING: i64 = 1000;
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
    /// `pending`, `declined`, `approved` (a link was sent) or `done` (the user exists).
    pub status: String,
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
            decided_by: row.get("decidedBy")?,
            decided_at: row.get("decidedAt")?,
            answer: row.get("answer")?,
            created_at: row.get("createdAt")?,
        })
    }
}

/// Stores a request and has it mailed to the admins. The same again while it waits changes nothing and mails nobody.
pub async fn create(core: &Core, new: &NewAccountRequest) -> Result<()> {
    let new = check(core, new)?;
    transaction!(core.db, tx => {
        tx.lock("names").await?;
        let sql = r#"SELECT "id" FROM "AccountRequests" WHERE "status" = 'pending' AND "username" = ? AND "email" = ?"#;
        if tx.opt(sql, args![&new.username, &new.email]).await?.is_some() {
            return Ok(());
        }
        let sql = r#"SELECT COUNT(*) AS "n" FROM "AccountRequests" WHERE "status" = 'pending'"#;
        if tx.one(sql, args![]).await?.get::<i64>("n")? >= WAITING {
            return Err(Error::Unreachable("Too many requests wait for a decision; try again in some days.".to_owned()));
        }
        let now = core.clock.now();
        let id = tx.insert(
            r#"INSERT INTO "AccountRequests" ("name", "email", "username", "reason", "createdAt", "updatedAt") VALUES (?, ?, ?, ?, ?, ?)"#,
            args![&new.name, &new.email, &new.username, &new.reason, now, now],
        )
        .await?;
        if core.config.mail.as_ref().is_some_and(|mail| !mail.admins.is_empty()) {
            account_mail::add(tx, core, id, account_mail::What::Asked, None).await?;
        }
    })?;
    core.wake.jobs();
    Ok(())
}

fn check(core: &Core, new: &NewAccountRequest) -> Result<NewAccountRequest> {
    let mut fields = Fields::default();
    let plain = |text: &str, most: usize| {
        !text.is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control)
    };
    let (name, email) = (new.name.trim(), new.email.trim());
    if !plain(name, 100) {
        fields.add(
            "name",
            "Give your name, in 1 to 100 characters on one line.",
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

/// A page of requests in order of their ids, and how many there are; for admins.
pub async fn list(
    core: &Core,
    actor: &Actor,
    status: Option<&str>,
    (limit, offset): (u32, u32),
) -> Result<(Vec<AccountRequest>, i64)> {
    actor.must_be_admin()?;
    if status.is_some_and(|status| !STATUSES.contains(&status)) {
        let message = "Use `pending`, `declined`, `approved` or `done`.";
        return Err(Error::invalid("status", message));
    }
    let (any, status) = (status.is_none(), status.unwrap_or_default());
    let mut tx = core.db.read().await?;
    let sql = r#"SELECT COUNT(*) AS "n" FROM "AccountRequests" WHERE (? OR "status" = ?)"#;
    let total = tx.one(sql, args![any, status]).await?.get("n")?;
    let sql = r#"SELECT * FROM "AccountRequests" WHERE (? OR "status" = ?) ORDER BY "id" LIMIT ? OFFSET ?"#;
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

/// Declines a request; the person is told why by mail.
pub async fn decline(core: &Core, actor: &Actor, id: i64, answer: &str) -> Result<AccountRequest> {
    actor.must_be_admin()?;
    let answer = answer.trim();
    if answer.is_empty() || answer.chars().count() > 2000 {
        return Err(Error::invalid(
            "answer",
            "Say why, in at most 2,000 characters; the person reads it.",
        ));
    }
    transaction!(core.db, tx => {
        decide(tx, core, actor, id, ("declined", Some(answer))).await?;
        if mail::on(core) {
            account_mail::add(tx, core, id, account_mail::What::Declined, Some(&actor.username)).await?;
        }
    })?;
    core.wake.jobs();
    find_any(core, id).await
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
    if let Some(existing) = name_use(core, actor, std::slice::from_ref(&request))
        .await?
        .get(&request.username)
        && existing.needs_acceptance()
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
        decide(tx, core, actor, id, ("approved", None)).await?;
        if mail::on(core) {
            account_mail::add(tx, core, id, account_mail::What::Approved, Some(&actor.username)).await?;
        }
    })?;
    core.wake.jobs();
    let link = if mail::on(core) {
        None
    } else {
        Some(new_link(core, &core.config.public_url, id).await?)
    };
    Ok((find_any(core, id).await?, link))
}

/// One that is approved may be approved again: an old link is replaced.
async fn decide(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    id: i64,
    (status, answer): (&str, Option<&str>),
) -> Result<()> {
    let sql = r#"UPDATE "AccountRequests" SET "status" = ?, "answer" = ?, "decidedBy" = ?, "decidedAt" = ?, "linkHash" = NULL,
                        "linkExpires" = NULL, "updatedAt" = ?
                 WHERE "id" = ? AND "status" IN ('pending', 'approved')"#;
    let now = core.clock.now();
    if tx
        .exec(sql, args![status, answer, &actor.username, now, now, id])
        .await?
        == 0
    {
        let sql = r#"SELECT "status" FROM "AccountRequests" WHERE "id" = ?"#;
        let row = tx.opt(sql, args![id]).await?.ok_or_else(|| missing(id))?;
        let status: String = row.get("status")?;
        return Err(Error::conflict(
            "status",
            format!("The request is {status} already."),
        ));
    }
    Ok(())
}

/// A new link of an approved request; the one before works no more.
pub(crate) async fn new_link(core: &Core, portal: &Url, id: i64) -> Result<String> {
    let text = secret::random();
    let now = core.clock.now();
    let sql = r#"UPDATE "AccountRequests" SET "linkHash" = ?, "linkExpires" = ?, "updatedAt" = ? WHERE "id" = ? AND "status" = 'approved'"#;
    let until = now + Duration::days(LINK_DAYS);
    if core
        .db
        .exec(sql, args![secret::hash(&text), until, now, id])
        .await?
        == 0
    {
        return Err(Error::conflict(
            "status",
            "The request is not approved any more.",
        ));
    }
    Ok(format!("{portal}account/{text}"))
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

/// Makes the user in Proxmox VE with the password that the person chose; the link works no more then.
pub async fn redeem(core: &Core, link: &str, password: &Secret) -> Result<AccountRequest> {
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
    let service = user::service(core).await?;
    let in_use = release_unused(core, &service, &request.username).await?;
    match service.user_create(&new).await {
        // That it could be created proves that nobody had the name, also where the service token may not look users up.
        Ok(()) if in_use => user::release_name(core, &request.username).await?,
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
            tracing::error!(%error, "a user cannot be created");
            return Err(error.into());
        }
    }
    let sql = r#"UPDATE "AccountRequests" SET "status" = 'done', "linkHash" = NULL, "linkExpires" = NULL, "updatedAt" = ? WHERE "id" = ?"#;
    core.db
        .exec(sql, args![core.clock.now(), request.id])
        .await?;
    find_any(core, request.id).await
}

/// Takes what a name owns from it if Proxmox VE knows no such user, so that it is not there for a moment when the new person can sign in.
/// Whether something existed under the name.
async fn release_unused(core: &Core, service: &Pve, username: &str) -> Result<bool> {
    let found = user::name_use(core, &[username.to_owned()]).await?;
    let in_use = |existing: &NameUse| existing.owns() || existing.account.is_some();
    if !found.get(username).is_some_and(in_use) {
        return Ok(false);
    }
    let userid = core.proxmox_user(username);
    if let Err(error) = service.user(&userid).await
        && error.is_no_such_user(&userid)
    {
        user::release_name(core, username).await?;
    }
    Ok(true)
}
