//! The page of quotas, for admins.

use cac_core::Actor;
use cac_core::quota::Quota;
use poem_openapi::types::ToJSON as _;
use serde_json::json;

use super::render;
use crate::error::Problem;

/// These quotas; `asked` is the one user that they are of.
pub(crate) fn list(
    who: &Actor,
    rows: &[Quota],
    asked: Option<&str>,
    refused: Option<&Problem>,
) -> String {
    render(
        "quotas.html",
        Some(who),
        json!({"here": "/quotas", "rows": rows, "asked": asked, "problem": refused.map(|problem| problem.to_json())}),
    )
}
