//! Wake-ups: they make things quick; polling makes them sure. Signals carry nothing: whoever is woken looks at the database.
//!
//! Within a process by this type; to other processes of the same database by `wake/abroad.rs`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};

mod abroad;
pub use abroad::{Listening, listen};

use crate::db::Db;

/// What one may be woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A job was added, cancelled or handed back: for runners.
    Jobs,
    /// Output was written, or a job changed its state: for whoever follows jobs.
    Output,
}

/// Wakes who waits in this process, and tells other processes.
#[derive(Debug)]
pub struct Wake {
    jobs: watch::Sender<u64>,
    output: watch::Sender<u64>,
    routes: watch::Sender<u64>,
    /// To the tasks that tell other processes; full means that one is about to.
    jobs_abroad: mpsc::Sender<()>,
    output_abroad: mpsc::Sender<()>,
    /// Where this process itself listens.
    own: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Wake {
    /// For processes of this database; the tasks behind it end when it is dropped.
    pub(crate) fn new(db: &Db) -> Self {
        let own = Arc::default();
        Self {
            jobs: watch::Sender::new(0),
            output: watch::Sender::new(0),
            routes: watch::Sender::new(0),
            jobs_abroad: abroad::teller(db.clone(), Channel::Jobs, Arc::clone(&own)),
            output_abroad: abroad::teller(db.clone(), Channel::Output, Arc::clone(&own)),
            own,
        }
    }

    /// A job was added, cancelled or handed back; call it after the commit.
    pub fn jobs(&self) {
        self.heard(Channel::Jobs);
        self.output();
        let _ = self.jobs_abroad.try_send(());
    }

    /// A receiver that changes with [`Wake::jobs`], here or in another process.
    pub fn watch_jobs(&self) -> watch::Receiver<u64> {
        self.jobs.subscribe()
    }

    /// Output or the state of some job changed; call it after the commit.
    pub fn output(&self) {
        self.heard(Channel::Output);
        let _ = self.output_abroad.try_send(());
    }

    /// A receiver that changes with [`Wake::output`], here or in another process.
    pub fn watch_output(&self) -> watch::Receiver<u64> {
        self.output.subscribe()
    }

    /// Something that `/nginx.conf` shows changed.
    pub fn routes(&self) {
        change(&self.routes);
    }

    /// A receiver that changes with [`Wake::routes`].
    pub fn watch_routes(&self) -> watch::Receiver<u64> {
        self.routes.subscribe()
    }

    /// Leaves an address out of what is told to others, since it is this process's own.
    fn listens_at(&self, address: SocketAddr) {
        let mut own = self.own.lock().expect("nothing panics while it holds it");
        own.insert(address);
    }

    fn heard(&self, channel: Channel) {
        match channel {
            Channel::Jobs => change(&self.jobs),
            Channel::Output => change(&self.output),
        }
    }
}

fn change(counter: &watch::Sender<u64>) {
    counter.send_modify(|n| *n = n.wrapping_add(1));
}
