//! The page of API tokens: the list, the form for a new one, and the new one itself.

use cac_core::token::{self, Scope, Token};
use cac_core::{Actor, Core};
use poem_openapi::types::ToJSON as _;
use serde_json::{Value, json};

use super::{Refused, part, render};
use crate::error::Result;

/// Which tokens are shown.
pub(crate) struct View {
    /// Everyone's.
    pub all: bool,
    /// `limit` and `offset`
    pub part: (u32, u32),
}

/// What the page says about a form that was sent.
#[derive(Default)]
pub(crate) struct Told<'a> {
    pub refused: Option<Refused<'a>>,
    /// The new token with its text.
    pub made: Option<(&'a Token, &'a str)>,
}

/// The page, and how many tokens there are.
pub(crate) async fn list(
    core: &Core,
    who: &Actor,
    view: &View,
    told: Told<'_>,
) -> Result<(String, u64)> {
    let (rows, total) = token::list(core, who, view.all, view.part).await?;
    let now = core.clock.now();
    let tokens: Vec<Value> = rows.iter().map(|row| shape(row, now)).collect();
    let set = [("all", view.all.then(|| "true".to_owned()))];
    let (sent, problem) = told.refused.unzip();
    let chosen = sent.and_then(|sent| sent.get("scopes"));
    let chosen: Vec<&str> = chosen
        .into_iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .collect();
    let scopes = Scope::ALL
        .into_iter()
        .filter(|scope| who.admin || !matches!(scope, Scope::NginxRead | Scope::NginxReport));
    let scopes: Vec<Value> = scopes
        .map(|scope| {
            let name = scope.name();
            json!({"name": name, "may": may(scope), "chosen": chosen.contains(&name)})
        })
        .collect();
    let page = render(
        "tokens.html",
        Some(who),
        json!({
            "here": "/tokens", "tokens": tokens, "all": view.all, "scopes": scopes,
            "pages": part::pages("/tokens", &set, view.part, (rows.len(), total)),
            "sent": sent, "most": core.config.token_lifetime.num_days(),
            "problem": problem.map(|problem| problem.to_json()),
            "made": told.made.map(|(row, text)| json!({"name": row.name, "text": text})),
        }),
    );
    Ok((page, u64::try_from(total).unwrap_or_default()))
}

fn shape(row: &Token, now: chrono::DateTime<chrono::Utc>) -> Value {
    json!({
        "id": row.id, "username": row.username, "name": row.name, "beginning": row.beginning,
        "scopes": row.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>(),
        "ends": row.expires, "ended": row.expires.is_some_and(|at| at <= now),
        "soon": row.expires_soon(now), "used": row.last_used_at, "made": row.created_at, "suspended": row.suspended,
    })
}

/// What a token with this scope may do, in a sentence.
fn may(scope: Scope) -> &'static str {
    match scope {
        Scope::ContainersRead => "See containers, services, templates and the quota.",
        Scope::ContainersWrite => {
            "Ask for containers, change and delete them, and see what the first one shows."
        }
        Scope::ContainersRegister => {
            "Register containers that exist already, for anybody; only while you are an admin."
        }
        Scope::Jobs => "See jobs and their output, add and cancel them.",
        Scope::NginxRead => "Read the configuration of the proxies.",
        Scope::NginxReport => "Say which configuration a proxy has.",
        Scope::Admin => "Do everything that you may do.",
    }
}
