//! How a container comes to exist: a VMID that is stored before Proxmox VE hears of it, the create or clone call, and after a lost
//! answer a look at that one VMID.

use std::time::{Duration, Instant};

use super::super::identity::has_marker;
use super::super::pve_task::wait_for_task;
use super::super::running::Asked;
use super::{Making, Placed};
use crate::job::Stop;
use crate::node::cluster;
use crate::pve::{NewClone, NewLxc, Pve, TaskStatus, Upid};
use crate::service::ServiceType;
use crate::{args, transaction};

/// What stands under a VMID.
enum Seen {
    /// A container with our marker.
    Ours,
    /// A creation that is still under way.
    Being(Upid),
    /// Somebody else's container.
    Foreign,
    /// No container on the node. Another node may have it.
    Nothing,
    /// Proxmox VE does not let us see it, which proves nothing.
    Unknown(String),
}

impl Making<'_> {
    /// Makes the container exist; returns its VMID.
    pub(super) async fn create(&mut self, pve: &Pve, placed: &Placed) -> Result<u32, Stop> {
        loop {
            self.job.go_on()?;
            let vmid = match self.at.vmid {
                Some(vmid) => vmid,
                None => self.reserve(pve, placed).await?,
            };
            if self.at.created {
                return Ok(vmid);
            }
            if self.at.create.is_none() && self.at.sent {
                match self.look(pve, placed, vmid).await? {
                    Seen::Ours => return self.mark_created(vmid).await,
                    Seen::Being(upid) => self.at.create = Some(upid),
                    Seen::Foreign => {
                        self.take_next(vmid).await?;
                        continue;
                    }
                    Seen::Nothing => {}
                    Seen::Unknown(reason) => return Err(Stop::Failed(reason)),
                }
            }
            if self.at.create.is_none() && !self.send_create(pve, placed, vmid).await? {
                continue;
            }
            if let Some(upid) = self.at.create.clone() {
                let limit = self.job.limits().create;
                wait_for_task(self.job, pve, &upid, limit).await?.well()?;
                return self.mark_created(vmid).await;
            }
        }
    }

    async fn mark_created(&mut self, vmid: u32) -> Result<u32, Stop> {
        let cloned = self.at.place.as_ref().and_then(Placed::source).is_some();
        if cloned {
            // Before the progress is stored: a job that is taken up after it comes here no more.
            self.job.allowed()?;
            let sql = r#"UPDATE "Containers" SET "lane" = NULL WHERE "id" = ?"#;
            self.job.core.db.exec(sql, args![self.container.id]).await?;
        }
        self.at.created = true;
        self.save().await?;
        if cloned {
            // Whoever waits for the template.
            self.job.core.wake.jobs();
        }
        Ok(vmid)
    }

    /// Picks a VMID and stores it, before Proxmox VE hears of it.
    async fn reserve(&mut self, pve: &Pve, placed: &Placed) -> Result<u32, Stop> {
        self.step(2, "reserve a VMID").await?;
        let next = self.job.ask(|| pve.next_vmid()).await?.max(self.at.above);
        let (core, container, template) = (&self.job.core, self.container.id, &placed.template);
        let source = placed.source();
        let lane = source.map(|source| format!("{}/{source}", placed.node));
        let vmid = transaction!(core.db, tx => {
            tx.lock("names").await?;
            tx.lock("vmids").await?;
            let sql = r#"SELECT COUNT(*) AS "n" FROM "Containers"
                         WHERE "state" = 'creating' AND "nodeId" = ? AND "containerId" IS NOT NULL AND "id" <> ?"#;
            let made: i64 = tx.one(sql, args![placed.node, container]).await?.get("n")?;
            if made >= i64::from(core.config.containers.creates_per_node) {
                return Ok(Err("makes as many containers as it may"));
            }
            let sql = r#"SELECT "id" FROM "Containers" WHERE "lane" = ? AND "id" <> ?"#;
            if lane.is_some() && tx.opt(sql, args![lane.as_deref(), container]).await?.is_some() {
                return Ok(Err("is making a clone of this template, one at a time"));
            }
            let rows = tx
                .all(r#"SELECT "containerId" FROM "Containers" WHERE "containerId" >= ? AND "id" <> ? ORDER BY "containerId""#, args![next, container])
                .await?;
            let mut vmid = next;
            for row in rows {
                if row.get::<u32>("containerId")? == vmid {
                    vmid += 1;
                }
            }
            tx.exec(
                r#"UPDATE "Containers" SET "nodeId" = ?, "containerId" = ?, "marker" = ?, "template" = ?, "lane" = ?, "updatedAt" = ?
                   WHERE "id" = ?"#,
                args![placed.node, vmid, true, template, lane.as_deref(), core.clock.now(), container],
            )
            .await
            .map_err(|error| cluster::taken(error, "vmid", vmid))?;
            cluster::claim(tx, container).await.map_err(|error| cluster::taken(error, "vmid", vmid))?;
            Ok(vmid)
        })
        .map_err(|error: crate::Error| Stop::from(error))?;
        let vmid = match vmid {
            Ok(vmid) => vmid,
            Err(why) => {
                // Others were quicker; there may be room elsewhere.
                self.at.place = None;
                self.save().await?;
                return Err(super::busy(&format!("{} {why}.", placed.node_name)));
            }
        };
        self.at.vmid = Some(vmid);
        self.at.sent = false;
        self.save().await?;
        Ok(vmid)
    }

    /// Somebody else has this number: go on with a higher one.
    async fn take_next(&mut self, vmid: u32) -> Result<(), Stop> {
        self.job
            .line(format!("VMID {vmid} is taken; trying the next one."))
            .await;
        self.at.above = vmid + 1;
        self.at.vmid = None;
        self.at.sent = false;
        self.save().await
    }

    /// Sends the create call; `false` when the world has to be looked at again.
    async fn send_create(&mut self, pve: &Pve, placed: &Placed, vmid: u32) -> Result<bool, Stop> {
        let how = match placed.source() {
            Some(source) => format!("clone CT {source} as CT {vmid} on {}", placed.node_name),
            None => format!("create CT {vmid} on {}", placed.node_name),
        };
        self.step(3, &how).await?;
        let began = Instant::now();
        loop {
            let earlier = self.at.sent;
            self.at.sent = true;
            self.save().await?;
            let sent = match placed.source() {
                Some(source) => {
                    let new = self.new_clone(placed, vmid);
                    pve.lxc_clone(&placed.node_name, source, &new).await
                }
                None => {
                    let new = self.new_lxc(placed, vmid);
                    pve.lxc_create(&placed.node_name, &new).await
                }
            };
            let error = match sent {
                Ok(upid) => {
                    self.at.create = Some(upid);
                    self.save().await?;
                    return Ok(true);
                }
                Err(error) => error,
            };
            let patient = began.elapsed() < self.job.core.config.runner.patience;
            match &error {
                error if error.is_already_exists() => {
                    self.examine_taken(pve, placed, vmid, earlier).await?;
                    return Ok(false);
                }
                error if patient && error.may_have_happened() => {
                    self.job
                        .line(format!("{error}; looking whether it was done…"))
                        .await;
                    self.job.pause(Duration::from_millis(500)).await?;
                    return Ok(false);
                }
                error if placed.source().is_some() && error.is_locked_or_lock_timeout() => {
                    self.at.sent = false;
                    self.save().await?;
                    return Err(super::busy(&format!("Its template is in use: {error}.")));
                }
                error if patient && (error.is_transient() || error.is_locked_or_lock_timeout()) => {
                    self.job.line(format!("{error}; trying again…")).await;
                    self.job.pause(Duration::from_secs(1)).await?;
                }
                _ => return Err(Stop::Failed(error.to_string())),
            }
        }
    }

    /// The VMID exists already: goes on to the next one if it cannot be our own container, from an earlier call whose answer was lost.
    async fn examine_taken(
        &mut self,
        pve: &Pve,
        placed: &Placed,
        vmid: u32,
        earlier: bool,
    ) -> Result<(), Stop> {
        if !earlier {
            // Our only call was refused.
            return self.take_next(vmid).await;
        }
        match self.look(pve, placed, vmid).await? {
            Seen::Ours | Seen::Being(_) => Ok(()),
            Seen::Foreign => self.take_next(vmid).await,
            Seen::Unknown(reason) => Err(Stop::Failed(reason)),
            Seen::Nothing => match self.holder(pve, vmid).await? {
                // A virtual machine has the number: no call of ours made that.
                Some(kind) if kind != "lxc" => self.take_next(vmid).await,
                _ => Err(Stop::Failed(format!(
                    "CT {vmid} exists already, and not on {}: it may be the one that was just created.",
                    placed.node_name
                ))),
            },
        }
    }

    /// `lxc` or `qemu`, as the cluster lists the VMID; absent where it does not.
    async fn holder(&self, pve: &Pve, vmid: u32) -> Result<Option<String>, Stop> {
        let resources = self.job.ask(|| pve.resources("vm")).await?;
        let holder = resources.into_iter().find(|r| r.vmid == Some(vmid));
        Ok(holder.map(|resource| resource.kind))
    }

    fn new_clone(&self, placed: &Placed, vmid: u32) -> NewClone {
        NewClone {
            vmid,
            hostname: self.container.hostname.clone(),
            storage: placed.storage.clone(),
            description: self.description(),
            pool: None,
        }
    }

    fn new_lxc(&self, placed: &Placed, vmid: u32) -> NewLxc {
        NewLxc {
            vmid,
            hostname: self.container.hostname.clone(),
            ostemplate: placed.template.clone(),
            storage: placed.storage.clone(),
            disk_gib: self.container.disk.unwrap_or(8),
            cores: self.container.cores.unwrap_or(1),
            memory_mib: self.container.memory.unwrap_or(512),
            swap_mib: 0,
            bridge: placed.bridge.clone(),
            description: self.description(),
            tags: Vec::new(),
            ssh_public_keys: self.container.ssh_public_key.clone(),
            onboot: true,
            pool: None,
        }
    }

    /// Readable in Proxmox VE's own pages; the last line is the ownership marker.
    fn description(&self) -> String {
        let reach = &self.payload.reach;
        let mut lines = vec![
            format!(
                "{} of {}, made by {}",
                reach.full_name(&self.container.hostname),
                self.container.username,
                reach.portal
            ),
            String::new(),
        ];
        for service in &self.container.services {
            let kind = match service.r#type {
                ServiceType::Tcp if service.internal_port == reach.ssh_port => "ssh",
                kind => kind.as_str(),
            };
            lines.push(format!("{kind} {}", service.internal_port));
        }
        lines.push(self.marker());
        lines.join("\n")
    }

    /// What stands under a VMID that a lost call may have made.
    async fn look(&self, pve: &Pve, placed: &Placed, vmid: u32) -> Result<Seen, Stop> {
        let tasks = match self.job.ask(|| pve.tasks(&placed.node_name, vmid)).await {
            Ok(tasks) => tasks,
            // Without a list the configuration alone says it: a creation that runs holds a lock there.
            Err(Asked::Proxmox(error)) if error.is_forbidden() => Vec::new(),
            Err(other) => return Err(other.into()),
        };
        if let Some(task) = tasks
            .iter()
            .find(|task| task.upid.kind() == "vzcreate" && task.status == TaskStatus::Running)
        {
            return Ok(Seen::Being(task.upid.clone()));
        }
        let deadline = Instant::now() + self.job.limits().create;
        loop {
            match self
                .job
                .ask(|| pve.lxc_config(&placed.node_name, vmid))
                .await
            {
                Ok(config)
                    if config.lock.as_deref() == Some("create") && Instant::now() < deadline =>
                {
                    self.job.pause(Duration::from_millis(300)).await?;
                }
                Ok(config) if has_marker(&config, &self.marker()) => return Ok(Seen::Ours),
                Ok(_) => return Ok(Seen::Foreign),
                Err(Asked::Proxmox(error)) if error.is_does_not_exist() => {
                    return Ok(Seen::Nothing);
                }
                Err(Asked::Proxmox(error)) if error.is_forbidden() => {
                    return Ok(Seen::Unknown(format!(
                        "Whether CT {vmid} was created cannot be seen: {error}."
                    )));
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
}
