//! A look at everything an installation stands on, with what to do where something is wrong. Nothing is changed.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lettre::{AsyncSmtpTransport, Tokio1Executor};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::actor::Actor;
use crate::clock::Clock;
use crate::config::{Config, Program, Vars};
use crate::db::Db;
use crate::nginx::{self, Flavour};
use crate::schema::{self, MigrationState};
use crate::{Core, args, cipher, node, proxy_key, routes, user};

/// How far the clocks of this machine and of the database may be apart, in milliseconds.
const APART: i64 = 5_000;
/// After this long without being begun a job has nobody who runs it, in seconds.
const WAITING: i64 = 60;
const TIMEOUT: Duration = Duration::from_secs(10);

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Good,
    /// It works, and could be better or may matter.
    Note,
    Bad,
}

/// What was seen, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `configuration`, `database`, `secrets`, `node pve1`, …
    pub about: String,
    pub state: State,
    pub message: String,
}

/// What was seen so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, state: State, about: &str, message: impl Into<String>) {
        self.0.push(Finding {
            about: about.to_owned(),
            state,
            message: message.into(),
        });
    }

    fn good(&mut self, about: &str, message: impl Into<String>) {
        self.add(State::Good, about, message);
    }

    fn note(&mut self, about: &str, message: impl Into<String>) {
        self.add(State::Note, about, message);
    }

    fn bad(&mut self, about: &str, message: impl Into<String>) {
        self.add(State::Bad, about, message);
    }
}

/// Looks at everything that these variables lead to.
pub async fn examine(vars: &Vars) -> Vec<Finding> {
    let mut found = Findings::default();
    let config = match Config::inspect(vars, Program::Http) {
        Ok(config) => {
            found.good("configuration", "everything that cac-http needs is set");
            config
        }
        Err(problems) => {
            for problem in problems.0 {
                found.bad("configuration", problem);
            }
            // Local commands need less; the rest is looked at as far as that goes.
            let Ok(config) = Config::inspect(vars, Program::Local) else {
                return found.0;
            };
            config
        }
    };
    mail(&config, &mut found).await;
    port(config.listen, &mut found).await;
    proxy(&config, &mut found);
    let Some(db) = database(&config, &mut found).await else {
        return found.0;
    };
    match Core::inspect(db, config, Clock::System).await {
        Ok(core) => {
            secrets(&core, &mut found).await;
            jobs(&core, &mut found).await;
            nodes(&core, &mut found).await;
            names(&core, &mut found).await;
            pullers(&core, &mut found).await;
            core.db.close().await;
        }
        Err(error) => found.bad("database", error.to_string()),
    }
    found.0
}

/// The database, if it can be used.
async fn database(config: &Config, found: &mut Findings) -> Option<Db> {
    let about = "database";
    if Db::is_missing(&config.database_url) {
        found.bad(
            about,
            "there is none yet: start cac-http, or run `cac migrate up`",
        );
        return None;
    }
    let db = match Db::connect_with(&config.database_url, config.database_connections).await {
        Ok(db) => db,
        Err(error) => {
            found.bad(
                about,
                format!("{error}; is it running, and are DATABASE_URL or MYSQL_* right?"),
            );
            return None;
        }
    };
    match schema::is_original(&db).await {
        Ok(false) => {}
        Ok(true) => {
            found.bad(
                about,
                "it is the original's: stop the original, then run `cac migrate up`",
            );
            return None;
        }
        Err(error) => {
            found.bad(about, error.to_string());
            return None;
        }
    }
    match schema::status(&db).await {
        Ok(all)
            if all
                .iter()
                .all(|one| matches!(one.state, MigrationState::Applied(_))) =>
        {
            found.good(
                about,
                format!(
                    "{}, all {} migrations applied",
                    db.dialect().name(),
                    all.len()
                ),
            );
        }
        Ok(_) => {
            found.bad(
                about,
                "its schema is behind this release: run `cac migrate up`",
            );
            return None;
        }
        Err(error) => {
            found.bad(about, error.to_string());
            return None;
        }
    }
    let theirs = db.one(r#"SELECT NOW_MS() AS "now""#, args![]).await;
    if let Ok(theirs) = theirs.and_then(|row| row.get::<i64>("now")) {
        let apart = (Clock::System.now().timestamp_millis() - theirs).abs();
        if apart > APART {
            let text = format!(
                "this machine's and the database's are {} s apart; let both follow NTP",
                apart / 1000
            );
            found.bad("clock", text);
        } else {
            found.good("clock", format!("within {apart} ms of the database's"));
        }
    }
    Some(db)
}

async fn secrets(core: &Core, found: &mut Findings) {
    let about = "secrets";
    let Ok((plain, sealed)) = cipher::count(&core.db).await else {
        return;
    };
    match (core.cipher.has_key(), plain, sealed) {
        (true, 0, _) => found.good(about, format!("{sealed} encrypted, none in plain text")),
        (true, ..) => found.bad(about, format!("{plain} stand in plain text: run `cac secret encrypt`")),
        (false, _, 1..) => found.bad(about, format!("{sealed} are encrypted: set CAC_SECRET_KEY")),
        (false, 0, _) => found.note(about, "there is no key: `cac secret new` makes one for CAC_SECRET_KEY"),
        (false, ..) => found.bad(
            about,
            format!("{plain} stand in plain text: set CAC_SECRET_KEY (`cac secret new`), then run `cac secret encrypt`"),
        ),
    }
}

/// Whether somebody takes jobs.
async fn jobs(core: &Core, found: &mut Findings) {
    let about = "jobs";
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Jobs"
                 WHERE "status" = 'pending' AND "updatedAt" < ? AND ("startAfter" IS NULL OR "startAfter" < NOW_MS())"#;
    let since = core.clock.now() - chrono::Duration::seconds(WAITING);
    let waiting = core.db.one(sql, args![since]).await;
    match waiting.and_then(|row| row.get::<i64>("n")) {
        Ok(0) => found.good(about, "none waits for a runner"),
        Ok(count) => found.bad(
            about,
            format!("{count} have waited for more than a minute: is cac-runner running, with room (JOB_RUNNER_CONCURRENCY)?"),
        ),
        Err(error) => found.bad(about, error.to_string()),
    }
}

async fn nodes(core: &Core, found: &mut Findings) {
    let all = match node::all(core).await {
        Ok(all) => all,
        Err(error) => return found.bad("nodes", error.to_string()),
    };
    if all.is_empty() {
        found.bad("nodes", "there is none: `cac node add --local` adds one");
    }
    let local = Actor::local();
    for node in all {
        let about = format!("node {}", node.name);
        if !node.enabled {
            found.note(&about, "disabled; nothing is made there");
            continue;
        }
        let tested = tokio::time::timeout(TIMEOUT, node::test(core, &local, node.id));
        match tested.await {
            Ok(Ok(check)) if check.problems.is_empty() => {
                let version = check.version.unwrap_or_default();
                found.good(
                    &about,
                    format!(
                        "Proxmox VE {version}, {} templates, every right",
                        check.templates.len()
                    ),
                );
            }
            Ok(Ok(check)) => {
                for problem in check.problems {
                    found.bad(&about, problem);
                }
            }
            Ok(Err(error)) => found.bad(&about, error.to_string()),
            Err(_) => found.bad(
                &about,
                "it does not answer; is its address right, and the way to it open?",
            ),
        }
    }
    match user::check_start(core).await {
        Ok(()) => found.good("login", "people sign in where they did before"),
        Err(error) => found.bad("login", error.to_string()),
    }
}

/// Names that are not served.
async fn names(core: &Core, found: &mut Findings) {
    let about = "names";
    match routes::troubles(core).await {
        Ok(left) if left.is_empty() => {
            found.good(about, "every service of a running container is served")
        }
        Ok(left) => {
            for (id, trouble) in left {
                let how = match trouble.kept {
                    true => "served as it was before",
                    false => "not served",
                };
                found.note(about, format!("service {id}: {how}: {}", trouble.reason));
            }
        }
        Err(error) => found.bad(about, error.to_string()),
    }
}

/// Machines that take whatever stands in the file, from whoever sent it.
async fn pullers(core: &Core, found: &mut Findings) {
    let readers = proxy_key::unsigned_readers(&core.db, core.clock.now()).await;
    for reader in readers.unwrap_or_default() {
        let last = reader.last.format("%Y-%m-%d %H:%M UTC");
        let text = format!(
            "{} reads /nginx.conf unverified (last {last}): `cac proxy sync` with a pinned key takes no changed or older file",
            reader.address
        );
        found.note("proxies", text);
    }
}

async fn mail(config: &Config, found: &mut Findings) {
    let about = "mail";
    let Some(settings) = &config.mail else {
        return found.note(about, "none is sent: SMTP_URL is not set");
    };
    if settings.admins.is_empty() {
        found.note(
            about,
            "nobody is told of account requests: MAIL_ADMIN is not set",
        );
    }
    let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(settings.url.expose());
    let answers = match transport {
        Ok(transport) => {
            transport
                .timeout(Some(TIMEOUT))
                .build::<Tokio1Executor>()
                .test_connection()
                .await
        }
        Err(error) => Err(error),
    };
    match answers {
        Ok(true) => found.good(about, "the mail server answers"),
        Ok(false) => found.bad(about, "the mail server does not answer as one"),
        Err(error) => found.bad(
            about,
            format!("{error}; are SMTP_URL's host, port, user and password right?"),
        ),
    }
}

/// Whether the portal can listen, or does.
async fn port(listen: SocketAddr, found: &mut Findings) {
    let about = "port";
    match TcpListener::bind(listen).await {
        Ok(_) => found.note(
            about,
            format!("nothing listens on {listen}: cac-http does not run here"),
        ),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let mut at = listen;
            if at.ip().is_unspecified() {
                at.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            if is_portal(at).await {
                found.good(about, format!("the portal answers on {listen}"));
            } else {
                let text = format!(
                    "another program has {listen}: stop it, or choose another port (CAC_LISTEN)"
                );
                found.bad(about, text);
            }
        }
        Err(error) => found.bad(
            about,
            format!("{listen}: {error}; choose another address (CAC_LISTEN)"),
        ),
    }
}

/// Every answer of the portal carries the request's id.
async fn is_portal(at: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(at).await?;
        let request = format!("GET /healthz HTTP/1.0\r\nHost: {at}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(16_384).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.to_lowercase().contains("\nx-request-id:"))
    };
    matches!(tokio::time::timeout(TIMEOUT, asked).await, Ok(Ok(true)))
}

/// The nginx of this machine; the one that pulls the configuration may be elsewhere.
fn proxy(config: &Config, found: &mut Findings) {
    let about = "nginx";
    let Some(here) = nginx::find_nginx() else {
        return found.note(about, "none on this machine");
    };
    let (major, minor, patch) = here.version;
    let version = format!("{major}.{minor}.{patch}");
    match (here.flavour(), config.nginx.flavour) {
        (Flavour::Debian1_22, Flavour::V1_25) => {
            found.bad(
                about,
                format!("{version} does not read what NGINX_VERSION asks for: set it to 1.22"),
            );
        }
        (Flavour::V1_25, Flavour::Debian1_22) => {
            found.note(
                about,
                format!("{version} could do more: NGINX_VERSION=1.25"),
            );
        }
        _ => found.good(about, format!("{version}, as NGINX_VERSION says")),
    }
    for (name, path) in [
        ("NGINX_CERTIFICATE", &config.nginx.certificate),
        ("NGINX_CERTIFICATE_KEY", &config.nginx.certificate_key),
    ] {
        if let Err(error) = std::fs::metadata(path.as_path()) {
            found.note(
                about,
                format!("{name} {path}: {error}; the nginx that pulls the configuration needs it"),
            );
        }
    }
}

/// What is worth an exit status other than 0.
#[must_use]
pub fn is_bad(findings: &[Finding]) -> bool {
    findings.iter().any(|one| one.state == State::Bad)
}
