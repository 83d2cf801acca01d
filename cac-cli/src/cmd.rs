//! The words of the command line. What a command does is in its own file.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use cac_core::Actor;
use cac_core::audit::{Origin, Via};
use cac_core::config::{Config, Program, environment};
use cac_core::db::Db;
use cac_core::{Core, program};
use clap::{Args, Parser, Subcommand};

use crate::print::{self, Exit, Failure};

mod audit;
mod container;
mod context;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod help;
mod import;
mod job;
mod login;
mod login_failures;
mod login_node;
mod migrate;
mod node;
mod proxy;
mod quota;
mod request;
mod secret;
mod service;
#[cfg(feature = "demo")]
mod simulator;
mod token;
mod user;

/// Create-a-Container: LXC containers on Proxmox VE, reached by name
///
/// Commands about containers, jobs and people ask a portal, after `cac login URL` (or with CAC_URL and CAC_TOKEN in the environment). Commands of local
/// administration read the same environment and `.env` as the programs.
#[derive(Parser)]
#[command(name = "cac", version, arg_required_else_help = true, after_help = print::STATUSES)]
pub(crate) struct Cac {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Args)]
pub(crate) struct Common {
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The portal, as `cac context list` names it
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Sign in at a portal, and keep an API token for it
    Login(login::Login),
    /// Forget a portal, and delete its token there
    Logout(login::Logout),
    /// The portals that you are signed in at
    Context(context::Context),
    /// LXC containers: ask for one, look at it, work on it
    Container(container::Container),
    /// What a container offers to the outside
    Service(service::Service),
    /// Durable work and its output
    Job(job::Job),
    /// The Proxmox VE hosts that containers are made on
    Node(node::Node),
    /// Reverse proxies, and keeping one on the newest configuration
    Proxy(proxy::Proxy),
    /// API tokens
    Token(token::Token),
    /// Requests for accounts, for admins
    Request(request::Request),
    /// Users, former owners, and whose a name is, for admins
    User(user::User),
    /// How much each user may have
    Quota(quota::Quota),
    /// Local: the database's schema: bring it up to date, look at it, undo a change
    Migrate(migrate::Migrate),
    /// Local: take over the original's port map, a JSON file
    Import(import::Import),
    /// Local: the audit log
    Audit(audit::Audit),
    /// Local: failed sign-ins, and whom they slow down
    LoginFailures(login_failures::LoginFailures),
    /// Local: the Proxmox VE where people sign in
    LoginNode(login_node::LoginNode),
    /// Local: the key that secrets in the database are encrypted with
    Secret(secret::Secret),
    /// Local: look at everything an installation stands on, and say what to do
    Doctor(doctor::Doctor),
    /// Local: try everything on this machine: portal, runner, nginx and a simulated Proxmox VE in one process
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    /// Local: a simulated Proxmox VE alone, for tests and other clients
    #[cfg(feature = "demo")]
    Simulator(simulator::Simulator),
    /// Print what makes a shell complete these words
    Completions(help::Completions),
    /// Write the manual pages
    Man(help::Man),
}

impl Cac {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let common = self.common;
        match self.command {
            Command::Login(login) => login.run(&common).await,
            Command::Logout(logout) => login::out(&logout, &common).await,
            Command::Context(context) => context.run(&common),
            Command::Container(container) => container.run(&common).await,
            Command::Service(service) => service.run(&common).await,
            Command::Job(job) => job.run(&common).await,
            Command::Node(node) => node.run(&common).await,
            Command::Proxy(proxy) => proxy.run(&common).await,
            Command::Token(token) => token.run(&common).await,
            Command::Request(request) => request.run(&common).await,
            Command::User(user) => user.run(&common).await,
            Command::Quota(quota) => quota.run(&common).await,
            Command::Migrate(migrate) => migrate.run(&common).await,
            Command::Import(import) => import.run(&common).await,
            Command::Audit(audit) => audit.run(&common).await,
            Command::LoginFailures(login_failures) => login_failures.run(&common).await,
            Command::LoginNode(login_node) => login_node.run(&common).await,
            Command::Secret(secret) => secret.run(&common).await,
            Command::Doctor(doctor) => doctor.run(&common).await,
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run().await,
            #[cfg(feature = "demo")]
            Command::Simulator(simulator) => simulator.run(&common).await,
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
        }
    }
}

/// The configuration of a local command.
fn config() -> Result<Config, Failure> {
    let vars = environment()?;
    program::log(&vars, "warn")?;
    Ok(Config::load(&vars, Program::Local)?)
}

/// The same for a command that only looks: no file is made.
fn inspected_config() -> Result<Config, Failure> {
    let vars = environment()?;
    program::log(&vars, "warn")?;
    Ok(Config::inspect(&vars, Program::Local)?)
}

/// The library on the configured database, which must exist: on a new one these commands would show or change nothing, and leave it behind.
async fn core() -> Result<Core, Failure> {
    let vars = environment()?;
    let inspected = Config::inspect(&vars, Program::Local)?;
    if Db::is_missing(inspected.database_url.expose()) {
        return Err(Exit::usage(
            "There is no database at DATABASE_URL. Name the one that the portal uses; `cac migrate up` makes a new one.",
        ));
    }
    new_core().await
}

/// The library on the configured database, which is made where there is none.
async fn new_core() -> Result<Core, Failure> {
    Ok(Core::start(config()?).await?)
}

/// Whoever runs this command, as the audit log names them.
fn local() -> Actor {
    let user = |name| std::env::var(name).ok().filter(|name| !name.is_empty());
    // Whoever may do this could write anything here: it is a help, not a proof.
    let who = user("SUDO_USER").or_else(|| user("USER"));
    let mut origin = Origin::new(Via::Local);
    origin.note = who.map(|who| format!("by the operating system's user {who}"));
    Actor::local().from_origin(origin)
}

/// A secret from a file, from the terminal without showing it, or from standard input; never an argument: those can be read by
/// everybody on the machine.
fn secret(what: &str, option: &str, file: Option<&Path>) -> Result<String, Failure> {
    let text = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => small(file)?,
        None if std::io::stdin().is_terminal() => {
            rpassword::prompt_password(format!("{what}: ")).unwrap_or_default()
        }
        None => {
            let mut text = String::new();
            let read = std::io::stdin().take(SMALL).read_to_string(&mut text);
            read.map_err(|error| Exit::usage(&format!("{what}: {error}")))?;
            text
        }
    };
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Exit::usage(&format!(
            "{what} is empty: give it with {option} FILE or on standard input."
        ))),
        secret => Ok(secret.to_owned()),
    }
}

/// Bytes of a file that holds a secret or a key.
const SMALL: u64 = 64 * 1024;

/// The text of a small file.
fn small(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|opened| {
        let read = opened.take(SMALL).read_to_string(&mut text)?;
        Ok(read as u64)
    });
    match read {
        Ok(read) if read < SMALL => Ok(text),
        Ok(_) => Err(Exit::usage(&format!(
            "{}: it is too large.",
            file.display()
        ))),
        Err(error) => Err(Exit::usage(&format!("{}: {error}", file.display()))),
    }
}

/// Asks for a line on the terminal; without one it has to be an option.
fn asked(what: &str, option: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Exit::usage(&format!("Give {option}.")));
    }
    let _ = write!(std::io::stderr(), "{}: ", print::harmless(what));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    match line.trim() {
        "" => Err(Exit::usage(&format!("Nothing was typed; give {option}."))),
        line => Ok(line.to_owned()),
    }
}

/// Something that cannot be taken back: `--yes`, or the name typed on a terminal.
fn sure(name: &str, what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Exit::usage(&format!("{what} Say --yes if you mean it.")));
    }
    let typed = asked(&format!("{what} Type {name} to go on"), "--yes")?;
    match typed == name {
        true => Ok(()),
        false => Err("Nothing was changed.".into()),
    }
}

/// A time of an answer, for people.
fn time(at: Option<&chrono::DateTime<chrono::Utc>>) -> String {
    at.map(|at| at.format("%Y-%m-%d %H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// A number or a text that may be absent.
fn shown(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
