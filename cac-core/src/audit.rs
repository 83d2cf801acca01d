//! The audit log: who did what to what, from where, with which result. Entries are only ever added.
//!
//! A change writes its entry in its own transaction ([`Change::write`]), so that neither exists without the other. Only what has no
//! transaction, such as a refusal or a failed sign-in, is recorded after the fact ([`record`]).

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::actor::Actor;
pub use crate::actor::{Origin, Via};
use crate::db::{Arg, Row, Tx};
use crate::{Core, Error, Result, args, container, db};

/// Characters of a detail that are kept.
const DETAIL: usize = 1000;

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
    /// What the change altered.
    pub changes: Vec<FieldChange>,
}

impl Entry {
    /// What the change altered, and the detail, in one line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let changes = self.changes.iter().map(FieldChange::summary);
        changes.chain(self.detail.clone()).collect()
    }
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
            changes: row
                .get::<Option<String>>("changes")?
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default(),
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

/// One field of what was changed. A secret's value is never in here, only that it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    /// Absent: it had no value, or is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Absent: it has no value any more, or is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl FieldChange {
    /// In one line for people, such as `cores: 2 → 4`.
    #[must_use]
    pub fn summary(&self) -> String {
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(values) => {
                let texts = values.iter().map(|value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                texts.collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                format!("{}: {} → {}", self.field, shown(before), shown(after))
            }
            (Some(before), None) => format!("{}: {} → none", self.field, shown(before)),
            (None, Some(after)) => format!("{}: {}", self.field, shown(after)),
            (None, None) => self.field.clone(),
        }
    }
}

/// The entry of a change that is being made, written in the transaction that makes it.
#[derive(Debug, Clone)]
pub struct Change {
    action: &'static str,
    target: String,
    status: u16,
    detail: Option<String>,
    fields: Vec<FieldChange>,
}

/// What stands in an entry for the value of a secret.
const HIDDEN: &str = "(hidden)";
/// Characters of one field's text that an entry keeps.
const FIELD: usize = 300;

impl Change {
    /// `action` is the operation's id, `target` the changed thing as a path, such as `/containers/7`.
    pub fn new(action: &'static str, target: impl Into<String>) -> Self {
        Self {
            action,
            target: target.into(),
            status: 200,
            detail: None,
            fields: Vec::new(),
        }
    }

    /// Something new came into being.
    #[must_use]
    pub fn created(self) -> Self {
        Self {
            status: 201,
            ..self
        }
    }

    /// Something is gone, and nothing is left to say of it.
    #[must_use]
    pub fn deleted(self) -> Self {
        Self {
            status: 204,
            ..self
        }
    }

    /// What came about is not what was wanted: the status says how.
    #[must_use]
    pub(crate) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// A job will do the work: the entry says which.
    #[must_use]
    pub fn job(self, id: i64) -> Self {
        Self {
            status: 202,
            detail: Some(format!("/status/{id}")),
            ..self
        }
    }

    /// Adds what the fields cannot say.
    #[must_use]
    pub fn detail(self, text: impl Into<String>) -> Self {
        Self {
            detail: Some(text.into()),
            ..self
        }
    }

    /// Adds a field unless its value stays the same.
    #[must_use]
    pub fn field<B: Serialize, A: Serialize>(mut self, name: &str, before: B, after: A) -> Self {
        let (before, after) = (kept(&before), kept(&after));
        if before != after {
            self.fields.push(FieldChange {
                field: name.to_owned(),
                before,
                after,
            });
        }
        self
    }

    /// Adds a field of something new, unless it is empty.
    #[must_use]
    pub fn new_field(self, name: &str, value: impl Serialize) -> Self {
        self.field(name, (), value)
    }

    /// Adds a field of something that goes, unless it is empty.
    #[must_use]
    pub fn old_field(self, name: &str, value: impl Serialize) -> Self {
        self.field(name, value, ())
    }

    /// Adds every field in which two states of a thing differ; an absent state is that of a thing that is new or gone. The type must
    /// not serialise secrets.
    #[must_use]
    pub fn altered<T: Serialize>(mut self, before: Option<&T>, after: Option<&T>) -> Self {
        let fields = |state: Option<&T>| match serde_json::to_value(state) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (before, after) = (fields(before), fields(after));
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        let names: Vec<&String> = after.keys().chain(gone).collect();
        for name in names {
            // Every change sets them; the entry has its own time.
            if !matches!(name.as_str(), "id" | "createdAt" | "updatedAt") {
                self = self.field(name, before.get(name), after.get(name));
            }
        }
        self
    }

    /// Says that a secret was set, and nothing of its value.
    #[must_use]
    pub fn secret(self, name: &str, set: bool) -> Self {
        self.field(name, (), set.then_some(HIDDEN))
    }

    /// Writes the entry. The transaction's commit makes change and entry permanent together.
    pub async fn write(self, tx: &mut Tx, core: &Core, actor: &Actor) -> Result<()> {
        // The local machine and machines in the allow lists have no account; the entry says so by `via`.
        let account = !matches!(actor.origin.via, Via::Local | Via::Machine);
        let username = account.then(|| actor.username.clone());
        self.write_for(tx, core, username, &actor.origin).await
    }

    /// [`Change::write`], if any field changed: an entry about a change that nobody made is not true.
    pub async fn write_changed(self, tx: &mut Tx, core: &Core, actor: &Actor) -> Result<()> {
        if self.fields.is_empty() {
            actor.origin.entry_written();
            return Ok(());
        }
        self.write(tx, core, actor).await
    }

    /// Writes the entry of a request whose sender has no account, or not yet.
    pub async fn write_for(
        self,
        tx: &mut Tx,
        core: &Core,
        username: Option<String>,
        origin: &Origin,
    ) -> Result<()> {
        let changes = match self.fields.is_empty() {
            true => None,
            false => Some(serde_json::to_string(&self.fields).map_err(|error| {
                Error::Internal(format!("an audit entry cannot be written: {error}"))
            })?),
        };
        let entry = NewEntry {
            username,
            via: origin.via,
            token: origin.token,
            address: origin.address,
            action: self.action.to_owned(),
            target: self.target,
            status: self.status,
            detail: self.detail.or_else(|| origin.note.clone()),
            request: origin.request.clone(),
        };
        tx.insert(INSERT, entry.args(core, changes)).await?;
        origin.entry_written();
        Ok(())
    }
}

/// A field's value as an entry keeps it; `None` for one that is empty.
fn kept(value: &impl Serialize) -> Option<Value> {
    match serde_json::to_value(value).unwrap_or_default() {
        Value::Null => None,
        Value::String(text) if text.chars().count() > FIELD => {
            let start: String = text.chars().take(FIELD).collect();
            Some(Value::String(format!("{start}…")))
        }
        value => Some(value),
    }
}

const INSERT: &str = r#"INSERT INTO "AuditEntries" ("username", "via", "tokenId", "address", "action", "target", "status", "detail",
                                  "requestId", "changes", "createdAt")
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#;

impl NewEntry {
    fn args(&self, core: &Core, changes: Option<String>) -> Vec<Arg> {
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        let detail = self.detail.as_deref().map(|text| cut(text, DETAIL));
        let username = self.username.as_deref().map(|text| cut(text, 255));
        let address = self.address.map(|address| address.to_string());
        args![
            username.as_deref(),
            self.via.name(),
            self.token,
            address.as_deref(),
            cut(&self.action, 64),
            cut(&self.target, 255),
            i32::from(self.status),
            detail.as_deref(),
            self.request.as_deref(),
            changes.as_deref(),
            core.clock.now()
        ]
    }
}

/// Adds the entry of something that has no transaction. What cannot be stored is told in the program's log, whole.
pub async fn record(core: &Core, new: &NewEntry) {
    if let Err(error) = core.db.exec(INSERT, new.args(core, None)).await {
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
