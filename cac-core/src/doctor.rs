//! A look at everything an installation stands on, with what to do where something is wrong. Nothing is changed.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::actor::Actor;
use crate::clock::Clock;
use crate::config::{Config, Program, Vars};
use crate::db::Db;
use crate::nginx::{self, Flavour};
use crate::node::cluster;
use crate::schema::{self, MigrationState};
use crate::{Core, args, cipher, hostname, mail, node, proxy_key, routes, token, user};

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
    mail_server(&config, &mut found).await;
    port(config.listen, &mut found).await;
    sites(&config, &mut found);
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
            tokens(&core, &mut found).await;
            questionable_names(&core, &mut found).await;
            identities(&core, &mut found).await;
            users(&core, &mut found).await;
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
    if Db::is_missing(config.database_url.expose()) {
        found.bad(
            about,
            "there is none yet: start cac-http, or run `cac migrate up`",
        );
        return None;
    }
    let db = match Db::connect_with(config.database_url.expose(), config.database_connections).await
    {
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

/// Tokens that programs of somebody stop working without.
async fn tokens(core: &Core, found: &mut Findings) {
    let about = "tokens";
    match token::expiring(core).await {
        Ok(soon) if soon.is_empty() => found.good(about, "none expires soon"),
        Ok(soon) => {
            for token in soon {
                let day = token.expires.map(|at| at.format("%Y-%m-%d").to_string());
                found.note(
                    about,
                    format!(
                        "{}… ({}) of {} expires on {}: create a new one and put it in its place",
                        token.beginning,
                        token.name,
                        token.username,
                        day.unwrap_or_default()
                    ),
                );
            }
        }
        Err(error) => found.bad(about, error.to_string()),
    }
}

/// Users that wait for an admin.
async fn users(core: &Core, found: &mut Findings) {
    let about = "users";
    let all = match user::list(core, &Actor::local()).await {
        Ok(all) => all,
        Err(error) => return found.bad(about, error.to_string()),
    };
    for user in all {
        let name = &user.username;
        match user.state {
            user::State::Returned => found.note(
                about,
                format!(
                    "{name}: the account was deleted in Proxmox VE and exists again: say whose the name is with \
                     `cac user update {name} --person same` or `new`"
                ),
            ),
            user::State::Former if user.containers > 0 => found.note(
                about,
                format!("{name}: {} containers wait for a new owner", user.containers),
            ),
            _ => {}
        }
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

/// Names that exist and would not be given today.
async fn questionable_names(core: &Core, found: &mut Findings) {
    let about = "names";
    match hostname::questionable(&core.db, &core.config).await {
        Ok(names) => {
            for one in names {
                found.note(about, one.to_string());
            }
        }
        Err(error) => found.bad(about, error.to_string()),
    }
}

/// Whether containers are another site than the portal for browsers.
fn sites(config: &Config, found: &mut Findings) {
    let about = "domains";
    let Some(portal) = config.public_url.host_str() else {
        return;
    };
    if hostname::same_site(portal, &config.domain) {
        found.note(
            about,
            format!(
                "the portal ({portal}) and the containers (*.{}) are one site for browsers: a container's page can set cookies that \
                 the portal gets, and SameSite does not keep them apart. Serve containers under a domain of their own, such as \
                 example-apps.org beside example.org (CAC_DOMAIN)",
                config.domain
            ),
        );
    } else {
        found.good(about, "the portal and the containers are different sites");
    }
}

/// Rows whose container in Proxmox VE is another one, is claimed twice, or was never looked at.
async fn identities(core: &Core, found: &mut Findings) {
    let about = "identity";
    let sql = r#"SELECT COUNT("unverifiedSince") AS "unverified", COUNT("identityMismatchAt") AS "other" FROM "Containers""#;
    let counts = core.db.one(sql, args![]).await;
    let counts =
        counts.and_then(|row| Ok((row.get::<i64>("unverified")?, row.get::<i64>("other")?)));
    let (unverified, other, pairs) = match (counts, cluster::duplicate_pairs(core).await) {
        (Ok((unverified, other)), Ok(pairs)) => (unverified, other, pairs),
        (Err(error), _) => return found.bad(about, error.to_string()),
        (_, Err(error)) => return found.bad(about, error.to_string()),
    };
    if other > 0 {
        let text = format!(
            "{other} containers are others in Proxmox VE, and not served: see the reconciliation"
        );
        found.bad(about, text);
    }
    for pair in &pairs {
        let text = format!(
            "containers {} and {} both name CT {} of one cluster: forget the wrong one (`DELETE /containers/ID?forget=true`)",
            pair.first, pair.second, pair.vmid
        );
        found.bad(about, text);
    }
    if unverified > 0 {
        let text = format!(
            "{unverified} containers were registered while their node could not be asked; they are verified when it answers"
        );
        found.note(about, text);
    }
    if other == 0 && unverified == 0 && pairs.is_empty() {
        found.good(
            about,
            "every container that was looked at is the one of its row",
        );
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

async fn mail_server(config: &Config, found: &mut Findings) {
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
    match mail::check(config, settings).await {
        Ok(None) => found.good(about, "the mail server answers"),
        Ok(Some(why)) => found.note(
            about,
            format!("the mail server answers, but its certificate cannot be verified ({why}): set SMTP_CA_FILE"),
        ),
        Err(error) => found.bad(
            about,
            format!("{error}; are SMTP_URL's host, port, user and password right, and does the server offer TLS?"),
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
