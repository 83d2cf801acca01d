//! What containers can be made from.

use cac_core::placement;
use chrono::{DateTime, Utc};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

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
    /// As `osRelease` of a new container takes it; absent for a distribution that is not known.
    os_release: Option<String>,
    /// Bytes.
    size: Option<u64>,
    created_at: Option<DateTime<Utc>>,
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
                let at = offer.template.ctime.and_then(|at| i64::try_from(at).ok());
                Template {
                    os_release: placement::os_release(&offer.template.volid),
                    size: offer.template.size,
                    created_at: at.and_then(|at| DateTime::from_timestamp(at, 0)),
                    template: offer.template.volid,
                    node: offer.node,
                }
            })
            .collect();
        let total = rows.len() as u64;
        Ok(List::Templates(Json(rows), total))
    }
}
