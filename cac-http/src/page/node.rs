//! The page of nodes, for admins.

use cac_core::Actor;
use cac_core::node::Node;
use serde_json::json;

use super::render;

pub(crate) fn list(who: &Actor, nodes: &[Node]) -> String {
    render("nodes.html", Some(who), json!({"nodes": nodes}))
}
