//! The page of users, for admins.

use cac_core::Actor;
use cac_core::user::User;
use poem_openapi::types::ToJSON as _;
use serde_json::json;

use super::render;
use crate::error::Problem;

/// These users, those first that wait for a decision.
pub(crate) fn list(who: &Actor, rows: &[User], refused: Option<&Problem>) -> String {
    let state = |user: &&User| user.state.name();
    let (waiting, others): (Vec<&User>, Vec<&User>) = rows
        .iter()
        .partition(|user| matches!(state(user), "returned" | "missing"));
    render(
        "users.html",
        Some(who),
        json!({"here": "/users", "waiting": waiting, "others": others, "problem": refused.map(|problem| problem.to_json())}),
    )
}
