//! The job that makes a container: place, VMID, create, rights, start, address, publish. Each outside effect is preceded by a
//! stored checkpoint, so a job whose runner died looks at the world first and then goes on. What fails is undone. How the
//! container comes to exist is `container_create/exist.rs`.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::container_delete;
use super::pve_task::wait_for_task;
use super::running::Asked;
use super::{Running, Stop};
use crate::config::Reach;
use crate::container::{self, Container};
use crate::node;
use crate::placement::{self, Wish};
use crate::pve::{self, LxcConfig, Pve, Upid};
use crate::{args, db, transaction};

mod exist;

/// `Jobs.kind`
pub const KIND: &str = "container_create";
const STEPS: u8 = 7;
const START_LIMIT: Duration = Duration::from_secs(120);
const ADDRESS_LIMIT: Duration = Duration::from_secs(120);

/// `Jobs.payload`: with what the web server knows and a runner need not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Payload {
    pub container: i64,
    pub hostname: String,
    /// `name@realm`, as Proxmox VE knows the owner.
    pub owner: String,
    pub node: Option<String>,
    pub template: Option<String>,
    pub reach: Reach,
}

/// How far the job is; stored before and after each outside effect.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Checkpoint {
    place: Option<Placed>,
    vmid: Option<u32>,
    /// Numbers below this one are taken.
    above: u32,
    /// The create call may have been sent.
    sent: bool,
    create: Option<Upid>,
    created: bool,
    start: Option<Upid>,
    undo: Option<Undo>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Placed {
    node: i64,
    node_name: String,
    template: String,
    storage: String,
    bridge: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Undo {
    reason: String,
    cancelled: bool,
}

/// One run of the job.
struct Making<'a> {
    job: &'a Running,
    container: Container,
    payload: Payload,
    at: Checkpoint,
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    let at: Checkpoint = job.checkpoint()?;
    let Some(container) = container::find_any(&job.core, payload.container).await? else {
        // Undone by an earlier run that did not live to say so.
        return Err(ended(at.undo.unwrap_or(Undo {
            reason: "The container is gone.".to_owned(),
            cancelled: false,
        })));
    };
    if container.state.is_none() {
        job.line("The container is ready already.").await;
        return Ok(());
    }
    let mut making = Making {
        job,
        container,
        payload,
        at,
    };
    if making.at.undo.is_none() {
        let undo = match making.make().await {
            Err(Stop::Failed(reason)) => Undo {
                reason,
                cancelled: false,
            },
            Err(Stop::Cancelled(reason)) => Undo {
                reason,
                cancelled: true,
            },
            other => return other,
        };
        job.line(&undo.reason).await;
        making.at.undo = Some(undo);
        job.save(&making.at).await?;
    }
    making.undo().await
}

fn ended(undo: Undo) -> Stop {
    if undo.cancelled {
        Stop::Cancelled(undo.reason)
    } else {
        Stop::Failed(undo.reason)
    }
}

impl Making<'_> {
    async fn make(&mut self) -> Result<(), Stop> {
        self.job.go_on()?;
        let placed = self.place().await?;
        let pve = self
            .job
            .core
            .pve(&node::find(&self.job.core, placed.node).await?)?;
        let vmid = self.create(&pve, &placed).await?;
        self.grant(&pve, vmid).await?;
        self.start(&pve, &placed, vmid).await?;
        let address = self.address(&pve, &placed, vmid).await?;
        self.publish(&pve, &placed, vmid, &address).await
    }

    async fn save(&self) -> Result<(), Stop> {
        self.job.save(&self.at).await
    }

    fn marker(&self) -> String {
        self.container.marker_line(&self.job.core.installation)
    }

    async fn place(&mut self) -> Result<Placed, Stop> {
        if let Some(placed) = &self.at.place {
            self.job.line("Going on after an interruption.").await;
            return Ok(placed.clone());
        }
        self.job.step(1, STEPS, "choose a node").await;
        let wish = Wish {
            os_release: self.container.os_release.clone().unwrap_or_default(),
            template: self.payload.template.clone(),
            node: self.payload.node.clone(),
            ai_container: self.container.ai_container.clone(),
            disk: self.container.disk.unwrap_or_default(),
            memory: self.container.memory.unwrap_or_default(),
        };
        let place = match placement::choose(&self.job.core, &wish).await? {
            Ok(place) => place,
            Err(reasons) => {
                return Err(Stop::Failed(format!(
                    "No node can take this container: {}.",
                    reasons.join("; ")
                )));
            }
        };
        self.job
            .line(format!(
                "{}, template {}, disk on {}",
                place.node.name, place.template, place.storage
            ))
            .await;
        let placed = Placed {
            node: place.node.id,
            node_name: place.node.name,
            template: place.template,
            storage: place.storage,
            bridge: place.bridge,
        };
        self.at.place = Some(placed.clone());
        self.save().await?;
        Ok(placed)
    }

    async fn grant(&self, pve: &Pve, vmid: u32) -> Result<(), Stop> {
        self.job.go_on()?;
        let owner = &self.payload.owner;
        self.job
            .step(4, STEPS, &format!("give {owner} the role PVEVMUser"))
            .await;
        let path = format!("/vms/{vmid}");
        match self
            .job
            .ask(|| pve.acl_grant(&path, "PVEVMUser", owner))
            .await
        {
            Ok(()) => Ok(()),
            Err(Asked::Proxmox(error)) => {
                // The container works without it; only Proxmox VE's own console is closed to the owner.
                self.job.line(format!("Left out: {error}")).await;
                Ok(())
            }
            Err(Asked::Stop(stop)) => Err(stop),
        }
    }

    async fn start(&mut self, pve: &Pve, placed: &Placed, vmid: u32) -> Result<(), Stop> {
        self.job.go_on()?;
        self.job.step(5, STEPS, &format!("start CT {vmid}")).await;
        for _ in 0..5 {
            if self.running(pve, placed, vmid).await? {
                return Ok(());
            }
            if self.at.start.is_none() {
                self.job.go_on()?;
                match pve.lxc_start(&placed.node_name, vmid).await {
                    Ok(upid) => {
                        self.at.start = Some(upid);
                        self.save().await?;
                    }
                    // Starting twice is no harm: look again whether it runs.
                    Err(error)
                        if error.is_transient()
                            || error.is_locked_or_lock_timeout()
                            || error.to_string().contains("already running") =>
                    {
                        self.job.pause(Duration::from_secs(1), true).await?;
                        continue;
                    }
                    Err(error) => return Err(Stop::Failed(error.to_string())),
                }
            }
            if let Some(upid) = self.at.start.take() {
                wait_for_task(self.job, pve, &upid, START_LIMIT, true)
                    .await?
                    .well()?;
            }
        }
        if self.running(pve, placed, vmid).await? {
            return Ok(());
        }
        Err(Stop::Failed(format!(
            "CT {vmid} does not stay running; its template may be broken."
        )))
    }

    async fn running(&self, pve: &Pve, placed: &Placed, vmid: u32) -> Result<bool, Stop> {
        let status = self
            .job
            .ask(|| pve.lxc_status(&placed.node_name, vmid))
            .await?;
        Ok(status.status == "running")
    }

    async fn address(&self, pve: &Pve, placed: &Placed, vmid: u32) -> Result<String, Stop> {
        self.job.step(6, STEPS, "wait for its address").await;
        let deadline = Instant::now() + ADDRESS_LIMIT;
        let mut pause = Duration::from_millis(30);
        while Instant::now() < deadline {
            self.job.go_on()?;
            let interfaces = self
                .job
                .ask(|| pve.lxc_interfaces(&placed.node_name, vmid))
                .await?;
            if let Some(address) = interfaces.iter().flatten().find_map(pve::Interface::ipv4) {
                self.job.line(format!("{address}")).await;
                return Ok(address.to_string());
            }
            self.job.pause(pause, true).await?;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        Err(Stop::Failed(format!(
            "CT {vmid} got no IPv4 address in {} s; is there a DHCP server on {}?",
            ADDRESS_LIMIT.as_secs(),
            placed.bridge
        )))
    }

    async fn publish(
        &self,
        pve: &Pve,
        placed: &Placed,
        vmid: u32,
        address: &str,
    ) -> Result<(), Stop> {
        self.job.go_on()?;
        let config: LxcConfig = self
            .job
            .ask(|| pve.lxc_config(&placed.node_name, vmid))
            .await?;
        let mac = config.mac();
        self.job.step(7, STEPS, "publish its name and ports").await;
        let (core, id) = (&self.job.core, self.container.id);
        transaction!(core.db, tx => {
            tx.lock("names").await?;
            let now = core.clock.now();
            // Proxmox VE has just shown this address on this VMID: whoever has it in our books has lost it.
            tx.exec(
                r#"UPDATE "Containers" SET "ipv4Address" = NULL, "updatedAt" = ? WHERE "ipv4Address" = ? AND "id" <> ?"#,
                args![now, address, id],
            )
            .await?;
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
        })
        .map_err(|error: crate::Error| Stop::from(error))?;
        core.wake.routes();
        for line in self.reached_by(address) {
            self.job.line(line).await;
        }
        Ok(())
    }

    fn reached_by(&self, address: &str) -> Vec<String> {
        let reach = &self.payload.reach;
        let mut lines = Vec::new();
        for service in &self.container.services {
            let port = service.internal_port;
            if let Some(name) = &service.external_hostname {
                let direct = || format!("http://{address}:{port}/");
                lines.push(format!(
                    "Ready: {}",
                    reach.site(name).unwrap_or_else(direct)
                ));
            }
            if let Some(external) = service.external_port {
                let kind = service.r#type.as_str();
                lines.push(match reach.web {
                    Some(_) => format!(
                        "{kind} {port} of the container: port {external} of {}",
                        reach.domain
                    ),
                    None => format!("{kind} {port} of the container: at {address}"),
                });
            }
        }
        lines
    }

    /// Leaves nothing in Proxmox VE, then frees name and ports. What cannot be removed now stays marked and is removed by a job.
    async fn undo(&mut self) -> Result<(), Stop> {
        let undo = self.at.undo.clone().unwrap_or(Undo {
            reason: "Undone.".to_owned(),
            cancelled: false,
        });
        self.job.line("Undoing what was made…").await;
        match self.remove().await {
            Ok(()) => {
                container_delete::forget(self.job, self.container.id).await?;
                self.job
                    .line("Nothing is left; the name and the ports are free again.")
                    .await;
            }
            Err(Stop::Failed(reason)) => {
                self.job
                    .line(format!(
                        "Not everything could be removed yet ({reason}); a job goes on with it."
                    ))
                    .await;
                self.leave_to_job().await?;
            }
            Err(other) => return Err(other),
        }
        Err(ended(undo))
    }

    async fn remove(&mut self) -> Result<(), Stop> {
        let (Some(placed), Some(_), true) = (&self.at.place, self.at.vmid, self.at.sent) else {
            return Ok(());
        };
        let pve = self
            .job
            .core
            .pve(&node::find(&self.job.core, placed.node).await?)?;
        let container = container::find_any(&self.job.core, self.container.id).await?;
        let Some(container) = container else {
            return Ok(());
        };
        container_delete::remove(self.job, &container, &pve, self.at.create.as_ref()).await
    }

    async fn leave_to_job(&self) -> Result<(), Stop> {
        self.job.allowed()?;
        let core = &self.job.core;
        transaction!(core.db, tx => {
            let job_id = container::add_undo(tx, core, &self.container).await?;
            tx.exec(
                r#"UPDATE "Containers" SET "state" = 'undoing', "jobId" = ?, "updatedAt" = ? WHERE "id" = ?"#,
                args![job_id, core.clock.now(), self.container.id],
            )
            .await?;
        })
        .map_err(|error: crate::Error| Stop::from(error))?;
        core.wake.jobs();
        Ok(())
    }
}
