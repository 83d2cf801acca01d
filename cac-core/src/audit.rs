//! The audit log: who did what to what, from where, with which result. Entries are only ever added.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::actor::Actor;
use crate::db::{Arg, Row};
use crate::{Core, Error, Result, args, container, db};

/// Characters of a detail that are kept.
const DETAIL: usize = 1000;

/// How somebody proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Nobody has, such as at a failed login.
    Nothing,
    Session,
    Token,
    /// A machine whose address is allowed.
    Machine,
    /// A command on the server itself.
    Local,
}

impl Via {
    /// The stored word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Session => "session",
            Self::Token => "token",
            Self::Machine => "machine",
            Self::Local => "local",
        }
    }

    fn parse(text: &str) -> Self {
        let all = [Self::Session, Self::Token, Self::Machine, Self::Local];
        let found = all.into_iter().find(|via| via.name() == text);
        found.unwrap_or(Self::Nothing)
    }
}

/// What is to be kept.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Whoever did it, or at a failed login the name that was tried.
    pub username: Option<String>,
    pub via: Via,
    pub token: Option<i64>,
    pub address: Option<IpAddr>,
    /// The operation's id, such as `container_delete`.
    pub action: String,
    /// What it was done to, as a path such as `/containers/7`.
    pub target: String,
    /// The HTTP status that it would have, or had.
    pub status: u16,
    /// Why not, or where the result is.
    pub detail: Option<String>,
    /// Names the request in the server's log.
    pub request: Option<String>,
}

/// A row of `AuditEntries`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub id: i64,
    pub created_at: DateTime<Utc>,
    pub username: Option<String>,
    pub via: Via,
    pub token_id: Option<i64>,
    pub address: Option<String>,
    pub action: String,
    pub target: String,
    pub status: u16,
    pub detail: Option<String>,
    pub request_id: Option<String>,
}

impl Entry {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            created_at: row.get("createdAt")?,
            username: row.get("username")?,
            via: Via::parse(&row.get::<String>("via")?),
            token_id: row.get("tokenId")?,
            address: row.get("address")?,
            action: row.get("action")?,
            target: row.get("target")?,
            status: row.get("status")?,
            detail: row.get("detail")?,
            request_id: row.get("requestId")?,
        })
    }
}

/// Which entries a list shows; absent conditions do not limit.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub username: Option<String>,
    pub action: Option<String>,
    /// What was done to this, such as `/containers/7`, or to something below it.
    pub target: Option<String>,
    /// From this time on.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
    /// Newest first.
    pub newest: bool,
    pub limit: u32,
    pub offset: u32,
}

/// The conditions of a [`Filter`]; each begins with whether it is to be left out.
macro_rules! matching {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#" FROM "AuditEntries" WHERE (? OR "username" = ?) AND (? OR "action" = ?)
                AND (? OR "target" = ? OR "target" LIKE ? ESCAPE '!') AND (? OR "createdAt" >= ?) AND (? OR "createdAt" < ?)"#,
            $after
        )
    };
}

impl Filter {
    fn args(&self) -> Vec<Arg> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let target = text(&self.target).trim_end_matches('/').to_owned();
        // No wildcard of the caller's: `!` takes their meaning away.
        let below = format!("{}/%", db::without_wildcards(&target));
        let (since, until) = (self.since, self.until);
        args![
            self.username.is_none(),
            text(&self.username),
            self.action.is_none(),
            text(&self.action),
            self.target.is_none(),
            target,
            below,
            since.is_none(),
            since.unwrap_or_default(),
            until.is_none(),
            until.unwrap_or_default()
        ]
    }
}

/// Adds an entry. What cannot be stored is told in the program's log, whole.
pub async fn record(core: &Core, new: &NewEntry) {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let detail = new.detail.as_deref().map(|text| cut(text, DETAIL));
    let username = new.username.as_deref().map(|text| cut(text, 255));
    let address = new.address.map(|address| address.to_string());
    let stored = core
        .db
        .exec(
            r#"INSERT INTO "AuditEntries" ("username", "via", "tokenId", "address", "action", "target", "status", "detail", "requestId",
                                           "createdAt")
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#,
            args![
                username.as_deref(), new.via.name(), new.token, address.as_deref(), cut(&new.action, 64), cut(&new.target, 255),
                i32::from(new.status), detail.as_deref(), new.request.as_deref(), core.clock.now()
            ],
        )
        .await;
    if let Err(error) = stored {
        tracing::error!(%error, ?new, "an audit entry could not be stored");
    }
}

/// A page of entries in order of their ids, and how many there are; for admins.
pub async fn list(core: &Core, actor: &Actor, filter: &Filter) -> Result<(Vec<Entry>, i64)> {
    if !actor.admin {
        return Err(Error::Forbidden(
            "Only admins may read the audit log.".to_owned(),
        ));
    }
    page(core, filter).await
}

/// The newest entries about a container, for whoever may see it, and how many there are.
pub async fn of_container(
    core: &Core,
    actor: &Actor,
    id: i64,
    limit: u32,
) -> Result<(Vec<Entry>, i64)> {
    let row = container::find(core, actor, id).await?;
    let filter = Filter {
        target: Some(format!("/containers/{}", row.id)),
        newest: true,
        limit,
        ..Filter::default()
    };
    page(core, &filter).await
}

async fn page(core: &Core, filter: &Filter) -> Result<(Vec<Entry>, i64)> {
    let mut tx = core.db.read().await?;
    let count = matching!(r#"SELECT COUNT(*) AS "n""#, "");
    let total = tx.one(count, filter.args()).await?.get("n")?;
    let sql = if filter.newest {
        matching!("SELECT *", r#" ORDER BY "id" DESC LIMIT ? OFFSET ?"#)
    } else {
        matching!("SELECT *", r#" ORDER BY "id" LIMIT ? OFFSET ?"#)
    };
    let mut given = filter.args();
    given.extend(args![filter.limit, filter.offset]);
    let rows = tx.all(sql, given).await?;
    let entries = rows.iter().map(Entry::from_row).collect::<Result<_>>()?;
    Ok((entries, total))
}
