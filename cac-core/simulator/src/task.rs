//! Tasks: their UPIDs, the workers behind them, their logs, how they end or are aborted. Not what each worker does.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::rights::Who;
use crate::world::{Task, World, now, random_bytes};

/// How many finished tasks are remembered.
const KEPT: usize = 2000;

/// Exit status of a task whose log has no last line.
pub(crate) const UNEXPECTED: &str = "unexpected status";

/// The running tasks by UPID, to abort them.
#[derive(Default)]
pub(crate) struct Aborts(Mutex<HashMap<String, CancellationToken>>);

impl Aborts {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn abort(&self, upid: &str) {
        if let Some(token) = self.map().get(upid) {
            token.cancel();
        }
    }
}

/// A fault that was ordered for the task a request starts.
#[derive(Debug, Clone)]
pub(crate) enum TaskFault {
    Hang,
    Fail(String),
}

/// How a worker ended other than well.
#[derive(Debug)]
pub(crate) enum Ending {
    /// With a text that becomes the exit status.
    Failed(String),
    /// By an abort; the worker may turn it into a failure of its own.
    Interrupted,
}

impl From<String> for Ending {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

pub(crate) type Outcome = Result<(), Ending>;

/// What is to run, for whom.
pub(crate) struct Order<'a> {
    pub(crate) node: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) id: String,
    pub(crate) who: &'a Who,
    pub(crate) fault: Option<TaskFault>,
}

/// A worker's hold on its task.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) core: Arc<Core>,
    pub(crate) upid: String,
    pub(crate) node: String,
    pub(crate) who: Who,
    abort: CancellationToken,
    fault: Option<TaskFault>,
}

/// Starts a worker and answers with its UPID.
pub(crate) fn spawn<F, Run>(core: &Arc<Core>, order: Order<'_>, run: F) -> String
where
    F: FnOnce(Worker) -> Run,
    Run: Future<Output = Outcome> + Send + 'static,
{
    let upid = register(&mut core.change(), &order);
    let abort = core.stop.child_token();
    core.aborts.map().insert(upid.clone(), abort.clone());
    let worker = Worker {
        core: Arc::clone(core),
        upid: upid.clone(),
        node: order.node.to_owned(),
        who: order.who.clone(),
        abort,
        fault: order.fault,
    };
    let work = run(worker.clone());
    core.jobs.spawn(async move {
        let outcome = work.await;
        worker.finish(outcome);
    });
    upid
}

fn register(world: &mut World, order: &Order<'_>) -> String {
    let pid = world.take_pid();
    let noise = random_bytes(1)[0];
    let uptime = u32::try_from(now() - world.born).unwrap_or_default();
    let pstart = uptime
        .saturating_mul(100)
        .saturating_add(240_000 + u32::from(noise) % 100);
    let starttime = now();
    let user = order.who.id();
    let upid = format!(
        "UPID:{}:{pid:08X}:{pstart:08X}:{starttime:08X}:{}:{}:{user}:",
        order.node, order.kind, order.id
    );
    if world.tasks.len() >= KEPT {
        world.tasks.remove(0);
    }
    world.tasks.push(Task {
        upid: upid.clone(),
        node: order.node.to_owned(),
        pid,
        pstart,
        starttime,
        kind: order.kind.to_owned(),
        id: order.id.clone(),
        user,
        endtime: None,
        status: None,
        log: Vec::new(),
    });
    upid
}

impl Worker {
    fn task<R>(&self, change: impl FnOnce(&mut Task) -> R) -> Option<R> {
        let mut world = self.core.change();
        world
            .tasks
            .iter_mut()
            .rev()
            .find(|task| task.upid == self.upid)
            .map(change)
    }

    /// Adds a line to the task log.
    pub(crate) fn log(&self, line: impl Into<String>) {
        self.task(|task| task.log.push(line.into()));
    }

    /// Waits; ends early when the task is aborted.
    pub(crate) async fn pause(&self, time: Duration) -> Outcome {
        tokio::select! {
            () = self.abort.cancelled() => Err(Ending::Interrupted),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Half-way point of a worker, where an ordered fault strikes.
    pub(crate) async fn strike(&self) -> Outcome {
        match &self.fault {
            None => Ok(()),
            Some(TaskFault::Fail(text)) => Err(Ending::Failed(text.clone())),
            Some(TaskFault::Hang) => {
                self.abort.cancelled().await;
                Err(Ending::Interrupted)
            }
        }
    }

    /// Takes the file lock of a container, with the lines Proxmox VE logs when it must wait.
    pub(crate) async fn lock(&self, vmid: u32) -> Result<OwnedMutexGuard<()>, Ending> {
        if let Some(guard) = self.core.try_lock(vmid) {
            return Ok(guard);
        }
        self.log("trying to acquire lock...");
        let guard = tokio::select! {
            () = self.abort.cancelled() => return Err(Ending::Interrupted),
            guard = self.core.lock(vmid) => guard?,
        };
        self.log(" OK");
        Ok(guard)
    }

    fn finish(&self, outcome: Outcome) {
        // A simulator that stops leaves its tasks unfinished, as a node does that loses power.
        let stopping = self.core.stop.is_cancelled();
        self.task(|task| {
            let status = match outcome {
                Ok(()) => match task.log.iter().filter(|l| l.starts_with("WARN: ")).count() {
                    0 => "OK".to_owned(),
                    count => format!("WARNINGS: {count}"),
                },
                Err(Ending::Failed(text)) if !stopping => text,
                Err(_) => UNEXPECTED.to_owned(),
            };
            match status.as_str() {
                UNEXPECTED => {}
                "OK" => task.log.push("TASK OK".to_owned()),
                text if text.starts_with("WARNINGS: ") => task.log.push(format!("TASK {text}")),
                text => task.log.push(format!("TASK ERROR: {text}")),
            }
            task.status = Some(status);
            task.endtime = Some(now());
        });
        self.core.aborts.map().remove(&self.upid);
    }
}

/// Ends the tasks that ran when the simulator was stopped.
pub(crate) fn end_lost(world: &mut World) {
    for task in world.tasks.iter_mut().filter(|task| task.status.is_none()) {
        task.status = Some(UNEXPECTED.to_owned());
        task.endtime = Some(now());
    }
}

/// Whether a text has the form of a UPID.
pub(crate) fn is_upid(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
    parts.len() == 9
        && parts[0] == "UPID"
        && parts[8].is_empty()
        && !parts[1].is_empty()
        && parts[2].len() == 8
        && (8..=9).contains(&parts[3].len())
        && parts[4].len() == 8
        && parts[2..5].iter().all(|part| hex(part))
        && !parts[5].is_empty()
        && !parts[7].is_empty()
}
