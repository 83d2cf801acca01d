//! What an owner does with a container that exists: power, sizes, snapshots, what it used.

use std::time::Duration;

use cac_core::container::{self, Changed};
use cac_core::job::container_change::Change;
use chrono::{DateTime, Utc};
use poem::http::StatusCode;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use super::container::{Container, must_be_proved_for};
use crate::auth::Signed;
use crate::error::{ApiError, Result};
use crate::input::Input;
use crate::slots::Slot;
use crate::{origin, page};

pub(crate) struct Api;

/// How long a change waits for its job before it answers 202.
const WAIT: Duration = Duration::from_secs(30);

/// How long this answer may wait for its job; it does not while the slot is missing. A request that changes something goes on without its
/// client, so a user could have thousands of them wait otherwise, each asking the database.
pub(crate) struct Patience {
    pub(crate) limit: Duration,
    _slot: Option<Slot<String>>,
}

pub(crate) fn patience(who: &Signed) -> Patience {
    let slot = who.limits.open_wait(format!("user {}", who.actor.username));
    match slot {
        Ok(slot) => Patience {
            limit: WAIT,
            _slot: Some(slot),
        },
        Err(_) => Patience {
            limit: Duration::ZERO,
            _slot: None,
        },
    }
}

/// A snapshot that is to be taken.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct SnapshotRequest {
    /// Required. 2 to 40 letters, digits, `-` and `_`, beginning with a letter.
    name: Option<String>,
    description: Option<String>,
}

/// A snapshot of a container.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Snapshot {
    name: String,
    description: Option<String>,
    created_at: Option<DateTime<Utc>>,
    /// The snapshot that it was taken on top of.
    parent: Option<String>,
}

impl From<cac_core::pve::Snapshot> for Snapshot {
    fn from(row: cac_core::pve::Snapshot) -> Self {
        let at = row.snaptime.and_then(|at| i64::try_from(at).ok());
        let text = row.description.map(|text| text.trim_end().to_owned());
        Self {
            name: row.name,
            description: text.filter(|text| !text.is_empty()),
            created_at: at.and_then(|at| DateTime::from_timestamp(at, 0)),
            parent: row.parent,
        }
    }
}

/// What a container used around a point of time; absent values were not measured (it was stopped).
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Sample {
    time: Option<DateTime<Utc>>,
    /// Share of all its processors, 0 to 1.
    cpu: Option<f64>,
    /// Bytes.
    memory: Option<f64>,
    /// Bytes that it may use.
    memory_total: Option<f64>,
    /// Bytes.
    disk: Option<f64>,
    /// Bytes that there are.
    disk_total: Option<f64>,
    /// Bytes per second.
    network_in: Option<f64>,
    /// Bytes per second.
    network_out: Option<f64>,
    /// Bytes per second.
    disk_read: Option<f64>,
    /// Bytes per second.
    disk_write: Option<f64>,
}

impl From<cac_core::pve::Sample> for Sample {
    fn from(row: cac_core::pve::Sample) -> Self {
        let at = i64::try_from(row.time).ok();
        Self {
            time: at.and_then(|at| DateTime::from_timestamp(at, 0)),
            cpu: row.cpu,
            memory: row.mem,
            memory_total: row.maxmem,
            disk: row.disk,
            disk_total: row.maxdisk,
            network_in: row.netin,
            network_out: row.netout,
            disk_read: row.diskread,
            disk_write: row.diskwrite,
        }
    }
}

/// How a change stands: `jobId` is there if and only if the status is 202.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Progress {
    success: bool,
    message: String,
    /// The job that goes on with it.
    job_id: Option<i64>,
    /// The container as it is now.
    container: Option<Container>,
}

#[derive(ApiResponse)]
pub(crate) enum Answer {
    /// It is done
    #[oai(status = 200)]
    Done(Json<Progress>),
    /// The job goes on
    #[oai(status = 202)]
    Going(Json<Progress>, #[oai(header = "Location")] String),
    /// For browsers
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Snapshots {
    /// The snapshots, oldest first
    #[oai(status = 200)]
    Snapshots(Json<Vec<Snapshot>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum Usage {
    /// Points in the order of time; none in the first seconds after the creation
    #[oai(status = 200)]
    Samples(Json<Vec<Sample>>),
}

#[OpenApi]
impl Api {
    /// Start a container
    #[oai(
        path = "/containers/:id/start",
        method = "post",
        operation_id = "container_start",
        tag = "Tag::Containers"
    )]
    async fn container_start(&self, who: Signed, id: Path<i64>) -> Result<Answer> {
        work(&who, id.0, Change::Start).await
    }

    /// Stop a container
    ///
    /// It is shut down; when it has not within a minute it is stopped. Its names lead nowhere until it runs again.
    #[oai(
        path = "/containers/:id/stop",
        method = "post",
        operation_id = "container_stop",
        tag = "Tag::Containers"
    )]
    async fn container_stop(&self, who: Signed, id: Path<i64>) -> Result<Answer> {
        work(&who, id.0, Change::Stop).await
    }

    /// Restart a container
    #[oai(
        path = "/containers/:id/restart",
        method = "post",
        operation_id = "container_restart",
        tag = "Tag::Containers"
    )]
    async fn container_restart(&self, who: Signed, id: Path<i64>) -> Result<Answer> {
        work(&who, id.0, Change::Restart).await
    }

    /// Keep a container whose deletion was requested
    ///
    /// Withdraws the request as long as the deletion has not begun (409 then). Without a request nothing changes.
    #[oai(
        path = "/containers/:id/keep",
        method = "post",
        operation_id = "container_keep",
        tag = "Tag::Containers"
    )]
    async fn container_keep(&self, who: Signed, id: Path<i64>) -> Result<Answer> {
        let kept = async {
            let row = container::keep(&who.core, &who.actor, id.0).await?;
            Ok(Changed::Done(Box::new(row)))
        };
        page::container::or_page(&who, id.0, answer(&who, id.0, kept)).await
    }

    /// What a container used
    ///
    /// From Proxmox VE's own series.
    #[oai(
        path = "/containers/:id/usage",
        method = "get",
        operation_id = "container_usage",
        tag = "Tag::Containers"
    )]
    async fn container_usage(
        &self,
        who: Signed,
        id: Path<i64>,
        /// `hour` (the default), `day`, `week`, `month` or `year`.
        timeframe: Query<Option<String>>,
    ) -> Result<Usage> {
        let frame = timeframe.0.as_deref().unwrap_or("hour");
        let samples = container::usage(&who.core, &who.actor, id.0, frame).await?;
        Ok(Usage::Samples(Json(
            samples.into_iter().map(Sample::from).collect(),
        )))
    }

    /// List a container's snapshots
    #[oai(
        path = "/containers/:id/snapshots",
        method = "get",
        operation_id = "snapshot_list",
        tag = "Tag::Containers"
    )]
    async fn snapshot_list(&self, who: Signed, id: Path<i64>) -> Result<Snapshots> {
        let rows = container::snapshots(&who.core, &who.actor, id.0).await?;
        let total = rows.len() as u64;
        let rows = rows.into_iter().map(Snapshot::from).collect();
        Ok(Snapshots::Snapshots(Json(rows), total))
    }

    /// Take a snapshot
    ///
    /// Where the container's storage can.
    #[oai(
        path = "/containers/:id/snapshots",
        method = "post",
        operation_id = "snapshot_create",
        tag = "Tag::Containers"
    )]
    async fn snapshot_create(
        &self,
        who: Signed,
        id: Path<i64>,
        body: Input<SnapshotRequest>,
    ) -> Result<Answer> {
        let snapshot = async {
            let asked = body.read()?;
            let change = Change::Snapshot {
                name: asked.name.unwrap_or_default(),
                description: asked.description.unwrap_or_default(),
            };
            work(&who, id.0, change).await
        };
        page::container::or_page(&who, id.0, snapshot).await
    }

    /// Delete a snapshot
    #[oai(
        path = "/containers/:id/snapshots/:name",
        method = "delete",
        operation_id = "snapshot_delete",
        tag = "Tag::Containers"
    )]
    async fn snapshot_delete(
        &self,
        who: Signed,
        id: Path<i64>,
        name: Path<String>,
    ) -> Result<Answer> {
        must_be_proved_for(&who, id.0).await?;
        work(&who, id.0, Change::DeleteSnapshot { name: name.0 }).await
    }

    /// Roll back to a snapshot
    ///
    /// What was written since is lost. A container that runs is stopped before and started afterwards.
    #[oai(
        path = "/containers/:id/snapshots/:name/rollback",
        method = "post",
        operation_id = "snapshot_rollback",
        tag = "Tag::Containers"
    )]
    async fn snapshot_rollback(
        &self,
        who: Signed,
        id: Path<i64>,
        name: Path<String>,
    ) -> Result<Answer> {
        must_be_proved_for(&who, id.0).await?;
        work(&who, id.0, Change::RollBack { name: name.0 }).await
    }
}

async fn work(who: &Signed, id: i64, change: Change) -> Result<Answer> {
    let patience = patience(who);
    let changed = container::change(&who.core, &who.actor, id, change, patience.limit);
    page::container::or_page(who, id, answer(who, id, changed)).await
}

pub(crate) async fn answer(
    who: &Signed,
    id: i64,
    changed: impl Future<Output = cac_core::Result<Changed>>,
) -> Result<Answer> {
    let changed = tokio::select! {
        changed = changed => changed?,
        () = who.stop.cancelled() => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ApiError::new(status, "The portal is stopping. A change that was stored goes on; look at the container when the portal is back."));
        }
    };
    Ok(match changed {
        Changed::Done(_) if who.html => Answer::There(format!("/containers/{id}")),
        Changed::Done(row) => Answer::Done(Json(Progress {
            success: true,
            message: "Done.".to_owned(),
            job_id: None,
            container: Some(Container::of(&who.core, *row)),
        })),
        Changed::Going { job_id } => {
            let path = format!("/status/{job_id}");
            if who.html {
                return Ok(Answer::There(path));
            }
            let at = origin::absolute(&who.core.config, &path);
            let body = Progress {
                success: true,
                message: "The container is being changed.".to_owned(),
                job_id: Some(job_id),
                container: None,
            };
            Answer::Going(Json(body), at)
        }
    })
}
