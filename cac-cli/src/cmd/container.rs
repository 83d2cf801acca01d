//! `cac container`: LXC containers, over a portal's API.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use url::Url;

use super::{Common, shown, sure, time};
use crate::api::types;
use crate::follow::{self, Show};
use crate::portal::{Portal, Told as _};
use crate::print::{self, Exit, Failure};

mod snapshot;

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Container {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask for a container and watch it being made
    Create(Create),
    /// List containers
    List {
        /// Everyone's, for admins
        #[arg(long)]
        all: bool,
        /// One owner's, for admins
        #[arg(long, conflicts_with = "all")]
        user: Option<String>,
        /// Only those in whose name, owner, system, address or public names this text stands
        #[arg(long)]
        search: Option<String>,
    },
    /// Show one container with its services
    Show(Named),
    /// Delete a container, in Proxmox VE and here
    Delete {
        #[command(flatten)]
        container: Named,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// For admins: forget the container here, when Proxmox VE does not have it any more
        #[arg(long)]
        forget: bool,
    },
    /// Withdraw the request to delete a container, as long as the deletion has not begun
    Keep(Named),
    /// Start a container
    Start(Named),
    /// Stop a container
    Stop(Named),
    /// Restart a container
    Restart(Named),
    /// Change sizes, delete protection or the owner
    Resize(Resize),
    /// Check a container's address: ask Proxmox VE where it is now, and store its node, address and sizes
    Refresh(Named),
    /// Show what the job wrote that works on the container, or did last; see also `cac job follow`
    Logs {
        #[command(flatten)]
        container: Named,
        /// Stay until the job has ended
        #[arg(long, short)]
        follow: bool,
    },
    /// Open its site in a browser
    Open {
        #[command(flatten)]
        container: Named,
        /// Only print the address
        #[arg(long)]
        print: bool,
    },
    /// Open a shell in it by ssh
    Ssh {
        #[command(flatten)]
        container: Named,
        /// The user in the container
        #[arg(long, short, default_value = "root", value_name = "USER")]
        login: String,
        /// Only print the command
        #[arg(long)]
        print: bool,
        /// A command to run there, after `--`
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Snapshots of a container
    Snapshot(snapshot::Snapshot),
}

/// Which container.
#[derive(Args)]
pub(crate) struct Named {
    /// Its host name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
}

#[derive(Args)]
struct Create {
    /// One DNS label: 1 to 63 of a-z, 0-9 and `-`
    hostname: String,
    /// An operating system, such as `debian` or `debian-12`
    #[arg(long, value_name = "NAME")]
    os: String,
    /// The port of the web server in the container
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    port: i64,
    /// A further service, such as `rdp` or `8080/tcp`; may be given several times
    #[arg(long, value_name = "PROTOCOL")]
    service: Vec<String>,
    /// A file with an ssh public key for root
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// A size that the operator offers by name, such as small; numbers win
    #[arg(long, value_name = "NAME")]
    size: Option<String>,
    #[command(flatten)]
    sizes: Sizes,
    /// A node's name; left out, the one with the most room
    #[arg(long)]
    node: Option<String>,
    /// A template as `cac node templates` lists it
    #[arg(long)]
    template: Option<String>,
    /// The label of a node
    #[arg(long, value_name = "LABEL")]
    ai_container: Option<String>,
    /// Only say whether and where it could be made
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for it
    #[arg(long, short)]
    detach: bool,
}

#[derive(Args)]
struct Sizes {
    /// How many processors
    #[arg(long)]
    cores: Option<i64>,
    /// Memory in MiB
    #[arg(long)]
    memory: Option<i64>,
    /// Root disk in GiB
    #[arg(long)]
    disk: Option<i64>,
}

#[derive(Args)]
struct Resize {
    #[command(flatten)]
    container: Named,
    #[command(flatten)]
    sizes: Sizes,
    /// Whether it may not be deleted
    #[arg(long, value_name = "true|false")]
    protected: Option<bool>,
    /// The new owner, for admins
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
}

/// What a change answers, whatever it was.
type Answer = Result<
    progenitor_client::ResponseValue<types::Progress>,
    progenitor_client::Error<types::Problem>,
>;

impl Container {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let portal = Portal::open(common)?;
        let json = common.json;
        match self.command {
            Command::Create(new) => new.run(&portal, json).await?,
            Command::List { all, user, search } => {
                let whose = (all, user.as_deref());
                let rows = portal.containers(whose, search.as_deref()).await?;
                list(&rows, all || user.is_some(), json)?;
            }
            Command::Show(one) => show(&portal.container(&one.name).await?, json)?,
            Command::Delete {
                container,
                yes,
                forget,
            } => delete(&portal, &container.name, (yes, forget), json).await?,
            Command::Keep(one) => {
                let id = portal.container(&one.name).await?.id;
                let answer = portal.client.container_keep().id(id).send().await;
                changed(&portal, id, answer, json).await?;
            }
            Command::Start(one) => {
                let id = portal.container(&one.name).await?.id;
                let answer = portal.client.container_start().id(id).send().await;
                changed(&portal, id, answer, json).await?;
            }
            Command::Stop(one) => {
                let id = portal.container(&one.name).await?.id;
                let answer = portal.client.container_stop().id(id).send().await;
                changed(&portal, id, answer, json).await?;
            }
            Command::Restart(one) => {
                let id = portal.container(&one.name).await?.id;
                let answer = portal.client.container_restart().id(id).send().await;
                changed(&portal, id, answer, json).await?;
            }
            Command::Refresh(one) => {
                let id = portal.container(&one.name).await?.id;
                let answer = portal.client.container_refresh().id(id).send().await;
                show(&answer.told()?, json)?;
            }
            Command::Resize(resize) => resize.run(&portal, json).await?,
            Command::Logs { container, follow } => {
                let found = portal.container(&container.name).await?;
                let jobs = super::job::newest(&portal, Some(found.id), 1).await?;
                let job = jobs.last().ok_or_else(|| {
                    Exit::not_found("No job of yours has worked on this container yet.")
                })?;
                super::job::output(&portal, job.id, follow, json).await?;
            }
            Command::Open { container, print } => {
                let url = portal.container(&container.name).await?.url;
                let url = url.ok_or_else(|| {
                    Exit::not_found("This container has no site: `cac service add` adds one.")
                })?;
                // A portal says where; what a browser gets is a page nevertheless.
                let url = Url::parse(&url)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
                let url = url.ok_or("The portal's address of the site is none of a web page.")?;
                if json {
                    print::json(&serde_json::json!({"url": url}))?;
                } else if print {
                    print::data(&format!("{url}\n"))?;
                } else {
                    open::that_detached(url.as_str()).map_err(|error| {
                        format!("No browser could be started ({error}): open {url}")
                    })?;
                }
            }
            Command::Ssh {
                container,
                login,
                print,
                words,
            } => ssh(
                &portal.container(&container.name).await?,
                &login,
                &words,
                (print, json),
            )?,
            Command::Snapshot(snapshot) => snapshot.run(&portal, json).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(self, portal: &Portal, json: bool) -> Result<(), Failure> {
        let key = self.ssh_key.as_deref().map(public_key);
        let wanted = types::ContainerRequest {
            init: Some(true),
            hostname: self.hostname.clone(),
            os_release: self.os,
            http_port: self.port,
            additional_protocols: self.service,
            ssh_public_key: key.transpose()?,
            size: self.size,
            cores: self.sizes.cores,
            memory: self.sizes.memory,
            disk: self.sizes.disk,
            node: self.node,
            template: self.template,
            ai_container: self.ai_container,
            container_id: None,
            ipv4_address: None,
            mac_address: None,
            username: None,
        };
        let mut request = portal.client.container_create().init(true);
        if self.dry_run {
            request = request.dry_run(true);
        }
        let answer = request.body(wanted).send().await.told()?;
        if self.dry_run {
            if json {
                return print::json(&answer);
            }
            return print::sheet([
                ("node", answer.node.unwrap_or_default()),
                ("template", answer.template.unwrap_or_default()),
                ("storage", answer.storage.unwrap_or_default()),
                ("bridge", answer.bridge.unwrap_or_default()),
            ]);
        }
        let (Some(id), Some(job)) = (answer.id, answer.job_id) else {
            return Err("The portal's answer names no job: are both of one version?".into());
        };
        if self.detach {
            if json {
                return print::json(&answer);
            }
            return print::data(&format!(
                "Container {id} is being made by job {job}: `cac job follow {job}`.\n"
            ));
        }
        follow::finished(portal, job, Show::Progress.unless(json)).await?;
        let made = portal.client.container_find().id(id).send().await.told()?;
        show(&made, json)
    }
}

impl Resize {
    async fn run(self, portal: &Portal, json: bool) -> Result<(), Failure> {
        let sizes = &self.sizes;
        let any = sizes.cores.or(sizes.memory).or(sizes.disk).is_some();
        if !any && self.protected.is_none() && self.owner.is_none() {
            return Err(Exit::usage(
                "Give what is to be changed: --cores, --memory, --disk, --protected or --owner.",
            ));
        }
        let change = types::ContainerUpdate {
            cores: self.sizes.cores,
            memory: self.sizes.memory,
            disk: self.sizes.disk,
            protected: self.protected,
            username: self.owner,
        };
        let id = portal.container(&self.container.name).await?.id;
        let request = portal.client.container_update().id(id).body(change);
        changed(portal, id, request.send().await, json).await
    }
}

/// One line, and never a private key: it would be sent.
fn public_key(file: &Path) -> Result<String, Failure> {
    let text = super::small(file)?;
    let key = text.trim();
    if key.contains("PRIVATE KEY") || key.lines().count() != 1 {
        return Err(Exit::usage(&format!(
            "{}: give the public key, a file of one line such as ~/.ssh/id_ed25519.pub.",
            file.display()
        )));
    }
    Ok(key.to_owned())
}

/// Waits for the job that goes on with a change, and shows the container as it is then.
async fn changed(portal: &Portal, id: i64, answer: Answer, json: bool) -> Result<(), Failure> {
    let answer = answer.told()?;
    if let Some(job) = answer.job_id {
        follow::finished(portal, job, Show::Progress.unless(json)).await?;
    }
    let now = portal.client.container_find().id(id).send().await.told()?;
    show(&now, json)
}

async fn delete(
    portal: &Portal,
    name: &str,
    (yes, forget): (bool, bool),
    json: bool,
) -> Result<(), Failure> {
    let found = portal.container(name).await?;
    let what = format!(
        "Container {} of {} and everything in it will be gone.",
        found.hostname, found.username
    );
    sure(&found.hostname, &what, yes)?;
    let mut request = portal.client.container_delete().id(found.id);
    if forget {
        request = request.forget(true);
    }
    let answer = request.send().await.told()?;
    if let Some(job) = answer.job_id {
        follow::finished(portal, job, Show::Progress.unless(json)).await?;
    }
    match json {
        true => print::json(&serde_json::json!({"success": true, "id": found.id})),
        false => print::data(&format!("Container {} is gone.\n", found.hostname)),
    }
}

fn list(rows: &[types::Container], others: bool, json: bool) -> Result<(), Failure> {
    if json {
        return print::json(&rows);
    }
    if rows.is_empty() {
        print::note(match others {
            true => "There is no such container.",
            false => {
                "There is no container yet: `cac container create NAME --os debian --port 80`."
            }
        });
        return Ok(());
    }
    let rows = rows.iter().map(|row| {
        [
            row.id.to_string(),
            row.hostname.clone(),
            row.username.clone(),
            row.state.clone().or(row.status.clone()).unwrap_or_default(),
            shown(row.ipv4_address.as_ref()),
            shown(row.url.as_ref()),
        ]
    });
    print::table(["ID", "NAME", "OWNER", "STATE", "ADDRESS", "SITE"], rows)
}

fn show(row: &types::Container, json: bool) -> Result<(), Failure> {
    if json {
        return print::json(row);
    }
    let size = |value: Option<u32>, unit: &str| value.map(|n| format!("{n}{unit}"));
    let sizes = [
        size(row.cores, " cores"),
        size(row.memory, " MiB"),
        size(row.disk, " GiB"),
    ];
    let sizes: Vec<String> = sizes.into_iter().flatten().collect();
    print::sheet([
        ("name", row.hostname.clone()),
        ("id", row.id.to_string()),
        ("owner", row.username.clone()),
        (
            "state",
            row.state.clone().or(row.status.clone()).unwrap_or_default(),
        ),
        ("identity", identity(row)),
        ("site", shown(row.url.as_ref())),
        ("ssh", shown(row.ssh.as_ref())),
        ("address", shown(row.ipv4_address.as_ref())),
        ("address problem", shown(row.address_problem.as_ref())),
        ("MAC", shown(row.mac_address.as_ref())),
        ("VMID", shown(row.container_id.as_ref())),
        ("system", shown(row.os_release.as_ref())),
        ("sizes", sizes.join(", ")),
        (
            "protected",
            if row.protected {
                "yes".to_owned()
            } else {
                String::new()
            },
        ),
        ("made", time(Some(&row.created_at))),
        ("job", shown(row.job_id.as_ref())),
        ("deletion", deletion(row)),
        ("not applied", shown(row.change_error.as_ref())),
    ])?;
    super::service::list(&row.services, false)
}

/// How a requested deletion stands; empty without one.
fn deletion(row: &types::Container) -> String {
    let Some(by) = &row.deletion_requested_by else {
        return String::new();
    };
    match (&row.deletion_error, row.deletion_job_id) {
        (Some(error), _) => format!("requested by {by}, failed: {error}"),
        (None, Some(job)) => format!("requested by {by}, job {job}"),
        (None, None) => format!("requested by {by}"),
    }
}

/// Whether Proxmox VE has shown that it is this container, where that is in doubt.
fn identity(row: &types::Container) -> String {
    match (&row.identity_mismatch_at, &row.unverified_since) {
        (Some(at), _) => format!(
            "another container has its VMID since {}; it is not served",
            time(Some(at))
        ),
        (None, Some(since)) => format!(
            "unverified since {}; its node could not be asked",
            time(Some(since))
        ),
        (None, None) => String::new(),
    }
}

/// Becomes ssh, so that everything typed goes there.
fn ssh(
    row: &types::Container,
    login: &str,
    words: &[String],
    (print, json): (bool, bool),
) -> Result<(), Failure> {
    let command = row
        .ssh
        .as_deref()
        .ok_or_else(|| Exit::not_found("This container has no ssh service that is reached yet."))?;
    let place = command
        .strip_prefix("ssh -p ")
        .and_then(|rest| rest.split_once(" root@"))
        .and_then(|(port, host)| Some((port.parse::<u16>().ok()?, host)));
    let plain = |text: &str, more: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        !text.is_empty() && !text.starts_with('-') && text.chars().all(good)
    };
    let Some((port, host)) = place.filter(|(_, host)| plain(host, ".:-")) else {
        return Err("The portal's ssh command is not understood.".into());
    };
    if !plain(login, "._-") {
        return Err(Exit::usage(&format!("`{login}` is no user's name.")));
    }
    let to = format!("{login}@{host}");
    let port = port.to_string();
    if json {
        return print::json(&serde_json::json!({"host": host, "port": port, "login": login}));
    }
    if print {
        return print::data(&format!("ssh -p {port} {to}\n"));
    }
    let mut ssh = std::process::Command::new("ssh");
    let failed = ssh.args(["-p", &port, "--", &to]).args(words).exec();
    Err(format!("ssh cannot be started: {failed}").into())
}
