//! The page of the audit log, for admins.

use cac_core::Actor;
use cac_core::audit::{Entry, Filter};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::part;
use super::render;

/// An entry with what it altered in words.
fn entry(row: &Entry) -> Value {
    let mut shown = json!(row);
    shown["lines"] = json!(row.lines());
    shown
}

pub(crate) fn list(who: &Actor, rows: &[Entry], total: i64, filter: &Filter) -> String {
    let time = |time: Option<DateTime<Utc>>| {
        time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    };
    let conditions = [
        ("username", filter.username.clone()),
        ("action", filter.action.clone()),
        ("target", filter.target.clone()),
        ("since", time(filter.since)),
        ("until", time(filter.until)),
    ];
    let narrowed = conditions.iter().any(|(_, value)| value.is_some());
    let export = part::address("/audit.csv", &conditions, &[]);
    let order = ("newest", (!filter.newest).then(|| "false".to_owned()));
    let mut set = conditions.to_vec();
    set.push(order);
    let shown = (rows.len(), total);
    // What browsers' fields for times take: no zone.
    let field = |time: Option<DateTime<Utc>>| time.map(|time| time.format("%FT%T").to_string());
    render(
        "audit.html",
        Some(who),
        json!({"here": "/audit",
            "entries": rows.iter().map(entry).collect::<Vec<_>>(), "narrowed": narrowed, "export": export,
            "pages": part::pages("/audit", &set, (filter.limit, filter.offset), shown),
            "f": {
                "username": filter.username, "action": filter.action, "target": filter.target,
                "since": field(filter.since), "until": field(filter.until), "oldest": !filter.newest,
            },
        }),
    )
}
