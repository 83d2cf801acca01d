//! Sizes, protection and owner of a container. A change is checked as a whole before anything of it is stored; what the database
//! holds is one commit, and what Proxmox VE is to do of it one durable job, which leaves on the container what it could not apply.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::change::{Changed, begin, done, finished, made, must_be_free, told};
use super::size::{CORES, DISK, MEMORY};
use super::{Container, check as rules, find};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Fields;
use crate::job::container_access::OwnerChange;
use crate::job::container_change::{Change, Payload, StoredSizes};
use crate::quota::{self, Amounts};
use crate::{Core, Error, Result, args, audit, node, transaction};

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

/// Changes sizes, protection and owner and waits up to `limit` for what Proxmox VE does of it. After an error of kind
/// [`Error::Invalid`] or [`Error::Conflict`] nothing has changed.
pub async fn update(
    core: &Core,
    actor: &Actor,
    id: i64,
    change: &ContainerChange,
    limit: Duration,
) -> Result<Changed> {
    let container = find(core, actor, id).await?;
    let wanted = Checked::new(core, actor, &container, change)?;
    if let Some(owner) = wanted.owner_change(core, &container) {
        must_exist(core, &container, &owner.new_user).await?;
    }
    let job_id = transaction!(core.db, tx => {
        tx.lock("names").await?;
        store(tx, core, actor, id, change).await?
    })?;
    match job_id {
        Some(job_id) => finished(core, id, job_id, limit).await,
        None => done(core, id).await,
    }
}

/// Checks everything against the row as it is now, then stores all of it; the job that Proxmox VE's part needs.
async fn store(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    id: i64,
    change: &ContainerChange,
) -> Result<Option<i64>> {
    let sql = columns!(r#" FROM "Containers" c WHERE c."id" = ?"#);
    let row = tx.opt(sql, args![id]).await?;
    let row = row.map(|row| Container::from_row(&row)).transpose()?;
    let Some(container) = row.filter(|row| actor.may_see(Some(&row.username))) else {
        return Err(Error::NotFound(format!("There is no container {id}.")));
    };
    let wanted = Checked::new(core, actor, &container, change)?;
    let owner_change = wanted.owner_change(core, &container);
    if container.deletion_requested_at.is_some() && wanted.protected == Some(true) {
        let message = "The deletion of this container was requested. Withdraw the request first.";
        return Err(Error::conflict("protected", message));
    }
    if owner_change.is_some() || wanted.resizes() {
        must_be_free(&container)?;
    }
    if wanted.resizes() {
        made(&container)?;
    }
    wanted.check_quota(tx, core, actor, &container).await?;
    let counted = wanted.counted(&container);
    let sql = r#"UPDATE "Containers" SET "protected" = COALESCE(?, "protected"), "username" = COALESCE(?, "username"),
                        "cores" = ?, "memory" = ?, "disk" = ?, "updatedAt" = ? WHERE "id" = ?"#;
    let now = core.clock.now();
    let owner = wanted.owner.as_deref();
    tx.exec(
        sql,
        args![
            wanted.protected,
            owner,
            counted.cores,
            counted.memory,
            counted.disk,
            now,
            id
        ],
    )
    .await?;
    let entry = audit::Change::new("container_update", format!("/containers/{id}"))
        .field(
            "protected",
            container.protected,
            wanted.protected.unwrap_or(container.protected),
        )
        .field(
            "username",
            &container.username,
            owner.unwrap_or(&container.username),
        )
        .field("cores", container.cores, wanted.cores.or(container.cores))
        .field(
            "memory",
            container.memory,
            wanted.memory.or(container.memory),
        )
        .field("disk", container.disk, wanted.disk.or(container.disk));
    let roles = owner_change.filter(|_| made(&container).is_ok());
    if roles.is_none() && !wanted.resizes() {
        entry.write_changed(tx, core, actor).await?;
        return Ok(None);
    }
    let (name, by) = (&container.hostname, &container.username);
    let title = match &roles {
        Some(roles) if wanted.resizes() => {
            format!(
                "resize container {name} and give it from {by} to {}",
                roles.new
            )
        }
        Some(roles) => format!("give container {name} from {by} to {}", roles.new),
        None => format!("resize container {name} of {by}"),
    };
    let payload = Payload {
        container: id,
        change: wanted.resize(),
        owner: roles,
        before: Some(sizes(&container)),
    };
    let job_id = begin(tx, core, actor, payload, title).await?;
    entry.job(job_id).write(tx, core, actor).await?;
    Ok(Some(job_id))
}

/// Refuses an owner whom Proxmox VE definitely does not know. Where the node's token may not look people up, the job finds out.
async fn must_exist(core: &Core, container: &Container, user: &str) -> Result<()> {
    let Ok((node, _)) = made(container) else {
        return Ok(());
    };
    let pve = core.pve(&node::find(core, node).await?)?;
    match pve.user(user).await {
        Err(error) if error.is_does_not_exist() => {
            let message = format!("Proxmox VE knows no user {user}.");
            Err(Error::invalid("username", message))
        }
        Err(error) if error.is_transient() => Err(told(&error)),
        _ => Ok(()),
    }
}

fn sizes(container: &Container) -> StoredSizes {
    StoredSizes {
        cores: container.cores,
        memory: container.memory,
        disk: container.disk,
    }
}

/// A change whose fields can be read, without what is so already.
struct Checked {
    cores: Option<u32>,
    memory: Option<u32>,
    disk: Option<u32>,
    protected: Option<bool>,
    /// The stored form of the new owner's name.
    owner: Option<String>,
}

impl Checked {
    fn new(
        core: &Core,
        actor: &Actor,
        container: &Container,
        change: &ContainerChange,
    ) -> Result<Self> {
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
        Ok(Self {
            cores: cores.filter(|cores| Some(*cores) != container.cores),
            memory: memory.filter(|memory| Some(*memory) != container.memory),
            disk: disk.filter(|disk| Some(*disk) != container.disk),
            protected: change.protected,
            owner,
        })
    }

    fn resizes(&self) -> bool {
        self.cores.is_some() || self.memory.is_some() || self.disk.is_some()
    }

    fn resize(&self) -> Change {
        Change::Resize {
            cores: self.cores,
            memory: self.memory,
            disk: self.disk,
        }
    }

    /// Whose role in Proxmox VE changes; nobody's where the owner stays.
    fn owner_change(&self, core: &Core, container: &Container) -> Option<OwnerChange> {
        let owner = self.owner.as_deref()?;
        let change = OwnerChange {
            former: container.username.clone(),
            former_user: core.proxmox_user(&container.username),
            new: owner.to_owned(),
            new_user: core.proxmox_user(owner),
        };
        (change.former_user != change.new_user).then_some(change)
    }

    /// The larger sizes count from now on; the job writes down what Proxmox VE has in the end.
    fn counted(&self, container: &Container) -> StoredSizes {
        let larger = |wanted: Option<u32>, now: Option<u32>| wanted.max(now);
        StoredSizes {
            cores: larger(self.cores, container.cores),
            memory: larger(self.memory, container.memory),
            disk: larger(self.disk, container.disk),
        }
    }

    /// A new owner needs room for all of the container, the same one only for what it grows by.
    async fn check_quota(
        &self,
        tx: &mut Tx,
        core: &Core,
        actor: &Actor,
        container: &Container,
    ) -> Result<()> {
        let given_away = self.owner_change(core, container);
        let counted = self.counted(container);
        let more = |now: Option<u32>, then: Option<u32>| {
            let now = now.filter(|_| given_away.is_none());
            i64::from(then.unwrap_or(0)) - i64::from(now.unwrap_or(0))
        };
        let more = Amounts {
            containers: i64::from(given_away.is_some()),
            cores: more(container.cores, counted.cores),
            memory: more(container.memory, counted.memory),
            disk: more(container.disk, counted.disk),
            ..Amounts::default()
        };
        let owner = given_away
            .as_ref()
            .map_or(&container.username, |change| &change.new);
        let mut fields = Fields::default();
        quota::check(tx, core, actor, owner, more, &mut fields).await?;
        fields.into_result()
    }
}
