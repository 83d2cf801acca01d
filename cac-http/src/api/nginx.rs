//! The reverse proxy's configuration, for pullers.

use std::time::Duration;

use cac_core::nginx::statement::is_proxy_name;
use cac_core::routes::{self, Away, Variant};
use cac_core::{proxy, proxy_key};
use poem::http::StatusCode;
use poem_openapi::param::{Header, Query};
use poem_openapi::payload::{Html, PlainText};
use poem_openapi::{ApiResponse, OpenApi};
use tokio::time::Instant;

use super::Tag;
use crate::auth::Anyone;
use crate::error::{ApiError, Result};
use crate::{origin, page};

pub(crate) struct Api;

/// The longest time an unchanged answer is held back.
const LONGEST: u64 = 300;
/// How often a change that another process made is looked for.
const LOOK: Duration = Duration::from_secs(1);

#[derive(ApiResponse)]
pub(crate) enum Configuration {
    /// A whole nginx.conf
    #[oai(status = 200)]
    File(
        PlainText<String>,
        #[oai(header = "ETag")] String,
        #[oai(header = "Cache-Control")] String,
        /// Where `proxy` was given: what the portal says about the file, in Base64.
        #[oai(header = "Cac-Statement")]
        Option<String>,
        /// The portal's Ed25519 signature of that, in Base64.
        #[oai(header = "Cac-Signature")]
        Option<String>,
    ),
    /// It is still what `If-None-Match` names
    #[oai(status = 304)]
    Unchanged(
        #[oai(header = "ETag")] String,
        #[oai(header = "Cache-Control")] String,
    ),
}

#[derive(ApiResponse)]
pub(crate) enum Unavailable {
    /// That it is starting, stopped or down
    #[oai(status = 503)]
    Page(Html<String>, #[oai(header = "Retry-After")] u64),
    /// Nothing has that name
    #[oai(status = 404)]
    Unknown(Html<String>),
}

#[OpenApi]
impl Api {
    /// The nginx configuration of all published services
    ///
    /// For machines of `NGINX_CONF_ALLOW`, for admins, and for their tokens with `nginx:read`.
    #[oai(
        path = "/nginx.conf",
        method = "get",
        operation_id = "nginx_find",
        tag = "Tag::Nginx"
    )]
    #[allow(clippy::too_many_arguments, reason = "one for each query parameter")]
    async fn nginx_find(
        &self,
        who: Anyone,
        /// The entity tag of the file that the client has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
        /// Seconds, 300 at most, for which an unchanged answer is held back.
        wait: Query<Option<u64>>,
        /// The version of the nginx that reads it, such as `1.22` or `1.25.3`; left out: `NGINX_VERSION`.
        nginx: Query<Option<String>>,
        /// Whether that one can speak HTTP/3; it is told to with `NGINX_HTTP3=on`.
        http3: Query<Option<bool>>,
        /// Where its stream module is: `builtin`, `dynamic` for the file of `NGINX_STREAM_MODULE`, or `none`; left out: as configured.
        stream: Query<Option<String>>,
        /// Ports that other programs have on its machine, as a comma list: what would listen there is left out.
        taken: Query<Option<String>>,
        /// The name of the reverse proxy: the answer is signed for it, with the key of `GET /proxy-key`.
        proxy: Query<Option<String>>,
    ) -> Result<Configuration> {
        may_read(&who).await?;
        let variant = Variant::parse(
            &who.core,
            nginx.0.as_deref(),
            http3.0,
            stream.0.as_deref(),
            taken.0.as_deref(),
        )?;
        let proxy = proxy.0.as_deref();
        if proxy.is_some_and(|name| !is_proxy_name(name)) {
            return Err(cac_core::Error::invalid("proxy", proxy::NAME_RULE).into());
        }
        if proxy.is_none() && (who.token.is_some() || who.actor.is_none()) {
            note_unsigned(&who).await;
        }
        let has = if_none_match.0.unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(wait.0.unwrap_or(0).min(LONGEST));
        let mut changed = who.core.wake.watch_routes();
        let mut open = None;
        loop {
            changed.mark_unchanged();
            let newest = routes::file(&who.core, &variant).await?;
            let etag = newest.etag.clone();
            if !names(&has, &etag) {
                let signed = match proxy {
                    Some(proxy) => {
                        let signed =
                            proxy_key::sign(&who.core, proxy, newest.revision, &newest.text);
                        Some(signed.await?)
                    }
                    None => None,
                };
                let (statement, signature) = signed
                    .map(|signed| (signed.statement, signed.signature))
                    .unzip();
                return Ok(Configuration::File(
                    PlainText(newest.text.clone()),
                    etag,
                    "no-cache".to_owned(),
                    statement,
                    signature,
                ));
            }
            if Instant::now() >= deadline || who.stop.is_cancelled() {
                return Ok(Configuration::Unchanged(etag, "no-cache".to_owned()));
            }
            if open.is_none() {
                open = Some(who.limits.open_wait(waiter(&who))?);
            }
            tokio::select! {
                () = who.stop.cancelled() => {}
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK)) => {}
            }
        }
    }

    /// Why a container does not answer
    ///
    /// As a page, for reverse proxies: nginx asks for it where a container cannot be reached.
    #[oai(
        path = "/unavailable",
        method = "get",
        operation_id = "unavailable_find",
        tag = "Tag::Nginx"
    )]
    async fn unavailable_find(
        &self,
        who: Anyone,
        /// The public name that was asked for.
        name: Query<String>,
    ) -> Result<Unavailable> {
        let away = routes::away(&who.core, &name.0).await?;
        let page = Html(page::unavailable(&name.0, &away));
        Ok(match away {
            Away::Unknown => Unavailable::Unknown(page),
            _ => Unavailable::Page(page, 5),
        })
    }
}

/// A note that fails keeps no proxy from its file.
async fn note_unsigned(who: &Anyone) {
    let Some(address) = who.source.ip else {
        return;
    };
    if let Err(error) = proxy_key::note_unsigned(&who.core, &address.to_string()).await {
        tracing::warn!(%error, "a read without a signature is not noted");
    }
}

async fn may_read(who: &Anyone) -> Result<()> {
    let allowed = &who.core.config.nginx_conf_allow;
    let local = origin::is_machine(&who.core, who.source, allowed).await?;
    match &who.actor {
        _ if local || who.token.is_some() => Ok(()),
        Some(actor) if actor.admin => Ok(()),
        Some(_) => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "Only admins and machines of NGINX_CONF_ALLOW may read this.",
        )),
        None => Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "Sign in as an admin, or ask from a machine of NGINX_CONF_ALLOW.",
        )),
    }
}

/// Whose waits are counted together: those of one token, which each proxy has its own of, of one user, or of one machine.
fn waiter(who: &Anyone) -> String {
    match (&who.token, &who.actor, who.source.ip) {
        (Some(token), ..) => format!("token {}", token.id),
        (None, Some(actor), _) => format!("user {}", actor.username),
        (None, None, Some(ip)) => format!("machine {ip}"),
        (None, None, None) => "this machine".to_owned(),
    }
}

/// `If-None-Match` compares weakly (RFC 9110, 13.1.2).
fn names(if_none_match: &str, etag: &str) -> bool {
    let mut tags = if_none_match.split(',').map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}
