//! Asking for an account, deciding about it, and choosing its password.

use std::collections::BTreeMap;

use cac_core::Actor;
use cac_core::account_request::{AccountRequest, STATUSES};
use cac_core::user::NameUse;
use poem_openapi::types::ToJSON as _;
use serde_json::json;

use super::{Refused, part, render};
use crate::error::Problem;

/// The form, with what was sent and what is wrong with it.
pub(crate) fn register(sent: &BTreeMap<String, String>, problem: Option<&Problem>) -> String {
    let field = |name: &str, label: &str, kind: &str, complete: &str| json!({"name": name, "label": label, "type": kind, "complete": complete});
    render(
        "register.html",
        None,
        json!({
            "fields": [
                field("name", "Your name", "text", "name"),
                field("email", "E-mail", "email", "email"),
                field("username", "User name that you would like", "text", "username"),
                field("reason", "What you need it for", "text", "off"),
            ],
            "sent": sent,
            "problem": problem.map(|problem| problem.to_json()),
        }),
    )
}

/// That the request is stored.
pub(crate) fn registered(message: &str) -> String {
    render("register.html", None, json!({"done": message}))
}

/// The password's form.
pub(crate) fn password(username: &str, problem: Option<&Problem>) -> String {
    render(
        "account.html",
        None,
        json!({
            "username": username,
            "problem": problem.map(|problem| problem.to_json()),
        }),
    )
}

/// That the account exists.
pub(crate) fn ready(message: &str) -> String {
    render("account.html", None, json!({"done": message}))
}

/// The requests, for admins.
pub(crate) fn list(
    who: &Actor,
    rows: &[AccountRequest],
    total: i64,
    status: Option<&str>,
    page: (u32, u32),
) -> String {
    let set = [("status", status.map(ToOwned::to_owned))];
    render(
        "requests.html",
        Some(who),
        json!({
            "here": "/account-requests", "rows": rows, "status": status, "statuses": STATUSES,
            "pages": part::pages("/account-requests", &set, page, (rows.len(), total)),
        }),
    )
}

/// One request with what exists under its name, with the link that has to be handed over, or with the form that was refused.
pub(crate) fn one(
    who: &Actor,
    row: &AccountRequest,
    existing: Option<&NameUse>,
    link: Option<&str>,
    refused: Option<Refused<'_>>,
) -> String {
    let (sent, problem) = refused.unzip();
    render(
        "request.html",
        Some(who),
        json!({
            "here": "/account-requests", "r": row, "existing": existing.map(NameUse::in_words),
            "accept": existing.is_some_and(NameUse::needs_acceptance), "link": link, "sent": sent, "problem": problem.map(|problem| problem.to_json()),
        }),
    )
}
