//! The Proxmox VE client: typed calls of the JSON API that say what a caller may do after a failure. It keeps no
//! state but a login ticket, repeats nothing on its own but a refused ticket, and knows nothing of containers' rows.
//!
//! - `access` users, rights, second factor · `cluster` numbers, nodes, storages · `lxc` containers · `task` UPIDs
//! - `http` one call on the wire · `auth` tickets · `tls` trust · `wire` Proxmox's loose types · `error` what to do next
//!
//! Speaks HTTP/1.1 only: many refusals carry their text in the reason phrase and nowhere else.

mod access;
mod auth;
mod cluster;
mod error;
mod http;
mod lxc;
mod task;
mod tls;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use url::Url;
use zeroize::Zeroizing;

pub use access::{NewUser, Permissions, User};
pub use auth::{Login, Ticket};
pub use cluster::{Bridge, Content, NodeInfo, Resource, Storage, Template, Version};
pub use error::Error;
pub(crate) use error::is_lock_text;
pub use lxc::{
    Interface, IpAddress, LxcChange, LxcConfig, LxcStatus, Net, NewClone, NewLxc, Sample, Snapshot,
};
pub use task::{BadUpid, ExitStatus, Task, TaskStatus, Upid};
pub use tls::{BadFingerprint, Fingerprint, Tls};

/// Time to reach a node: TCP and TLS together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole call, reply included. pveproxy itself gives up on its workers after 30 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// pveproxy closes idle connections after 5 s; ours go before, so that no request meets a dying one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a Proxmox VE answers, how its certificate is trusted, and who we are there.
#[derive(Debug, Clone)]
pub struct Target {
    /// `https://host:8006`, with or without `/api2/json`; `http://` is refused.
    pub api_url: String,
    pub tls: Tls,
    pub auth: Auth,
}

/// Who the calls are made as.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Nobody: enough for [`Pve::login`], each other call would be refused after three seconds.
    None,
    /// An API token; `id` is `user@realm!name`.
    Token { id: String, secret: Secret },
    /// A login that is kept and renewed: after one hour (a ticket lives two), and once when a ticket is refused.
    Password { user: String, password: Secret },
}

/// Text that neither `Debug` nor `Display` shows, and that is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A `String` is taken over with its memory; of a borrowed text the caller keeps a copy.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the wire or for encryption; never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The monotonic clock that decides when a ticket is renewed.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// A Proxmox VE as one user or token. Clones share one connection pool and one login.
#[derive(Clone)]
pub struct Pve {
    wire: Arc<http::Wire>,
    acting: auth::Acting,
}

impl fmt::Debug for Pve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pve")
            .field("base", &self.wire.base)
            .field("acting", &self.acting)
            .finish()
    }
}

impl Pve {
    /// Checks the address and the credentials' form; connects to nothing yet.
    pub fn new(target: Target) -> Result<Self, Error> {
        Self::with_timeouts(target, CONNECT_TIMEOUT, REQUEST_TIMEOUT)
    }

    /// As [`Pve::new`], with own limits for reaching the node and for one whole call.
    pub fn with_timeouts(
        target: Target,
        connect: Duration,
        request: Duration,
    ) -> Result<Self, Error> {
        let base = base_url(&target.api_url)?;
        let acting = acting(target.auth)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(&target.tls)?)
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(connect)
            .timeout(request)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(concat!("cac/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::setup(format!("no HTTPS client: {error}")))?;
        Ok(Self {
            wire: Arc::new(http::Wire {
                client,
                base,
                connect,
                request,
            }),
            acting,
        })
    }

    /// The same target with its own clock and a fresh login; for tests of the renewal.
    pub fn with_clock(&self, clock: Clock) -> Self {
        Self {
            wire: self.wire.clone(),
            acting: self.acting.with_clock(clock),
        }
    }

    /// The same connections, acting as the user whose ticket this is.
    pub fn with_ticket(&self, ticket: &Ticket) -> Self {
        Self {
            wire: self.wire.clone(),
            acting: auth::Acting::Ticket(Arc::new(ticket.clone())),
        }
    }

    /// The fingerprint of the certificate that answers at `api_url` now, for showing it to a person on first contact.
    /// Nothing is sent but the TLS handshake.
    pub async fn fingerprint_of(api_url: &str) -> Result<Fingerprint, Error> {
        let url =
            Url::parse(&base_url(api_url)?).map_err(|error| Error::setup(error.to_string()))?;
        tls::presented(&url, CONNECT_TIMEOUT).await
    }
}

fn acting(auth: Auth) -> Result<auth::Acting, Error> {
    Ok(match auth {
        Auth::None => auth::Acting::Nobody,
        Auth::Token { id, secret } => {
            if !id.contains('@') || !id.contains('!') {
                return Err(Error::setup(format!(
                    "{id:?} is not the ID of an API token: it must have the form user@realm!name"
                )));
            }
            let text = Zeroizing::new(format!("PVEAPIToken={id}={}", secret.expose()));
            let mut header = HeaderValue::from_str(&text).map_err(|_| {
                Error::setup("the API token has characters that cannot stand in a header")
            })?;
            header.set_sensitive(true);
            auth::Acting::Token { id, header }
        }
        Auth::Password { user, password } => auth::Acting::session(user, password),
    })
}

/// `https://host:port` and an optional prefix, without a trailing slash and without `/api2/json`.
fn base_url(text: &str) -> Result<String, Error> {
    let wrong = |why: &str| {
        Error::setup(format!(
            "{text:?} is not the address of a Proxmox VE API: {why}; it looks like https://pve.example.com:8006"
        ))
    };
    let mut url = Url::parse(text.trim()).map_err(|error| wrong(&error.to_string()))?;
    if url.scheme() != "https" {
        return Err(wrong("it must begin with https://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("credentials do not belong in it"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must end after the path"));
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/api2/json").unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in [
            "https://pve.example.com:8006",
            "https://pve.example.com:8006/",
            " https://pve.example.com:8006/api2/json ",
            "https://pve.example.com:8006/api2/json/",
        ] {
            assert_eq!(
                base_url(good).expect(good),
                "https://pve.example.com:8006",
                "{good}"
            );
        }
        assert_eq!(
            base_url("https://h/pve/api2/json").expect("prefix"),
            "https://h/pve"
        );
        for bad in [
            "",
            "pve:8006",
            "http://pve:8006",
            "https://",
            "https://a:b@pve",
            "https://pve?x=1",
            "https://pve#x",
        ] {
            let error = base_url(bad).expect_err(bad);
            assert!(!error.is_transient(), "{error}");
            assert!(error.to_string().contains("https://pve.example.com:8006"));
        }
    }

    #[test]
    fn secrets_stay_secret() {
        let target = Target {
            api_url: "https://127.0.0.1:8006".to_owned(),
            tls: Tls::Off,
            auth: Auth::Token {
                id: "svc@pve!api".to_owned(),
                secret: Secret::new("5ec2e7"),
            },
        };
        assert!(!format!("{target:?}").contains("5ec2e7"));
        let pve = Pve::new(target).expect("a client");
        assert!(!format!("{pve:?}").contains("5ec2e7"), "{pve:?}");
        assert!(format!("{pve:?}").contains("svc@pve!api"));
        assert_eq!(Secret::new("5ec2e7").to_string(), "…");
    }
}
