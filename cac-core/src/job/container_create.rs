//! The job that makes a container: place, VMID, create, rights, start, address, publish. Each outside effect is preceded by a
//! stored checkpoint, so a job whose runner died looks at the world first and then goes on. What fails is undone. How the
//! container comes to exist is `container_create/exist.rs`, how a clone gets its sizes and network `container_create/shape.rs`.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::container_delete;
use super::guest::{Guest, Written};
use super::running::Asked;
use super::{Running, Stop};
use crate::container::{self, Container};
use crate::node;
use crate::placement::{self, Wish};
use crate::pve::{Pve, Upid};
use crate::reach::Reach;
use crate::transaction;

mod exist;
mod shape;

/// `Jobs.kind`
pub const KIND: &str = "container_create";
/// What the owner may do with the container in Proxmox VE itself.
pub(crate) const ROLE: &str = "PVEVMUser";
const STEPS: u8 = 7;

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
    /// The last step that was told of.
    told: u8,
    /// Numbers below this one are taken.
    above: u32,
    /// The create call may have been sent.
    sent: bool,
    create: Option<Upid>,
    created: bool,
    /// A clone has got its own sizes and network.
    shaped: bool,
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
    let job = job.to_the_end();
    making.job = &job;
    making.undo().await
}

/// Somebody else's turn on the node: the runner's place is free meanwhile.
fn busy(reason: &str) -> Stop {
    Stop::Retry {
        after: Some(Duration::from_millis(rand::random_range(300..700))),
        reason: format!("Waiting for a node. {reason}"),
    }
}

fn ended(undo: Undo) -> Stop {
    if undo.cancelled {
        Stop::Cancelled(undo.reason)
    } else {
        Stop::Failed(undo.reason)
    }
}

impl Placed {
    /// The template container that is cloned, if it is one.
    fn source(&self) -> Option<u32> {
        placement::container_id(&self.template)
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
        self.shape(&pve, &placed, vmid).await?;
        self.grant(&pve, vmid).await?;
        let guest = Guest {
            job: self.job,
            pve: &pve,
            node: &placed.node_name,
            vmid,
        };
        self.job.go_on()?;
        self.step(5, &format!("start CT {vmid}")).await?;
        guest.start().await?;
        self.step(6, "wait for its address").await?;
        let address = guest.address().await?;
        self.publish(&guest, address).await
    }

    async fn save(&self) -> Result<(), Stop> {
        self.job.save(&self.at).await
    }

    /// Says which step begins, once, however often the job is begun again.
    async fn step(&mut self, number: u8, title: &str) -> Result<(), Stop> {
        if number > self.at.told {
            self.job.step(number, STEPS, title).await;
            self.at.told = number;
            self.save().await?;
        }
        Ok(())
    }

    fn marker(&self) -> String {
        self.container.marker_line(&self.job.core.installation)
    }

    async fn place(&mut self) -> Result<Placed, Stop> {
        if let Some(placed) = &self.at.place {
            self.job.line("Going on after an interruption.").await;
            return Ok(placed.clone());
        }
        self.step(1, "choose a node").await?;
        let wish = Wish {
            os_release: self.container.os_release.clone().unwrap_or_default(),
            template: self.payload.template.clone(),
            node: self.payload.node.clone(),
            ai_container: self.container.ai_container.clone(),
            disk: self.container.disk.unwrap_or_default(),
            memory: self.container.memory.unwrap_or_default(),
            ssh_key: self.container.ssh_public_key.is_some(),
        };
        let began = Instant::now();
        let place = loop {
            let making = placement::making(&self.job.core).await?;
            match placement::choose(&self.job.core, &wish, &making).await? {
                Ok(place) => break place,
                Err(no) if no.away && began.elapsed() < self.job.core.config.runner.patience => {
                    self.job.line(format!("{no} Trying again…")).await;
                    self.job.pause(Duration::from_secs(1)).await?;
                }
                Err(no) if no.busy => return Err(busy(&no.to_string())),
                Err(no) => return Err(Stop::Failed(no.to_string())),
            }
        };
        for reason in &place.passed_over {
            self.job.line(format!("Passed over: {reason}")).await;
        }
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

    async fn grant(&mut self, pve: &Pve, vmid: u32) -> Result<(), Stop> {
        self.job.go_on()?;
        let owner = self.payload.owner.clone();
        // The job may have waited for long: the container can be another user's by now, and the name another person's.
        let core = &self.job.core;
        let row = container::find_any(core, self.container.id).await?;
        if row.is_none_or(|row| core.proxmox_user(&row.username) != owner) {
            let line = format!("Left out: {owner} is not the owner any more.");
            self.job.line(line).await;
            return Ok(());
        }
        self.step(4, &format!("give {owner} the role {ROLE}"))
            .await?;
        let path = format!("/vms/{vmid}");
        match self.job.ask(|| pve.acl_grant(&path, ROLE, &owner)).await {
            Ok(()) => Ok(()),
            Err(Asked::Proxmox(error)) => {
                // The container works without it; only Proxmox VE's own console is closed to the owner.
                self.job.line(format!("Left out: {error}")).await;
                Ok(())
            }
            Err(Asked::Stop(stop)) => Err(stop),
        }
    }

    async fn publish(&mut self, guest: &Guest<'_>, address: Ipv4Addr) -> Result<(), Stop> {
        self.job.go_on()?;
        self.step(7, "publish its name and ports").await?;
        if guest.write_down(self.container.id, address).await? == Written::Published {
            for line in self.reached_by(&address.to_string()) {
                self.job.line(line).await;
            }
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
        transaction!(core.db, tx => { container::undo(tx, core, &self.container, self.job.id()).await? })
            .map_err(|error: crate::Error| Stop::from(error))?;
        core.wake.jobs();
        Ok(())
    }
}
