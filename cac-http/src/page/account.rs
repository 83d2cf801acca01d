//! Asking for an account, deciding about it, and choosing its password.

use std::collections::BTreeMap;

use cac_core::account_request::{self, AccountRequest, STATUSES};
use cac_core::user::NameUse;
use cac_core::{Actor, Core};
use poem_openapi::types::ToJSON as _;
use serde_json::json;

use super::{Refused, part, render};
use crate::error::{Problem, Result};

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

/// The question whether the address is the person's own.
pub(crate) fn confirm(row: &AccountRequest) -> String {
    render(
        "register.html",
        None,
        json!({"confirm": {"email": row.email, "username": row.username}}),
    )
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
    show(who, (rows, total), (status, page), None)
}

/// The first of those that wait, after a form on that page was refused.
pub(crate) async fn list_again(core: &Core, who: &Actor, refused: Refused<'_>) -> Result<String> {
    let page = (u32::try_from(part::ROWS).unwrap_or(u32::MAX), 0);
    let (rows, total) = account_request::list(core, who, Some("pending"), page).await?;
    Ok(show(
        who,
        (&rows, total),
        (Some("pending"), page),
        Some(refused),
    ))
}

fn show(
    who: &Actor,
    (rows, total): (&[AccountRequest], i64),
    (status, page): (Option<&str>, (u32, u32)),
    refused: Option<Refused<'_>>,
) -> String {
    let set = [("status", status.map(ToOwned::to_owned))];
    let (sent, problem) = refused.unzip();
    let chosen = sent.and_then(|sent| sent.get("ids"));
    let chosen: Vec<i64> = chosen
        .into_iter()
        .flat_map(|text| text.split(','))
        .filter_map(|id| id.trim().parse().ok())
        .collect();
    // What waits can be declined.
    let open = rows
        .iter()
        .any(|row| matches!(row.status.as_str(), "pending" | "unconfirmed"));
    render(
        "requests.html",
        Some(who),
        json!({
            "here": "/account-requests", "rows": rows, "status": status, "statuses": STATUSES, "open": open,
            "pages": part::pages("/account-requests", &set, page, (rows.len(), total)),
            "sent": sent, "chosen": chosen, "problem": problem.map(|problem| problem.to_json()),
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
