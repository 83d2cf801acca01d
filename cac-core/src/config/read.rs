//! Reading the configuration. Every problem is collected, so that one start shows them all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;
use zeroize::{Zeroize as _, Zeroizing};

use super::account::runner_user;
use super::mail::mail;
use super::nginx::{nginx, portal};
use super::people::{account_requests, token_lifetime};
use super::reader::Reader;
use super::secrets::{Files, secret_key, session_secret};
use super::web::{change_password_url, open_limits, rate_limits, security_contact};
use super::{Config, Containers, Environment, Program, Proxmox, Retention, Runner, StepLimits};
use crate::container::Sizes;
use crate::pve::Secret;
use crate::quota::Limits;
use crate::service::Protocols;
use crate::task::Tasks;

/// The variables a configuration is read from. Their values are overwritten when it is dropped, and `Debug` shows names only:
/// several are secrets.
#[derive(Clone, Default)]
pub struct Vars(pub BTreeMap<String, String>);

impl std::fmt::Debug for Vars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Drop for Vars {
    fn drop(&mut self) {
        for value in self.0.values_mut() {
            value.zeroize();
        }
    }
}

impl Vars {
    /// The value of a variable; an empty one counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|v| v.trim()).filter(|v| !v.is_empty())
    }

    /// Sets a variable, for a program that makes its own configuration.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

/// What is wrong with the configuration: one sentence a variable, each saying what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

pub(super) fn config(vars: &Vars, program: Program, files: Files) -> Result<Config, Problems> {
    let mut r = Reader {
        vars,
        problems: Vec::new(),
        production: false,
    };
    let environment = match vars.get("NODE_ENV") {
        None | Some("development" | "test") => Environment::Development,
        Some("production") => Environment::Production,
        Some(other) => {
            let message = format!("must be `development` or `production`; it is `{other}`");
            r.problem("NODE_ENV", message);
            Environment::Development
        }
    };
    r.production = environment == Environment::Production;
    let data_dir = PathBuf::from(r.text("CAC_DATA_DIR", "data"));
    let database_url = database_url(&mut r, &data_dir);
    let database_connections = r.parse(
        "DATABASE_CONNECTIONS",
        crate::db::CONNECTIONS,
        "a number of connections",
    );
    if database_connections < 4 {
        r.problem("DATABASE_CONNECTIONS", "must be at least 4");
    }
    let sqlite = database_url.expose().starts_with("sqlite:");
    let listen = listen(&mut r);
    let public_url = public_url(&mut r, program, listen);
    let domain = domain(&mut r, program);
    let loopback = if r.production {
        ""
    } else {
        "127.0.0.0/8,::1/128"
    };
    let mut config = Config {
        environment,
        session_secret: Secret::new(""),
        secret_key: None,
        hosts: r.list("CAC_HOSTS", "", "host names"),
        proxmox: proxmox(&mut r),
        quota: quota(&mut r),
        rate_limits: rate_limits(&mut r),
        open_limits: open_limits(&mut r),
        trusted_proxies: r.networks("TRUSTED_PROXIES", "127.0.0.0/8,::1/128"),
        registration_allow: r.networks("REGISTRATION_ALLOW", loopback),
        nginx_conf_allow: r.networks("NGINX_CONF_ALLOW", loopback),
        metrics_allow: r.networks("METRICS_ALLOW", loopback),
        containers: containers(&mut r),
        runner: runner(&mut r, program),
        retention: retention(&mut r),
        tasks: tasks(&mut r, program),
        nginx: nginx(&mut r, &domain),
        mail: mail(&mut r),
        token_lifetime: token_lifetime(&mut r),
        account_requests: account_requests(&mut r),
        security_contact: security_contact(&mut r),
        change_password_url: change_password_url(&mut r),
        database_url,
        database_connections,
        data_dir,
        listen,
        wake_listen: wake_listen(&mut r),
        public_url,
        domain,
    };
    config.nginx.portal = portal(&mut r, &config);
    // Last, since they may make files: a configuration that is refused leaves nothing behind.
    let session = config.data_dir.join("session-secret");
    let session = sqlite.then_some(session);
    config.session_secret = session_secret(&mut r, program, session.as_deref(), files);
    config.secret_key = secret_key(&mut r, program, config.database_url.expose(), files);
    if r.problems.is_empty() {
        Ok(config)
    } else {
        Err(Problems(r.problems))
    }
}

/// 0 is for ever.
fn days(r: &mut Reader<'_>, name: &str, default: u64) -> Option<Duration> {
    let days: u64 = r.parse(name, default, "a number of days, or 0 for ever");
    (days > 0).then(|| Duration::from_secs(days.min(36_500) * 86_400))
}

fn retention(r: &mut Reader<'_>) -> Retention {
    Retention {
        audit: days(r, "AUDIT_DAYS", 365),
        jobs: days(r, "JOB_DAYS", 0),
        idempotency: days(r, "IDEMPOTENCY_DAYS", 1),
        login_failures: days(r, "LOGIN_FAILURE_DAYS", 30),
    }
}

fn database_url(r: &mut Reader<'_>, data_dir: &std::path::Path) -> Secret {
    if let Some(url) = r.vars.get("DATABASE_URL") {
        let known = ["sqlite:", "mysql:", "mariadb:", "postgres:", "postgresql:"];
        if !known.iter().any(|scheme| url.starts_with(scheme)) {
            r.problem(
                "DATABASE_URL",
                "must begin with `sqlite:`, `mariadb:`, `mysql:` or `postgres:`",
            );
        }
        return Secret::new(url);
    }
    let named = ["MYSQL_HOST", "MYSQL_USER", "MYSQL_DATABASE"];
    if !named.iter().any(|name| r.vars.get(name).is_some()) {
        if r.production {
            r.problem("DATABASE_URL", "(or MYSQL_HOST, MYSQL_USER, MYSQL_PASSWORD and MYSQL_DATABASE) must name the database in production");
        }
        return Secret::new(format!("sqlite:{}", data_dir.join("cac.db").display()));
    }
    let encode =
        |text: &str| Zeroizing::new(utf8_percent_encode(text, NON_ALPHANUMERIC).to_string());
    let port = r.parse("MYSQL_PORT", 3306_u16, "a port number");
    let mut required = |name: &str| {
        let value = r.text(name, "");
        if value.is_empty() {
            r.problem(name, "is missing; set it beside the other MYSQL_ variables");
        }
        value
    };
    let (user, database) = (required("MYSQL_USER"), required("MYSQL_DATABASE"));
    let host = r.text("MYSQL_HOST", "localhost");
    let password = Zeroizing::new(r.text("MYSQL_PASSWORD", ""));
    Secret::new(format!(
        "mariadb://{}:{}@{host}:{port}/{}",
        *encode(&user),
        *encode(&password),
        *encode(&database)
    ))
}

fn listen(r: &mut Reader<'_>) -> SocketAddr {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 3000));
    let mut listen = r.parse(
        "CAC_LISTEN",
        default,
        "an address and port such as `127.0.0.1:3000`",
    );
    listen.set_port(r.parse("PORT", listen.port(), "a port number"));
    listen
}

fn wake_listen(r: &mut Reader<'_>) -> SocketAddr {
    let listen = r.parse(
        "CAC_WAKE_LISTEN",
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        "an address and port such as `127.0.0.1:0`, where 0 takes any free port",
    );
    if listen.ip().is_unspecified() {
        r.problem(
            "CAC_WAKE_LISTEN",
            "must be one address of this machine that the other processes reach, since they are told it",
        );
    }
    listen
}

fn public_url(r: &mut Reader<'_>, program: Program, listen: SocketAddr) -> Url {
    // `localhost` means the first loopback address only; 127.0.0.2 is another.
    let local = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::from(Ipv6Addr::LOCALHOST),
        Ipv6Addr::UNSPECIFIED.into(),
    ];
    let host = match listen.ip() {
        ip if local.contains(&ip) => "localhost".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let default = format!("http://{host}:{}/", listen.port());
    if r.production && program == Program::Http && r.vars.get("CAC_PUBLIC_URL").is_none() {
        r.problem("CAC_PUBLIC_URL", "must say under which address browsers reach the portal, such as `https://portal.example.org`");
    }
    let text = r.text("CAC_PUBLIC_URL", &default);
    match Url::parse(&text) {
        Ok(url)
            if matches!(url.scheme(), "http" | "https")
                && url.host_str().is_some()
                && url.path() == "/" =>
        {
            url
        }
        _ => {
            r.problem(
                "CAC_PUBLIC_URL",
                "must be an address without a path, such as `https://portal.example.org`",
            );
            Url::parse(&default).expect("made from a socket address")
        }
    }
}

fn domain(r: &mut Reader<'_>, program: Program) -> String {
    if r.production && program == Program::Http && r.vars.get("CAC_DOMAIN").is_none() {
        r.problem("CAC_DOMAIN", "must name the domain under which containers get their names, such as `apps.example.org`");
    }
    let domain = r.text("CAC_DOMAIN", "cac.localhost").to_lowercase();
    if domain.parse::<crate::nginx::PublicName>().is_err() {
        r.problem(
            "CAC_DOMAIN",
            format!("must be a domain name such as `apps.example.org`; it is `{domain}`"),
        );
    }
    domain
}

fn proxmox(r: &mut Reader<'_>) -> Proxmox {
    let token = match (
        r.vars.get("PROXMOX_TOKEN_ID"),
        r.vars.get("PROXMOX_TOKEN_SECRET"),
    ) {
        (Some(id), Some(secret)) => Some((id.to_owned(), Secret::new(secret))),
        (None, None) => None,
        _ => {
            r.problem(
                "PROXMOX_TOKEN_ID",
                "and PROXMOX_TOKEN_SECRET belong together; set both or none",
            );
            None
        }
    };
    let url = r.vars.get("PROXMOX_URL").map(ToOwned::to_owned);
    if url
        .as_deref()
        .is_some_and(|url| !url.starts_with("https://"))
    {
        r.problem(
            "PROXMOX_URL",
            "must begin with `https://`, such as `https://pve.example.org:8006`",
        );
    }
    if url.is_none() && token.is_some() {
        r.problem(
            "PROXMOX_TOKEN_ID",
            "is of no use without PROXMOX_URL; set PROXMOX_URL too",
        );
    }
    let tls = super::tls(&r.text("PROXMOX_TLS", "system")).unwrap_or_else(|message| {
        r.problem("PROXMOX_TLS", message);
        crate::pve::Tls::SystemRoots
    });
    Proxmox {
        url,
        token,
        tls,
        realm: r.text("PROXMOX_REALM", "pve"),
        admin_group: r.text("PROXMOX_ADMIN_GROUP", "administrators"),
        user_group: r.vars.get("PROXMOX_USER_GROUP").map(ToOwned::to_owned),
    }
}

fn containers(r: &mut Reader<'_>) -> Containers {
    let protocols = match r.vars.get("SERVICES_FILE") {
        None => Protocols::default(),
        Some(path) => match Protocols::from_file(path.as_ref()) {
            Ok(protocols) => protocols,
            Err(message) => {
                r.problem("SERVICES_FILE", message);
                Protocols::default()
            }
        },
    };
    let lowest = r.parse("CONTAINER_LOWEST_WEB_PORT", 80_u16, "a port number");
    Containers {
        ssh_port: r.parse("CONTAINER_SSH_PORT", 22, "a port number"),
        ssh_ports: r.ports("SSH_PORTS", 2222..=2999),
        service_ports: r.ports("SERVICE_PORTS", 10001..=29999),
        lowest_web_port: (
            lowest,
            r.vars
                .get("CONTAINER_LOWEST_WEB_PORT_REASON")
                .map(ToOwned::to_owned),
        ),
        networks: r.networks(
            "CONTAINER_NETWORKS",
            "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
        ),
        address_reads: r
            .parse(
                "ADDRESS_READS_PER_SECOND",
                5_usize,
                "a number of containers",
            )
            .clamp(1, 1000),
        networks_except: r.networks("CONTAINER_NETWORKS_EXCEPT", ""),
        reserved_hostnames: r.list(
            "RESERVED_HOSTNAMES",
            "www,admin,api,mail,smtp,ns1,ns2",
            "labels",
        ),
        idn: r.switch("HOSTNAMES_IDN", false),
        protocols,
        cores: r.parse("CONTAINER_CORES", 2, "a number of cores"),
        memory: r.parse("CONTAINER_MEMORY", 2048, "a number of MiB"),
        disk: r.parse("CONTAINER_DISK", 8, "a number of GiB"),
        sizes: r.parse(
            "CONTAINER_SIZES",
            Sizes::default(),
            "sizes such as small:1/1024/8 (cores, MiB of memory, GiB of disk), each name once",
        ),
        creates_per_node: r
            .parse("CREATES_PER_NODE", 4, "a number of containers")
            .max(1),
    }
}

fn quota(r: &mut Reader<'_>) -> Limits {
    let mut limit = |name: &'static str, what: &'static str| {
        r.vars.get(name)?;
        Some(r.parse(name, 0_u32, what))
    };
    Limits {
        containers: limit("QUOTA_CONTAINERS", "a number of containers"),
        cores: limit("QUOTA_CORES", "a number of cores"),
        memory: limit("QUOTA_MEMORY", "a number of MiB"),
        disk: limit("QUOTA_DISK", "a number of GiB"),
        // Far above what anybody needs, and far below what is there: nobody uses the port ranges up alone.
        services: Some(r.parse("QUOTA_SERVICES", 200, "a number of services")),
        ports: Some(r.parse("QUOTA_PORTS", 100, "a number of external ports")),
    }
}

fn runner(r: &mut Reader<'_>, program: Program) -> Runner {
    let poll = r.parse("JOB_RUNNER_POLL_MS", 2000_u64, "a number of milliseconds");
    let shell_jobs = r.switch("SHELL_JOBS", true);
    let concurrency = r.parse("JOB_RUNNER_CONCURRENCY", 8_usize, "a number of jobs");
    if concurrency == 0 {
        r.problem("JOB_RUNNER_CONCURRENCY", "must be at least 1");
    }
    Runner {
        poll: Duration::from_millis(poll.max(10)),
        cwd: PathBuf::from(r.text("JOB_RUNNER_CWD", ".")),
        concurrency,
        shell_jobs,
        lease: r.seconds("JOB_RUNNER_LEASE_SECONDS", 15),
        patience: Duration::from_secs(r.parse(
            "JOB_RUNNER_PATIENCE_SECONDS",
            120_u64,
            "a number of seconds",
        )),
        grace: Duration::from_secs(5),
        limits: StepLimits {
            create: r.seconds("JOB_CREATE_LIMIT_SECONDS", 900),
            start: r.seconds("JOB_START_LIMIT_SECONDS", 120),
            address: r.seconds("JOB_ADDRESS_LIMIT_SECONDS", 120),
            task: r.seconds("JOB_TASK_LIMIT_SECONDS", 600),
        },
        shell_limit: r.seconds("SHELL_JOB_LIMIT_SECONDS", 86_400),
        output_limit: r
            .parse("JOB_OUTPUT_LIMIT_MIB", 64_u64, "a number of MiB")
            .clamp(1, 1 << 20)
            << 20,
        output_age: days(r, "JOB_OUTPUT_DAYS", 0),
        // A runner that starts no programs needs no right to change its user, and the packages give it none.
        user: if program == Program::Runner
            && (shell_jobs || r.vars.get("JOB_TASKS_FILE").is_some())
        {
            runner_user(r)
        } else {
            None
        },
        supervisor: None,
    }
}

fn tasks(r: &mut Reader<'_>, program: Program) -> Tasks {
    let Some(path) = r
        .vars
        .get("JOB_TASKS_FILE")
        .filter(|_| program != Program::Local)
    else {
        return Tasks::default();
    };
    let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
    read.and_then(|text| Tasks::parse(&text))
        .unwrap_or_else(|why| {
            r.problem("JOB_TASKS_FILE", format!("`{path}` cannot be used: {why}"));
            Tasks::default()
        })
}
