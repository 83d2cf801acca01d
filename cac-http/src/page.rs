//! Pages: the same nouns as the API, as HTML from `templates/`. Everything is escaped; nothing needs script.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cac_core::Actor;
use cac_core::routes::Away;
use minijinja::value::Serde;
use minijinja::{Environment, HtmlEscape, UndefinedBehavior, escape_formatter};
use poem_openapi::types::ToJSON as _;
use serde_json::{Value, json};

use crate::assets;
use crate::error::Problem;

pub(crate) mod account;
pub(crate) mod audit;
mod chart;
pub(crate) mod container;
pub(crate) mod job;
pub(crate) mod login;
pub(crate) mod node;
mod part;
pub(crate) mod quota;
pub(crate) mod session;
pub(crate) mod token;
pub(crate) mod user;

pub(crate) use part::ROWS;

macro_rules! templates {
    ($($name:literal),+) => {
        [$(($name, include_str!(concat!("../templates/", $name)))),+]
    };
}

const TEXTS: [(&str, &str); 25] = templates!(
    "base.html",
    "parts.html",
    "login.html",
    "confirm.html",
    "register.html",
    "account.html",
    "containers.html",
    "container.html",
    "new.html",
    "status.html",
    "nodes.html",
    "node.html",
    "importable.html",
    "reconciliation.html",
    "requests.html",
    "request.html",
    "quotas.html",
    "users.html",
    "jobs.html",
    "tokens.html",
    "sessions.html",
    "audit.html",
    "error.html",
    "unavailable.html",
    "change_password.html"
);

static EMBEDDED: LazyLock<Environment<'static>> =
    LazyLock::new(|| templates().expect("the embedded templates are tested"));

fn templates() -> Result<Environment<'static>, minijinja::Error> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Chainable);
    // What is absent is shown as nothing; foreign text may have characters that no page may have.
    templates.set_formatter(|out, state, value| match value.as_str() {
        _ if value.is_none() => Ok(()),
        Some(text) if text.contains(unfit) => {
            let text: String = text.chars().map(pictured).collect();
            escape_formatter(out, state, &text.into())
        }
        _ => escape_formatter(out, state, value),
    });
    templates.add_filter("when", when);
    templates.add_filter("literal", literal);
    templates.add_filter("prose", prose);
    for (name, text) in TEXTS {
        let text = assets::newest(&format!("templates/{name}"), text);
        templates.add_template_owned(name, text)?;
    }
    Ok(templates)
}

/// Control characters other than those of lines and columns.
fn unfit(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r')
}

/// The picture of a character that is unfit, such as `␛` (Unicode's block "Control Pictures").
fn pictured(c: char) -> char {
    match u32::from(c) {
        _ if !unfit(c) => c,
        code @ 0..=0x1f => char::from_u32(0x2400 + code).unwrap_or('\u{fffd}'),
        0x7f => '\u{2421}',
        _ => '\u{fffd}',
    }
}

/// A time in RFC 3339 as people read it, in UTC.
fn when(time: String) -> String {
    match time.get(..16) {
        Some(minute) => format!("{} UTC", minute.replacen('T', " ", 1)),
        None => time,
    }
}

/// A message of ours, in which backticks are around what is code.
fn prose(text: minijinja::Value) -> minijinja::Value {
    let Some(text) = text.as_str() else {
        return text;
    };
    let text: String = text.chars().map(pictured).collect();
    let mut html = HtmlEscape(&text).to_string();
    while let Some((before, rest)) = html.split_once('`')
        && let Some((code, after)) = rest.split_once('`')
    {
        html = format!("{before}<code>{code}</code>{after}");
    }
    minijinja::Value::from_safe_string(html)
}

/// A `pattern` that only this text fits.
fn literal(text: String) -> String {
    let one = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_string(),
        c => format!("\\u{{{:x}}}", u32::from(c)),
    };
    text.chars().map(one).collect()
}

/// What a refused form sent, and why it was refused.
pub(crate) type Refused<'a> = (&'a BTreeMap<String, String>, &'a Problem);

/// A page for somebody, or for nobody in particular; `problem` has its messages by field as `errors`, too.
fn render(name: &str, user: Option<&Actor>, mut with: Value) -> String {
    with["errors"] = with["problem"]["errors"].clone();
    with["assets"] = json!(assets::places());
    with["user"] = user.map_or(
        Value::Null,
        |user| json!({"username": user.username, "admin": user.admin}),
    );
    let page = |templates: &Environment| {
        let template = templates.get_template(name)?;
        template.render(minijinja::Value::from(Serde(with)))
    };
    let page = match assets::RELOAD {
        true => templates().and_then(|templates| page(&templates)),
        false => page(&EMBEDDED),
    };
    page.unwrap_or_else(|error| {
        tracing::error!(name, %error, "a page cannot be shown");
        "This page cannot be shown now.".to_owned()
    })
}

/// Why a container does not answer; seen at its own name, so that nothing of it is at the portal's.
pub(crate) fn unavailable(name: &str, away: &Away) -> String {
    let state = match away {
        Away::Starting => "starting",
        Away::Stopped => "stopped",
        Away::Down => "down",
        Away::Unknown => "unknown",
    };
    let shown = json!({"name": name, "state": state});
    render("unavailable.html", None, shown)
}

/// That Proxmox VE has the passwords.
pub(crate) fn change_password() -> String {
    render("change_password.html", None, json!({}))
}

/// What every problem looks like where no page of its own shows it.
pub(crate) fn error(problem: &Problem, who: Option<&Actor>) -> String {
    render("error.html", who, json!({"problem": problem.to_json()}))
}
