//! Nodes, for admins. Secrets never leave the server.

use cac_core::node::{self, NewNode, NodeChange};
use chrono::{DateTime, Utc};
use poem_openapi::param::Path;
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::accept::Both;
use crate::auth::Signed;
use crate::error::{ApiError, Result};
use crate::input::{self, Input};
use crate::{origin, page};

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
    /// Which template an `osRelease` means on this node, such as `debian=lxc/160`.
    templates: Option<String>,
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
            templates: node.templates,
            created_at: node.created_at,
            updated_at: node.updated_at,
        }
    }
}

/// A node that is to be added or changed; of a change, fields that are left out stay and empty ones are emptied.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct NodeRequest {
    /// A new node must have it. The name the node has in Proxmox VE.
    name: Option<String>,
    /// Such as `https://pve1.example.org:8006`.
    api_url: Option<String>,
    /// `user@realm!name`
    token_id: Option<String>,
    /// The token's secret; it is never sent back.
    secret: Option<String>,
    /// Whether the certificate must be one that the system trusts.
    tls_verify: Option<bool>,
    /// SHA-256 of the certificate, which then is the only one that is trusted.
    tls_fingerprint: Option<String>,
    /// The label that requests name by `aiContainer`.
    ai_container: Option<String>,
    /// Whether new containers are made there.
    enabled: Option<bool>,
    /// Where root disks go; left out: the storage with the most room.
    storage: Option<String>,
    /// Left out: `vmbr0`.
    bridge: Option<String>,
    /// Which template an `osRelease` means on this node, as pairs `debian=lxc/160, node22=node-template`: a template archive, or
    /// a template container by `lxc/VMID` or name. Left out: the newest archive of the distribution.
    templates: Option<String>,
}

impl From<NodeRequest> for NewNode {
    fn from(given: NodeRequest) -> Self {
        let full =
            |text: Option<String>| text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        Self {
            name: given.name.unwrap_or_default().trim().to_owned(),
            api_url: full(given.api_url),
            token_id: full(given.token_id),
            secret: full(given.secret),
            tls_verify: given.tls_verify,
            tls_fingerprint: full(given.tls_fingerprint),
            ai_container: full(given.ai_container),
            enabled: given.enabled,
            storage: full(given.storage),
            bridge: full(given.bridge),
            templates: full(given.templates),
        }
    }
}

impl From<NodeRequest> for NodeChange {
    fn from(given: NodeRequest) -> Self {
        let full = |text: Option<String>| {
            text.map(|t| Some(t.trim().to_owned()).filter(|t| !t.is_empty()))
        };
        Self {
            name: given.name.map(|name| name.trim().to_owned()),
            api_url: full(given.api_url),
            token_id: full(given.token_id),
            secret: full(given.secret),
            tls_verify: given.tls_verify.map(Some),
            tls_fingerprint: full(given.tls_fingerprint),
            ai_container: full(given.ai_container),
            enabled: given.enabled,
            storage: full(given.storage),
            bridge: full(given.bridge),
            templates: full(given.templates),
        }
    }
}

/// What a look at a node showed.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Check {
    /// Proxmox VE's version; absent when it gave no good answer.
    version: Option<String>,
    /// SHA-256 of the certificate that answers there now, for pinning.
    fingerprint: Option<String>,
    /// Templates it can create containers from.
    templates: Vec<String>,
    /// What its token may do.
    can: Vec<String>,
    /// What will not work, each with what to do.
    problems: Vec<String>,
}

#[derive(ApiResponse)]
pub(crate) enum One {
    /// The node
    #[oai(status = 200)]
    Node(Both<Node>),
}

#[derive(ApiResponse)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and moved once")]
pub(crate) enum Changed {
    /// The node
    #[oai(status = 200)]
    Node(Json<Node>),
    /// For browsers: to the node
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum FormPage {
    /// The form
    #[oai(status = 200)]
    Form(Html<String>),
}

#[derive(ApiResponse)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and moved once")]
pub(crate) enum Added {
    /// The node
    #[oai(status = 201)]
    Node(Json<Node>, #[oai(header = "Location")] String),
    /// For browsers: to the node
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Removed {
    /// It is gone
    #[oai(status = 204)]
    Gone,
    /// For browsers: to the nodes
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Tested {
    /// What it can do
    #[oai(status = 200)]
    Check(Both<Check>),
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

    /// The form for a new node
    #[oai(
        path = "/nodes/new",
        method = "get",
        operation_id = "node_page",
        tag = "Tag::Nodes"
    )]
    async fn node_page(&self, who: Signed) -> Result<FormPage> {
        who.admin()?;
        Ok(FormPage::Form(Html(page::node::form(&who.actor, None))))
    }

    /// Add a node
    #[oai(
        path = "/nodes",
        method = "post",
        operation_id = "node_create",
        tag = "Tag::Nodes"
    )]
    async fn node_create(&self, who: Signed, body: Input<NodeRequest>) -> Result<Added> {
        who.admin()?;
        who.must_be_proved().await?;
        let create =
            async { Result::Ok(node::create(&who.core, &who.actor, body.read()?.into()).await?) };
        let node = match create.await {
            Err(error) if who.html => {
                let sent = without_secret(&body);
                let page = page::node::form(&who.actor, Some((&sent, &error.0.problem)));
                return Err(ApiError::with_page(error, page));
            }
            done => done?,
        };
        if who.html {
            return Ok(Added::There(format!("/nodes/{}", node.id)));
        }
        let at = origin::absolute(&who.core.config, &format!("/nodes/{}", node.id));
        Ok(Added::Node(Json(node.into()), at))
    }

    /// One node
    #[oai(
        path = "/nodes/:id",
        method = "get",
        operation_id = "node_find",
        tag = "Tag::Nodes"
    )]
    async fn node_find(&self, who: Signed, id: Path<i64>) -> Result<One> {
        who.admin()?;
        let node = node::find(&who.core, id.0).await?;
        Ok(One::Node(if who.html {
            Both::Html(Html(page::node::one(&who.actor, &node, None)))
        } else {
            Both::Json(Json(node.into()))
        }))
    }

    /// Change a node
    ///
    /// Only the fields that are sent. Another address or another trust in the certificate needs `secret` in the same request, and for
    /// those, the token and its secret a session's password must have been given lately (`POST /reauthenticate`).
    #[oai(
        path = "/nodes/:id",
        method = "put",
        operation_id = "node_update",
        tag = "Tag::Nodes"
    )]
    async fn node_update(
        &self,
        who: Signed,
        id: Path<i64>,
        body: Input<NodeRequest>,
    ) -> Result<Changed> {
        who.admin()?;
        let update = async {
            let mut asked = body.read()?;
            // A form does not know the secret: left empty it stays.
            if body.form {
                asked.secret = asked.secret.filter(|secret| !secret.trim().is_empty());
            }
            let change = NodeChange::from(asked);
            if node::changes_access(&node::find(&who.core, id.0).await?, &change) {
                who.must_be_proved().await?;
            }
            Result::Ok(node::update(&who.core, &who.actor, id.0, change).await?)
        };
        match update.await {
            Ok(_) if who.html => Ok(Changed::There(format!("/nodes/{}", id.0))),
            Ok(node) => Ok(Changed::Node(Json(node.into()))),
            Err(error) if who.html => {
                let node = node::find(&who.core, id.0).await?;
                let sent = without_secret(&body);
                let page = page::node::refused(&who.actor, &node, (&sent, &error.0.problem));
                Err(ApiError::with_page(error, page))
            }
            Err(error) => Err(error),
        }
    }

    /// Remove a node
    ///
    /// Refused while containers refer to it.
    #[oai(
        path = "/nodes/:id",
        method = "delete",
        operation_id = "node_delete",
        tag = "Tag::Nodes"
    )]
    async fn node_delete(&self, who: Signed, id: Path<i64>) -> Result<Removed> {
        who.admin()?;
        who.must_be_proved().await?;
        match node::delete(&who.core, &who.actor, id.0).await {
            Ok(()) if who.html => Ok(Removed::There("/nodes".to_owned())),
            Ok(()) => Ok(Removed::Gone),
            Err(error) if who.html && who.actor.admin => {
                let (node, error) = (node::find(&who.core, id.0).await?, ApiError::from(error));
                let sent = std::collections::BTreeMap::new();
                let page = page::node::refused(&who.actor, &node, (&sent, &error.0.problem));
                Err(error.with_page(page))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Test a node
    ///
    /// Asks Proxmox VE what the node's token may do; what is missing comes with the command that gives it.
    #[oai(
        path = "/nodes/:id/test",
        method = "post",
        operation_id = "node_test",
        tag = "Tag::Nodes"
    )]
    async fn node_test(&self, who: Signed, id: Path<i64>) -> Result<Tested> {
        let check = node::test(&who.core, &who.actor, id.0).await?;
        if who.html {
            let node = node::find(&who.core, id.0).await?;
            let page = page::node::one(&who.actor, &node, Some(&check));
            return Ok(Tested::Check(Both::Html(Html(page))));
        }
        Ok(Tested::Check(Both::Json(Json(Check {
            version: check.version,
            fingerprint: check.fingerprint,
            templates: check.templates,
            can: check.can,
            problems: check.problems,
        }))))
    }
}

/// What a form sent, for the form that is shown again.
fn without_secret(body: &Input<NodeRequest>) -> std::collections::BTreeMap<String, String> {
    input::shown(&body.raw)
}
