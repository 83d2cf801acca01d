//! The job that changes a container that exists: power, sizes, snapshots. Each change is a row of effects; before one is sent it
//! is looked at whether it is done already, so a job whose runner died goes on and repeats nothing.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::container_access::{self, OwnerChange};
use super::guest::{Guest, release};
use super::identity::{locate, prove, refuse_duplicates};
use super::pve_task::{Ended, wait_for_task};
use super::{Running, Stop};
use crate::container::{self, Container};
use crate::node;
use crate::pve::{self, LxcChange, Pve, TaskStatus, Upid};

mod truth;

use truth::{note, restore_sizes};

/// `Jobs.kind`
pub const KIND: &str = "container_change";
/// How a reason begins when there is a snapshot of that name.
pub const TAKEN: &str = "There is a snapshot already";
/// A container that has not shut down by then is stopped.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// What is to become of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    Start,
    /// Shuts it down; one that does not within a minute is stopped.
    Stop,
    Restart,
    /// Absent sizes stay.
    Resize {
        cores: Option<u32>,
        /// MiB
        memory: Option<u32>,
        /// GiB; only larger.
        disk: Option<u32>,
    },
    Snapshot {
        name: String,
        description: String,
    },
    /// One that runs is started again afterwards.
    RollBack {
        name: String,
    },
    DeleteSnapshot {
        name: String,
    },
}

impl Change {
    /// The operation that asks for it.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Start => "container_start",
            Self::Stop => "container_stop",
            Self::Restart => "container_restart",
            Self::Resize { .. } => "container_update",
            Self::Snapshot { .. } => "snapshot_create",
            Self::RollBack { .. } => "snapshot_rollback",
            Self::DeleteSnapshot { .. } => "snapshot_delete",
        }
    }

    /// As a person would say it.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Start => "start".to_owned(),
            Self::Stop => "stop".to_owned(),
            Self::Restart => "restart".to_owned(),
            Self::Resize { .. } => "resize".to_owned(),
            Self::Snapshot { name, .. } => format!("take snapshot {name} of"),
            Self::RollBack { name } => format!("roll back to snapshot {name} of"),
            Self::DeleteSnapshot { name } => format!("delete snapshot {name} of"),
        }
    }
}

impl Change {
    /// Whether it ends or takes away something, so that the wrong container would suffer by it.
    fn is_destructive(&self) -> bool {
        !matches!(self, Self::Start | Self::Snapshot { .. })
    }
}

/// `Jobs.payload`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Payload {
    pub container: i64,
    pub change: Change,
    /// Who gets the role in Proxmox VE, and who loses it.
    #[serde(default)]
    pub owner: Option<OwnerChange>,
    /// The sizes before the larger ones were counted: they hold again where nothing was changed.
    #[serde(default)]
    pub before: Option<StoredSizes>,
}

/// The sizes of a container's row; absent where they are not known.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct StoredSizes {
    pub cores: Option<u32>,
    /// MiB
    pub memory: Option<u32>,
    /// GiB
    pub disk: Option<u32>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Checkpoint {
    /// Whether it ran before.
    ran: Option<bool>,
    /// Effects that are done.
    done: usize,
    /// The next one's call may have been sent.
    sent: bool,
    task: Option<Upid>,
}

/// One thing that Proxmox VE is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    Stop,
    Sizes {
        cores: Option<u32>,
        memory: Option<u32>,
    },
    Grow(u32),
    Snapshot {
        name: String,
        description: String,
    },
    RollBack(String),
    DeleteSnapshot(String),
}

struct Changing<'a> {
    job: &'a Running,
    pve: Pve,
    node: String,
    vmid: u32,
    at: Checkpoint,
}

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let payload: Payload = job.payload()?;
    let Some(container) = container::find_any(&job.core, payload.container).await? else {
        return Err(Stop::Failed("The container is gone.".to_owned()));
    };
    let result = change(job, &container, &payload).await;
    if matches!(
        result,
        Err(Stop::HandBack | Stop::Lost | Stop::Retry { .. })
    ) {
        return result;
    }
    if let Err(Stop::Failed(reason)) = &result {
        note(job, container.id, reason).await?;
    }
    release(&job.core, container.id, job.id()).await?;
    result
}

async fn change(job: &Running, container: &Container, payload: &Payload) -> Result<(), Stop> {
    let change = &payload.change;
    let mut changing = match prepare(job, container, change).await {
        Ok(changing) => changing,
        Err(stop @ (Stop::Failed(_) | Stop::Cancelled(_))) => {
            restore_sizes(job, container.id, payload.before).await?;
            if let Some(owner) = &payload.owner {
                container_access::add(job, container.id, owner).await?;
            }
            return Err(stop);
        }
        Err(stop) => return Err(stop),
    };
    let given = match &payload.owner {
        Some(owner) => container_access::apply(job, &changing.pve, changing.vmid, owner).await,
        None => Ok(()),
    };
    if let (Err(Stop::Failed(_)), Some(owner)) = (&given, &payload.owner) {
        container_access::add(job, container.id, owner).await?;
    }
    let left_out = match given {
        Ok(()) => None,
        Err(Stop::Failed(reason)) => Some(reason),
        Err(stop) => return Err(stop),
    };
    let result = changing.work(container, change).await;
    if matches!(result, Err(Stop::Failed(_) | Stop::Cancelled(_))) {
        changing.write_truth(container.id).await?;
    }
    match (result, left_out) {
        (Err(Stop::Failed(reason)), Some(left_out)) => {
            Err(Stop::Failed(format!("{left_out} {reason}")))
        }
        (Ok(()), Some(left_out)) => Err(Stop::Failed(left_out)),
        (result, _) => result,
    }
}

/// Finds the container and proves that it is the row's. Nothing has been changed before.
async fn prepare<'a>(
    job: &'a Running,
    container: &Container,
    change: &Change,
) -> Result<Changing<'a>, Stop> {
    let (Some(vmid), Some(node)) = (container.container_id, container.node_id) else {
        return Err(Stop::Failed(
            "The row names nothing in Proxmox VE.".to_owned(),
        ));
    };
    let node = node::find(&job.core, node).await?;
    let pve = job.core.pve(&node)?;
    job.step(1, 2, &format!("check that CT {vmid} is this container"))
        .await;
    let Some((on, config)) = locate(job, &pve, &node, vmid).await? else {
        return Err(Stop::Failed(format!(
            "CT {vmid} does not exist any more in Proxmox VE."
        )));
    };
    prove(job, container, &config, ".").await?;
    if change.is_destructive() {
        refuse_duplicates(job, container).await?;
    }
    job.step(2, 2, &format!("{} CT {vmid}", change.words()))
        .await;
    Ok(Changing {
        job,
        pve,
        node: on,
        vmid,
        at: job.checkpoint()?,
    })
}

impl Changing<'_> {
    fn guest(&self) -> Guest<'_> {
        Guest {
            job: self.job,
            pve: &self.pve,
            node: &self.node,
            vmid: self.vmid,
        }
    }

    async fn work(&mut self, container: &Container, change: &Change) -> Result<(), Stop> {
        let ran = match self.at.ran {
            Some(ran) => ran,
            None => self.guest().running().await?,
        };
        self.at.ran = Some(ran);
        let (effects, start) = effects(change, ran);
        for effect in effects.iter().skip(self.at.done) {
            self.bring_about(effect).await?;
            if *effect == Effect::Stop {
                // Known to be stopped: its name must not lead to whoever gets its address next. Not before, since a shutdown may be
                // refused, and then the container still runs there.
                self.forget_address(container.id).await?;
            }
            self.at = Checkpoint {
                ran: Some(ran),
                done: self.at.done + 1,
                ..Checkpoint::default()
            };
            self.job.save(&self.at).await?;
        }
        self.write_sizes(container.id).await?;
        if start {
            self.guest().start().await?;
            let address = self.guest().address().await?;
            self.guest().write_down(container.id, address).await?;
        }
        Ok(())
    }

    async fn bring_about(&mut self, effect: &Effect) -> Result<(), Stop> {
        let began = Instant::now();
        loop {
            self.job.go_on()?;
            if let Some(task) = self.at.task.clone() {
                let patience = self.job.core.config.runner.patience;
                let limit = self.job.limits().task;
                let ended = wait_for_task(self.job, &self.pve, &task, limit).await?;
                return match ended {
                    Ended::Well => Ok(()),
                    // Somebody else was quicker, or it was done before the answer was lost.
                    Ended::Badly(_) if self.is_done(effect).await? => Ok(()),
                    ended if ended.may_pass() && began.elapsed() < patience => {
                        self.at.task = None;
                        self.job.pause(Duration::from_secs(1)).await?;
                        continue;
                    }
                    Ended::Badly(reason) => Err(Stop::Failed(reason)),
                };
            }
            if self.at.sent
                && let Some(task) = self.under_way(effect).await?
            {
                self.at.task = Some(task);
                continue;
            }
            if self.at.sent || !matches!(effect, Effect::Snapshot { .. }) {
                if self.is_done(effect).await? {
                    return Ok(());
                }
            } else if self.is_done(effect).await? {
                // It was there before.
                return Err(Stop::Failed(format!("{TAKEN} of this name.")));
            }
            self.at.sent = true;
            self.job.save(&self.at).await?;
            match self.send(effect).await {
                Ok(Some(task)) => {
                    self.at.task = Some(task);
                    self.job.save(&self.at).await?;
                }
                Ok(None) => return Ok(()),
                Err(error)
                    if began.elapsed() < self.job.core.config.runner.patience
                        && (error.is_transient()
                            || error.may_have_happened()
                            || error.is_locked_or_lock_timeout()) =>
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

    /// Sends it; the task that does it, if it takes one.
    async fn send(&self, effect: &Effect) -> Result<Option<Upid>, pve::Error> {
        let (pve, node, vmid) = (&self.pve, self.node.as_str(), self.vmid);
        match effect {
            Effect::Stop => pve.lxc_shutdown(node, vmid, SHUTDOWN).await.map(Some),
            Effect::Sizes { cores, memory } => {
                let sizes = LxcChange {
                    cores: *cores,
                    memory_mib: *memory,
                    ..LxcChange::default()
                };
                pve.lxc_config_set(node, vmid, &sizes).await.map(|()| None)
            }
            Effect::Grow(gib) => pve.lxc_resize(node, vmid, "rootfs", *gib).await.map(Some),
            Effect::Snapshot { name, description } => pve
                .lxc_snapshot(node, vmid, name, description)
                .await
                .map(Some),
            Effect::RollBack(name) => pve.lxc_rollback(node, vmid, name).await.map(Some),
            Effect::DeleteSnapshot(name) => {
                pve.lxc_snapshot_delete(node, vmid, name).await.map(Some)
            }
        }
    }

    /// Whether the world is as the effect leaves it. Of a rollback nothing can be seen; doing it twice is no harm.
    async fn is_done(&self, effect: &Effect) -> Result<bool, Stop> {
        Ok(match effect {
            Effect::Stop => !self.guest().running().await?,
            Effect::Grow(gib) => {
                let config = self.job.ask(|| self.pve.lxc_config(&self.node, self.vmid));
                config.await?.disk_gib() >= Some(*gib)
            }
            Effect::Snapshot { name, .. } => self.has_snapshot(name).await?,
            Effect::DeleteSnapshot(name) => self.at.sent && !self.has_snapshot(name).await?,
            Effect::Sizes { .. } | Effect::RollBack(_) => false,
        })
    }

    async fn has_snapshot(&self, name: &str) -> Result<bool, Stop> {
        let all = self
            .job
            .ask(|| self.pve.lxc_snapshots(&self.node, self.vmid));
        Ok(all.await?.iter().any(|snapshot| snapshot.name == name))
    }

    /// The task of an effect whose answer was lost, if it still runs.
    async fn under_way(&self, effect: &Effect) -> Result<Option<Upid>, Stop> {
        let kind = match effect {
            Effect::Stop => "vzshutdown",
            Effect::Grow(_) => "resize",
            Effect::Snapshot { .. } => "vzsnapshot",
            Effect::RollBack(_) => "vzrollback",
            Effect::DeleteSnapshot(_) => "vzdelsnapshot",
            Effect::Sizes { .. } => return Ok(None),
        };
        let tasks = self
            .job
            .ask(|| self.pve.tasks(&self.node, self.vmid))
            .await?;
        let mut ours = tasks
            .into_iter()
            .filter(|task| task.upid.kind() == kind && task.status == TaskStatus::Running);
        Ok(ours.next().map(|task| task.upid))
    }
}

/// What is to be done to a container that ran or did not, and whether it is started then.
fn effects(change: &Change, ran: bool) -> (Vec<Effect>, bool) {
    let down = ran.then_some(Effect::Stop).into_iter();
    let effects = match change {
        Change::Start => Vec::new(),
        Change::Stop => vec![Effect::Stop],
        Change::Restart => down.collect(),
        Change::Resize {
            cores,
            memory,
            disk,
        } => {
            let (cores, memory) = (*cores, *memory);
            let sizes = Effect::Sizes { cores, memory };
            let set = (cores.is_some() || memory.is_some()).then_some(sizes);
            set.into_iter().chain(disk.map(Effect::Grow)).collect()
        }
        Change::Snapshot { name, description } => vec![Effect::Snapshot {
            name: name.clone(),
            description: description.clone(),
        }],
        Change::RollBack { name } => {
            // It is shut down first, so that its address is let go of.
            down.chain([Effect::RollBack(name.clone())]).collect()
        }
        Change::DeleteSnapshot { name } => vec![Effect::DeleteSnapshot(name.clone())],
    };
    let start = match change {
        Change::Start | Change::Restart => true,
        Change::RollBack { .. } => ran,
        _ => false,
    };
    (effects, start)
}
