//! Who is signed in: the session cookie, and the two things handlers ask for, [`Signed`] and [`Anyone`].

use std::sync::Arc;

use cac_core::{Actor, Config, Core, session};
use poem::http::StatusCode;
use poem::http::header::COOKIE;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use tokio_util::sync::CancellationToken;

use crate::accept::{names_json, prefers_html};
use crate::error::{ApiError, Result};
use crate::limit::Limits;
use crate::origin::{self, Source};

const SCHEME: &str = "session";

/// What every request carries; put there by `edge.rs`.
#[derive(Clone)]
pub(crate) struct Carried {
    pub core: Core,
    /// Streams and waits end with it.
    pub stop: CancellationToken,
    pub limits: Arc<Limits>,
}

/// A request of somebody who may be signed in.
pub(crate) struct Anyone {
    pub core: Core,
    pub stop: CancellationToken,
    pub actor: Option<Actor>,
    /// The session id of the cookie, good or not.
    pub session: Option<String>,
    pub limits: Arc<Limits>,
    pub source: Source,
    pub html: bool,
    /// Whether JSON was asked for by name.
    pub json: bool,
}

/// A request of somebody who is signed in.
pub(crate) struct Signed {
    pub core: Core,
    pub stop: CancellationToken,
    pub actor: Actor,
    /// The id of the good session.
    pub session: String,
    pub html: bool,
}

impl Signed {
    /// Refuses whoever is no admin.
    pub(crate) fn admin(&self) -> Result<()> {
        if self.actor.admin {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "Only admins may do this.",
        ))
    }
}

async fn anyone(request: &Request) -> Result<Anyone> {
    let carried = request
        .data::<Carried>()
        .ok_or_else(|| ApiError::internal("a request without its core"))?;
    let core = carried.core.clone();
    let session = cookie(&core.config, request);
    let actor = match &session {
        Some(id) => session::find(&core, id).await?.inspect(|actor| {
            carried.limits.good(id.clone(), &actor.username);
        }),
        None => None,
    };
    Ok(Anyone {
        source: origin::source(&core.config, request),
        stop: carried.stop.clone(),
        limits: Arc::clone(&carried.limits),
        html: prefers_html(request.headers()),
        json: names_json(request.headers()),
        core,
        actor,
        session,
    })
}

/// Under TLS the prefix makes browsers refuse the cookie from any other host or path.
fn name(config: &Config) -> &'static str {
    if config.secure() { "__Host-cac" } else { "cac" }
}

/// The session id that a request carries, good or not.
pub(crate) fn cookie(config: &Config, request: &Request) -> Option<String> {
    let values = request.headers().get_all(COOKIE).iter();
    let mut pairs = values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'));
    pairs.find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name(config)).then(|| value.to_owned())
    })
}

/// `Set-Cookie` for a session, or for its end.
pub(crate) fn set_cookie(config: &Config, session: Option<&str>) -> String {
    let secure = if config.secure() { "; Secure" } else { "" };
    let age = session.map_or(0, |_| session::LIFETIME.num_seconds());
    let value = session.unwrap_or_default();
    format!(
        "{}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}",
        name(config)
    )
}

fn register(registry: &mut Registry) {
    let scheme = MetaSecurityScheme {
        ty: "apiKey",
        description: Some(
            "The cookie that POST /login sets; its name is `__Host-cac` where the portal is reached over TLS.",
        ),
        name: Some("cac"),
        key_in: Some("cookie"),
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    };
    registry.create_security_scheme(SCHEME, scheme);
}

impl<'a> ApiExtractor<'a> for Signed {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let who = anyone(request).await?;
        let (actor, session) = who
            .actor
            .zip(who.session)
            .ok_or_else(ApiError::unauthenticated)?;
        Ok(Self {
            core: who.core,
            stop: who.stop,
            actor,
            session,
            html: who.html,
        })
    }
}

impl<'a> ApiExtractor<'a> for Anyone {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    fn has_security_fallback() -> bool {
        true
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(anyone(request).await?)
    }
}
