//! Why nothing answers at a public name, for the page that proxies show then. Anybody may ask, as often as they like: a request asks
//! neither the database nor Proxmox VE, but takes what was found lately, and has it looked at again in the background.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

use super::Table;
use crate::nginx::Service;
use crate::{Core, Result, args, container};

/// Why nothing answers at a public name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// Something is being done with the container, or it began to run a moment ago.
    Starting,
    Stopped,
    /// The container runs, or the node does not say; nothing answers.
    Down,
    /// Nothing is published by that name.
    Unknown,
}

/// How long a container may take to answer from its start on, in seconds.
const STARTS: u64 = 60;
/// How old the table of routes may be, and what was found out about a container.
const RECENT: Duration = Duration::from_secs(3);
/// How long the first one who asks about a container waits for a look at it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what was found out is better than nothing.
const STALE: Duration = Duration::from_secs(60);
/// Containers that are looked at at once.
const LOOKS: usize = 4;

/// What was found out lately, by the ids of services: of published ones only, so it has an end.
#[derive(Debug)]
pub(crate) struct Looks {
    found: Mutex<HashMap<i64, Found>>,
    room: Arc<Semaphore>,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            found: Mutex::default(),
            room: Arc::new(Semaphore::new(LOOKS)),
        }
    }
}

#[derive(Debug)]
struct Found {
    at: Instant,
    away: Option<Away>,
    /// Present while a look is under way.
    look: Option<watch::Receiver<Option<Away>>>,
}

impl Looks {
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Found>> {
        self.found.lock().expect("nothing panics while it holds it")
    }
}

/// What is known about the container that has the name.
pub async fn away(core: &Core, name: &str) -> Result<Away> {
    let table = table(core).await?;
    let Some(&service) = table.names.get(name) else {
        return Ok(Away::Unknown);
    };
    let mut look = {
        let mut all = core.away.lock();
        let known = all.get(&service);
        let away = known.and_then(|found| found.away.filter(|_| found.at.elapsed() < STALE));
        let look = match known {
            Some(Found {
                look: Some(look), ..
            }) => Some(look.clone()),
            Some(found) if found.at.elapsed() < RECENT => None,
            _ => begin(core, &mut all, service),
        };
        match (away, look) {
            (Some(away), _) => return Ok(away),
            (None, Some(look)) => look,
            (None, None) => return Ok(Away::Down),
        }
    };
    let first = tokio::time::timeout(PATIENCE, look.wait_for(Option::is_some)).await;
    Ok(match first {
        Ok(Ok(away)) => away.unwrap_or(Away::Down),
        _ => Away::Down,
    })
}

/// The newest table, or one that is a few seconds old.
async fn table(core: &Core) -> Result<Arc<Table>> {
    match core.newest.at_most(RECENT) {
        Some(table) => Ok(table),
        None => super::newest(core).await,
    }
}

/// Begins a look in the background, if not too many are under way.
fn begin(
    core: &Core,
    all: &mut HashMap<i64, Found>,
    service: i64,
) -> Option<watch::Receiver<Option<Away>>> {
    let room = Arc::clone(&core.away.room).try_acquire_owned().ok()?;
    all.retain(|_, found| found.look.is_some() || found.at.elapsed() < STALE);
    let (sender, receiver) = watch::channel(None);
    let before = all.get(&service).and_then(|found| found.away);
    all.insert(
        service,
        Found {
            at: Instant::now(),
            away: before,
            look: Some(receiver.clone()),
        },
    );
    let core = core.clone();
    tokio::spawn(async move {
        let _room = room;
        let away = look(&core, service).await.unwrap_or_else(|error| {
            tracing::warn!(service, %error, "why it does not answer is not known");
            Away::Down
        });
        core.away.lock().insert(
            service,
            Found {
                at: Instant::now(),
                away: Some(away),
                look: None,
            },
        );
        let _ = sender.send(Some(away));
    });
    Some(receiver)
}

async fn look(core: &Core, service: i64) -> Result<Away> {
    let sql = r#"SELECT "containerId" FROM "Services" WHERE "id" = ?"#;
    let Some(row) = core.db.opt(sql, args![service]).await? else {
        return Ok(Away::Unknown);
    };
    let Some(row) = container::find_any(core, row.get("containerId")?).await? else {
        return Ok(Away::Unknown);
    };
    if row.state.is_some() {
        return Ok(Away::Starting);
    }
    let live = container::live(core, std::slice::from_ref(&row))
        .await
        .remove(&row.id);
    Ok(match live {
        Some(live) if live.status == "stopped" => Away::Stopped,
        Some(live) if live.uptime.is_some_and(|seconds| seconds < STARTS) => Away::Starting,
        _ => {
            // It may have another address by now.
            core.suspects.add(row.id);
            Away::Down
        }
    })
}

/// Public names with the ids of their services.
pub(super) fn names<'a>(
    served: impl Iterator<Item = (&'a i64, &'a Service)>,
) -> HashMap<String, i64> {
    served
        .filter_map(|(id, service)| match service {
            Service::Http(service) => Some((service.name.as_str().to_owned(), *id)),
            Service::Stream(_) => None,
        })
        .collect()
}
