//! The row of a container after a change: what Proxmox VE shows, whether the change came about or not.

use std::time::Duration;

use super::{Changing, Guest, StoredSizes};
use crate::container::{self, address};
use crate::job::{Running, Stop};
use crate::{args, transaction};

/// How long a change that failed waits for the address of a container that runs again.
const ADDRESS: Duration = Duration::from_secs(5);

/// Leaves on the container what was not applied, for its owner to see; the next change that is accepted takes it away.
pub(super) async fn note(job: &Running, id: i64, reason: &str) -> Result<(), Stop> {
    job.allowed()?;
    let sql = r#"UPDATE "Containers" SET "changeError" = ? WHERE "id" = ? AND ("jobId" = ? OR "jobId" IS NULL)"#;
    let given = args![reason, id, job.id()];
    job.core.db.exec(sql, given).await?;
    Ok(())
}

/// The larger sizes were counted as if they had come to be.
pub(super) async fn restore_sizes(
    job: &Running,
    id: i64,
    before: Option<StoredSizes>,
) -> Result<(), Stop> {
    let Some(before) = before else { return Ok(()) };
    job.allowed()?;
    let sql = r#"UPDATE "Containers" SET "cores" = ?, "memory" = ?, "disk" = ? WHERE "id" = ? AND "jobId" = ?"#;
    let given = args![before.cores, before.memory, before.disk, id, job.id()];
    job.core.db.exec(sql, given).await?;
    Ok(())
}

impl Changing<'_> {
    /// The container is known to be stopped.
    pub(super) async fn forget_address(&self, id: i64) -> Result<(), Stop> {
        self.job.allowed()?;
        let core = &self.job.core;
        transaction!(core.db, tx => {
            tx.lock("names").await?;
            let sql = r#"SELECT "ipv4Address" FROM "Containers" WHERE "id" = ? AND "jobId" = ?"#;
            let row = tx.opt(sql, args![id, self.job.id()]).await?;
            let address: Option<String> = match row {
                Some(row) => row.get("ipv4Address")?,
                None => None,
            };
            // It is back in a moment where this is a restart.
            if let Some(address) = &address {
                address::hold(tx, core, address, id).await?;
            }
            let sql = r#"UPDATE "Containers" SET "ipv4Address" = NULL, "refusedAddress" = NULL, "addressRefusal" = NULL, "updatedAt" = ?
                         WHERE "id" = ? AND "jobId" = ?"#;
            tx.exec(sql, args![core.clock.now(), id, self.job.id()]).await?;
        })
        .map_err(|error: crate::Error| Stop::from(error))?;
        core.wake.routes();
        Ok(())
    }

    /// After a failure or a cancel: stores what Proxmox VE shows now. What it does not show stays as it was.
    pub(super) async fn write_truth(&self, id: i64) -> Result<(), Stop> {
        self.report(self.write_sizes(id).await).await?;
        self.report(self.write_address(id).await).await
    }

    /// The reason why the job fails is another one: this one is only told.
    async fn report(&self, written: Result<(), Stop>) -> Result<(), Stop> {
        match written {
            Err(Stop::Failed(reason) | Stop::Cancelled(reason)) => {
                self.job.line(reason).await;
                Ok(())
            }
            other => other,
        }
    }

    async fn write_address(&self, id: i64) -> Result<(), Stop> {
        let job = self.job.to_the_end();
        let guest = Guest {
            job: &job,
            ..self.guest()
        };
        if !guest.running().await? {
            return self.forget_address(id).await;
        }
        let row = container::find_any(&job.core, id).await?;
        if row.is_none_or(|row| row.ipv4_address.is_some()) {
            // It was never stopped, so it is where it was.
            return Ok(());
        }
        match tokio::time::timeout(ADDRESS, guest.address()).await {
            Ok(address) => guest.write_down(id, address?).await.map(drop),
            // The regular look at all containers finds it.
            Err(_) => Ok(()),
        }
    }

    /// Our books follow what Proxmox VE has now.
    pub(super) async fn write_sizes(&self, id: i64) -> Result<(), Stop> {
        // What was done is written down, whoever does not want it any more.
        let job = self.job.to_the_end();
        let config = job
            .ask(|| self.pve.lxc_config(&self.node, self.vmid))
            .await?;
        job.allowed()?;
        let core = &job.core;
        let disk = config.disk_gib();
        let sql = r#"UPDATE "Containers" SET "cores" = COALESCE(?, "cores"), "memory" = COALESCE(?, "memory"),
                            "disk" = COALESCE(?, "disk"), "updatedAt" = ? WHERE "id" = ?"#;
        let now = core.clock.now();
        core.db
            .exec(sql, args![config.cores, config.memory, disk, now, id])
            .await?;
        Ok(())
    }
}
