//! The audit log, for admins.

use cac_core::audit::{self, Entry, Filter};
use cac_core::{Actor, Core};
use chrono::{DateTime, Utc};
use futures_util::{Stream, stream};
use poem::Body;
use poem_openapi::param::Query;
use poem_openapi::payload::{Binary, Html, Json};
use poem_openapi::types::Any;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::accept::Both;
use crate::auth::Signed;
use crate::error::Result;
use crate::input::Time;
use crate::page;

pub(crate) struct Api;

/// Entries that are read at once for an export.
const PAGE: u32 = 1000;

/// Something that was done, or tried.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct AuditEntry {
    id: i64,
    created_at: DateTime<Utc>,
    /// Whoever did it; at a failed login the name that was tried.
    username: Option<String>,
    /// `session`, `token`, `machine` (an allowed address), `local` (a command on the server), or `nothing`.
    via: String,
    token_id: Option<i64>,
    /// Where the request came from.
    address: Option<String>,
    /// The operation, such as `container_delete`.
    action: String,
    /// What it was done to, as a path.
    target: String,
    /// The HTTP status of the answer.
    status: u16,
    /// Why not, or where the result is.
    detail: Option<String>,
    request_id: Option<String>,
    /// What the change altered; a secret's value is never shown.
    changes: Option<Vec<FieldChange>>,
}

/// One field that a change altered.
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct FieldChange {
    field: String,
    /// Absent: it had no value.
    before: Option<Any<serde_json::Value>>,
    /// Absent: it has no value any more.
    after: Option<Any<serde_json::Value>>,
}

impl From<audit::FieldChange> for FieldChange {
    fn from(change: audit::FieldChange) -> Self {
        Self {
            field: change.field,
            before: change.before.map(Any),
            after: change.after.map(Any),
        }
    }
}

impl From<Entry> for AuditEntry {
    fn from(row: Entry) -> Self {
        Self {
            id: row.id,
            created_at: row.created_at,
            username: row.username,
            via: row.via.name().to_owned(),
            token_id: row.token_id,
            address: row.address,
            action: row.action,
            target: row.target,
            status: row.status,
            detail: row.detail,
            request_id: row.request_id,
            changes: (!row.changes.is_empty())
                .then(|| row.changes.into_iter().map(Into::into).collect()),
        }
    }
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// The entries, by id
    #[oai(status = 200)]
    Entries(Both<Vec<AuditEntry>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum Export {
    /// All entries that match, as CSV (RFC 4180) with a line of names
    #[oai(status = 200, content_type = "text/csv")]
    Csv(Binary<Body>, #[oai(header = "Content-Disposition")] String),
}

#[OpenApi]
impl Api {
    /// List what was done
    ///
    /// Every change that somebody made or tried over HTTP, every login, and what was done by commands on the server.
    #[oai(
        path = "/audit",
        method = "get",
        operation_id = "audit_list",
        tag = "Tag::Audit"
    )]
    #[allow(clippy::too_many_arguments, reason = "one for each query parameter")]
    async fn audit_list(
        &self,
        who: Signed,
        username: Query<Option<String>>,
        action: Query<Option<String>>,
        /// What was done to this, such as `/containers/7`, or to something below it.
        target: Query<Option<String>>,
        /// From this time on.
        since: Query<Option<Time>>,
        /// Before this time.
        until: Query<Option<Time>>,
        /// Newest first; the page is so unless it is `false`.
        newest: Query<Option<bool>>,
        /// At most 1000.
        limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
    ) -> Result<List> {
        let limit = limit.0.or(who.html.then_some(page::ROWS));
        let (limit, offset) = super::page(limit, offset.0);
        let filter = Filter {
            username: username.0,
            action: action.0,
            target: target.0,
            since: since.0.map(|time| time.0),
            until: until.0.map(|time| time.0),
            newest: newest.0.unwrap_or(who.html),
            limit,
            offset,
        };
        let (rows, count) = audit::list(&who.core, &who.actor, &filter).await?;
        let total = u64::try_from(count).unwrap_or_default();
        let shown = if who.html {
            Both::Html(Html(page::audit::list(&who.actor, &rows, count, &filter)))
        } else {
            Both::Json(Json(rows.into_iter().map(AuditEntry::from).collect()))
        };
        Ok(List::Entries(shown, total))
    }

    /// Export what was done
    #[oai(
        path = "/audit.csv",
        method = "get",
        operation_id = "audit_export",
        tag = "Tag::Audit"
    )]
    async fn audit_export(
        &self,
        who: Signed,
        username: Query<Option<String>>,
        action: Query<Option<String>>,
        /// What was done to this, such as `/containers/7`, or to something below it.
        target: Query<Option<String>>,
        /// From this time on.
        since: Query<Option<Time>>,
        /// Before this time.
        until: Query<Option<Time>>,
    ) -> Result<Export> {
        let filter = Filter {
            username: username.0,
            action: action.0,
            target: target.0,
            since: since.0.map(|time| time.0),
            until: until.0.map(|time| time.0),
            limit: PAGE,
            ..Filter::default()
        };
        // Refused before anything is sent.
        let first = audit::list(&who.core, &who.actor, &filter).await?.0;
        let lines = pages(who.core, who.actor, filter, first);
        Ok(Export::Csv(
            Binary(Body::from_bytes_stream(lines)),
            "attachment; filename=\"audit.csv\"".to_owned(),
        ))
    }
}

/// The names and then page after page, so that no export is ever whole in memory.
fn pages(
    core: Core,
    actor: Actor,
    filter: Filter,
    first: Vec<Entry>,
) -> impl Stream<Item = std::io::Result<Vec<u8>>> + Send {
    let begin = Some((filter, first, true));
    stream::try_unfold(begin, move |state| {
        let (core, actor) = (core.clone(), actor.clone());
        async move {
            let Some((mut filter, rows, head)) = state else {
                return Ok(None);
            };
            let text = csv(&rows, head).map_err(std::io::Error::other)?;
            if rows.len() < PAGE as usize {
                return Ok(Some((text, None)));
            }
            filter.offset += PAGE;
            let next = audit::list(&core, &actor, &filter).await;
            let next = next
                .map_err(|error| std::io::Error::other(error.to_string()))?
                .0;
            Ok(Some((text, Some((filter, next, false)))))
        }
    })
}

/// Texts that a spreadsheet would take for a formula begin with `'`.
fn cell(text: Option<String>) -> String {
    let text = text.unwrap_or_default();
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text
    }
}

/// What the change altered, one field after the other.
fn changes(row: &Entry) -> Option<String> {
    let lines: Vec<String> = row
        .changes
        .iter()
        .map(audit::FieldChange::summary)
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn csv(rows: &[Entry], head: bool) -> std::result::Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    if head {
        writer.write_record([
            "id",
            "createdAt",
            "username",
            "via",
            "tokenId",
            "address",
            "action",
            "target",
            "status",
            "detail",
            "requestId",
            "changes",
        ])?;
    }
    for row in rows {
        let number = |number: Option<i64>| number.map(|n| n.to_string()).unwrap_or_default();
        writer.write_record([
            row.id.to_string(),
            row.created_at
                .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            cell(row.username.clone()),
            row.via.name().to_owned(),
            number(row.token_id),
            cell(row.address.clone()),
            cell(Some(row.action.clone())),
            cell(Some(row.target.clone())),
            row.status.to_string(),
            cell(row.detail.clone()),
            cell(row.request_id.clone()),
            cell(changes(row)),
        ])?;
    }
    writer
        .into_inner()
        .map_err(|error| error.into_error().into())
}
