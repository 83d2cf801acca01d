//! Reverse proxies that pull `/nginx.conf` report which revision is live there.

use cac_core::Error;
use cac_core::nginx::BadValue;
use cac_core::proxy::{self, Report};
use cac_core::proxy_key;
use chrono::{DateTime, Utc};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::auth::Signed;
use crate::error::Result;
use crate::input::Input;

pub(crate) struct Api;

/// A reverse proxy and what it reported last.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Proxy {
    id: i64,
    name: String,
    /// The entity tag of the configuration that is live there; left out where none is.
    revision: Option<String>,
    live_since: Option<DateTime<Utc>>,
    /// The revision that nginx refused, if it did since.
    refused: Option<String>,
    /// In the words of nginx.
    reason: Option<String>,
    /// Ports that other programs have on its machine, and that no new service gets.
    taken: Vec<String>,
    /// When the API token expires that it reports with.
    token_expires: Option<DateTime<Utc>>,
    reported_at: DateTime<Utc>,
}

impl From<proxy::Proxy> for Proxy {
    fn from(row: proxy::Proxy) -> Self {
        Self {
            id: row.id,
            name: row.name,
            revision: row.revision,
            live_since: row.live_since,
            refused: row.refused,
            reason: row.reason,
            taken: row.taken.texts().collect(),
            token_expires: row.token_expires,
            reported_at: row.reported_at,
        }
    }
}

/// What became of a revision.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct RevisionReport {
    /// Required. The entity tag of the configuration, as `/nginx.conf` sent it.
    revision: Option<String>,
    /// Why nginx refused it, in its own words; left out: it is live now.
    refused: Option<String>,
    /// The entity tag of what is live there while the other one is refused; left out: as it was reported last.
    live: Option<String>,
    /// Whether nginx does not run there, so that nothing is live.
    #[oai(default)]
    down: bool,
    /// Ports that other programs have there, as they were asked for with `taken`.
    #[oai(default)]
    taken: Vec<String>,
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// The proxies
    #[oai(status = 200)]
    Proxies(Json<Vec<Proxy>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum Kept {
    /// The report is kept
    #[oai(status = 200)]
    Proxy(Json<Proxy>),
}

#[derive(ApiResponse)]
pub(crate) enum Forgotten {
    /// It is forgotten until it reports again
    #[oai(status = 204)]
    Gone,
}

/// The public half of the key that the portal signs with.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct ProxyKey {
    /// What a reverse proxy pins (`CAC_PROXY_KEY`).
    key: String,
    /// For comparing two keys by eye.
    fingerprint: String,
    /// The key that will follow, while keys are changed: proxies pin both.
    next_key: Option<String>,
}

#[derive(ApiResponse)]
pub(crate) enum Key {
    /// The key
    #[oai(status = 200)]
    Found(Json<ProxyKey>),
}

#[OpenApi]
impl Api {
    /// The key that reverse proxies pin
    ///
    /// With it they verify what `/nginx.conf?proxy=NAME` sends.
    #[oai(
        path = "/proxy-key",
        method = "get",
        operation_id = "proxy_key_find",
        tag = "Tag::Nginx"
    )]
    async fn proxy_key_find(&self, who: Signed) -> Result<Key> {
        let keys = proxy_key::find(&who.core, &who.actor).await?;
        Ok(Key::Found(Json(ProxyKey {
            key: keys.current.to_string(),
            fingerprint: keys.current.fingerprint(),
            next_key: keys.next.map(|next| next.to_string()),
        })))
    }

    /// List the reverse proxies
    #[oai(
        path = "/proxies",
        method = "get",
        operation_id = "proxy_list",
        tag = "Tag::Nginx"
    )]
    async fn proxy_list(&self, who: Signed) -> Result<List> {
        let rows = proxy::list(&who.core, &who.actor).await?;
        let total = rows.len() as u64;
        let rows = rows.into_iter().map(Proxy::from).collect();
        Ok(List::Proxies(Json(rows), total))
    }

    /// Forget a reverse proxy
    #[oai(
        path = "/proxies/:name",
        method = "delete",
        operation_id = "proxy_delete",
        tag = "Tag::Nginx"
    )]
    async fn proxy_delete(&self, who: Signed, name: Path<String>) -> Result<Forgotten> {
        proxy::delete(&who.core, &who.actor, &name.0).await?;
        Ok(Forgotten::Gone)
    }

    /// Report a revision
    ///
    /// For pullers, by tokens of admins with the scope `nginx:report`: which configuration is live at that proxy, or which one nginx refused.
    /// Say it again every five minutes: a proxy that is silent for fifteen counts no more.
    #[oai(
        path = "/proxies/:name/revision",
        method = "post",
        operation_id = "proxy_report",
        tag = "Tag::Nginx"
    )]
    async fn proxy_report(
        &self,
        who: Signed,
        name: Path<String>,
        body: Input<RevisionReport>,
    ) -> Result<Kept> {
        // The scope is only given to admins, and their rights may lapse while Proxmox VE is away: names must go on.
        if who.token.is_none() {
            who.admin()?;
        }
        let asked = body.read()?;
        let taken = asked.taken.join(",").parse();
        let report = Report {
            revision: asked.revision.unwrap_or_default(),
            refused: asked.refused,
            down: asked.down,
            live: asked.live,
            token_expires: who.token.as_ref().and_then(|token| token.expires),
            address: who.source.ip,
            taken: taken.map_err(|error: BadValue| Error::invalid("taken", error.to_string()))?,
        };
        let kept = proxy::report(&who.core, &name.0, &report).await?;
        Ok(Kept::Proxy(Json(kept.into())))
    }
}
