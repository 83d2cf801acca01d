//! Nodes, for admins. Secrets never leave the server.

use cac_core::node;
use chrono::{DateTime, Utc};
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::accept::Both;
use crate::auth::Signed;
use crate::error::Result;
use crate::page;

pub(crate) struct Api;

/// A Proxmox VE host that containers are made on.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Node {
    id: i64,
    /// The name the node has in Proxmox VE.
    name: String,
    api_url: Option<String>,
    /// `user@realm!name`
    token_id: Option<String>,
    /// Whether a token secret is stored; the secret itself is never sent.
    has_secret: bool,
    /// Absent means verify.
    tls_verify: Option<bool>,
    /// SHA-256 of the certificate, when it is pinned.
    tls_fingerprint: Option<String>,
    /// The label that requests name by `aiContainer`.
    ai_container: Option<String>,
    enabled: bool,
    /// Where root disks go; absent: the storage with the most room.
    storage: Option<String>,
    /// Absent: `vmbr0`.
    bridge: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<node::Node> for Node {
    fn from(node: node::Node) -> Self {
        Self {
            id: node.id,
            has_secret: node.secret.is_some(),
            name: node.name,
            api_url: node.api_url,
            token_id: node.token_id,
            tls_verify: node.tls_verify,
            tls_fingerprint: node.tls_fingerprint,
            ai_container: node.ai_container,
            enabled: node.enabled,
            storage: node.storage,
            bridge: node.bridge,
            created_at: node.created_at,
            updated_at: node.updated_at,
        }
    }
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// All nodes
    #[oai(status = 200)]
    Nodes(Both<Vec<Node>>, #[oai(header = "X-Total-Count")] u64),
}

#[OpenApi]
impl Api {
    /// List the nodes
    #[oai(
        path = "/nodes",
        method = "get",
        operation_id = "node_list",
        tag = "Tag::Nodes"
    )]
    async fn node_list(&self, who: Signed) -> Result<List> {
        let nodes = node::list(&who.core, &who.actor).await?;
        let total = nodes.len() as u64;
        let shown = if who.html {
            Both::Html(Html(page::node::list(&who.actor, &nodes)))
        } else {
            Both::Json(Json(nodes.into_iter().map(Node::from).collect()))
        };
        Ok(List::Nodes(shown, total))
    }
}
