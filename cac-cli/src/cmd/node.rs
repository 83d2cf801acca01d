//! `cac node`: the Proxmox VE hosts, in the database of this installation.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cac_core::node::{self, Check, NewNode};
use cac_core::{Actor, Core};
use clap::{Args, Subcommand};

use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Node {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a host
    Add(Add),
    /// List the hosts
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask a host what it can do, and say what is missing
    Test {
        /// The host's name in Proxmox VE
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Add {
    /// The host's name in Proxmox VE, such as `pve1`
    name: String,
    /// Such as https://pve1.example.org:8006
    #[arg(long)]
    api_url: String,
    /// An API token's id, such as cac@pve!web
    #[arg(long)]
    token_id: String,
    /// A file with the token's secret; `-` or nothing reads it from standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// How its certificate is trusted: `system`, `off`, or its SHA-256 fingerprint
    #[arg(long, default_value = "system")]
    tls: String,
    /// The label that requests name as `aiContainer`
    #[arg(long, value_name = "LABEL")]
    ai_container: Option<String>,
    /// Where root disks go; left out: the storage with the most room
    #[arg(long)]
    storage: Option<String>,
    /// The bridge that containers are on; left out: vmbr0
    #[arg(long)]
    bridge: Option<String>,
    /// Which template an osRelease means there: `debian=lxc/160, rocky=rockylinux-9-default_20240912_amd64.tar.xz`
    #[arg(long)]
    templates: Option<String>,
    /// Make no containers there yet
    #[arg(long)]
    disabled: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Node {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Add(new) => add(new).await,
            Command::List { json } => list(&super::core().await?, json).await,
            Command::Test { name, json } => test(&super::core().await?, &name, json).await,
        }
    }
}

async fn add(asked: Add) -> Result<ExitCode, Failure> {
    let core = super::core().await?;
    let (tls_verify, tls_fingerprint) = match asked.tls.as_str() {
        "system" => (Some(true), None),
        "off" => (Some(false), None),
        pinned => (Some(true), Some(pinned.to_owned())),
    };
    let new = NewNode {
        name: asked.name,
        api_url: Some(asked.api_url),
        token_id: Some(asked.token_id),
        secret: Some(secret(asked.secret_file.as_deref())?),
        tls_verify,
        tls_fingerprint,
        ai_container: asked.ai_container,
        enabled: Some(!asked.disabled),
        storage: asked.storage,
        bridge: asked.bridge,
        templates: asked.templates,
    };
    let node = node::create(&core, &Actor::local(), new).await?;
    if asked.json {
        print::json(&node)?;
    } else {
        let name = &node.name;
        print::data(&format!(
            "Added node {name}. `cac node test {name}` shows what it can do.\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Never an argument: those can be read by everybody on the machine.
fn secret(file: Option<&Path>) -> Result<String, Failure> {
    let text = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?
        }
        None if std::io::stdin().is_terminal() => {
            rpassword::prompt_password("Secret of the API token: ")?
        }
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
    };
    match text.trim() {
        "" => Err(
            "The token's secret is empty: give it with --secret-file FILE or on standard input."
                .into(),
        ),
        secret => Ok(secret.to_owned()),
    }
}

async fn list(core: &Core, json: bool) -> Result<ExitCode, Failure> {
    let nodes = node::list(core, &Actor::local()).await?;
    if json {
        print::json(&nodes)?;
    } else if nodes.is_empty() {
        print::note("No node was added yet; `cac node add` adds one.");
    } else {
        let rows = nodes.into_iter().map(|node| {
            let tls = match (&node.tls_fingerprint, node.tls_verify) {
                (Some(_), _) => "pinned",
                (None, Some(false)) => "off",
                (None, _) => "system",
            };
            let yes_no = |yes| if yes { "yes" } else { "no" };
            [
                node.id.to_string(),
                node.name,
                node.api_url.unwrap_or_default(),
                node.token_id.unwrap_or_default(),
                tls.to_owned(),
                node.ai_container.unwrap_or_default(),
                yes_no(node.enabled).to_owned(),
            ]
        });
        print::table(
            ["ID", "NAME", "API", "TOKEN", "TLS", "LABEL", "ENABLED"],
            rows,
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn test(core: &Core, name: &str, json: bool) -> Result<ExitCode, Failure> {
    let local = Actor::local();
    let node = node::find_named(core, &local, name).await?;
    let check = node::test(core, &local, node.id).await?;
    if json {
        print::json(&check)?;
    } else {
        print::data(&told(name, &check))?;
    }
    Ok(if check.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn told(name: &str, check: &Check) -> String {
    let mut text = match &check.version {
        Some(version) => format!("{name} answers: Proxmox VE {version}\n"),
        None => format!("{name} gives no good answer\n"),
    };
    if let Some(fingerprint) = &check.fingerprint {
        text += &format!("its certificate: {fingerprint}\n");
    }
    for template in &check.templates {
        text += &format!("  template {template}\n");
    }
    for ability in &check.can {
        text += &format!("  may {ability}\n");
    }
    for problem in &check.problems {
        text += &format!("  problem: {problem}\n");
    }
    text + if check.problems.is_empty() {
        "Containers can be made there.\n"
    } else {
        "Put this right and test again.\n"
    }
}
