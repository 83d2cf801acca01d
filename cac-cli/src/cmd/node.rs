//! `cac node`: the Proxmox VE hosts, over a portal's API or, with `--local`, in the database of this installation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cac_core::node::Check;
use clap::{Args, Subcommand};

use super::{Common, shown, sure};
use crate::api::types;
use crate::portal::{Portal, Told as _};
use crate::print::{self, Exit, Failure};

mod local;

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Node {
    /// In the database of this installation, as for the first node, before anybody can sign in: add, list, test
    #[arg(long, global = true)]
    local: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a host
    Add(Add),
    /// List the hosts
    List,
    /// Show one host
    Show(Which),
    /// Change a host; what is left out stays
    Update {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        settings: Settings,
        /// Whether containers are made there
        #[arg(long, value_name = "true|false")]
        enabled: Option<bool>,
    },
    /// Remove a host that has no containers
    Delete {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Ask a host what it can do, and say what is missing
    Test(Which),
    /// List the templates that there are
    Templates,
    /// List the containers of a host that are not managed here
    Importable(Which),
    /// Take over a container of a host
    Import {
        #[command(flatten)]
        which: Which,
        /// Its VMID
        vmid: u32,
        /// The owner
        #[arg(long, value_name = "USER")]
        owner: String,
        /// The port of its web server
        #[arg(long)]
        port: Option<i64>,
        /// A further service, such as `rdp` or `8080/tcp`; may be given several times
        #[arg(long, value_name = "PROTOCOL")]
        service: Vec<String>,
    },
    /// Compare the database with Proxmox VE: what differs, and how to repair it
    Reconcile,
}

#[derive(Args)]
struct Which {
    /// The host's name in Proxmox VE
    #[arg(value_name = "NODE")]
    name: String,
}

#[derive(Args)]
struct Add {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    settings: Settings,
    /// Make no containers there yet
    #[arg(long)]
    disabled: bool,
}

#[derive(Args)]
struct Settings {
    /// Such as https://pve1.example.org:8006
    #[arg(long)]
    api_url: Option<String>,
    /// An API token's id, such as cac@pve!web
    #[arg(long)]
    token_id: Option<String>,
    /// A file with the token's secret; `-` reads it from standard input, and `add` asks for it where it is left out. `update` needs it
    /// again with another --api-url or --tls
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// How its certificate is trusted: `system`, `off`, or its SHA-256 fingerprint
    #[arg(long)]
    tls: Option<String>,
    /// The label that requests name as `aiContainer`
    #[arg(long, value_name = "LABEL")]
    ai_container: Option<String>,
    /// Where root disks go; a new node's default is the storage with the most room
    #[arg(long)]
    storage: Option<String>,
    /// The bridge that containers are on; a new node's default is vmbr0
    #[arg(long)]
    bridge: Option<String>,
    /// Which template an osRelease means there: `debian=lxc/160, rocky=rockylinux-9-default_20240912_amd64.tar.xz`
    #[arg(long)]
    templates: Option<String>,
}

impl Settings {
    /// `tlsVerify` and `tlsFingerprint`
    fn tls(&self) -> (Option<bool>, Option<String>) {
        match self.tls.as_deref() {
            None => (None, None),
            // An empty fingerprint takes away the one that was there.
            Some("system") => (Some(true), Some(String::new())),
            Some("off") => (Some(false), Some(String::new())),
            Some(pinned) => (Some(true), Some(pinned.to_owned())),
        }
    }

    fn request(self, name: Option<String>, secret: Option<String>) -> types::NodeRequest {
        let (tls_verify, tls_fingerprint) = self.tls();
        types::NodeRequest {
            name,
            api_url: self.api_url,
            token_id: self.token_id,
            secret,
            tls_verify,
            tls_fingerprint,
            ai_container: self.ai_container,
            storage: self.storage,
            bridge: self.bridge,
            templates: self.templates,
            enabled: None,
        }
    }
}

fn secret(file: Option<&Path>) -> Result<String, Failure> {
    super::secret("The secret of the node's API token", "--secret-file", file)
}

/// A node as a table shows it, wherever it was read.
struct Row([String; 7]);

impl From<types::Node> for Row {
    fn from(node: types::Node) -> Self {
        let tls = (&node.tls_fingerprint, node.tls_verify);
        Self([
            node.id.to_string(),
            node.name,
            node.api_url.unwrap_or_default(),
            node.token_id.unwrap_or_default(),
            trust(tls.0.is_some(), tls.1).to_owned(),
            node.ai_container.unwrap_or_default(),
            yes_no(node.enabled).to_owned(),
        ])
    }
}

fn trust(pinned: bool, verify: Option<bool>) -> &'static str {
    match (pinned, verify) {
        (true, _) => "pinned",
        (false, Some(false)) => "off",
        (false, _) => "system",
    }
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn table(rows: Vec<Row>, add: &str) -> Result<(), Failure> {
    if rows.is_empty() {
        print::note(&format!("No node was added yet; `{add}` adds one."));
        return Ok(());
    }
    print::table(
        ["ID", "NAME", "API", "TOKEN", "TLS", "LABEL", "ENABLED"],
        rows.into_iter().map(|row| row.0),
    )
}

impl Node {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let json = common.json;
        if self.local {
            let core = match self.command {
                Command::Add(_) => super::new_core().await?,
                _ => super::core().await?,
            };
            return match self.command {
                Command::Add(new) => local::add(&core, new, json).await,
                Command::List => local::list(&core, json).await,
                Command::Test(which) => local::test(&core, &which.name, json).await,
                _ => Err(Exit::usage(
                    "Only add, list and test go with --local; sign in (`cac login URL`) for the rest.",
                )),
            };
        }
        let portal = Portal::open(common)?;
        let client = &portal.client;
        match self.command {
            Command::Add(new) => {
                let secret = Some(secret(new.settings.secret_file.as_deref())?);
                let mut body = new.settings.request(Some(new.which.name), secret);
                body.enabled = Some(!new.disabled);
                let node = client.node_create().body(body).send().await.told()?;
                one(node, json)?;
            }
            Command::List => {
                let rows = client.node_list().send().await.told()?;
                match json {
                    true => print::json(&rows)?,
                    false => table(rows.into_iter().map(Row::from).collect(), "cac node add")?,
                }
            }
            Command::Show(which) => one(find(&portal, &which.name).await?, json)?,
            Command::Update {
                which,
                settings,
                enabled,
            } => {
                let id = find(&portal, &which.name).await?.id;
                let file = settings.secret_file.as_deref();
                let secret = file.map(|file| secret(Some(file))).transpose()?;
                let mut body = settings.request(None, secret);
                body.enabled = enabled;
                one(
                    client.node_update().id(id).body(body).send().await.told()?,
                    json,
                )?;
            }
            Command::Delete { which, yes } => {
                let id = find(&portal, &which.name).await?.id;
                let what = format!("Node {} will be removed here.", which.name);
                sure(&which.name, &what, yes)?;
                client.node_delete().id(id).send().await.told()?;
                print::done("The node is removed.", json)?;
            }
            Command::Test(which) => {
                let id = find(&portal, &which.name).await?.id;
                let check = client.node_test().id(id).send().await.told()?;
                return tested(&which.name, &check.into(), json);
            }
            Command::Templates => {
                let rows = client.template_list().send().await.told()?;
                templates(&rows, json)?;
            }
            Command::Importable(which) => {
                let id = find(&portal, &which.name).await?.id;
                let rows = client.node_importable().id(id).send().await.told()?;
                importable(&rows, json)?;
            }
            Command::Import {
                which,
                vmid,
                owner,
                port,
                service,
            } => {
                let id = find(&portal, &which.name).await?.id;
                let body = types::ImportRequest {
                    vmid,
                    username: owner,
                    http_port: port,
                    additional_protocols: service,
                };
                let row = client.node_import().id(id).body(body).send().await.told()?;
                match json {
                    true => print::json(&row)?,
                    false => print::data(&format!(
                        "CT {vmid} is container {} now, `{}` of {}.\n",
                        row.id, row.hostname, row.username
                    ))?,
                }
            }
            Command::Reconcile => {
                let rows = client.reconciliation_list().send().await.told()?;
                return differences(&rows, json);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn find(portal: &Portal, name: &str) -> Result<types::Node, Failure> {
    let all = portal.client.node_list().send().await.told()?;
    all.into_iter()
        .find(|node| node.name == name)
        .ok_or_else(|| {
            Exit::not_found(&format!(
                "There is no node `{name}`; `cac node list` shows those there are."
            ))
        })
}

fn one(node: types::Node, json: bool) -> Result<(), Failure> {
    match json {
        true => print::json(&node),
        false => table(vec![node.into()], ""),
    }
}

impl From<types::Check> for Check {
    fn from(check: types::Check) -> Self {
        Self {
            version: check.version,
            fingerprint: check.fingerprint,
            templates: check.templates,
            can: check.can,
            problems: check.problems,
        }
    }
}

/// Fails where something is missing.
fn tested(name: &str, check: &Check, json: bool) -> Result<ExitCode, Failure> {
    if json {
        print::json(check)?;
    } else {
        print::data(&told(name, check))?;
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

fn templates(rows: &[types::Template], json: bool) -> Result<(), Failure> {
    if json {
        return print::json(&rows);
    }
    let rows = rows.iter().map(|row| {
        [
            row.node.clone(),
            shown(row.os_release.as_ref()),
            row.kind.to_string(),
            row.template.clone(),
        ]
    });
    print::table(["NODE", "SYSTEM", "KIND", "TEMPLATE"], rows)
}

fn importable(rows: &[types::Importable], json: bool) -> Result<(), Failure> {
    if json {
        return print::json(&rows);
    }
    let rows = rows.iter().map(|row| {
        [
            row.vmid.to_string(),
            row.hostname.clone(),
            row.status.clone(),
            shown(row.ipv4_address.as_ref()),
            row.problems.join(" "),
        ]
    });
    print::table(["VMID", "NAME", "STATE", "ADDRESS", "PROBLEMS"], rows)
}

/// Fails where something differs.
fn differences(rows: &[types::Finding], json: bool) -> Result<ExitCode, Failure> {
    if json {
        print::json(&rows)?;
    } else if rows.is_empty() {
        print::note("The database and Proxmox VE agree.");
    } else {
        let rows = rows.iter().map(|row| {
            [
                row.kind.to_string(),
                row.node.clone(),
                shown(row.container_id.as_ref()),
                row.message.clone(),
                row.repair.clone(),
            ]
        });
        print::table(["WHAT", "NODE", "CONTAINER", "DIFFERS", "REPAIR"], rows)?;
    }
    Ok(if rows.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
