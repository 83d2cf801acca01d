//! Asking for a container: checks, then row, services, ports and job in one transaction.

use std::ops::RangeInclusive;

use super::check;
use super::size::{CORES, DISK, MEMORY};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Fields;
use crate::idempotency::{Key, Made};
use crate::job::{self, container_create};
use crate::node::{self, Node};
use crate::placement::{self, Os, Preferences};
use crate::quota::{self, Amounts};
use crate::service::{self, NewService};
use crate::{Core, Error, Result, args, audit, db, transaction};

/// What somebody asks for. Absent sizes are the configured ones.
#[derive(Debug, Clone, Default)]
pub struct NewContainer {
    pub hostname: String,
    pub os_release: String,
    /// The container's web port.
    pub http_port: Option<i64>,
    /// The label of a node; absent or `N` for any.
    pub ai_container: Option<String>,
    /// Names of the protocol table or forms such as `8080/tcp`.
    pub additional_protocols: Vec<String>,
    pub ssh_public_key: Option<String>,
    /// One of `CONTAINER_SIZES`; what is given besides wins.
    pub size: Option<String>,
    pub cores: Option<i64>,
    /// MiB
    pub memory: Option<i64>,
    /// GiB
    pub disk: Option<i64>,
    /// A node's name.
    pub node: Option<String>,
    /// A template's volume id or file name; `lxc/VMID` or the name of a template container.
    pub template: Option<String>,
}

impl NewContainer {
    /// The request as one text, for idempotency keys. Later releases must write the same request alike: a field that is added is left
    /// out where it is absent, and the words stay whatever becomes of the names in this type.
    fn fingerprint(&self) -> String {
        let fields = serde_json::json!({
            "hostname": self.hostname, "osRelease": self.os_release, "httpPort": self.http_port, "aiContainer": self.ai_container,
            "additionalProtocols": self.additional_protocols, "sshPublicKey": self.ssh_public_key, "size": self.size,
            "cores": self.cores, "memory": self.memory, "disk": self.disk, "node": self.node, "template": self.template,
        });
        let fields = fields.as_object().into_iter().flatten();
        // In the order of their names, whatever the map's own order is.
        let present: std::collections::BTreeMap<_, _> =
            fields.filter(|(_, value)| !value.is_null()).collect();
        format!("container_create/1 {}", serde_json::json!(present))
    }
}

/// The row and the job that makes it real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    pub id: i64,
    pub job_id: i64,
}

impl From<Made> for Created {
    fn from(made: Made) -> Self {
        Self {
            id: made.container.unwrap_or_default(),
            job_id: made.job,
        }
    }
}

/// A request that passed every check.
struct Checked {
    hostname: String,
    os_release: String,
    ai_container: String,
    services: Vec<NewService>,
    ssh_public_key: Option<String>,
    cores: u32,
    memory: u32,
    disk: u32,
    node: Option<String>,
    template: Option<String>,
}

/// Asks for a container. The same `key` of the same owner within 24 h gives the same answer and makes nothing new.
pub async fn create(
    core: &Core,
    actor: &Actor,
    new: &NewContainer,
    key: Option<&str>,
) -> Result<Created> {
    let key = key
        .map(|key| {
            let key = Key::new(key, &new.fingerprint())?;
            Ok::<_, Error>(key.formerly(&format!("container {new:?}")))
        })
        .transpose()?;
    if let Some(key) = &key {
        let mut tx = core.db.read().await?;
        if let Some(before) = key.find(&mut tx, core, actor).await? {
            return Ok(before.into());
        }
    }
    let checked = check(core, new).await?;
    let created = transaction!(core.db, tx => {
        tx.lock("names").await?;
        if let Some(key) = &key
            && let Some(before) = key.find(tx, core, actor).await?
        {
            return Ok(before.into());
        }
        let mut fields = Fields::default();
        quota::check(tx, core, actor, &actor.username, checked.amounts(), &mut fields).await?;
        fields.into_result()?;
        let created = insert(tx, core, actor, &checked).await?;
        if let Some(key) = &key {
            let made = Made { container: Some(created.id), job: created.job_id };
            key.create(tx, core, actor, made).await?;
        }
        created
    })?;
    core.wake.jobs();
    core.wake.routes();
    Ok(created)
}

/// Where a container would be made, had it been asked for in earnest.
#[derive(Debug, Clone)]
pub struct Preflight {
    pub node: String,
    /// A volume id, or `lxc/VMID`.
    pub template: String,
    pub storage: String,
    pub bridge: String,
}

/// Checks everything that [`create`] and its job would refuse now, and says all of it at once. Nothing is kept.
pub async fn preflight(core: &Core, actor: &Actor, new: &NewContainer) -> Result<Preflight> {
    let (checked, mut fields) = look(core, new).await?;
    let mut tx = core.db.write().await?;
    let outcome = async {
        tx.lock("names").await?;
        quota::check(
            &mut tx,
            core,
            actor,
            &actor.username,
            checked.amounts(),
            &mut fields,
        )
        .await?;
        // In earnest, so that names and ports are found as they are; then taken back.
        insert(&mut tx, core, actor, &checked).await
    }
    .await;
    tx.rollback().await;
    match outcome {
        Ok(_) => {}
        Err(Error::Invalid(more)) => more
            .0
            .into_iter()
            .for_each(|(field, text)| fields.add(field, text)),
        Err(Error::Conflict { field, message }) => fields.add(field, message),
        Err(other) => return Err(other),
    }
    let wish = placement::Wish {
        os_release: checked.os_release,
        template: checked.template,
        node: checked.node,
        ai_container: checked.ai_container,
        disk: checked.disk,
        memory: checked.memory,
        ssh_key: checked.ssh_public_key.is_some(),
    };
    let place = match placement::choose(core, &wish, &placement::Making::default()).await? {
        Ok(place) => place,
        Err(no) => {
            fields.add("node", no.to_string());
            return Err(Error::Invalid(fields));
        }
    };
    fields.into_result()?;
    Ok(Preflight {
        node: place.node.name,
        template: place.template,
        storage: place.storage,
        bridge: place.bridge,
    })
}

impl Checked {
    fn amounts(&self) -> Amounts {
        Amounts {
            containers: 1,
            cores: self.cores.into(),
            memory: self.memory.into(),
            disk: self.disk.into(),
            ..Amounts::of_services(&self.services)
        }
    }
}

async fn check(core: &Core, new: &NewContainer) -> Result<Checked> {
    let (checked, fields) = look(core, new).await?;
    fields.into_result()?;
    Ok(checked)
}

/// What is asked for, as far as it can be read, and what is wrong with it.
async fn look(core: &Core, new: &NewContainer) -> Result<(Checked, Fields)> {
    let mut fields = Fields::default();
    let hostname = new.hostname.trim().to_lowercase();
    check::label(core, "hostname", &hostname, &mut fields);
    let nodes = node::all(core).await?;
    let os_release = new.os_release.trim().to_lowercase();
    let preferred = nodes
        .iter()
        .any(|node| prefers(node, &os_release).is_some());
    if !preferred && Os::parse(&os_release).is_none() {
        fields.add(
            "osRelease",
            format!(
                "Choose one of {}; a version may follow, as in `debian-12`.",
                Os::names().join(", ")
            ),
        );
    }
    let ai_container = new
        .ai_container
        .as_deref()
        .map(str::trim)
        .filter(|label| !label.is_empty())
        .unwrap_or("N")
        .to_owned();
    check_node(&nodes, new, &ai_container, &mut fields);
    let http_port = check::port(core, "httpPort", new.http_port, &mut fields);
    let services = check::services(
        core,
        &hostname,
        Some(http_port),
        &new.additional_protocols,
        &mut fields,
    );
    let limits = &core.config.containers;
    let wanted = new.size.as_deref().filter(|name| !name.trim().is_empty());
    let named = wanted.and_then(|name| limits.sizes.find(name));
    if wanted.is_some() && named.is_none() {
        let message = match limits.sizes.names() {
            names if names.is_empty() => {
                "No sizes have names here; give cores, memory and disk.".to_owned()
            }
            names => format!("Use one of {names}, or give cores, memory and disk."),
        };
        fields.add("size", message);
    }
    let standard = named.map_or((limits.cores, limits.memory, limits.disk), |size| {
        (size.cores, size.memory, size.disk)
    });
    let mut size =
        |field, value: Option<i64>, default: u32, range: RangeInclusive<u32>, unit: &str| {
            let value = value.unwrap_or(i64::from(default));
            u32::try_from(value)
                .ok()
                .filter(|v| range.contains(v))
                .unwrap_or_else(|| {
                    fields.add(
                        field,
                        format!("Give {unit} from {} to {}.", range.start(), range.end()),
                    );
                    default
                })
        };
    let cores = size("cores", new.cores, standard.0, CORES, "a number of cores");
    let memory = size("memory", new.memory, standard.1, MEMORY, "MiB of memory");
    let disk = size("disk", new.disk, standard.2, DISK, "GiB of disk");
    let ssh_public_key = new
        .ssh_public_key
        .as_deref()
        .map(str::trim)
        .filter(|key| !key.is_empty());
    if ssh_public_key.is_some_and(|key| !is_public_key(key)) {
        fields.add(
            "sshPublicKey",
            "Paste one public key as in `~/.ssh/id_ed25519.pub`: type, key, comment, on one line.",
        );
    }
    let checked = Checked {
        hostname,
        os_release,
        ai_container,
        services,
        ssh_public_key: ssh_public_key.map(ToOwned::to_owned),
        cores,
        memory,
        disk,
        node: new.node.clone().filter(|name| !name.is_empty()),
        template: new.template.clone().filter(|name| !name.is_empty()),
    };
    if checked.ssh_public_key.is_some() && only_clones(&nodes, &checked) {
        fields.add("sshPublicKey", placement::NO_KEY);
    }
    Ok((checked, fields))
}

fn check_node(nodes: &[Node], new: &NewContainer, label: &str, fields: &mut Fields) {
    if let Some(name) = new.node.as_deref().filter(|name| !name.is_empty()) {
        if !nodes.iter().any(|node| node.name == name) {
            fields.add("node", format!("There is no node named `{name}`."));
        }
    } else if label != "N"
        && !nodes
            .iter()
            .any(|node| node.ai_container.as_deref() == Some(label))
    {
        fields.add(
            "aiContainer",
            format!("No node has the label `{label}`; use `N` for any node."),
        );
    }
    if let Some(template) = new.template.as_deref().filter(|t| !t.is_empty())
        && !placement::is_template(template)
    {
        fields.add("template", "Give a template as its node lists it, such as `local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst` or `lxc/160`.");
    }
}

/// What an admin wants this `osRelease` to mean on a node.
fn prefers(node: &Node, os_release: &str) -> Option<String> {
    let preferences = Preferences::read(node.templates.as_deref());
    preferences.get(os_release).map(ToOwned::to_owned)
}

/// Whether nothing but a clone can come of it, which carries no key: known before anything is made.
fn only_clones(nodes: &[Node], new: &Checked) -> bool {
    if let Some(template) = &new.template {
        return placement::names_container(template);
    }
    let label = Some(new.ai_container.as_str()).filter(|label| *label != "N");
    let mut candidates = nodes.iter().filter(|node| match &new.node {
        Some(name) => node.name == *name,
        None => node.enabled && node.ai_container.as_deref() == label,
    });
    let clones = |node: &Node| {
        prefers(node, &new.os_release).is_some_and(|name| placement::names_container(&name))
    };
    candidates.clone().next().is_some() && candidates.all(clones)
}

/// The shape that `authorized_keys` takes, without options: a known type, base64, an optional comment.
fn is_public_key(key: &str) -> bool {
    let mut words = key.split(' ').filter(|word| !word.is_empty());
    let known = words.next().is_some_and(|kind| {
        kind.starts_with("ssh-") || kind.starts_with("ecdsa-") || kind.starts_with("sk-")
    });
    let base64 = |c: u8| c.is_ascii_alphanumeric() || b"+/=".contains(&c);
    let body = words
        .next()
        .is_some_and(|body| body.len() >= 40 && body.bytes().all(base64));
    known && body && key.len() <= 8192 && !key.chars().any(char::is_control)
}

async fn insert(tx: &mut Tx, core: &Core, actor: &Actor, new: &Checked) -> Result<Created> {
    let taken = || check::taken("hostname", &new.hostname);
    check::name_is_free(tx, core, "hostname", &new.hostname, (0, 0)).await?;
    let now = core.clock.now();
    let id = tx
        .insert(
            r#"INSERT INTO "Containers" ("hostname", "username", "osRelease", "aiContainer", "state", "cores", "memory", "disk",
                                         "sshPublicKey", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, 'creating', ?, ?, ?, ?, ?, ?)"#,
            args![
                &new.hostname, &actor.username, &new.os_release, &new.ai_container, new.cores, new.memory, new.disk,
                new.ssh_public_key.as_deref(), now, now
            ],
        )
        .await
        .map_err(|error| if matches!(error, db::Error::Unique(_)) { taken() } else { error.into() })?;
    tx.lock("ports").await?;
    service::create(tx, core, id, &new.services).await?;
    let job_id = job::create(
        tx,
        core,
        job::NewJob {
            kind: container_create::KIND,
            title: format!(
                "create container {} ({}) for {}",
                new.hostname, new.os_release, actor.username
            ),
            payload: serde_json::to_value(container_create::Payload {
                container: id,
                hostname: new.hostname.clone(),
                owner: core.proxmox_user(&actor.username),
                node: new.node.clone(),
                template: new.template.clone(),
                reach: core.config.reach(),
            })
            .map_err(|error| Error::Internal(error.to_string()))?,
            container_id: Some(id),
            created_by: Some(&actor.username),
        },
    )
    .await?;
    tx.exec(
        r#"UPDATE "Containers" SET "jobId" = ? WHERE "id" = ?"#,
        args![job_id, id],
    )
    .await?;
    let services: Vec<String> = new.services.iter().map(NewService::summary).collect();
    audit::Change::new("container_create", format!("/containers/{id}"))
        .job(job_id)
        .new_field("hostname", &new.hostname)
        .new_field("osRelease", &new.os_release)
        .new_field("cores", new.cores)
        .new_field("memory", new.memory)
        .new_field("disk", new.disk)
        .new_field("services", services)
        .write(tx, core, actor)
        .await?;
    Ok(Created { id, job_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was what `Debug` makes of the type: a release that renames a field refused every repeated request for a day.
    #[test]
    fn the_fingerprint_of_a_request_outlives_the_names_in_the_source() {
        let new = NewContainer {
            hostname: "web".to_owned(),
            os_release: "debian".to_owned(),
            http_port: Some(80),
            additional_protocols: vec!["rdp".to_owned()],
            memory: Some(2048),
            ..NewContainer::default()
        };
        // Never to be changed: keys are stored with its hash.
        let stored = r#"container_create/1 {"additionalProtocols":["rdp"],"hostname":"web","httpPort":80,"memory":2048,"osRelease":"debian"}"#;
        assert_eq!(new.fingerprint(), stored);
    }
}
