//! The page of one's own sessions.

use cac_core::Actor;
use cac_core::session::Session;
use serde_json::{Value, json};
use woothee::parser::Parser;

use super::render;

pub(crate) fn list(who: &Actor, rows: &[Session]) -> String {
    let shape = |row: &Session| {
        let agent = row.client.user_agent.as_deref();
        json!({
            "id": row.id, "since": row.created_at, "ends": row.expires, "current": row.current,
            "agent": agent, "browser": agent.map(browser), "address": row.client.address,
        })
    };
    let sessions: Vec<Value> = rows.iter().map(shape).collect();
    render(
        "sessions.html",
        Some(who),
        json!({"here": "/sessions", "sessions": sessions}),
    )
}

/// A browser as people call it; anything else as it calls itself, without what follows its name.
fn browser(agent: &str) -> String {
    match Parser::new().parse(agent) {
        Some(told) if told.os != "UNKNOWN" => format!("{} on {}", told.name, told.os),
        _ => agent.split('/').next().unwrap_or_default().to_owned(),
    }
}
