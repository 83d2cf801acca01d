//! The login page: name and password, then the second factor where there is one.

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
