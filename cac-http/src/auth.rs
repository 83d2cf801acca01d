//! Who is signed in, by the session's cookie or an API token, and the two things handlers ask for, [`Signed`] and [`Anyone`].

use std::sync::{Arc, Mutex};

use cac_core::audit::{Origin, Via};
use cac_core::credential::{self, Credential};
use cac_core::pve::Secret;
use cac_core::token::{Held, Scope};
use cac_core::{Actor, Config, Core, session, sign_in_origin};
use poem::http::header::{AUTHORIZATION, COOKIE};
use poem::http::{HeaderMap, Method, StatusCode};
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use tokio_util::sync::CancellationToken;

use crate::accept::{names_json, prefers_html};
use crate::error::{ApiError, Result};
use crate::limit::Limits;
use crate::metrics::Served;
use crate::origin::{self, Source};
use crate::readiness::Readiness;
use crate::scope;

const SESSION: &str = "session";
const TOKEN: &str = "token";

/// What every request carries; put there by `edge.rs`.
#[derive(Clone)]
pub(crate) struct Carried {
    pub core: Core,
    /// Streams and waits end with it.
    pub stop: CancellationToken,
    pub limits: Arc<Limits>,
    pub readiness: Arc<Readiness>,
    pub served: Arc<Served>,
}

/// Who a request turned out to be from, for the audit log; told by handlers, read by `edge.rs`.
#[derive(Clone, Default)]
pub(crate) struct Identity(Arc<Mutex<Option<Told>>>);

/// What was found out.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub username: Option<String>,
    pub via: Option<Via>,
    pub token: Option<i64>,
    pub admin: bool,
    /// It only asked what would happen.
    pub dry: bool,
    /// Shared with the actor, so that it says whether a transaction wrote the request's entry.
    pub origin: Option<Origin>,
}

impl Identity {
    pub(crate) fn only_asks(&self) {
        if let Some(told) = self.held().as_mut() {
            told.dry = true;
        }
    }

    pub(crate) fn tell(&self, told: Told) {
        *self.held() = Some(told);
    }

    pub(crate) fn told(&self) -> Option<Told> {
        self.held().clone()
    }

    /// Whoever is signed in.
    pub(crate) fn actor(&self) -> Option<Actor> {
        let told = self.told()?;
        let signed = matches!(told.via, Some(Via::Session | Via::Token));
        Some(Actor::new(told.username.filter(|_| signed)?, told.admin))
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Told>> {
        self.0.lock().expect("nothing panics while it holds it")
    }
}

/// Names a request in the log and in errors.
#[derive(Clone, Default)]
pub(crate) struct RequestId(pub String);

/// A request of somebody who may be signed in.
pub(crate) struct Anyone {
    pub core: Core,
    pub stop: CancellationToken,
    pub actor: Option<Actor>,
    /// What the request carries, good or not; a token is always good, since the request is refused otherwise.
    pub credential: Option<Credential>,
    /// Absent for a session.
    pub token: Option<Held>,
    pub limits: Arc<Limits>,
    pub served: Arc<Served>,
    pub source: Source,
    /// What the audit log says of this request, whoever it is from.
    pub origin: Origin,
    pub identity: Identity,
    pub request: RequestId,
    pub html: bool,
    /// Whether JSON was asked for by name.
    pub json: bool,
}

/// A request of somebody who is signed in.
pub(crate) struct Signed {
    pub core: Core,
    pub stop: CancellationToken,
    pub actor: Actor,
    /// The good session or token.
    pub credential: Credential,
    /// Absent for a session.
    pub token: Option<Held>,
    pub limits: Arc<Limits>,
    pub request: RequestId,
    /// Where the request comes from.
    pub source: Source,
    pub html: bool,
}

impl Anyone {
    /// The id of the session's cookie, good or not.
    pub(crate) fn session(&self) -> Option<&str> {
        match &self.credential {
            Some(Credential::Session(id)) => Some(id),
            _ => None,
        }
    }

    /// Refuses a token without this scope, where one address serves several.
    pub(crate) fn needs(&self, scope: Scope) -> Result<()> {
        match &self.token {
            Some(token) if !token.may(scope) => Err(scope::missing(&[scope])),
            _ => Ok(()),
        }
    }
}

impl Signed {
    /// Refuses a session whose password was given too long ago. API tokens are not asked: programs hold them, which know no
    /// password, and an admin's was given when the token was created.
    pub(crate) async fn must_be_proved(&self) -> Result<()> {
        must_be_proved(&self.core, Some(&self.credential)).await
    }

    /// Refuses whoever is no admin.
    pub(crate) fn admin(&self) -> Result<()> {
        Ok(self.actor.must_be_admin()?)
    }
}

/// [`Signed::must_be_proved`] where a machine may come without a credential.
pub(crate) async fn must_be_proved(core: &Core, credential: Option<&Credential>) -> Result<()> {
    match credential {
        Some(Credential::Session(id)) if !session::is_proved(core, id).await? => {
            Err(ApiError::unproved())
        }
        _ => Ok(()),
    }
}

async fn anyone(request: &Request) -> Result<Anyone> {
    let carried = request
        .data::<Carried>()
        .ok_or_else(|| ApiError::internal("a request without its core"))?;
    let core = carried.core.clone();
    let credential = credential_of(&core.config, request);
    let known = match &credential {
        Some(credential) => Box::pin(credential::find(&core, credential)).await?,
        None => None,
    };
    let (actor, token) = match known {
        Some(known) => {
            if let Some(credential) = &credential {
                let budget = budget(&known);
                carried.limits.good(credential.clone(), budget);
            }
            (Some(known.actor), known.token)
        }
        None => {
            if let Some(credential) = &credential {
                carried.limits.bad(credential);
            }
            (None, None)
        }
    };
    let identity = request.data::<Identity>().cloned().unwrap_or_default();
    let source = origin::source(&core.config, request);
    let request_id = request.data::<RequestId>().cloned().unwrap_or_default();
    let mut origin = Origin::new(Via::Nothing).at(source.ip);
    origin.request = Some(request_id.0.clone());
    let actor = actor.map(|actor| {
        origin.via = match &token {
            Some(_) => Via::Token,
            None => Via::Session,
        };
        origin.token = token.as_ref().map(|token| token.id);
        actor.from_origin(origin.clone())
    });
    if let Some(actor) = &actor {
        identity.tell(Told {
            username: Some(actor.username.clone()),
            via: Some(origin.via),
            token: origin.token,
            admin: actor.admin,
            dry: false,
            origin: Some(origin.clone()),
        });
    }
    if token.is_none() && matches!(credential, Some(Credential::Token(_))) {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "This API token is not known, has expired, or its owner may not sign in any more; make another one (POST /tokens).",
        ));
    }
    if let Some(token) = &token {
        let needed = scope::needed(request.method(), request.uri().path());
        // Whatever it is for, it may end itself.
        let own = request.method() == Method::DELETE
            && request.uri().path() == format!("/tokens/{}", token.id);
        if !own && !needed.iter().any(|scope| token.may(*scope)) {
            return Err(scope::missing(needed));
        }
    }
    Ok(Anyone {
        source,
        origin,
        stop: carried.stop.clone(),
        limits: Arc::clone(&carried.limits),
        served: Arc::clone(&carried.served),
        html: prefers_html(request.headers()),
        json: names_json(request.headers()),
        core,
        actor,
        credential,
        token,
        identity,
        request: request_id,
    })
}

/// Whose requests are counted together: those of a user's sessions, and those of each token.
pub(crate) fn budget(known: &credential::Known) -> String {
    match &known.token {
        Some(token) => format!("token {}", token.id),
        None => known.actor.username.clone(),
    }
}

/// What a request proves itself with, good or not; a token wins.
pub(crate) fn credential_of(config: &Config, request: &Request) -> Option<Credential> {
    bearer(request)
        .map(Credential::Token)
        .or_else(|| cookie(config, request).map(Credential::Session))
}

fn bearer(request: &Request) -> Option<String> {
    let text = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.trim().split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim().to_owned())
}

/// Under TLS the prefix makes browsers refuse the cookie from any other host or path.
fn name(config: &Config) -> &'static str {
    if config.secure() { "__Host-cac" } else { "cac" }
}

/// The cookie by which a device is known at the next sign-in.
fn device_name(config: &Config) -> &'static str {
    if config.secure() {
        "__Host-cac-device"
    } else {
        "cac-device"
    }
}

/// The session id that a request carries, good or not.
fn cookie(config: &Config, request: &Request) -> Option<String> {
    cookie_named(name(config), request.headers())
}

/// The device's cookie that a request carries, good or not.
pub(crate) fn device(config: &Config, headers: &HeaderMap) -> Option<Secret> {
    cookie_named(device_name(config), headers).map(Secret::new)
}

fn cookie_named(name: &str, headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(COOKIE).iter();
    let mut pairs = values
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'));
    pairs.find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

/// `Set-Cookie` for a device; it outlives the session.
pub(crate) fn set_device_cookie(config: &Config, cookie: &Secret) -> String {
    let secure = if config.secure() { "; Secure" } else { "" };
    format!(
        "{}={}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
        device_name(config),
        cookie.expose(),
        sign_in_origin::LIFETIME.num_seconds()
    )
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
    registry.create_security_scheme(SESSION, scheme);
    let scheme = MetaSecurityScheme {
        ty: "http",
        description: Some(
            "An API token (`POST /tokens`); it may do what its scopes say, and never more than its owner.",
        ),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    };
    registry.create_security_scheme(TOKEN, scheme);
}

impl<'a> ApiExtractor<'a> for Signed {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SESSION, TOKEN]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let who = anyone(request).await?;
        let (actor, credential) = who
            .actor
            .zip(who.credential)
            .ok_or_else(ApiError::unauthenticated)?;
        Ok(Self {
            core: who.core,
            stop: who.stop,
            actor,
            credential,
            token: who.token,
            limits: who.limits,
            request: who.request,
            source: who.source,
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
        vec![SESSION, TOKEN]
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
