//! Power and snapshots of a container that exists: rights and state are checked here, the work is a durable job. Sizes, protection
//! and owner are `container/update.rs`.

use std::time::Duration;

use super::identity::prove;
use super::{Container, find, refused};
use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Fields;
use crate::job::container_change::{self, Change, Payload};
use crate::job::{self, Status};
use crate::pve::{Sample, Snapshot};
use crate::{Core, Error, Result, args, audit, transaction};

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

/// The snapshots that Proxmox VE has of the container, oldest first.
pub async fn snapshots(core: &Core, actor: &Actor, id: i64) -> Result<Vec<Snapshot>> {
    snapshots_of(core, &find(core, actor, id).await?).await
}

async fn snapshots_of(core: &Core, container: &Container) -> Result<Vec<Snapshot>> {
    let (_, vmid) = made(container)?;
    let place = prove(core, container).await?;
    let asked = place.pve.lxc_snapshots(&place.node, vmid).await;
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
    let (_, vmid) = made(&container)?;
    let place = prove(core, &container).await?;
    match place.pve.lxc_series(&place.node, vmid, timeframe).await {
        Ok(samples) => Ok(samples),
        // Proxmox VE has made no round since the creation.
        Err(error) if error.to_string().contains("RRD error") => Ok(Vec::new()),
        Err(error) => Err(told(&error)),
    }
}

pub(super) fn told(error: &crate::pve::Error) -> Error {
    if error.is_transient() {
        return Error::Unreachable(error.to_string());
    }
    Error::Upstream(error.to_string())
}

/// Node and VMID of a container that is made.
pub(super) fn made(container: &Container) -> Result<(i64, u32)> {
    let place = container.node_id.zip(container.container_id);
    let message = "This container is not made yet, or its node is not known.";
    place.ok_or_else(|| Error::conflict("id", message))
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
        let sql = columns!(r#" FROM "Containers" c WHERE c."id" = ?"#);
        let row = tx.opt(sql, args![id]).await?.map(|row| Container::from_row(&row)).transpose()?;
        let Some(row) = row.filter(|row| actor.may_see(Some(&row.username))) else {
            return Err(Error::NotFound(format!("There is no container {id}.")));
        };
        must_be_free(&row)?;
        let payload = Payload { container: id, change: change.clone(), owner: None, before: None };
        let title = format!("{} container {} of {}", change.words(), row.hostname, row.username);
        let job_id = begin(tx, core, actor, payload, title).await?;
        audit::Change::new(change.operation(), target(id, &change)).job(job_id).write(tx, core, actor).await?;
        job_id
    })?;
    finished(core, id, job_id, limit).await
}

/// Only one job works on a container at a time.
pub(super) fn must_be_free(container: &Container) -> Result<()> {
    let Some(state) = &container.state else {
        return Ok(());
    };
    let message =
        format!("Something works on this container already ({state}); wait until it has ended.");
    Err(Error::conflict("id", message))
}

/// Adds the job and gives it the container; [`must_be_free`] came before, under the lock `names`.
pub(super) async fn begin(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    payload: Payload,
    title: String,
) -> Result<i64> {
    let id = payload.container;
    let new = job::NewJob {
        kind: container_change::KIND,
        title,
        payload: serde_json::to_value(payload)
            .map_err(|error| Error::Internal(error.to_string()))?,
        container_id: Some(id),
        created_by: Some(&actor.username),
    };
    let job_id = job::create(tx, core, new).await?;
    let sql = r#"UPDATE "Containers" SET "state" = 'changing', "jobId" = ?, "changeError" = NULL, "updatedAt" = ? WHERE "id" = ?"#;
    tx.exec(sql, args![job_id, core.clock.now(), id]).await?;
    Ok(job_id)
}

/// Waits for the job of a change.
pub(super) async fn finished(
    core: &Core,
    id: i64,
    job_id: i64,
    limit: Duration,
) -> Result<Changed> {
    core.wake.jobs();
    let job = job::wait(core, job_id, limit).await?;
    match job.status {
        Status::Success => done(core, id).await,
        status if !status.ended() => Ok(Changed::Going { job_id }),
        _ => Err(refused(job.reason)),
    }
}

/// How the audit log names what is changed.
fn target(id: i64, change: &Change) -> String {
    match change {
        Change::Snapshot { name, .. }
        | Change::RollBack { name }
        | Change::DeleteSnapshot { name } => format!("/containers/{id}/snapshots/{name}"),
        _ => format!("/containers/{id}"),
    }
}

pub(super) async fn done(core: &Core, id: i64) -> Result<Changed> {
    match super::find_any(core, id).await? {
        Some(container) => Ok(Changed::Done(Box::new(container))),
        None => Err(Error::NotFound(format!("There is no container {id}."))),
    }
}
