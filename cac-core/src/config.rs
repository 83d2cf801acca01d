//! The configuration: read from the environment and `.env`, checked as a whole, every problem told with what to do.
//! Not the settings that an installation remembers about itself ([`crate::setting`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;
use zeroize::Zeroizing;

use crate::container::Sizes;
use crate::pve::{Fingerprint, Secret, Tls};
use crate::quota::Limits;
use crate::reach::{self, Reach, Web};
use crate::service::Protocols;
use crate::task::Tasks;

mod account;
mod dotenv;
mod mail;
mod nginx;
mod people;
mod read;
mod reader;
mod secrets;
mod web;
pub use read::{Problems, Vars};

/// Which program asks; each demands only what it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The web server.
    Http,
    /// The job runner.
    Runner,
    /// Local commands: migrations, nodes.
    Local,
}

/// `NODE_ENV`: what is asked for and what is left to defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    Development,
    Production,
}

/// Everything the programs take from their environment. The README's table lists each variable.
#[derive(Debug, Clone)]
pub struct Config {
    pub environment: Environment,
    /// With its password, so it is a secret as a whole.
    pub database_url: Secret,
    /// Connections to a database server at most.
    pub database_connections: u32,
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    /// Where other processes wake this one (UDP), on databases that carry no notices.
    pub wake_listen: SocketAddr,
    /// Where browsers reach the portal; links and `Location` begin with it.
    pub public_url: Url,
    /// The domain under which containers get their names.
    pub domain: String,
    /// Further accepted `Host` values (`CAC_HOSTS`).
    pub hosts: Vec<String>,
    pub session_secret: Secret,
    /// What secrets in the database are encrypted with; absent: they are not.
    pub secret_key: Option<Secret>,
    pub proxmox: Proxmox,
    pub trusted_proxies: Vec<IpNet>,
    pub rate_limits: RateLimits,
    pub open_limits: OpenLimits,
    pub registration_allow: Vec<IpNet>,
    pub nginx_conf_allow: Vec<IpNet>,
    pub metrics_allow: Vec<IpNet>,
    pub containers: Containers,
    /// What one user may have, unless an admin says otherwise.
    pub quota: Limits,
    pub runner: Runner,
    /// How long an API token may last at most; one that is made without an end lasts that long.
    pub token_lifetime: chrono::Duration,
    /// How many account requests are taken.
    pub account_requests: crate::account_request::Limits,
    pub retention: Retention,
    /// Programs that may be started by name.
    pub tasks: Tasks,
    pub nginx: crate::nginx::Settings,
    /// Absent: no mail is sent.
    pub mail: Option<crate::mail::Settings>,
    /// Whom `security.txt` names: an address of the web or of mail; absent: the first of `MAIL_ADMIN`.
    pub security_contact: Option<SecurityContact>,
    /// Where people change their password; absent: a page says that Proxmox VE has it.
    pub change_password_url: Option<Url>,
}

/// `SECURITY_CONTACT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityContact {
    /// An `https:`, `mailto:` or `tel:` address.
    Address(Url),
    /// There is no `security.txt`.
    Nobody,
}

/// Where people sign in, and who is an admin.
#[derive(Debug, Clone)]
pub struct Proxmox {
    /// `PROXMOX_URL`; without it the enabled node with the lowest id is the login node.
    pub url: Option<String>,
    /// `PROXMOX_TOKEN_ID` and `PROXMOX_TOKEN_SECRET`: the service token that looks up admin rights.
    pub token: Option<(String, Secret)>,
    pub tls: Tls,
    pub realm: String,
    pub admin_group: String,
    /// The group that people with an approved account request come into.
    pub user_group: Option<String>,
}

/// What containers may be.
#[derive(Debug, Clone)]
pub struct Containers {
    /// The port on which a container's ssh server listens.
    pub ssh_port: u16,
    /// External ports for ssh.
    pub ssh_ports: RangeInclusive<u16>,
    /// External ports for every other tcp or udp service.
    pub service_ports: RangeInclusive<u16>,
    /// The lowest web port that containers can listen on, with the reason where it is not 80.
    pub lowest_web_port: (u16, Option<String>),
    /// Networks in which upstream addresses must lie.
    pub networks: Vec<IpNet>,
    /// Networks in which they must not lie (`CONTAINER_NETWORKS_EXCEPT`).
    pub networks_except: Vec<IpNet>,
    /// How many containers' addresses are read each second in turn.
    pub address_reads: usize,
    pub reserved_hostnames: Vec<String>,
    /// Whether names in other alphabets (`xn--…`) may be given.
    pub idn: bool,
    pub protocols: Protocols,
    pub cores: u32,
    pub memory: u32,
    pub disk: u32,
    /// What users may choose by name.
    pub sizes: Sizes,
    /// How many containers one node makes at once.
    pub creates_per_node: u32,
}

/// How long rows stay; absent: for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub audit: Option<Duration>,
    /// Since they finished.
    pub jobs: Option<Duration>,
    /// A repeated request is recognized for 24 h; never less.
    pub idempotency: Option<Duration>,
    pub login_failures: Option<Duration>,
}

/// The job runner.
#[derive(Debug, Clone)]
pub struct Runner {
    pub poll: Duration,
    pub cwd: PathBuf,
    pub concurrency: usize,
    pub shell_jobs: bool,
    /// How long a claim holds without being renewed.
    pub lease: Duration,
    /// How long Proxmox VE may be away before a job gives up.
    pub patience: Duration,
    /// How long each step on a container may take.
    pub limits: StepLimits,
    /// How long the children of a shell job get between TERM and KILL.
    pub grace: Duration,
    /// How long a shell job may run.
    pub shell_limit: Duration,
    /// How many bytes of a command's output are kept.
    pub output_limit: u64,
    /// After how long the output of ended jobs is removed; absent: never.
    pub output_age: Option<Duration>,
    /// The account that shell jobs run as; absent: our own.
    pub user: Option<Account>,
    /// A program of ours that keeps each shell job's whole tree in hand ([`crate::job::supervisor`]); programs name
    /// themselves here. Absent: only the process group is.
    pub supervisor: Option<PathBuf>,
}

/// How long Proxmox VE may take for one step; what is not done by then is stopped and told.
#[derive(Debug, Clone, Copy)]
pub struct StepLimits {
    /// Unpacking a template, or cloning one.
    pub create: Duration,
    pub start: Duration,
    /// From its start until a container has an address.
    pub address: Duration,
    /// Everything else: shutting down, destroying, snapshots, disks.
    pub task: Duration,
}

impl Runner {
    /// Whether a shell job may do anything on this machine.
    #[must_use]
    pub fn runs_as_root(&self) -> bool {
        match &self.user {
            Some(account) => account.uid == 0,
            None => rustix::process::geteuid().is_root(),
        }
    }
}

/// A row of the system's table of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl Config {
    /// Reads and checks everything that `program` uses.
    pub fn load(vars: &Vars, program: Program) -> Result<Self, Problems> {
        read::config(vars, program, secrets::Files::Made)
    }

    /// Like [`Config::load`], but makes no file: secrets that the program would make for itself are left out where there is none yet.
    pub fn inspect(vars: &Vars, program: Program) -> Result<Self, Problems> {
        read::config(vars, program, secrets::Files::Read)
    }

    /// Whether links are `https:`, and cookies therefore `Secure`.
    #[must_use]
    pub fn secure(&self) -> bool {
        self.public_url.scheme() == "https"
    }

    /// What `security.txt` names, if there is one.
    #[must_use]
    pub fn published_contact(&self) -> Option<String> {
        match &self.security_contact {
            Some(SecurityContact::Address(address)) => Some(address.to_string()),
            Some(SecurityContact::Nobody) => None,
            None => {
                let admins = &self.mail.as_ref()?.admins;
                admins
                    .first()
                    .map(|admin| format!("mailto:{}", admin.email))
            }
        }
    }

    /// A container's public name: labels are rendered under the domain, other names stand for themselves.
    #[must_use]
    pub fn full_name(&self, name: &str) -> String {
        reach::full_name(name, &self.domain)
    }

    /// How containers are reached.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach {
            portal: self.public_url.clone(),
            domain: self.domain.clone(),
            web: match (
                self.nginx.https_listen.first(),
                self.nginx.http_listen.first(),
            ) {
                (Some(at), _) => Some(Web::Https(at.port())),
                (None, Some(at)) => Some(Web::Http(at.port())),
                (None, None) => None,
            },
            ssh_port: self.containers.ssh_port,
        }
    }
}

/// How many requests one web server takes in a while.
#[derive(Debug, Clone)]
pub struct RateLimits {
    /// Of one address without a good session.
    pub strangers: u32,
    /// Of one signed-in user.
    pub users: u32,
    pub window: Duration,
}

/// How much one client may hold open at once, at one web server.
#[derive(Debug, Clone)]
pub struct OpenLimits {
    /// Connections of one address that is no trusted proxy.
    pub connections: usize,
    /// Event streams of one user.
    pub streams: usize,
    /// Answers that one proxy, user or machine has held back (`/nginx.conf?wait=`).
    pub waits: usize,
}

/// The environment of this process, and beneath it the file `.env` of the working directory.
pub fn environment() -> Result<Vars, Problems> {
    let refused = |why: String| Problems(vec![format!("The file .env cannot be used: {why}.")]);
    let mut vars = match std::fs::read_to_string(".env").map(Zeroizing::new) {
        Ok(text) => dotenv::parse(&text).map_err(refused)?,
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let why = "this user may not read it; with the Debian packages run the command with `sudo -u cac-http`";
            return Err(refused(why.to_owned()));
        }
        Err(error) => return Err(refused(error.to_string())),
    };
    // What is not UTF-8 cannot be one of ours.
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    vars.extend(std::env::vars_os().filter_map(text));
    Ok(Vars(vars))
}

/// `PROXMOX_TLS`, and the same words for a node: `system`, `off`, or a SHA-256 fingerprint.
pub fn tls(text: &str) -> Result<Tls, String> {
    match text {
        "" | "system" | "verify" => Ok(Tls::SystemRoots),
        "off" => Ok(Tls::Off),
        other => other.parse::<Fingerprint>().map(Tls::Fingerprint).map_err(|_| {
            "must be `system`, `off` or the certificate's SHA-256 fingerprint (`pvenode cert info` shows it)".to_owned()
        }),
    }
}
