//! The running heart: the world behind a lock, delays, container locks, guests, faults. Not the calls and not the wire.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Delay;
use crate::answer::Refusal;
use crate::faults::Faults;
use crate::guest::Guests;
use crate::task::Aborts;
use crate::world::World;

/// Shared by the server, the workers and the guests.
pub(crate) struct Core {
    world: Mutex<World>,
    changed: Notify,
    pub(crate) delay: Delay,
    pub(crate) data_file: Option<PathBuf>,
    pub(crate) fingerprint: String,
    pub(crate) guests: Guests,
    pub(crate) faults: Arc<Faults>,
    pub(crate) aborts: Aborts,
    locks: Mutex<HashMap<u32, Arc<tokio::sync::Mutex<()>>>>,
    /// Ends everything when the simulator stops.
    pub(crate) stop: CancellationToken,
    pub(crate) jobs: TaskTracker,
    /// Requests to the API so far.
    pub(crate) requests: AtomicU64,
}

/// What does not change while the simulator runs.
pub(crate) struct Fixed {
    pub(crate) delay: Delay,
    pub(crate) data_file: Option<PathBuf>,
    pub(crate) fingerprint: String,
    pub(crate) guests: Guests,
}

impl Core {
    pub(crate) fn new(world: World, fixed: Fixed) -> Self {
        Self {
            world: Mutex::new(world),
            requests: AtomicU64::new(0),
            changed: Notify::new(),
            delay: fixed.delay,
            data_file: fixed.data_file,
            fingerprint: fixed.fingerprint,
            guests: fixed.guests,
            faults: Arc::default(),
            aborts: Aborts::default(),
            locks: Mutex::default(),
            stop: CancellationToken::new(),
            jobs: TaskTracker::new(),
        }
    }

    /// The world to read. Never held across an await.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world to change; it is saved soon after.
    pub(crate) fn change(&self) -> MutexGuard<'_, World> {
        self.changed.notify_one();
        self.world()
    }

    fn lock_of(&self, vmid: u32) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(vmid).or_default())
    }

    /// The file lock of a container, if nobody holds it.
    pub(crate) fn try_lock(&self, vmid: u32) -> Option<OwnedMutexGuard<()>> {
        self.lock_of(vmid).try_lock_owned().ok()
    }

    /// The file lock of a container, or the time-out text of Proxmox VE.
    pub(crate) async fn lock(&self, vmid: u32) -> Result<OwnedMutexGuard<()>, String> {
        tokio::time::timeout(self.delay.lock_timeout, self.lock_of(vmid).lock_owned())
            .await
            .map_err(|_| {
                format!("can't lock file '/run/lock/lxc/pve-config-{vmid}.lock' - got timeout")
            })
    }

    /// As `lock`, for calls that answer at once.
    pub(crate) async fn lock_call(&self, vmid: u32) -> Result<OwnedMutexGuard<()>, Refusal> {
        self.lock(vmid).await.map_err(Refusal::Failed)
    }

    /// Saves the world after changes until the simulator stops.
    pub(crate) async fn keep_saved(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.changed.notified() => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                // Several changes in a row become one write.
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
            if let Err(error) = self.save() {
                tracing::error!(%error, "the state of the simulator could not be saved");
            }
        }
    }

    /// Writes the world to the data file, whole or not at all.
    pub(crate) fn save(&self) -> std::io::Result<()> {
        let Some(file) = &self.data_file else {
            return Ok(());
        };
        let text = serde_json::to_vec_pretty(&*self.world())?;
        crate::store::write(file, &text)
    }
}
