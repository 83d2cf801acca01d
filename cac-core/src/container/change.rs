//! Changing a container that exists: rights and state are checked here, the work is a durable job.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::size::{CORES, DISK, MEMORY};
use super::{Container, check as rules, find, refused};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Fields;
use crate::job::container_change::{self, Change, Payload};
use crate::job::{self, Status, container_create};
use crate::pve::{Sample, Snapshot};
use crate::quota::{self, Amounts};
use crate::{Core, Error, Result, args, node, transaction, user};

/// What an owner or an admin changes; absent fields stay.
#[derive(Debug, Clone, Default)]
pub struct ContainerChange {
    pub cores: Option<i64>,
    /// MiB
    pub memory: Option<i64>,
    /// GiB; only larger.
    pub disk: Option<i64>,
    /// Whether it may not be deleted.
    pub protected: Option<bool>,
    /// Another owner; for admins.
    pub username: Option<String>,
}

/// How a request to change stands when the answer is due.
#[derive(Debug, Clone)]
pub enum Changed {
    /// It is as it was asked for.
    Done(Box<Container>),
    /// The job goes on.
    Going { job_id: i64 },
}

/// Changes power or snapshots and waits up to `limit` for it.
pub async fn change(
    core: &Core,
    actor: &Actor,
    id: i64,
    change: Change,
    limit: Duration,
) -> Result<Changed> {
    let container = find(core, actor, id).await?;
    let mut fields = Fields::default();
    if let Change::Snapshot { name, .. }
    | Change::RollBack { name }
    | Change::DeleteSnapshot { name } = &change
        && !is_snapshot_name(name)
    {
        let message =
            "Use 2 to 40 letters, digits, `-` and `_`, beginning with a letter; not `current`.";
        fields.add("name", message);
    }
    fields.into_result()?;
    if let Change::RollBack { name } | Change::DeleteSnapshot { name } = &change {
        let all = snapshots_of(core, &container).await?;
        if !all.iter().any(|snapshot| snapshot.name == *name) {
            let message = format!("This container has no snapshot `{name}`.");
            return Err(Error::NotFound(message));
        }
    }
    work(core, actor, &container, change, limit).await
}

/// Changes sizes, protection and owner and waits up to `limit` for what Proxmox VE does of it.
pub async fn update(
    core: &Core,
    actor: &Actor,
    id: i64,
    change: &ContainerChange,
    limit: Duration,
) -> Result<Changed> {
    let container = find(core, actor, id).await?;
    let (resize, owner) = check(core, actor, &container, change)?;
    let owner = owner.as_deref();
    let user = |name: &str| core.proxmox_user(name);
    let new_owner = owner.filter(|owner| user(owner) != user(&container.username));
    if let Some(owner) = new_owner {
        give_role(core, &container, owner).await?;
    }
    if change.protected.is_some() || owner.is_some() {
        let now = core.clock.now();
        let sql = r#"UPDATE "Containers" SET "protected" = COALESCE(?, "protected"), "username" = COALESCE(?, "username"),
                            "updatedAt" = ? WHERE "id" = ?"#;
        core.db
            .exec(sql, args![change.protected, owner, now, id])
            .await?;
    }
    if new_owner.is_some() {
        take_role(core, &container).await;
    }
    match resize {
        Some(resize) => work(core, actor, &container, resize, limit).await,
        None => done(core, id).await,
    }
}

/// Gives the new owner the role that opens Proxmox VE's own console; nothing has changed if Proxmox VE knows no such user.
async fn give_role(core: &Core, container: &Container, owner: &str) -> Result<()> {
    let Ok((node, vmid)) = made(container) else {
        return Ok(());
    };
    let pve = core.pve(&node::find(core, node).await?)?;
    let path = format!("/vms/{vmid}");
    let user = core.proxmox_user(owner);
    let given = pve.acl_grant(&path, container_create::ROLE, &user).await;
    given.map_err(|error| match error.is_does_not_exist() {
        true => Error::invalid("username", format!("Proxmox VE knows no user {user}.")),
        false => told(&error),
    })
}

/// Takes the role from the old owner. The container is somebody else's by now, whatever comes of it.
async fn take_role(core: &Core, container: &Container) {
    // Proxmox VE deleted the roles of a user with the account.
    if user::is_former(&container.username) {
        return;
    }
    let Ok((node, vmid)) = made(container) else {
        return;
    };
    let (path, user) = (
        format!("/vms/{vmid}"),
        core.proxmox_user(&container.username),
    );
    let taken = async {
        let pve = core.pve(&node::find(core, node).await?)?;
        match pve.acl_revoke(&path, container_create::ROLE, &user).await {
            Err(error) if !error.is_does_not_exist() => Err(told(&error)),
            _ => Ok(()),
        }
    };
    if let Err(error) = taken.await {
        tracing::warn!(%error, path, user, "a former owner keeps the role in Proxmox VE");
    }
}

/// The snapshots that Proxmox VE has of the container, oldest first.
pub async fn snapshots(core: &Core, actor: &Actor, id: i64) -> Result<Vec<Snapshot>> {
    snapshots_of(core, &find(core, actor, id).await?).await
}

async fn snapshots_of(core: &Core, container: &Container) -> Result<Vec<Snapshot>> {
    let (node, vmid) = made(container)?;
    let node = node::find(core, node).await?;
    let asked = core.pve(&node)?.lxc_snapshots(&node.name, vmid).await;
    asked.map_err(|error| told(&error))
}

/// How far back Proxmox VE's series go.
pub const TIMEFRAMES: [&str; 5] = ["hour", "day", "week", "month", "year"];

/// What the container used; `timeframe` is one of [`TIMEFRAMES`].
pub async fn usage(core: &Core, actor: &Actor, id: i64, timeframe: &str) -> Result<Vec<Sample>> {
    if !TIMEFRAMES.contains(&timeframe) {
        let message = "Use `hour`, `day`, `week`, `month` or `year`.";
        return Err(Error::invalid("timeframe", message));
    }
    let container = find(core, actor, id).await?;
    let (node, vmid) = made(&container)?;
    let node = node::find(core, node).await?;
    match core
        .pve(&node)?
        .lxc_series(&node.name, vmid, timeframe)
        .await
    {
        Ok(samples) => Ok(samples),
        // Proxmox VE has made no round since the creation.
        Err(error) if error.to_string().contains("RRD error") => Ok(Vec::new()),
        Err(error) => Err(told(&error)),
    }
}

fn told(error: &crate::pve::Error) -> Error {
    if error.is_transient() {
        return Error::Unreachable(error.to_string());
    }
    Error::Upstream(error.to_string())
}

/// Node and VMID of a container that is made.
fn made(container: &Container) -> Result<(i64, u32)> {
    let place = container.node_id.zip(container.container_id);
    let message = "This container is not made yet, or its node is not known.";
    place.ok_or_else(|| Error::conflict("id", message))
}

/// The change of sizes, and the stored form of the new owner's name.
fn check(
    core: &Core,
    actor: &Actor,
    container: &Container,
    change: &ContainerChange,
) -> Result<(Option<Change>, Option<String>)> {
    let mut fields = Fields::default();
    let mut size =
        |field: &'static str, value: Option<i64>, range: RangeInclusive<u32>, what: &str| {
            let fits = u32::try_from(value?).ok();
            let fits = fits.filter(|v| range.contains(v));
            if fits.is_none() {
                fields.add(
                    field,
                    format!("{what} from {} to {}.", range.start(), range.end()),
                );
            }
            fits
        };
    let number = "Give a whole number";
    let cores = size("cores", change.cores, CORES, number);
    let memory = size("memory", change.memory, MEMORY, number);
    let grown = container.disk.unwrap_or(*DISK.start())..=*DISK.end();
    let disk = size("disk", change.disk, grown, "A disk can only grow: give GiB");
    let mut owner = None;
    if let Some(typed) = &change.username {
        if !actor.admin {
            fields.add(
                "username",
                "Only admins may give a container to somebody else.",
            );
        } else {
            owner = Some(rules::owner(core, typed, &mut fields));
        }
    }
    fields.into_result()?;
    let cores = cores.filter(|cores| Some(*cores) != container.cores);
    let memory = memory.filter(|memory| Some(*memory) != container.memory);
    let disk = disk.filter(|disk| Some(*disk) != container.disk);
    let any = cores.is_some() || memory.is_some() || disk.is_some();
    let resize = any.then_some(Change::Resize {
        cores,
        memory,
        disk,
    });
    Ok((resize, owner))
}

/// What Proxmox VE takes as a configuration id.
fn is_snapshot_name(name: &str) -> bool {
    (2..=40).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && name != "current"
}

async fn work(
    core: &Core,
    actor: &Actor,
    container: &Container,
    change: Change,
    limit: Duration,
) -> Result<Changed> {
    made(container)?;
    let id = container.id;
    let job_id = transaction!(core.db, tx => {
        tx.lock("names").await?;
        let row = tx.opt(r#"SELECT "state" FROM "Containers" WHERE "id" = ?"#, args![id]).await?;
        let Some(row) = row else {
            return Err(Error::NotFound(format!("There is no container {id}.")));
        };
        if let Some(state) = row.get::<Option<String>>("state")? {
            let message = format!("Something works on this container already ({state}); wait until it has ended.");
            return Err(Error::conflict("id", message));
        }
        if let Change::Resize { cores, memory, disk } = &change {
            reserve(tx, core, actor, id, (*cores, *memory, *disk)).await?;
        }
        let payload = Payload { container: id, change: change.clone() };
        let new = job::NewJob {
            kind: container_change::KIND,
            title: format!("{} container {} of {}", change.words(), container.hostname, container.username),
            payload: serde_json::to_value(payload).map_err(|error| Error::Internal(error.to_string()))?,
            container_id: Some(id),
            created_by: Some(&actor.username),
        };
        let job_id = job::create(tx, core, new).await?;
        let sql = r#"UPDATE "Containers" SET "state" = 'changing', "jobId" = ?, "updatedAt" = ? WHERE "id" = ?"#;
        tx.exec(sql, args![job_id, core.clock.now(), id]).await?;
        job_id
    })?;
    core.wake.jobs();
    let job = job::wait(core, job_id, limit).await?;
    match job.status {
        Status::Success => done(core, id).await,
        status if !status.ended() => Ok(Changed::Going { job_id }),
        _ => Err(refused(job.reason)),
    }
}

/// Counts the larger sizes from now on; the job writes down what Proxmox VE has in the end.
async fn reserve(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    id: i64,
    (cores, memory, disk): (Option<u32>, Option<u32>, Option<u32>),
) -> Result<()> {
    let sql = r#"SELECT "username", "cores", "memory", "disk" FROM "Containers" WHERE "id" = ?"#;
    let row = tx.one(sql, args![id]).await?;
    let owner: String = row.get("username")?;
    let size = |name: &str, wanted: Option<u32>| {
        let now = row.get::<Option<u32>>(name)?.unwrap_or(0);
        Ok::<_, Error>((now, wanted.unwrap_or(now).max(now)))
    };
    let (cores, memory, disk) = (
        size("cores", cores)?,
        size("memory", memory)?,
        size("disk", disk)?,
    );
    let more = |(now, then): (u32, u32)| i64::from(then - now);
    let more = Amounts {
        containers: 0,
        cores: more(cores),
        memory: more(memory),
        disk: more(disk),
    };
    let mut fields = Fields::default();
    quota::check(tx, core, actor, &owner, more, &mut fields).await?;
    fields.into_result()?;
    let sql = r#"UPDATE "Containers" SET "cores" = ?, "memory" = ?, "disk" = ? WHERE "id" = ?"#;
    tx.exec(sql, args![cores.1, memory.1, disk.1, id]).await?;
    Ok(())
}

async fn done(core: &Core, id: i64) -> Result<Changed> {
    match super::find_any(core, id).await? {
        Some(container) => Ok(Changed::Done(Box::new(container))),
        None => Err(Error::NotFound(format!("There is no container {id}."))),
    }
}
