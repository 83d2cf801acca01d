//! What containers can be made from.

use cac_core::placement;
use chrono::{DateTime, Utc};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};

use super::Tag;
use crate::auth::Signed;
use crate::error::Result;

pub(crate) struct Api;

/// A template of one node.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Template {
    /// As `template` of a new container takes it.
    template: String,
    /// The node's name.
    node: String,
    /// What an archive's distribution and version are called as `osRelease` of a new container, or what the node's admin calls a
    /// template; absent where only `template` asks for it.
    os_release: Option<String>,
    /// `archive`, or `container` for one that is cloned.
    kind: Kind,
    /// The name of a template container.
    name: Option<String>,
    /// Whether `sshPublicKey` can be put into a container made from it; not into a clone.
    ssh_key: bool,
    /// Bytes.
    size: Option<u64>,
    created_at: Option<DateTime<Utc>>,
}

/// What a template is.
#[derive(Enum)]
#[oai(rename = "TemplateKind", rename_all = "camelCase")]
pub(crate) enum Kind {
    Archive,
    Container,
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// The templates, by node and name
    #[oai(status = 200)]
    Templates(Json<Vec<Template>>, #[oai(header = "X-Total-Count")] u64),
}

#[OpenApi]
impl Api {
    /// List the templates
    ///
    /// Those that the enabled nodes really have now; a node that does not answer is left out.
    #[oai(
        path = "/templates",
        method = "get",
        operation_id = "template_list",
        tag = "Tag::Containers"
    )]
    async fn template_list(&self, who: Signed) -> Result<List> {
        let found = placement::offered(&who.core).await?;
        let rows: Vec<Template> = found
            .into_iter()
            .map(|offer| {
                let (kind, name, created) = match &offer.template {
                    placement::Template::Archive(archive) => (Kind::Archive, None, archive.ctime),
                    placement::Template::Container { name, .. } => {
                        (Kind::Container, Some(name.clone()), None)
                    }
                };
                let at = created.and_then(|at| i64::try_from(at).ok());
                Template {
                    os_release: offer.os_releases.into_iter().next(),
                    ssh_key: matches!(kind, Kind::Archive),
                    kind,
                    name,
                    size: offer.template.size(),
                    created_at: at.and_then(|at| DateTime::from_timestamp(at, 0)),
                    template: offer.template.id(),
                    node: offer.node,
                }
            })
            .collect();
        let total = rows.len() as u64;
        Ok(List::Templates(Json(rows), total))
    }
}
