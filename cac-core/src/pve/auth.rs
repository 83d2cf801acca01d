//! Logging in, and keeping a login: who the calls act as. Passwords stay in memory only for [`super::Auth::Password`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::http::{Call, Wire, parse};
use super::{Clock, Error, Pve, Secret};

/// A ticket lives two hours.
const RENEW_AFTER: Duration = Duration::from_secs(60 * 60);
/// How long a ticket is still used while it cannot be renewed; leaves five minutes for differing clocks.
const USE_UP_TO: Duration = Duration::from_secs(115 * 60);
/// Pause between tries to renew a ticket that still works.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
const CSRF: HeaderName = HeaderName::from_static("csrfpreventiontoken");

/// Proof of a login, good for two hours. `user` is `name@realm` as Proxmox VE spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub user: String,
    pub ticket: Secret,
    pub csrf: Secret,
}

/// What a right password leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    Ticket(Ticket),
    /// Proxmox VE wants a second factor: `kinds` such as `totp`, `recovery`, `webauthn`. Go on with
    /// [`Pve::login_second_factor`]; the challenge itself opens nothing.
    SecondFactor {
        challenge: Secret,
        kinds: Vec<String>,
    },
}

#[derive(Deserialize)]
struct Answer {
    username: String,
    ticket: String,
    #[serde(rename = "CSRFPreventionToken")]
    csrf: String,
    #[serde(rename = "NeedTFA", default, deserialize_with = "super::wire::loose")]
    need_tfa: Option<bool>,
}

impl Pve {
    /// Logs in as `user` (`name@realm`). A wrong password, an unknown, disabled or expired user and an unknown realm
    /// are all the same 401, after three seconds.
    pub async fn login(&self, user: &str, password: &Secret) -> Result<Login, Error> {
        login(&self.wire, user, password, None).await
    }

    /// Answers the challenge; `response` is `totp:123456` or `recovery:KEY`. A wrong code is 401.
    pub async fn login_second_factor(
        &self,
        user: &str,
        challenge: &Secret,
        response: &Secret,
    ) -> Result<Login, Error> {
        login(&self.wire, user, response, Some(challenge)).await
    }
}

async fn login(
    wire: &Wire,
    user: &str,
    password: &Secret,
    challenge: Option<&Secret>,
) -> Result<Login, Error> {
    let call = Call::new(Method::POST, &["access", "ticket"])?
        .with("username", user)
        .with("password", password.expose())
        .with_some("tfa-challenge", challenge.map(Secret::expose));
    let body = Zeroizing::new(wire.send(&call, HeaderMap::new()).await?);
    let answer: Answer = parse(&call, &body)?.data;
    let ticket = Secret::new(answer.ticket);
    if answer.need_tfa == Some(true) {
        let kinds = second_factors(ticket.expose());
        return Ok(Login::SecondFactor {
            challenge: ticket,
            kinds,
        });
    }
    Ok(Login::Ticket(Ticket {
        user: answer.username,
        ticket,
        csrf: Secret::new(answer.csrf),
    }))
}

/// `PVE:!tfa!{"totp"%3Atrue,…}:TIME::SIGNATURE`: the keys that offer something.
fn second_factors(challenge: &str) -> Vec<String> {
    let json = challenge
        .split_once("!tfa!")
        .and_then(|(_, rest)| rest.split_once(':'))
        .map(|(json, _)| percent_decode_str(json).decode_utf8_lossy());
    let offers = json
        .and_then(|json| serde_json::from_str::<BTreeMap<String, _>>(&json).ok())
        .unwrap_or_default();
    let useful = |value: &serde_json::Value| match value {
        serde_json::Value::Null => false,
        serde_json::Value::Bool(flag) => *flag,
        serde_json::Value::Array(list) => !list.is_empty(),
        serde_json::Value::String(text) => text != "unavailable",
        _ => true,
    };
    offers
        .into_iter()
        .filter(|(_, value)| useful(value))
        .map(|(kind, _)| kind)
        .collect()
}

/// Who the calls are made as.
#[derive(Clone)]
pub(super) enum Acting {
    Nobody,
    Token { id: String, header: HeaderValue },
    Ticket(Arc<Ticket>),
    Session(Arc<Session>),
}

impl fmt::Debug for Acting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Token { id, .. } => write!(f, "token {id}"),
            Self::Ticket(ticket) => write!(f, "ticket of {}", ticket.user),
            Self::Session(session) => write!(f, "login of {}", session.user),
        }
    }
}

/// What one call is sent with.
pub(super) enum Credentials {
    None,
    Token(HeaderValue),
    Ticket(Arc<Ticket>),
}

impl Credentials {
    /// The CSRF token goes with a ticket's writes only; tokens need none.
    pub(super) fn headers(&self, writes: bool) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        match self {
            Self::None => {}
            Self::Token(header) => {
                headers.insert(AUTHORIZATION, header.clone());
            }
            Self::Ticket(ticket) => {
                let cookie = utf8_percent_encode(ticket.ticket.expose(), NON_ALPHANUMERIC);
                headers.insert(COOKIE, sensitive(&format!("PVEAuthCookie={cookie}"))?);
                if writes {
                    headers.insert(CSRF, sensitive(ticket.csrf.expose())?);
                }
            }
        }
        Ok(headers)
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::setup("the ticket has characters that cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Acting {
    pub(super) fn session(user: String, password: Secret) -> Self {
        Self::Session(Arc::new(Session {
            user,
            password,
            clock: Arc::new(Instant::now),
            state: Mutex::new(State::default()),
        }))
    }

    pub(super) fn with_clock(&self, clock: Clock) -> Self {
        match self {
            Self::Session(session) => Self::Session(Arc::new(Session {
                user: session.user.clone(),
                password: session.password.clone(),
                clock,
                state: Mutex::new(State::default()),
            })),
            other => other.clone(),
        }
    }

    /// Logs in first where that is due: trying without costs three seconds.
    pub(super) async fn credentials(&self, wire: &Wire) -> Result<Credentials, Error> {
        Ok(match self {
            Self::Nobody => Credentials::None,
            Self::Token { header, .. } => Credentials::Token(header.clone()),
            Self::Ticket(ticket) => Credentials::Ticket(ticket.clone()),
            Self::Session(session) => Credentials::Ticket(session.ticket(wire, None).await?),
        })
    }

    /// After a 401: other credentials worth a second try, if we can get any.
    pub(super) async fn replace(
        &self,
        wire: &Wire,
        refused: &Credentials,
    ) -> Result<Option<Credentials>, Error> {
        match (self, refused) {
            (Self::Session(session), Credentials::Ticket(ticket)) => {
                let fresh = session.ticket(wire, Some(ticket)).await?;
                Ok(Some(Credentials::Ticket(fresh)))
            }
            _ => Ok(None),
        }
    }
}

/// A login that is kept. The lock is held while logging in, so that many callers make one login.
pub(super) struct Session {
    user: String,
    password: Secret,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    failed: Option<(Instant, Error)>,
}

struct Held {
    ticket: Arc<Ticket>,
    renew_at: Instant,
    dead_at: Instant,
}

impl Session {
    /// A ticket that is fit for use and is not `refused`.
    async fn ticket(
        &self,
        wire: &Wire,
        refused: Option<&Arc<Ticket>>,
    ) -> Result<Arc<Ticket>, Error> {
        let asked = (self.clock)();
        let mut state = self.state.lock().await;
        let now = (self.clock)();
        if let Some((failed_at, error)) = &state.failed
            && *failed_at >= asked
        {
            // Somebody else's login failed while we waited for it; ours would fail three seconds later.
            return Err(error.clone());
        }
        let held = state.held.as_ref().filter(|held| {
            now < held.dead_at && refused.is_none_or(|refused| !Arc::ptr_eq(refused, &held.ticket))
        });
        if let Some(held) = held
            && now < held.renew_at
        {
            return Ok(held.ticket.clone());
        }
        let usable = held.map(|held| held.ticket.clone());
        match self.log_in(wire).await {
            Ok(ticket) => {
                let ticket = Arc::new(ticket);
                state.failed = None;
                state.held = Some(Held {
                    ticket: ticket.clone(),
                    renew_at: now + RENEW_AFTER,
                    dead_at: now + USE_UP_TO,
                });
                Ok(ticket)
            }
            Err(error) => match (usable, &mut state.held) {
                (Some(ticket), Some(held)) if error.is_transient() => {
                    held.renew_at = now + RENEW_AGAIN;
                    Ok(ticket)
                }
                _ => {
                    state.held = None;
                    state.failed = Some(((self.clock)(), error.clone()));
                    Err(error)
                }
            },
        }
    }

    async fn log_in(&self, wire: &Wire) -> Result<Ticket, Error> {
        match login(wire, &self.user, &self.password, None).await {
            Ok(Login::Ticket(ticket)) => Ok(ticket),
            Ok(Login::SecondFactor { .. }) => Err(Error::setup(format!(
                "{} needs a second factor, so a program cannot log in as it; use an API token",
                self.user
            ))),
            // Logging in twice harms nobody, and whoever waits for the ticket has sent nothing yet.
            Err(Error::MaybeSent { call, cause, .. }) => Err(Error::Unsent {
                call,
                cause,
                transient: true,
            }),
            Err(Error::BadReply { call, cause, .. }) => Err(Error::Unsent {
                call,
                cause,
                transient: false,
            }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_factors_on_offer() {
        let kinds = |json: &str| second_factors(&format!("PVE:!tfa!{json}:6B03F1F5::c2ln"));
        assert_eq!(
            kinds(r#"{"totp"%3Atrue,"recovery"%3A[0,1,2]}"#),
            ["recovery", "totp"]
        );
        assert_eq!(
            kinds(r#"{"recovery"%3A"unavailable","totp"%3Atrue}"#),
            ["totp"]
        );
        assert_eq!(kinds(r#"{"totp"%3Afalse,"recovery"%3A[]}"#), [""; 0]);
        assert_eq!(kinds("garbage"), [""; 0]);
        assert_eq!(second_factors("PVE:alice@pve:6B03F1F5::c2ln"), [""; 0]);
    }
}
