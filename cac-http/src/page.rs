//! Pages: the same nouns as the API, as HTML from `templates/`. Everything is escaped; nothing needs script.

use std::sync::LazyLock;

use cac_core::Actor;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use poem_openapi::types::ToJSON as _;
use serde_json::{Value, json};

use crate::assets;
use crate::error::Problem;

pub(crate) mod account;
pub(crate) mod container;
pub(crate) mod job;
pub(crate) mod login;
pub(crate) mod node;

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Chainable);
    for (name, text) in [
        ("base.html", include_str!("../templates/base.html")),
        ("login.html", include_str!("../templates/login.html")),
        ("register.html", include_str!("../templates/register.html")),
        ("account.html", include_str!("../templates/account.html")),
        (
            "containers.html",
            include_str!("../templates/containers.html"),
        ),
        (
            "container.html",
            include_str!("../templates/container.html"),
        ),
        ("new.html", include_str!("../templates/new.html")),
        ("status.html", include_str!("../templates/status.html")),
        ("nodes.html", include_str!("../templates/nodes.html")),
        ("error.html", include_str!("../templates/error.html")),
    ] {
        templates
            .add_template(name, text)
            .expect("the embedded templates are tested");
    }
    templates
});

/// A page for somebody, or for nobody in particular.
fn render(name: &str, user: Option<&Actor>, mut with: Value) -> String {
    with["style"] = assets::style().into();
    with["user"] = user.map_or(
        Value::Null,
        |user| json!({"username": user.username, "admin": user.admin}),
    );
    let page = TEMPLATES
        .get_template(name)
        .and_then(|template| template.render(minijinja::Value::from(Serde(with))));
    page.unwrap_or_else(|error| {
        tracing::error!(name, %error, "a page cannot be shown");
        "This page cannot be shown now.".to_owned()
    })
}

/// What every problem looks like where no page of its own shows it.
pub(crate) fn error(problem: &Problem) -> String {
    render(
        "error.html",
        None,
        json!({"problem": problem.to_json(), "errors": problem.errors}),
    )
}
