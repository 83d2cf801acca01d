//! `nginx.conf` from typed data: a whole file, the same bytes for the same state. It knows no database and decides
//! nobody's rights.
//!
//! Services share one TLS block and a `map` of literal addresses: nginx reads ten thousand names in some
//! milliseconds, where a block for each takes seconds and hundreds of megabytes.

mod allowed;
pub mod certificate;
pub mod found;
mod guarded;
pub mod helper;
mod installed;
pub mod keep;
mod lexer;
mod ports;
mod process;
pub mod proxy;
mod render;
pub mod statement;
mod value;
mod verified;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use allowed::LocalLimits;
pub use certificate::{Certificate, self_signed};
pub use found::{Flavour, Found, StreamModule, find_nginx};
pub use guarded::{ApplyFailure, ApplyResult, FailureReason, GuardedNginx, NginxStatus};
pub use helper::ProxyNginx;
pub use installed::Footing;
pub use keep::{Fault, Kept, Live, keep};
pub use ports::TakenPorts;
pub use proxy::{Applied, Proxy, ProxyConfig, ProxyError};
pub use render::{etag, render, unfit};
pub use statement::{FileOrder, PinnedKey, SignedStatement, SigningKey, Statement, StatementError};
pub use value::{BadValue, ConfigPath, HeaderName, PublicName, UserName};
pub use verified::{ProxyTrust, SignedFile};

/// A web server that answers at a public name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HttpService {
    /// What the browser asks for.
    pub name: PublicName,
    /// Where the container answers.
    pub upstream: SocketAddr,
    pub options: HttpOptions,
}

/// In what a web service deviates from the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpOptions {
    /// The container speaks HTTPS itself; its certificate is not checked, since nobody else answers at its address.
    pub https: bool,
    /// Largest body of a request in MiB, where it is not 2048.
    pub max_body: Option<u32>,
    /// Seconds for which the container may be silent, where it is not an hour.
    pub timeout: Option<u32>,
}

/// What a stream service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A TCP or UDP port of the proxy that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamService {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The proxy's port, on each address of [`Settings::stream_listen`].
    pub port: u16,
    /// Where the container answers.
    pub upstream: SocketAddr,
    /// Only tcp: nginx ends TLS with the certificate of the settings.
    pub tls: bool,
}

/// Where nginx writes its errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorLog {
    /// To whoever started it; `proxy::Proxy` needs this.
    Stderr,
    File(ConfigPath),
}

/// Headers by which proxies that sign people in tell applications who they are. Applications that trust them believe whoever sends them.
pub const IDENTITY_HEADERS: [&str; 8] = [
    "X-User",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "Remote-User",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "Forwarded",
];

/// Everything in the file that is not a service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Port 80: redirects known names to the first of `https_listen`, or proxies where that is empty. An entry with
    /// port 0, or that is in `https_listen` too, is ignored.
    pub http_listen: Vec<SocketAddr>,
    /// Port 443.
    pub https_listen: Vec<SocketAddr>,
    /// Addresses on which stream services listen.
    pub stream_listen: Vec<IpAddr>,
    /// PEM, leaf first.
    pub certificate: ConfigPath,
    /// PEM.
    pub certificate_key: ConfigPath,
    pub pid: ConfigPath,
    pub error_log: ErrorLog,
    /// Without one nothing is logged about requests.
    pub access_log: Option<ConfigPath>,
    /// Account of the workers; without one it is nginx' built-in choice (as root) or whoever started it.
    pub user: Option<UserName>,
    pub flavour: Flavour,
    /// HTTP/3, where the flavour has it. nginx to 1.26 at least cuts what is under way over HTTP/3 at each reload, so nobody gets it
    /// who did not ask for it.
    pub http3: bool,
    pub stream_module: StreamModule,
    /// Folder for nginx' temporary files; it must exist. Without one nginx uses its built-in places.
    pub temp_dir: Option<ConfigPath>,
    /// The portal's own name and address; a service cannot take the name from it.
    pub portal: Option<(PublicName, SocketAddr)>,
    /// Headers by which applications are told who somebody is; what clients send by these names never reaches a container.
    pub removed_headers: Vec<HeaderName>,
    /// Read at the end of the `http` block, as `/etc/nginx/conf.d/*.conf`.
    pub include: Option<ConfigPath>,
    /// Connections of each worker, to clients and containers together.
    pub worker_connections: u32,
    /// Raises the workers' limit of open files; needs root.
    pub open_files: Option<u32>,
    /// How long workers of an older configuration may finish what they carry, in whole seconds.
    pub worker_shutdown: Duration,
}

impl Settings {
    /// A system nginx as Debian installs it: every address, ports 80 and 443, workers as `www-data`.
    pub fn debian(certificate: ConfigPath, certificate_key: ConfigPath) -> Self {
        let any = [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ];
        let known = |text: &str| text.parse::<ConfigPath>().expect("a plain path");
        Self {
            http_listen: any.iter().map(|&ip| SocketAddr::new(ip, 80)).collect(),
            https_listen: any.iter().map(|&ip| SocketAddr::new(ip, 443)).collect(),
            stream_listen: any.to_vec(),
            certificate,
            certificate_key,
            pid: known("/run/nginx.pid"),
            error_log: ErrorLog::File(known("/var/log/nginx/error.log")),
            access_log: Some(known("/var/log/nginx/access.log")),
            user: Some("www-data".parse().expect("a plain name")),
            flavour: Flavour::Debian1_22,
            http3: false,
            stream_module: StreamModule::debian(),
            temp_dir: None,
            portal: None,
            removed_headers: IDENTITY_HEADERS
                .iter()
                .map(|name| name.parse().expect("a plain name"))
                .collect(),
            include: None,
            worker_connections: 4096,
            open_files: Some(16384),
            worker_shutdown: Duration::from_secs(600),
        }
    }

    /// An nginx of our own below `prefix` , for root and for ordinary users alike. The caller
    /// sets `http_listen`, `https_listen` and `stream_listen`, which begin empty.
    pub fn private(
        found: &Found,
        prefix: &Path,
        certificate: &Certificate,
    ) -> Result<Self, BadValue> {
        let prefix = ConfigPath::try_from(prefix)?;
        Ok(Self {
            http_listen: Vec::new(),
            https_listen: Vec::new(),
            stream_listen: Vec::new(),
            pid: prefix.join("nginx.pid")?,
            error_log: ErrorLog::Stderr,
            access_log: None,
            user: None,
            flavour: found.flavour(),
            stream_module: found.stream_module.clone(),
            temp_dir: Some(prefix.join("temp")?),
            worker_connections: 512,
            open_files: None,
            ..Self::debian(
                ConfigPath::try_from(certificate.certificate.as_path())?,
                ConfigPath::try_from(certificate.key.as_path())?,
            )
        })
    }
}

/// One service, of either kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Service {
    Http(HttpService),
    Stream(StreamService),
}

impl Service {
    /// The external port that is this service's alone.
    pub fn port(&self) -> Option<(u16, Protocol)> {
        match self {
            Self::Http(_) => None,
            Self::Stream(service) => Some((service.port, service.protocol)),
        }
    }
}

/// A service that could not stand in the file beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub service: Service,
    /// A sentence fit for its owner.
    pub reason: String,
}

/// A whole `nginx.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// Strong entity tag: the quoted SHA-256 of `text` in hexadecimal.
    pub etag: String,
    /// In the order of the file.
    pub left_out: Vec<LeftOut>,
}
