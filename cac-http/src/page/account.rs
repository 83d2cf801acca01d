//! Asking for an account, and choosing its password.

use std::collections::BTreeMap;

use poem_openapi::types::ToJSON as _;
use serde_json::json;

use super::render;
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
            "errors": problem.and_then(|problem| problem.errors.clone()).unwrap_or_default(),
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
            "errors": problem.and_then(|problem| problem.errors.clone()).unwrap_or_default(),
        }),
    )
}

/// That the account exists.
pub(crate) fn ready(message: &str) -> String {
    render("account.html", None, json!({"done": message}))
}
