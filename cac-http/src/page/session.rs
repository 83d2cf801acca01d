//! The page of one's own sessions.

use cac_core::Actor;
use cac_core::session::Session;
use serde_json::{Value, json};

use super::render;

pub(crate) fn list(who: &Actor, rows: &[Session]) -> String {
    let shape = |row: &Session| json!({"id": row.id, "since": row.created_at, "ends": row.expires, "current": row.current});
    let sessions: Vec<Value> = rows.iter().map(shape).collect();
    render(
        "sessions.html",
        Some(who),
        json!({"here": "/sessions", "sessions": sessions}),
    )
}
