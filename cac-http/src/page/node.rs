//! Pages of nodes, for admins: the list, one of them, what can be imported from it, and how the books compare with Proxmox VE.

use std::collections::BTreeMap;

use cac_core::Actor;
use cac_core::container::Importable;
use cac_core::node::{Check, Node};
use cac_core::reconcile::Finding;
use poem_openapi::types::ToJSON as _;
use serde_json::json;

use super::{Refused, render};
use crate::error::Problem;

pub(crate) fn list(who: &Actor, nodes: &[Node]) -> String {
    render(
        "nodes.html",
        Some(who),
        json!({"here": "/nodes", "nodes": nodes}),
    )
}

/// The form for a new node.
pub(crate) fn form(who: &Actor, refused: Option<Refused<'_>>) -> String {
    show(who, None, None, refused)
}

/// One node, with what a test of it showed.
pub(crate) fn one(who: &Actor, node: &Node, check: Option<&Check>) -> String {
    show(who, Some(node), check, None)
}

/// The node's page with the form that was refused.
pub(crate) fn refused(who: &Actor, node: &Node, refused: Refused<'_>) -> String {
    show(who, Some(node), None, Some(refused))
}

fn show(
    who: &Actor,
    node: Option<&Node>,
    check: Option<&Check>,
    refused: Option<Refused<'_>>,
) -> String {
    let (sent, problem) = refused.unzip();
    let stored = node.map(values).unwrap_or_default();
    render(
        "node.html",
        Some(who),
        json!({
            "here": "/nodes", "node": node, "has_secret": node.is_some_and(|node| node.secret.is_some()), "check": check,
            "sent": sent.unwrap_or(&stored), "problem": problem.map(|problem| problem.to_json()),
        }),
    )
}

/// What a form for this node begins with.
fn values(node: &Node) -> BTreeMap<String, String> {
    let verify = node.tls_verify.map(|verify| verify.to_string());
    [
        ("name", Some(node.name.clone())),
        ("apiUrl", node.api_url.clone()),
        ("tokenId", node.token_id.clone()),
        ("tlsVerify", verify),
        ("tlsFingerprint", node.tls_fingerprint.clone()),
        ("aiContainer", node.ai_container.clone()),
        ("enabled", Some(node.enabled.to_string())),
        ("storage", node.storage.clone()),
        ("bridge", node.bridge.clone()),
        ("templates", node.templates.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}

/// What can be imported from a node.
pub(crate) fn importable(
    who: &Actor,
    node: &Node,
    rows: &[Importable],
    refused: Option<&Problem>,
) -> String {
    render(
        "importable.html",
        Some(who),
        json!({"here": "/nodes", "node": node, "rows": rows, "problem": refused.map(|problem| problem.to_json())}),
    )
}

/// What differs between the books and Proxmox VE.
pub(crate) fn reconciliation(who: &Actor, findings: &[Finding]) -> String {
    render(
        "reconciliation.html",
        Some(who),
        json!({"here": "/nodes", "rows": findings}),
    )
}
