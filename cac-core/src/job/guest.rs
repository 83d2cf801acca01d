//! What jobs do with a container that exists: start it, learn its address, write that down.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::identity::identity;
use super::pve_task::wait_for_task;
use super::{Running, Stop};
use crate::container::{self, address};
use crate::pve::{Pve, is_lock_text};
use crate::{Core, args, db, transaction};

/// A container on its node, in a job's hands.
pub(super) struct Guest<'a> {
    pub(super) job: &'a Running,
    pub(super) pve: &'a Pve,
    pub(super) node: &'a str,
    pub(super) vmid: u32,
}

impl Guest<'_> {
    pub(super) async fn running(&self) -> Result<bool, Stop> {
        let status = self.job.ask(|| self.pve.lxc_status(self.node, self.vmid));
        Ok(status.await?.is_running())
    }

    /// Starts it and looks whether it stays up. Starting twice is no harm: the second attempt finds it running.
    pub(super) async fn start(&self) -> Result<(), Stop> {
        let vmid = self.vmid;
        let limit = self.job.limits().start;
        let mut reason = format!("CT {vmid} does not stay running; its template may be broken.");
        for _ in 0..5 {
            if self.running().await? {
                return Ok(());
            }
            self.job.go_on()?;
            match self.pve.lxc_start(self.node, vmid).await {
                Ok(upid) => {
                    let ended = wait_for_task(self.job, self.pve, &upid, limit).await?;
                    if let Err(Stop::Failed(why)) = ended.well() {
                        if self.running().await? {
                            return Ok(());
                        }
                        if !is_lock_text(&why) {
                            return Err(Stop::Failed(why));
                        }
                        reason = why;
                        self.job.pause(Duration::from_secs(1)).await?;
                    }
                }
                Err(error)
                    if error.is_transient()
                        || error.is_locked_or_lock_timeout()
                        || error.to_string().contains("already running") =>
                {
                    reason = error.to_string();
                    self.job.pause(Duration::from_secs(1)).await?;
                }
                Err(error) => return Err(Stop::Failed(error.to_string())),
            }
        }
        if self.running().await? {
            return Ok(());
        }
        Err(Stop::Failed(reason))
    }

    /// Makes its root disk at least so large.
    pub(super) async fn grow(&self, gib: u32) -> Result<(), Stop> {
        let (pve, node, vmid) = (self.pve, self.node, self.vmid);
        let patience = self.job.core.config.runner.patience;
        let began = Instant::now();
        loop {
            self.job.go_on()?;
            let config = self.job.ask(|| pve.lxc_config(node, vmid)).await?;
            if config.disk_gib() >= Some(gib) {
                return Ok(());
            }
            match pve.lxc_resize(node, vmid, "rootfs", gib).await {
                Ok(upid) => {
                    let ended = wait_for_task(self.job, pve, &upid, self.job.limits().task).await?;
                    if !ended.may_pass() || began.elapsed() >= patience {
                        return ended.well();
                    }
                    self.job.pause(Duration::from_secs(1)).await?;
                }
                Err(error)
                    if began.elapsed() < patience
                        && (error.is_transient() || error.may_have_happened()) =>
                {
                    self.job
                        .line(format!("{error}; looking whether it was done…"))
                        .await;
                    self.job.pause(Duration::from_millis(500)).await?;
                }
                Err(error) => return Err(Stop::Failed(error.to_string())),
            }
        }
    }

    /// The address that Proxmox VE shows on `net0`, once there is one in `CONTAINER_NETWORKS`.
    pub(super) async fn address(&self) -> Result<Ipv4Addr, Stop> {
        let limit = self.job.limits().address;
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(30);
        let mut outside = None;
        while Instant::now() < deadline {
            self.job.go_on()?;
            // Asked each time: `net0` may be changed while it is waited for.
            let config = self.job.ask(|| self.pve.lxc_config(self.node, self.vmid));
            let config = config.await?;
            let interfaces = self
                .job
                .ask(|| self.pve.lxc_interfaces(self.node, self.vmid));
            if let Some(interfaces) = interfaces.await? {
                let core = &self.job.core;
                if let Some(address) = address::of(core, &config, &interfaces, None) {
                    self.job.line(format!("{address}")).await;
                    return Ok(address);
                }
                outside = config.net0_ipv4(&interfaces).first().copied();
            }
            self.job.pause(pause).await?;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        Err(Stop::Failed(match outside {
            Some(address) => format!(
                "CT {} has the address {address}, which is not in CONTAINER_NETWORKS, so nothing can be passed on to it; an admin can add \
                 its network there, or connect its bridge to another one.",
                self.vmid
            ),
            None => format!(
                "CT {} got no IPv4 address in {} s on net0; is there a DHCP server on its bridge?",
                self.vmid,
                limit.as_secs()
            ),
        }))
    }

    /// Stores address and MAC of the container with this row id, and that nothing works on it any more. An address that somebody else's
    /// container still shows is refused: the row then says so instead, and the job has done its work.
    pub(super) async fn write_down(&self, id: i64, address: Ipv4Addr) -> Result<Written, Stop> {
        let config = self.job.ask(|| self.pve.lxc_config(self.node, self.vmid));
        let config = config.await?;
        let core = &self.job.core;
        let Some(row) = container::find_any(core, id).await? else {
            return Err(Stop::Failed("The container is gone.".to_owned()));
        };
        // Only what is proved to be this container may take an address from another one.
        let outcome = identity(core, &row, &config);
        container::identity::store(core, &row, outcome.as_ref().map(|()| &config)).await?;
        outcome.map_err(|mismatch| Stop::Failed(mismatch.to_string()))?;
        let claim = address::claim(core, id, address).await?;
        self.job.allowed()?;
        let mac = config.mac();
        let (stored, handed_over) = transaction!(core.db, tx => {
            tx.lock("names").await?;
            let now = core.clock.now();
            // Somebody else's by now: a runner that lost its lease waited for the lock.
            let sql = r#"SELECT "id" FROM "Containers" WHERE "id" = ? AND "jobId" = ?"#;
            if tx.opt(sql, args![id, self.job.id()]).await?.is_none() {
                return Err(crate::Error::Internal(format!("container {id} is another job's by now")));
            }
            let stored = address::store(tx, core, id, Some(&claim)).await?;
            tx.exec(
                r#"UPDATE "Containers" SET "macAddress" = ?, "state" = NULL, "jobId" = NULL, "updatedAt" = ? WHERE "id" = ?"#,
                args![mac, now, id],
            )
            .await
            .map_err(|error| match error {
                db::Error::Unique(_) => crate::Error::conflict("macAddress", "Another container has this MAC address already."),
                other => other.into(),
            })?;
            (stored, container::hand_over(tx, core, id).await?)
        })
        .map_err(|error: crate::Error| Stop::from(error))?;
        if handed_over {
            core.wake.jobs();
        }
        stored.announce(core);
        if stored.address.is_some() {
            return Ok(Written::Published);
        }
        let row = container::find_any(core, id).await?;
        let problem = row.and_then(|row| row.address_problem);
        let problem = problem.map_or_else(String::new, |problem| problem.to_string());
        self.job.line(&problem).await;
        Ok(Written::Refused)
    }
}

/// What became of a container's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The row has it; routes lead there.
    Published,
    /// The row has none, and says why.
    Refused,
}

/// The job works on the container no longer: it is free, or goes to the deletion that was requested meanwhile.
pub(super) async fn release(core: &Core, container: i64, job: i64) -> Result<(), Stop> {
    let handed_over = transaction!(core.db, tx => {
        tx.lock("names").await?;
        container::release(tx, core, container, job).await?
    })
    .map_err(|error: crate::Error| Stop::from(error))?;
    if handed_over {
        core.wake.jobs();
    }
    Ok(())
}
