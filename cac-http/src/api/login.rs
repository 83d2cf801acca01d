//! Signing in and out.

use cac_core::audit::Via;
use cac_core::credential::Credential;
use cac_core::pve::Secret;
use cac_core::session::Client;
use cac_core::user::{self, Device, SecondFactor, SignIn};
use cac_core::{Actor, Error, session};
use chrono::{DateTime, Utc};
use poem::Request;
use poem::http::header::SET_COOKIE;
use poem::http::{HeaderMap, StatusCode};
use poem_openapi::param::Query;
use poem_openapi::payload::{Html, Json, Response};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::auth::{self, Anyone, Told, set_cookie, set_device_cookie};
use crate::error::{ApiError, Result};
use crate::input::{Input, shown};
use crate::origin::{self, local_path};
use crate::page;

pub(crate) struct Api;

/// Where the password is given again.
pub(crate) const REAUTHENTICATE: &str = "/reauthenticate";

/// Proxmox VE credentials.
#[derive(Object)]
pub(crate) struct Credentials {
    /// A Proxmox VE user name, `alice` or `alice@pam`.
    username: Option<String>,
    /// Not needed in the second step.
    password: Option<String>,
    /// In the second step: the challenge of the first one's answer.
    challenge: Option<String>,
    /// In the second step: six digits, or in Proxmox VE's form such as `recovery:KEY`.
    code: Option<String>,
    /// A path of this site to go to afterwards.
    redirect: Option<String>,
}

/// That it worked, and where to go now.
#[derive(Object)]
pub(crate) struct Signed {
    success: bool,
    /// A path of this site.
    redirect: String,
}

/// The password again, or in the second step the code.
#[derive(Object)]
pub(crate) struct ProofRequest {
    /// Not needed in the second step.
    password: Option<String>,
    /// In the second step: the challenge of the first one's answer.
    challenge: Option<String>,
    /// In the second step: six digits, or in Proxmox VE's form such as `recovery:KEY`.
    code: Option<String>,
}

/// That it was right.
#[derive(Object)]
pub(crate) struct Proved {
    success: bool,
    /// Until when it counts.
    until: DateTime<Utc>,
}

#[derive(ApiResponse)]
pub(crate) enum ProvedOutcome {
    /// It was right
    #[oai(status = 200)]
    Done(Json<Proved>),
    /// For the form that was held back: it is sent again
    #[oai(status = 307)]
    Again(#[oai(header = "Location")] String),
    /// For browsers that sent no form: to the start page
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Page {
    /// The page
    #[oai(status = 200)]
    Login(Html<String>),
    /// Already signed in
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

/// Both carry the seed's JSON, so that scripts that send forms find it, too.
#[derive(ApiResponse)]
pub(crate) enum Outcome {
    /// Done
    #[oai(status = 200)]
    Done(Json<Signed>, #[oai(header = "Set-Cookie")] String),
    /// The same for a plain form that does not ask for JSON
    #[oai(status = 303)]
    There(
        Json<Signed>,
        #[oai(header = "Location")] String,
        #[oai(header = "Set-Cookie")] String,
    ),
}

impl Outcome {
    fn new(who: &Anyone, there: bool, cookie: Option<&str>, redirect: String) -> Self {
        let cookie = set_cookie(&who.core.config, cookie);
        let body = Json(Signed {
            success: true,
            redirect: redirect.clone(),
        });
        if there {
            return Self::There(body, redirect, cookie);
        }
        Self::Done(body, cookie)
    }
}

#[OpenApi]
impl Api {
    /// The login page
    #[oai(
        path = "/login",
        method = "get",
        operation_id = "login_page",
        tag = "Tag::Login"
    )]
    async fn login_page(&self, who: Anyone, redirect: Query<Option<String>>) -> Result<Page> {
        let target = local_path(&who.core.config, redirect.0.as_deref());
        if who.actor.is_some() {
            return Ok(Page::There(target));
        }
        Ok(Page::Login(Html(page::login::first(&target, "", None))))
    }

    /// Sign in
    ///
    /// With a Proxmox VE account. Where Proxmox VE asks for a second factor the answer is 401 with `challenge` and `kinds`;
    /// send `username`, `challenge` and `code` then. A second cookie, `cac-device` (`__Host-cac-device` over TLS), makes the device
    /// known: failed sign-ins from elsewhere do not slow down the next sign-in from it. Too many failures are answered by 429 with
    /// `Retry-After`.
    #[oai(
        path = "/login",
        method = "post",
        operation_id = "login_create",
        tag = "Tag::Login"
    )]
    async fn login_create(
        &self,
        who: Anyone,
        headers: &HeaderMap,
        redirect: Query<Option<String>>,
        body: Input<Credentials>,
    ) -> Result<Response<Outcome>> {
        let asked = body.read_some()?;
        let there = who.html || body.form && !who.json;
        let target = local_path(
            &who.core.config,
            asked.redirect.as_deref().or(redirect.0.as_deref()),
        );
        let username = asked.username.clone().unwrap_or_default();
        match sign_in(&who, headers, asked).await {
            Ok((session, actor, device)) => {
                let credential = Credential::Session(session.clone());
                who.limits.good(credential, actor.username);
                if let Some(old) = who.session() {
                    session::discard(&who.core, old, &who.origin).await?;
                }
                let config = &who.core.config;
                // Both cookies: these headers take the place of the outcome's one.
                let outcome = Outcome::new(&who, there, Some(&session), target);
                Ok(Response::new(outcome)
                    .header(SET_COOKIE, set_cookie(config, Some(&session)))
                    .header(SET_COOKIE, set_device_cookie(config, &device.cookie)))
            }
            Err(error) => Err(with_page(error, &target, &username, &shown(&body.raw))),
        }
    }

    /// Give the password again
    ///
    /// Some acts of a session need the password (and the second factor) to have been given within 15 minutes: they answer 403 with the
    /// `type` `urn:cac:reauthentication-required` otherwise. Where Proxmox VE asks for a second factor the answer here is the same with
    /// `challenge` and `kinds`; send `challenge` and `code` then. API tokens are never asked.
    #[oai(
        path = "/reauthenticate",
        method = "post",
        operation_id = "session_reauthenticate",
        tag = "Tag::Login"
    )]
    async fn session_reauthenticate(
        &self,
        who: auth::Signed,
        request: &Request,
        body: Input<ProofRequest>,
    ) -> Result<ProvedOutcome> {
        let sent = shown(&body.raw);
        let kept = |name| sent.get(name).map(String::as_str).unwrap_or_default();
        let again = page::login::Again {
            to: &local_path(&who.core.config, Some(kept("_to"))),
            form: kept("_form"),
        };
        match prove(&who, request, &body).await {
            Ok(()) if !who.html => Ok(ProvedOutcome::Done(Json(Proved {
                success: true,
                until: who.core.clock.now() + session::PROOF_LIFETIME,
            }))),
            Ok(()) if again.form.is_empty() => Ok(ProvedOutcome::There("/".to_owned())),
            Ok(()) => Ok(ProvedOutcome::Again(again.to.to_owned())),
            Err(error) => {
                let problem = &error.0.problem;
                let asked_now = problem.challenge.as_deref();
                let problem = asked_now.is_none().then_some(problem);
                let page = page::login::confirm(&who.actor, &again, asked_now, problem);
                Err(error.with_page(page))
            }
        }
    }

    /// Sign out
    #[oai(
        path = "/logout",
        method = "post",
        operation_id = "login_delete",
        tag = "Tag::Login"
    )]
    async fn login_delete(&self, who: Anyone) -> Result<Outcome> {
        match (&who.actor, who.session()) {
            (Some(actor), Some(session)) => session::delete(&who.core, actor, session).await?,
            (None, Some(session)) => session::discard(&who.core, session, &who.origin).await?,
            (_, None) => {}
        }
        Ok(Outcome::new(&who, who.html, None, "/login".to_owned()))
    }
}

async fn prove(who: &auth::Signed, request: &Request, body: &Input<ProofRequest>) -> Result<()> {
    let Credential::Session(session) = &who.credential else {
        let text = "API tokens are never asked for a password; only sessions of browsers are.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, text));
    };
    let asked = body.read()?;
    let secret = |text: Option<String>| Secret::new(text.unwrap_or_default());
    let second = asked
        .challenge
        .filter(|c| !c.is_empty())
        .map(|challenge| SecondFactor {
            challenge: Secret::new(challenge),
            code: secret(asked.code),
        });
    let password = secret(asked.password);
    let credentials = user::Credentials {
        password: &password,
        second: second.as_ref(),
    };
    let client = Client {
        address: origin::source(&who.core.config, request).ip,
        device: auth::device(&who.core.config, request.headers()),
        ..Client::default()
    };
    match user::reauthenticate(&who.core, &who.actor, session, credentials, &client).await? {
        user::Proof::Done => Ok(()),
        user::Proof::SecondFactor { challenge, kinds } => {
            let mut error = ApiError::unproved();
            error.0.problem.detail =
                "Proxmox VE asks for a second factor: send `challenge` and `code`.".to_owned();
            error.0.problem.challenge = Some(challenge.expose().to_owned());
            error.0.problem.kinds = Some(kinds);
            Err(error)
        }
    }
}

async fn sign_in(
    who: &Anyone,
    headers: &HeaderMap,
    asked: Credentials,
) -> Result<(String, Actor, Device)> {
    let secret = |text: Option<String>| Secret::new(text.unwrap_or_default());
    let second = asked
        .challenge
        .filter(|c| !c.is_empty())
        .map(|challenge| SecondFactor {
            challenge: Secret::new(challenge),
            code: secret(asked.code),
        });
    if second
        .as_ref()
        .is_some_and(|second| second.code.expose().trim().is_empty())
    {
        return Err(Error::invalid("code", "Give the code of your second factor.").into());
    }
    let username = asked.username.unwrap_or_default();
    // The name as it is stored; what is none may be a password in the wrong field.
    who.identity.tell(Told {
        username: user::canonical(&who.core, &username).ok(),
        origin: Some(who.origin.clone()),
        ..Told::default()
    });
    let password = secret(asked.password);
    let agent = headers
        .get("user-agent")
        .and_then(|text| text.to_str().ok());
    let client = Client {
        address: who.source.ip,
        user_agent: agent.map(ToOwned::to_owned),
        request: Some(who.request.0.clone()),
        device: auth::device(&who.core.config, headers),
    };
    match user::sign_in(&who.core, &username, &password, second.as_ref(), &client).await? {
        SignIn::Done {
            session,
            actor,
            device,
        } => {
            who.identity.tell(Told {
                username: Some(actor.username.clone()),
                via: Some(Via::Session),
                origin: Some(actor.origin.clone()),
                ..Told::default()
            });
            Ok((session, actor, device))
        }
        SignIn::SecondFactor { challenge, kinds } => {
            let mut error = ApiError::new(
                StatusCode::UNAUTHORIZED,
                "Proxmox VE asks for a second factor: send `username`, `challenge` and `code`.",
            );
            error.0.problem.challenge = Some(challenge.expose().to_owned());
            error.0.problem.kinds = Some(kinds);
            Err(error)
        }
    }
}

/// The login page again, with what went wrong; in the second step with the challenge.
fn with_page(
    error: ApiError,
    target: &str,
    username: &str,
    sent: &std::collections::BTreeMap<String, String>,
) -> ApiError {
    let problem = &error.0.problem;
    let asked_now = problem.challenge.as_deref();
    let challenge = asked_now
        .or(sent.get("challenge").map(String::as_str))
        .filter(|c| !c.is_empty());
    let page = match challenge {
        Some(challenge) => {
            let told = asked_now.is_none().then_some(problem);
            page::login::second(target, username, challenge, told)
        }
        None => page::login::first(target, username, Some(problem)),
    };
    error.with_page(page)
}
