//! Our books and Proxmox VE compared, for admins.

use cac_core::reconcile::{self, Kind};
use poem_openapi::param::Path;
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};

use super::Tag;
use super::container::Container;
use crate::accept::Both;
use crate::auth::Signed;
use crate::error::Result;
use crate::page;

pub(crate) struct Api;

/// What differs: `gone` a row whose container is nowhere; `stranger` somebody else's container under its number, or a number that another
/// row has, too; `moved` on another node; `address` another address; `orphan` a container with our marker that no row knows; `unknown` a
/// node that cannot be asked, or a container that was registered while it could not.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub(crate) enum FindingKind {
    Gone,
    Stranger,
    Moved,
    Address,
    Orphan,
    Unknown,
}

/// One difference.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Finding {
    kind: FindingKind,
    /// The container's row id, where there is one.
    container_id: Option<i64>,
    node: String,
    vmid: Option<u32>,
    message: String,
    /// What an admin may do about it.
    repair: String,
}

impl From<reconcile::Finding> for Finding {
    fn from(finding: reconcile::Finding) -> Self {
        Self {
            kind: match finding.kind {
                Kind::Gone => FindingKind::Gone,
                // Clients of the released contract know no other words.
                Kind::Stranger | Kind::Duplicate => FindingKind::Stranger,
                Kind::Moved => FindingKind::Moved,
                Kind::Address => FindingKind::Address,
                Kind::Orphan => FindingKind::Orphan,
                Kind::Unknown | Kind::Unverified => FindingKind::Unknown,
            },
            container_id: finding.container,
            node: finding.node,
            vmid: finding.vmid,
            message: finding.message,
            repair: finding.repair,
        }
    }
}

#[derive(ApiResponse)]
pub(crate) enum Findings {
    /// What differs; nothing was changed
    #[oai(status = 200)]
    Findings(Both<Vec<Finding>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and moved once")]
pub(crate) enum Refreshed {
    /// The container as it is now
    #[oai(status = 200)]
    Container(Json<Container>),
    /// For browsers: to the container
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[OpenApi]
impl Api {
    /// Compare with Proxmox VE
    ///
    /// Every container of our books, and every one that carries our marker. Each difference comes with the repair; nothing is changed.
    #[oai(
        path = "/reconciliation",
        method = "get",
        operation_id = "reconciliation_list",
        tag = "Tag::Nodes"
    )]
    async fn reconciliation_list(&self, who: Signed) -> Result<Findings> {
        let found = reconcile::look(&who.core, &who.actor).await?;
        let total = found.len() as u64;
        if who.html {
            let page = page::node::reconciliation(&who.actor, &found);
            return Ok(Findings::Findings(Both::Html(Html(page)), total));
        }
        let found = found.into_iter().map(Finding::from).collect();
        Ok(Findings::Findings(Both::Json(Json(found)), total))
    }

    /// Check a container's address
    ///
    /// Asks Proxmox VE where the container is now, and for its address and sizes, and stores them. For its owner and for admins. An address
    /// that another running container still shows is refused; `addressProblem` then says so.
    #[oai(
        path = "/containers/:id/refresh",
        method = "post",
        operation_id = "container_refresh",
        tag = "Tag::Containers"
    )]
    async fn container_refresh(&self, who: Signed, id: Path<i64>) -> Result<Refreshed> {
        let refresh = async { Ok(reconcile::refresh(&who.core, &who.actor, id.0).await?) };
        let row = page::container::or_page(&who, id.0, refresh).await?;
        if who.html {
            return Ok(Refreshed::There(format!("/containers/{}", id.0)));
        }
        Ok(Refreshed::Container(Json(Container::of(&who.core, row))))
    }
}
