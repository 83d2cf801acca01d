//! The outermost layer: every request gets an id, its budget, the core and the origin rules; every error one shape; every answer its
//! security headers.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use cac_core::audit::{self, NewEntry, Origin, Via};
use cac_core::credential::Credential;
use cac_core::{Config, Core, one_time_link};
use futures_util::FutureExt as _;
use poem::http::header::{self, HeaderName, HeaderValue};
use poem::http::{Method, StatusCode};
use poem::{Endpoint, IntoResponse as _, Request, Response};
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError};
use poem_openapi::types::ToJSON as _;
use rand::Rng as _;
use tracing::Instrument as _;

use crate::accept::prefers_html;
use crate::api::login::REAUTHENTICATE;
use crate::auth::{self, Carried, Identity, RequestId};
use crate::error::{ApiError, Told};
use crate::held_form::{self, HeldForm};
use crate::origin::Source;
use crate::{compress, input, origin, page};

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; manifest-src 'self'; \
                   form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// What no page of the portal uses, so that no script that got into one may either.
const PERMISSIONS: &str = "accelerometer=(), autoplay=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), \
                           magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=(), xr-spatial-tracking=()";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps the routes.
pub(crate) struct Edge<E> {
    pub inner: E,
    pub carried: Carried,
    pub operations: Operations,
}

/// Runs each request that may change something in a task of its own. A client that hangs up, or resets the connection, ends the
/// future that serves the connection at whatever await it stands; a change and its audit entry must not depend on that.
pub(crate) struct Detached<E>(pub Arc<E>);

impl<E: Endpoint<Output = Response> + 'static> Endpoint for Detached<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        // Reading changes nothing; streams and long polls are to end with their connection.
        if request.method().is_safe() {
            return self.0.call(request).await;
        }
        let endpoint = Arc::clone(&self.0);
        match tokio::spawn(async move { endpoint.call(request).await }).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "a request's task ended without an answer");
                Err(StatusCode::INTERNAL_SERVER_ERROR.into())
            }
        }
    }
}

/// The operations; for the `Allow` of a 405, the audit log and the metrics.
pub(crate) struct Operations {
    /// Of paths without parameters.
    plain: HashMap<String, Methods>,
    /// With the pattern of their path.
    patterns: Vec<(String, Methods)>,
}

/// Methods with the operation's id.
type Methods = Vec<(String, String)>;

impl Operations {
    /// From the OpenAPI document.
    pub(crate) fn of(spec: &str) -> Self {
        let spec: serde_json::Value = serde_json::from_str(spec).unwrap_or_default();
        let mut all = Self {
            plain: HashMap::new(),
            patterns: Vec::new(),
        };
        for (path, operations) in spec["paths"].as_object().into_iter().flatten() {
            let operations = operations.as_object().into_iter().flatten();
            let one = |(method, operation): (&String, &serde_json::Value)| {
                let id = operation["operationId"].as_str().unwrap_or_default();
                (method.to_uppercase(), id.to_owned())
            };
            let methods = operations.map(one).collect();
            if path.contains('{') {
                all.patterns.push((path.clone(), methods));
            } else {
                all.plain.insert(path.clone(), methods);
            }
        }
        all
    }

    /// A path without parameters wins: `/containers/new` is no container.
    fn at(&self, path: &str) -> &[(String, String)] {
        if let Some(methods) = self.plain.get(path) {
            return methods;
        }
        let fits = |pattern: &str| {
            let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        let mut patterns = self.patterns.iter();
        let found = patterns.find(|(pattern, _)| fits(pattern));
        found.map_or(&[], |(_, methods)| methods)
    }

    fn methods(&self, path: &str) -> String {
        let methods = self.at(path).iter();
        let mut names: Vec<&str> = methods.map(|(method, _)| method.as_str()).collect();
        if names.contains(&"GET") || names.is_empty() {
            names.push("HEAD");
        }
        if names == ["HEAD"] {
            names.insert(0, "GET");
        }
        names.join(", ")
    }

    fn id(&self, method: &Method, path: &str) -> Option<&str> {
        let mut methods = self.at(path).iter();
        methods
            .find(|(name, _)| *name == method.as_str())
            .map(|(_, id)| id.as_str())
    }
}

/// What the answer to a failed request depends on.
struct Seen {
    id: String,
    html: bool,
    method: Method,
    target: String,
    path: String,
    /// Told by whoever finds it out.
    identity: Identity,
    /// What a form of a signed-in browser sent, for when it must be sent again.
    form: OnceLock<HeldForm>,
}

impl<E: Endpoint> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let seen = Seen {
            id: format!("{:016x}", rand::rng().random::<u64>()),
            html: prefers_html(request.headers()),
            method: request.method().clone(),
            target: request
                .original_uri()
                .path_and_query()
                .map_or("/", |p| p.as_str())
                .to_owned(),
            path: request.uri().path().to_owned(),
            identity: Identity::default(),
            form: OnceLock::new(),
        };
        let gzip = compress::accepted(request.headers());
        let path = one_time_link::without_secret(request.uri().path()).into_owned();
        let span = tracing::info_span!("request", id = %seen.id, method = %seen.method, path);
        let began = Instant::now();
        // Pinned where they are, and rare ways in boxes: what is moved from one future into the next costs more than all else here.
        let answer = pin!(async {
            let source = origin::source(&self.carried.core.config, &request);
            let core = &self.carried.core;
            let left = match self.carried.limits.take(core, &request, source).await {
                Ok(left) => left,
                Err((left, error)) => {
                    let mut response = self.told(&seen, error);
                    left.tell(response.headers_mut());
                    return response;
                }
            };
            let changes = !request.method().is_safe();
            let mut method = seen.method.clone();
            let passed = {
                let passed = pin!(self.pass(request, source, &seen, &mut method));
                AssertUnwindSafe(passed).catch_unwind().await
            };
            let (mut response, detail) = match passed {
                Ok(Ok(response)) => (response, None),
                Ok(Err(error)) => self.failed(&seen, error),
                Err(panic) => {
                    let error = ApiError::internal(words(&*panic));
                    (self.told(&seen, error), None)
                }
            };
            if changes {
                Box::pin(self.record(&seen, source, &method, &response, detail)).await;
            }
            if let Some(left) = left {
                left.tell(response.headers_mut());
            }
            response
        });
        let mut response = answer.instrument(span.clone()).await;
        let (status, elapsed) = (response.status().as_u16(), began.elapsed());
        span.in_scope(|| tracing::debug!(status, ?elapsed, "answered"));
        let operation = self.operations.id(&seen.method, &seen.path);
        self.carried.served.answered(operation, status, elapsed);
        secure(&mut response, &seen, &self.carried.core.config);
        if gzip {
            response = Box::pin(compress::compress(response)).await;
        }
        Ok(response)
    }
}

impl<E: Endpoint> Edge<E> {
    /// Keeps who changed what, or tried to; whoever proved nothing only at the login, which has a budget.
    async fn record(
        &self,
        seen: &Seen,
        source: Source,
        method: &Method,
        response: &Response,
        detail: Option<String>,
    ) {
        let path = seen.path.as_str();
        let Some(action) = self.operations.id(method, path) else {
            return;
        };
        // A puller says how things stand at each reload; nobody's things are changed by that.
        if action == "proxy_report" && response.status().is_success() {
            return;
        }
        let who = seen.identity.told();
        if who.is_none() && action != "login_create" {
            return;
        }
        let who = who.unwrap_or_default();
        if who.dry {
            return;
        }
        // The change wrote its entry in its own transaction. A failure after that, such as a job's, is one more thing to know.
        let written = who.origin.as_ref().is_some_and(Origin::has_entry);
        if written && response.status().as_u16() < 400 {
            return;
        }
        let place = response.headers().get(header::LOCATION);
        let place = place.and_then(|at| at.to_str().ok()).map(ToOwned::to_owned);
        let entry = NewEntry {
            username: who.username,
            via: who.via.unwrap_or(Via::Nothing),
            token: who.token,
            address: source.ip,
            action: action.to_owned(),
            target: one_time_link::without_secret(path).into_owned(),
            status: response.status().as_u16(),
            detail: detail.or(place),
            request: Some(seen.id.clone()),
        };
        audit::record(&self.carried.core, &entry).await;
    }

    async fn pass(
        &self,
        mut request: Request,
        source: Source,
        seen: &Seen,
        method: &mut Method,
    ) -> poem::Result<Response> {
        let config = &self.carried.core.config;
        origin::check(config, &request, source)?;
        request.set_data(self.carried.clone());
        request.set_data(seen.identity.clone());
        request.set_data(RequestId(seen.id.clone()));
        if is_form(&request) {
            Box::pin(override_method(&self.carried.core, seen, &mut request)).await?;
        }
        if seen.html {
            drop_empty(&mut request);
        }
        // A form's `_method` has said which one is meant.
        method.clone_from(request.method());
        Ok(self.inner.call(request).await?.into_response())
    }

    /// The answer, and what it says.
    fn failed(&self, seen: &Seen, error: poem::Error) -> (Response, Option<String>) {
        if error.is_from_response() {
            return (error.into_response(), None);
        }
        let told = match error.downcast::<ApiError>() {
            Ok(error) => error,
            Err(other) => foreign(&other),
        };
        let detail = told.0.problem.detail.clone();
        (self.told(seen, told), Some(detail))
    }

    fn told(&self, seen: &Seen, error: ApiError) -> Response {
        // Whatever page the handler has for its own refusals, this one goes on to what was asked for.
        let held = seen.form.get().filter(|_| seen.html && error.is_unproved());
        let confirmation = held.and_then(|form| {
            let who = seen.identity.actor()?;
            form.confirmation(&self.carried.core, &seen.target, &who)
        });
        let Told {
            mut problem,
            cause,
            retry_after,
            page,
        } = *error.0;
        match cause {
            Some(cause) => tracing::error!(cause, "request failed"),
            None if matches!(problem.status, 500 | 503) => {
                tracing::warn!(detail = problem.detail, "request failed");
            }
            None => {}
        }
        problem.request_id = Some(seen.id.clone());
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let config = &self.carried.core.config;
        let mut response = match confirmation.or(page) {
            Some(page) if seen.html => html(page),
            None if seen.html && status == StatusCode::UNAUTHORIZED => {
                return to_login(config, seen);
            }
            None if seen.html => html(page::error(&problem, seen.identity.actor().as_ref())),
            _ => Response::builder()
                .content_type("application/problem+json")
                .body(problem.to_json_string()),
        };
        response.set_status(status);
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let path = seen.target.split('?').next().unwrap_or_default();
            if let Ok(methods) = HeaderValue::from_str(&self.operations.methods(path)) {
                response.headers_mut().insert(header::ALLOW, methods);
            }
        }
        if status == StatusCode::UNAUTHORIZED {
            for challenge in [
                "Cookie realm=\"cac\", form-action=\"/login\", cookie-name=cac",
                "Bearer realm=\"cac\"",
            ] {
                let headers = response.headers_mut();
                headers.append(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static(challenge),
                );
            }
        }
        response
    }
}

fn html(page: String) -> Response {
    Response::builder()
        .content_type("text/html; charset=utf-8")
        .body(page)
}

/// Where a browser without a session goes, and back from there.
fn to_login(config: &Config, seen: &Seen) -> Response {
    let back = match seen.method {
        Method::GET => origin::local_path(config, Some(&seen.target)),
        _ => "/".to_owned(),
    };
    let query: String = url::form_urlencoded::byte_serialize(back.as_bytes()).collect();
    Response::builder()
        .status(StatusCode::SEE_OTHER)
        .header(header::LOCATION, format!("/login?redirect={query}"))
        .finish()
}

/// Errors of the framework in our words.
fn foreign(error: &poem::Error) -> ApiError {
    let status = error.status();
    if let Some(error) = error.downcast_ref::<ParsePathError>() {
        tracing::debug!(%error, "bad path");
        return ApiError::new(
            StatusCode::BAD_REQUEST,
            "The number in the path must be a whole number from 1.",
        )
        .field("id", "Give a whole number from 1.");
    }
    if let Some(error) = error.downcast_ref::<ParseParamError>() {
        let message = match error.name {
            "all" | "init" | "dryRun" | "forget" | "newest" | "tokens" => "Give `true` or `false`.",
            "container" | "limit" | "offset" | "wait" | "Last-Event-ID" => {
                "Give a whole number from 0."
            }
            "status" => "Give pending, running, success, failure or cancelled.",
            "since" | "until" => "Give a time such as 2030-01-31T15:00:00Z.",
            _ => "This value is not understood.",
        };
        return ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("{}: {message}", error.name),
        )
        .field(error.name, message);
    }
    if let Some(error) = error.downcast_ref::<ContentTypeError>() {
        return ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string());
    }
    match status {
        StatusCode::NOT_FOUND => ApiError::new(status, "There is nothing at this address."),
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(
            status,
            "This address exists, but not for that method; see /docs.",
        ),
        status if status.is_server_error() => ApiError::internal(error.to_string()),
        status => ApiError::new(status, error.to_string()),
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_default())
}

fn is_form(request: &Request) -> bool {
    request.method() == Method::POST && input::content_type(request) == input::FORM
}

/// Forms can only send GET and POST: `_method` in a form's body says what they mean. One that was held back until the password was
/// given again comes as `_form`.
async fn override_method(core: &Core, seen: &Seen, request: &mut Request) -> poem::Result<()> {
    let mut bytes = input::bounded(request.take_body()).await?;
    let mut fields = input::read_form(&bytes);
    let session = match auth::credential_of(&core.config, request) {
        Some(Credential::Session(id)) => Some(id),
        _ => None,
    };
    if seen.path != REAUTHENTICATE {
        if let Some(sealed) = fields.get("_form").and_then(|v| v.as_str()) {
            let session = session.as_deref().unwrap_or_default();
            bytes = held_form::open(core, session, &seen.target, sealed)?;
            fields = input::read_form(&bytes);
        }
        if let Some(session) = session {
            let body = bytes.clone();
            let _ = seen.form.set(HeldForm { session, body });
        }
    }
    match fields.get("_method").and_then(|v| v.as_str()) {
        None | Some("POST") => {}
        Some("DELETE") => request.set_method(Method::DELETE),
        Some("PUT") => request.set_method(Method::PUT),
        Some(_) => {
            let message = "Use `DELETE` or `PUT`.";
            return Err(
                ApiError::new(StatusCode::BAD_REQUEST, format!("_method: {message}"))
                    .field("_method", message)
                    .into(),
            );
        }
    }
    request.set_body(bytes);
    Ok(())
}

/// Browsers send every field of a form: one that is left empty limits nothing.
fn drop_empty(request: &mut Request) {
    let uri = request.uri();
    let Some(query) = uri.query() else { return };
    let full = |pair: &&str| {
        pair.split_once('=')
            .is_none_or(|(_, value)| !value.is_empty())
    };
    let pairs: Vec<&str> = query.split('&').filter(full).collect();
    let left = match pairs.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), pairs.join("&")),
    };
    if left.len() < uri.path().len() + 1 + query.len()
        && let Ok(left) = left.parse()
    {
        *request.uri_mut() = left;
    }
}

/// Headers that every answer carries unless its handler chose another value.
fn secure(response: &mut Response, seen: &Seen, config: &Config) {
    let headers = response.headers_mut();
    if one_time_link::leads_to(&seen.path) {
        let value = HeaderValue::from_static("no-referrer");
        headers.insert(header::REFERRER_POLICY, value);
    }
    // Not for containers' names, under which nginx shows this page: it would hold for all their ports, also those that speak plain
    // HTTP (`name:10001`). For the same reason it never includes sub-domains.
    if config.secure() && seen.path != "/unavailable" {
        let value = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with it browsers send forms with `Origin: null`, which only one-time links accept (`origin.rs`).
        (header::REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "Accept, Cookie"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(&seen.id) {
        headers.insert(REQUEST_ID, id);
    }
}
