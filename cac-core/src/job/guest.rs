//! What jobs do with a container that exists: start it, learn its address, write that down.

use std::time::{Duration, Instant};

use super::pve_task::wait_for_task;
use super::{Running, Stop};
use crate::container::{self, check};
use crate::pve::{Interface, Pve, is_lock_text};
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

    /// The address that Proxmox VE shows, once there is one.
    pub(super) async fn address(&self) -> Result<String, Stop> {
        let limit = self.job.limits().address;
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(30);
        while Instant::now() < deadline {
            self.job.go_on()?;
            let interfaces = self
                .job
                .ask(|| self.pve.lxc_interfaces(self.node, self.vmid));
            let interfaces = interfaces.await?;
            if let Some(address) = interfaces.iter().flatten().find_map(Interface::ipv4) {
                self.job.line(format!("{address}")).await;
                return Ok(address.to_string());
            }
            self.job.pause(pause).await?;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        Err(Stop::Failed(format!(
            "CT {} got no IPv4 address in {} s; is there a DHCP server on its bridge?",
            self.vmid,
            limit.as_secs()
        )))
    }

    /// Writes down address and MAC of the container with this row id, and that nothing works on it any more. Proxmox VE has just
    /// shown the address on this VMID: whoever has it in our books has lost it.
    pub(super) async fn write_down(&self, id: i64, address: &str) -> Result<(), Stop> {
        let config = self.job.ask(|| self.pve.lxc_config(self.node, self.vmid));
        let config = config.await?;
        self.job.allowed()?;
        let (core, mac) = (&self.job.core, config.mac());
        let handed_over = transaction!(core.db, tx => {
            tx.lock("names").await?;
            let now = core.clock.now();
            check::lose_address(tx, core, address, id).await?;
            tx.exec(
                r#"UPDATE "Containers" SET "ipv4Address" = ?, "macAddress" = ?, "state" = NULL, "jobId" = NULL, "updatedAt" = ?
                   WHERE "id" = ?"#,
                args![address, mac, now, id],
            )
            .await
            .map_err(|error| match error {
                db::Error::Unique(_) => crate::Error::conflict("macAddress", "Another container has this MAC address already."),
                other => other.into(),
            })?;
            container::hand_over(tx, core, id).await?
        })
        .map_err(|error: crate::Error| Stop::from(error))?;
        core.wake.routes();
        if handed_over {
            core.wake.jobs();
        }
        Ok(())
    }
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
