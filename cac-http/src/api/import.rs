//! Containers that nodes have already, for admins.

use cac_core::container::{self, Wanted};
use cac_core::node;
use poem_openapi::param::Path;
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use super::container::Container;
use crate::accept::Both;
use crate::auth::Signed;
use crate::error::{ApiError, Result};
use crate::input::Input;
use crate::{origin, page};

pub(crate) struct Api;

/// A container of a node that is not in the portal's books.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Importable {
    vmid: u32,
    hostname: String,
    /// `running` or `stopped`.
    status: String,
    ipv4_address: Option<String>,
    mac_address: Option<String>,
    os_release: Option<String>,
    cores: Option<u32>,
    /// MiB
    memory: Option<u32>,
    /// GiB
    disk: Option<u32>,
    /// What keeps it from being imported, with what to do; empty when nothing does.
    problems: Vec<String>,
}

/// A container that is to be taken over.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct ImportRequest {
    /// Required. Its VMID.
    vmid: Option<u32>,
    /// Required. The owner's name in Proxmox VE.
    username: Option<String>,
    /// The port of its web server in the container, from 80 to 60000; left out: it gets no web service.
    http_port: Option<i64>,
    /// Further services: names such as `rdp`, or forms such as `8080/tcp`.
    additional_protocols: Option<Vec<String>>,
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// The containers that can be imported, by VMID
    #[oai(status = 200)]
    Containers(Both<Vec<Importable>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and moved once")]
pub(crate) enum Imported {
    /// The container
    #[oai(status = 201)]
    Container(Json<Container>, #[oai(header = "Location")] String),
    /// For browsers: to the container
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[OpenApi]
impl Api {
    /// List what a node has that the portal does not know
    ///
    /// Template containers are left out; `GET /templates` has them.
    #[oai(
        path = "/nodes/:id/importable",
        method = "get",
        operation_id = "node_importable",
        tag = "Tag::Nodes"
    )]
    async fn node_importable(&self, who: Signed, id: Path<i64>) -> Result<List> {
        let found = container::importable(&who.core, &who.actor, id.0).await?;
        let total = found.len() as u64;
        if who.html {
            let node = node::find(&who.core, id.0).await?;
            let page = page::node::importable(&who.actor, &node, &found, None);
            return Ok(List::Containers(Both::Html(Html(page)), total));
        }
        let shown = found.into_iter().map(|one| Importable {
            vmid: one.vmid,
            hostname: one.hostname,
            status: one.status,
            ipv4_address: one.ipv4_address,
            mac_address: one.mac_address,
            os_release: one.os_release,
            cores: one.cores,
            memory: one.memory,
            disk: one.disk,
            problems: one.problems,
        });
        Ok(List::Containers(Both::Json(Json(shown.collect())), total))
    }

    /// Import a container
    ///
    /// Takes over a container that exists, under the host name that it has, with its address, MAC and sizes. Nothing changes in
    /// Proxmox VE but that the owner gets the role for its console.
    #[oai(
        path = "/nodes/:id/import",
        method = "post",
        operation_id = "node_import",
        tag = "Tag::Nodes"
    )]
    async fn node_import(
        &self,
        who: Signed,
        id: Path<i64>,
        body: Input<ImportRequest>,
    ) -> Result<Imported> {
        who.admin()?;
        who.must_be_proved().await?;
        let import = async {
            let given = body.read()?;
            let wanted = Wanted {
                vmid: given.vmid.unwrap_or_default(),
                username: given.username.unwrap_or_default(),
                http_port: given.http_port,
                additional_protocols: given.additional_protocols.unwrap_or_default(),
            };
            Result::Ok(container::import(&who.core, &who.actor, id.0, &wanted).await?)
        };
        let row = match import.await {
            Err(error) if who.html => {
                let node = node::find(&who.core, id.0).await?;
                let rows = container::importable(&who.core, &who.actor, id.0).await?;
                let problem = Some(&error.0.problem);
                let page = page::node::importable(&who.actor, &node, &rows, problem);
                return Err(ApiError::with_page(error, page));
            }
            done => done?,
        };
        if who.html {
            return Ok(Imported::There(format!("/containers/{}", row.id)));
        }
        let at = origin::absolute(&who.core.config, &format!("/containers/{}", row.id));
        Ok(Imported::Container(Json(Container::of(&who.core, row)), at))
    }
}
