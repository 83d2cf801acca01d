//! The login page: name and password, then the second factor where there is one. And the page that asks somebody who is signed in for the
//! password again.

use cac_core::Actor;
use poem_openapi::types::ToJSON as _;
use serde_json::json;

use super::render;
use crate::error::Problem;

pub(crate) fn first(redirect: &str, username: &str, problem: Option<&Problem>) -> String {
    show(redirect, username, None, problem)
}

pub(crate) fn second(
    redirect: &str,
    username: &str,
    challenge: &str,
    problem: Option<&Problem>,
) -> String {
    show(redirect, username, Some(challenge), problem)
}

fn show(
    redirect: &str,
    username: &str,
    challenge: Option<&str>,
    problem: Option<&Problem>,
) -> String {
    render(
        "login.html",
        None,
        json!({
            "redirect": redirect,
            "username": username,
            "challenge": challenge,
            "problem": problem.map(|problem| problem.to_json()),
        }),
    )
}

/// What is sent again once the password was given.
pub(crate) struct Again<'a> {
    /// A path of this site.
    pub to: &'a str,
    /// The form, sealed ([`cac_core::session::seal_form`]).
    pub form: &'a str,
}

/// Asks for the password, or with a challenge for the second factor.
pub(crate) fn confirm(
    who: &Actor,
    again: &Again<'_>,
    challenge: Option<&str>,
    problem: Option<&Problem>,
) -> String {
    render(
        "confirm.html",
        Some(who),
        json!({
            "to": again.to,
            "form": again.form,
            "challenge": challenge,
            "problem": problem.map(|problem| problem.to_json()),
        }),
    )
}
