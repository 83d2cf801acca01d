//! What nginx is to serve now: the published services rendered with the configured settings.

mod away;
mod form;
mod live;
mod record;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use away::Looks;
pub use away::{Away, away};
pub use form::Trouble;
use live::Without;
pub(crate) use live::note;
use record::Memory;
pub(crate) use state::behind;
pub use state::{LiveAt, Standing, State, standings};

use crate::nginx::{
    self, BadValue, Fault, Flavour, Kept, ProxyConfig, Rendered, Service, Settings, StreamModule,
    TakenPorts,
};
use crate::supervise::supervise;
use crate::{Core, Error, Result, proxy};

/// Files of one table that are kept, for different kinds of nginx.
const MOST_FILES: usize = 16;
/// How often a change that another process made is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// How long a file is good that nobody here has changed: rows are changed by hand, too.
const RECENT: Duration = Duration::from_millis(500);

/// What is served now, and what is not as it should be.
#[derive(Debug)]
pub struct Table {
    /// In the order of their ids.
    pub served: BTreeMap<i64, Service>,
    /// By the ids of services.
    pub troubles: BTreeMap<i64, Trouble>,
    /// The ids of services by their public names.
    names: HashMap<String, i64>,
    revision: i64,
    /// What was rendered of it already.
    files: Mutex<Vec<(Variant, Arc<Rendered>)>>,
}

/// For which nginx a file is; absent: as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variant {
    pub flavour: Option<Flavour>,
    pub lacks_http3: bool,
    /// Ports that another program has on the machine of this nginx.
    pub taken: TakenPorts,
    pub stream_module: Option<StreamModule>,
}

impl Variant {
    /// From a version such as `1.22` or `1.25.3`, whether it speaks HTTP/3, and where its stream module is: `builtin`, `none` or
    /// `dynamic` for the configured file.
    pub fn parse(
        core: &Core,
        version: Option<&str>,
        http3: Option<bool>,
        stream: Option<&str>,
        taken: Option<&str>,
    ) -> Result<Self> {
        let flavour = |text| {
            let message = "Give the version of nginx, such as `1.22` or `1.25.3`.";
            Flavour::of_version(text).ok_or_else(|| Error::invalid("nginx", message))
        };
        let flavour = version.map(flavour).transpose()?;
        let stream_module = match stream {
            None => None,
            Some("builtin") => Some(StreamModule::Builtin),
            Some("none") => Some(StreamModule::Missing),
            Some("dynamic") => Some(match &core.config.nginx.stream_module {
                file @ StreamModule::Dynamic(_) => file.clone(),
                _ => StreamModule::debian(),
            }),
            Some(_) => {
                let message = "Give `builtin`, `dynamic` or `none`.";
                return Err(Error::invalid("stream", message));
            }
        };
        Ok(Self {
            flavour,
            lacks_http3: http3 == Some(false),
            taken: taken
                .unwrap_or_default()
                .parse()
                .map_err(|error: BadValue| Error::invalid("taken", error.to_string()))?,
            stream_module,
        })
    }
}

fn rendered<'a>(settings: &Settings, served: impl IntoIterator<Item = &'a Service>) -> Rendered {
    let (mut http, mut streams) = (Vec::new(), Vec::new());
    for service in served {
        match service {
            Service::Http(service) => http.push(service.clone()),
            Service::Stream(service) => streams.push(service.clone()),
        }
    }
    nginx::render(settings, &http, &streams)
}

/// What a file with these settings is without, where those ports are taken.
fn without(settings: &Settings, served: &BTreeMap<i64, Service>, out: TakenPorts) -> Without {
    let mut ports = served.values().filter_map(Service::port);
    match settings.stream_module {
        StreamModule::Missing if ports.next().is_some() => Without::Streams,
        _ => Without::Ports(out),
    }
}

/// The whole file as it should be now.
pub async fn render(core: &Core) -> Result<Rendered> {
    render_with(core, &core.config.nginx).await
}

/// The same for an nginx with settings of its own, as the demo has one.
pub async fn render_with(core: &Core, settings: &Settings) -> Result<Rendered> {
    let mut memory = core.newest.memory.lock().await;
    let (chosen, revision) = Box::pin(record::settle(core, &mut memory)).await?;
    let file = rendered(settings, chosen.served.values());
    let without = without(settings, &chosen.served, TakenPorts::default());
    record::tag(core, &mut memory, &file.etag, revision, &without).await?;
    tell(&mut memory.told, &chosen.troubles);
    Ok(file)
}

/// What is served now, from what was read in the last half second if nothing has changed here since: for many who ask again and again.
pub async fn newest(core: &Core) -> Result<Arc<Table>> {
    if let Some(known) = core.newest.known() {
        return Ok(known);
    }
    // Whoever comes second waits for the first one's.
    let mut memory = core.newest.memory.lock().await;
    if let Some(known) = core.newest.known() {
        return Ok(known);
    }
    // Before it is read, so that a change meanwhile is seen.
    let mut changed = core.wake.watch_routes();
    changed.mark_unchanged();
    let (chosen, revision) = Box::pin(record::settle(core, &mut memory)).await?;
    tell(&mut memory.told, &chosen.troubles);
    let same = core.newest.last().filter(|last| {
        let same = last.revision == revision && last.troubles == chosen.troubles;
        same && last.served == chosen.served
    });
    let table = same.unwrap_or_else(|| {
        Arc::new(Table {
            names: away::names(chosen.served.iter()),
            served: chosen.served,
            troubles: chosen.troubles,
            revision,
            files: Mutex::default(),
        })
    });
    core.newest.keep(Arc::clone(&table), changed);
    Ok(table)
}

/// A file, and the revision of the routes that it shows.
#[derive(Debug, Clone)]
pub struct RouteFile {
    rendered: Arc<Rendered>,
    pub revision: i64,
}

impl Deref for RouteFile {
    type Target = Rendered;

    fn deref(&self) -> &Rendered {
        &self.rendered
    }
}

/// The file of [`newest`] for such an nginx.
pub async fn file(core: &Core, variant: &Variant) -> Result<RouteFile> {
    let known = core.newest.known();
    match known.and_then(|table| table.file(variant)) {
        Some(known) => Ok(known),
        None => Box::pin(file_now(core, variant)).await,
    }
}

async fn file_now(core: &Core, variant: &Variant) -> Result<RouteFile> {
    let table = newest(core).await?;
    if let Some(known) = table.file(variant) {
        return Ok(known);
    }
    let mut settings = core.config.nginx.clone();
    if let Some(flavour) = variant.flavour {
        settings.flavour = flavour;
    }
    settings.http3 &= !variant.lacks_http3;
    if let Some(module) = &variant.stream_module {
        settings.stream_module = module.clone();
    }
    let taken = |service: &&Service| {
        let port = service.port();
        port.is_some_and(|(port, protocol)| variant.taken.has(port, protocol))
    };
    let (out, served): (Vec<_>, Vec<_>) = table.served.values().partition(taken);
    let out = out.into_iter().filter_map(Service::port).collect();
    let file = Arc::new(rendered(&settings, served));
    let without = without(&settings, &table.served, out);
    let mut memory = core.newest.memory.lock().await;
    record::tag(core, &mut memory, &file.etag, table.revision, &without).await?;
    let mut files = table
        .files
        .lock()
        .expect("nothing panics while it holds it");
    if files.len() >= MOST_FILES {
        files.remove(0);
    }
    files.push((variant.clone(), Arc::clone(&file)));
    Ok(RouteFile {
        rendered: file,
        revision: table.revision,
    })
}

impl Table {
    fn file(&self, variant: &Variant) -> Option<RouteFile> {
        let files = self.files.lock().expect("nothing panics while it holds it");
        let known = files.iter().find(|(known, _)| known == variant);
        known.map(|(_, file)| RouteFile {
            rendered: Arc::clone(file),
            revision: self.revision,
        })
    }
}

/// What was read last.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    known: RwLock<Option<Known>>,
    memory: tokio::sync::Mutex<Memory>,
}

#[derive(Debug)]
struct Known {
    at: Instant,
    table: Arc<Table>,
    changed: watch::Receiver<u64>,
}

impl Newest {
    fn known(&self) -> Option<Arc<Table>> {
        let known = self.known.read().expect("nothing panics while it holds it");
        let known = known.as_ref()?;
        let good = known.at.elapsed() < RECENT && !known.changed.has_changed().unwrap_or(true);
        good.then(|| Arc::clone(&known.table))
    }

    /// The table that was read last, if it is not older than this; a change may have come since.
    fn at_most(&self, age: Duration) -> Option<Arc<Table>> {
        let known = self.known.read().expect("nothing panics while it holds it");
        let known = known.as_ref()?;
        (known.at.elapsed() < age).then(|| Arc::clone(&known.table))
    }

    fn last(&self) -> Option<Arc<Table>> {
        let known = self.known.read().expect("nothing panics while it holds it");
        known.as_ref().map(|known| Arc::clone(&known.table))
    }

    fn keep(&self, table: Arc<Table>, changed: watch::Receiver<u64>) {
        let known = Known {
            at: Instant::now(),
            table,
            changed,
        };
        *self
            .known
            .write()
            .expect("nothing panics while it holds it") = Some(known);
    }
}

/// What is stored and yet not served as it is, with the reason; nothing is written.
pub async fn troubles(core: &Core) -> Result<BTreeMap<i64, Trouble>> {
    Ok(record::look(core).await?.troubles)
}

/// Follows the state: a receiver that always holds the newest file. Ends with `stop`.
pub async fn follow(
    core: Core,
    settings: Settings,
    stop: CancellationToken,
) -> Result<watch::Receiver<Arc<Rendered>>> {
    let first = render_with(&core, &settings).await?;
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        // Rendering asserts what must never reach nginx, so it may panic: that must not freeze the file for good.
        supervise(&core, "routes", || {
            refresh(&core, &settings, &sender, &stop)
        })
        .await;
    });
    Ok(receiver)
}

/// Renders again whenever something changed, until `stop` or until nobody receives it.
async fn refresh(
    core: &Core,
    settings: &Settings,
    sender: &watch::Sender<Arc<Rendered>>,
    stop: &CancellationToken,
) {
    let mut changed = core.wake.watch_routes();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sender.closed() => return,
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        match render_with(core, settings).await {
            Ok(new) => drop(sender.send_if_modified(|old| {
                let differs = old.etag != new.etag;
                if differs {
                    *old = Arc::new(new);
                }
                differs
            })),
            Err(error) => tracing::warn!(%error, "the routes cannot be read now"),
        }
    }
}

/// What is not served is logged when it begins to be so.
fn tell(told: &mut BTreeMap<i64, Trouble>, troubles: &BTreeMap<i64, Trouble>) {
    for (id, trouble) in troubles {
        if told.get(id) != Some(trouble) {
            tracing::warn!(
                service = id,
                kept = trouble.kept,
                "not served as it is: {}",
                trouble.reason
            );
        }
    }
    troubles.clone_into(told);
}

/// The name under which an nginx of this process reports.
const OWN: &str = "built-in";

/// Keeps a private nginx on the newest state until `stop`.
pub async fn serve(
    core: Core,
    settings: Settings,
    config: ProxyConfig,
    stop: CancellationToken,
) -> Result<Kept> {
    let newest = follow(core.clone(), settings, stop.clone()).await?;
    let kept = nginx::keep(config, newest, stop.clone()).await;
    let kept = kept.map_err(|error| Error::Upstream(error.to_string()))?;
    let live = kept.live.clone();
    tokio::spawn(async move {
        supervise(&core, "proxy report", || report(&core, live.clone(), &stop)).await;
    });
    Ok(kept)
}

/// Tells what is live there, as a puller does.
async fn report(core: &Core, mut live: watch::Receiver<nginx::Live>, stop: &CancellationToken) {
    loop {
        let now = live.borrow_and_update().clone();
        let report = match now.trouble {
            None => proxy::Report::live(now.etag),
            Some(Fault::Refused { etag, words }) => proxy::Report {
                refused: Some(words),
                live: Some(now.etag),
                ..proxy::Report::live(etag)
            },
            Some(Fault::Down { words }) => proxy::Report {
                refused: Some(words),
                down: true,
                ..proxy::Report::live(now.etag)
            },
        };
        if let Err(error) = proxy::report(core, OWN, &report).await {
            tracing::warn!(%error, "what nginx serves cannot be reported now");
        }
        let next = tokio::time::timeout(proxy::REPEAT, live.changed());
        match stop.run_until_cancelled(next).await {
            Some(Ok(Ok(())) | Err(_)) => {}
            _ => return,
        }
    }
}
