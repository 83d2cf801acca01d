//! Who has the owner's role on a container in Proxmox VE, after an owner change: the new owner gets it, the former one loses it. Both
//! calls may be repeated. A change of owner applies them itself (`job/container_change.rs`); what Proxmox VE refuses then, and the role of
//! an imported container's owner, is left to a job of this kind, which works on no container and tries again until it is done.

use serde::{Deserialize, Serialize};

use super::identity::{identity, locate};
use super::running::Asked;
use super::{NewJob, Running, Stop, container_create};
use crate::container::{self, Container};
use crate::db::Tx;
use crate::node;
use crate::pve::Pve;
use crate::{Core, Error, Result, args, transaction, user};

/// `Jobs.kind`
pub const KIND: &str = "container_access";

/// An owner change as Proxmox VE is told of it. A runner does not know the realm of bare names, so both forms are here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerChange {
    /// As `Containers.username` has it.
    pub former: String,
    /// `name@realm`
    pub former_user: String,
    /// As `Containers.username` has it.
    pub new: String,
    /// `name@realm`
    pub new_user: String,
}

/// `Jobs.payload`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Payload {
    pub container: i64,
    pub owner: OwnerChange,
}

/// Gives and takes the role. Once the owner is another one, no cancel leaves it with the former.
pub(super) async fn apply(
    job: &Running,
    pve: &Pve,
    vmid: u32,
    owner: &OwnerChange,
) -> Result<(), Stop> {
    let given = grant(job, pve, vmid, &owner.new_user).await;
    if let Err(stop @ (Stop::HandBack | Stop::Lost | Stop::Retry { .. })) = given {
        return Err(stop);
    }
    let taken = revoke(job, pve, vmid, owner).await;
    match (given, taken) {
        (Err(Stop::Failed(one)), Err(Stop::Failed(other))) => {
            Err(Stop::Failed(format!("{one} {other}")))
        }
        (given, taken) => given.and(taken),
    }
}

async fn grant(job: &Running, pve: &Pve, vmid: u32, user: &str) -> Result<(), Stop> {
    let (job, path, role) = (
        &job.to_the_end(),
        format!("/vms/{vmid}"),
        container_create::ROLE,
    );
    job.allowed()?;
    job.line(format!("Giving {user} the role {role} on {path}."))
        .await;
    match job.ask(|| pve.acl_grant(&path, role, user)).await {
        Ok(()) => Ok(()),
        Err(Asked::Stop(stop)) => Err(stop),
        Err(Asked::Proxmox(error)) => Err(Stop::Failed(format!(
            "{user} has not got the role {role} on {path} in Proxmox VE: {error}."
        ))),
    }
}

async fn revoke(job: &Running, pve: &Pve, vmid: u32, owner: &OwnerChange) -> Result<(), Stop> {
    // Proxmox VE deleted the roles of a user with the account.
    if user::is_former(&owner.former) {
        return Ok(());
    }
    let user = &owner.former_user;
    let (job, path, role) = (
        &job.to_the_end(),
        format!("/vms/{vmid}"),
        container_create::ROLE,
    );
    job.allowed()?;
    job.line(format!("Taking the role {role} on {path} from {user}."))
        .await;
    match job.ask(|| pve.acl_revoke(&path, role, user)).await {
        Ok(()) => Ok(()),
        // A user who does not exist has no role.
        Err(Asked::Proxmox(error)) if error.is_does_not_exist() => Ok(()),
        Err(Asked::Stop(stop)) => Err(stop),
        Err(Asked::Proxmox(error)) => Err(Stop::Failed(format!(
            "{user}, the former owner, still has the role {role} on {path} in Proxmox VE: {error}."
        ))),
    }
}

/// Adds the job that tries again what failed. Added twice, the second finds nothing to do.
pub(super) async fn add(job: &Running, container: i64, owner: &OwnerChange) -> Result<(), Stop> {
    job.allowed()?;
    let core = &job.core;
    let id = transaction!(core.db, tx => {
        let title = format!("give container {container} of {} to {} in Proxmox VE", owner.former, owner.new);
        create(tx, core, container, owner.clone(), title).await?
    })
    .map_err(|error: crate::Error| Stop::from(error))?;
    core.wake.jobs();
    job.line(format!(
        "Job {id} tries the roles again until they are right."
    ))
    .await;
    Ok(())
}

/// Adds the job that gives the owner the role on a container that was imported, or whose owner has a new account in Proxmox VE; the
/// caller wakes the runners after its commit.
pub(crate) async fn add_for_owner(
    tx: &mut Tx,
    core: &Core,
    container: i64,
    owner: &str,
) -> Result<i64> {
    let user = core.proxmox_user(owner);
    // Nobody loses it: the former owner is the same one.
    let change = OwnerChange {
        former: owner.to_owned(),
        former_user: user.clone(),
        new: owner.to_owned(),
        new_user: user,
    };
    let title = format!("give {owner} the role on container {container} in Proxmox VE");
    create(tx, core, container, change, title).await
}

async fn create(
    tx: &mut Tx,
    core: &Core,
    container: i64,
    owner: OwnerChange,
    title: String,
) -> Result<i64> {
    let payload = serde_json::to_value(Payload { container, owner });
    let new = NewJob {
        kind: KIND,
        title,
        payload: payload.map_err(|error| Error::Internal(error.to_string()))?,
        container_id: Some(container),
        created_by: None,
    };
    super::create(tx, core, new).await
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    let Some(container) = container::find_any(&job.core, payload.container).await? else {
        // Proxmox VE takes a container's roles away with it.
        job.line("The container is gone.").await;
        return Ok(());
    };
    job.go_on()?;
    match attempt(job, &container, &payload.owner).await {
        // With pauses that grow to five minutes.
        Err(Stop::Failed(reason)) => Err(Stop::Retry {
            after: None,
            reason,
        }),
        Ok(()) => forget_note(job, &container, &payload.owner).await,
        other => other,
    }
}

async fn attempt(job: &Running, container: &Container, owner: &OwnerChange) -> Result<(), Stop> {
    let (Some(vmid), Some(node)) = (container.container_id, container.node_id) else {
        return Ok(());
    };
    let node = node::find(&job.core, node).await?;
    let pve = job.core.pve(&node)?;
    let Some((_, config)) = locate(job, &pve, &node, vmid).await? else {
        job.line(format!("CT {vmid} does not exist any more in Proxmox VE."))
            .await;
        return Ok(());
    };
    identity(&job.core, container, &config)
        .map_err(|mismatch| Stop::Failed(format!("{mismatch} Nothing was touched.")))?;
    // It may have changed hands again since: what is right now counts.
    let given = match container.username == owner.new {
        true => grant(job, &pve, vmid, &owner.new_user).await,
        false => Ok(()),
    };
    let taken = match container.username == owner.former {
        true => Ok(()),
        false => revoke(job, &pve, vmid, owner).await,
    };
    given.and(taken)
}

/// What was said of the roles is true no longer.
async fn forget_note(
    job: &Running,
    container: &Container,
    owner: &OwnerChange,
) -> Result<(), Stop> {
    job.allowed()?;
    let about_roles =
        |note: &str| note.contains(&owner.new_user) || note.contains(&owner.former_user);
    let Some(note) = container
        .change_error
        .as_deref()
        .filter(|note| about_roles(note))
    else {
        return Ok(());
    };
    let sql =
        r#"UPDATE "Containers" SET "changeError" = NULL WHERE "id" = ? AND "changeError" = ?"#;
    job.core.db.exec(sql, args![container.id, note]).await?;
    Ok(())
}
