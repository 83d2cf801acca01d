//! What nginx is to serve now: the published services rendered with the configured settings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::nginx::{
    self, BadValue, ConfigPath, ErrorLog, Flavour, Kept, ProxyConfig, PublicName, Rendered,
    Service, Settings, StreamModule,
};
use crate::{Core, Error, Result, service};

/// How often a change that another process made is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// How long a file is good that nobody here has changed: rows are changed by hand, too.
const RECENT: Duration = Duration::from_millis(500);

/// The whole file as it should be now.
pub async fn render(core: &Core) -> Result<Rendered> {
    let settings = settings(&core.config).map_err(|error| Error::Internal(error.to_string()))?;
    render_with(core, &settings).await
}

/// As [`render`], from what was read in the last half second if nothing has changed here since: for many who ask again and again.
pub async fn newest(core: &Core) -> Result<Arc<Rendered>> {
    if let Some(known) = core.newest.known() {
        return Ok(known);
    }
    // Whoever comes second waits for the first one's file.
    let _one = core.newest.reading.lock().await;
    if let Some(known) = core.newest.known() {
        return Ok(known);
    }
    // Before it is read, so that a change meanwhile is seen.
    let mut changed = core.wake.watch_routes();
    changed.mark_unchanged();
    let file = Arc::new(render(core).await?);
    core.newest.keep(Arc::clone(&file), changed);
    Ok(file)
}

/// The file that was read last.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    known: RwLock<Option<Known>>,
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known {
    at: Instant,
    file: Arc<Rendered>,
    changed: watch::Receiver<u64>,
}

impl Newest {
    fn known(&self) -> Option<Arc<Rendered>> {
        let known = self.known.read().expect("nothing panics while it holds it");
        let known = known.as_ref()?;
        let good = known.at.elapsed() < RECENT && !known.changed.has_changed().unwrap_or(true);
        good.then(|| Arc::clone(&known.file))
    }

    fn keep(&self, file: Arc<Rendered>, changed: watch::Receiver<u64>) {
        let known = Known {
            at: Instant::now(),
            file,
            changed,
        };
        *self
            .known
            .write()
            .expect("nothing panics while it holds it") = Some(known);
    }
}

/// The same for an nginx with settings of its own, as the demo has one.
pub async fn render_with(core: &Core, settings: &Settings) -> Result<Rendered> {
    Ok(read(core, settings).await?.0)
}

/// What is stored and yet not served, a line for each service with the reason.
pub async fn left_out(core: &Core, settings: &Settings) -> Result<Vec<String>> {
    Ok(read(core, settings).await?.1)
}

/// The file, and what [`left_out`] says.
pub(crate) async fn read(core: &Core, settings: &Settings) -> Result<(Rendered, Vec<String>)> {
    let published = service::published(core).await?;
    let rendered = nginx::render(settings, &published.http, &published.streams);
    let rows = published.left_out.iter();
    let rows = rows.map(|(id, reason)| format!("service {id}: {reason}"));
    let others = rendered.left_out.iter().map(|left| match &left.service {
        Service::Http(service) => format!("{}: {}", service.name, left.reason),
        Service::Stream(service) => {
            format!("{}/{}: {}", service.port, service.protocol, left.reason)
        }
    });
    let left_out = rows.chain(others).collect();
    Ok((rendered, left_out))
}

/// Follows the state: a receiver that always holds the newest file. Ends with `stop`. What is left out is logged when
/// it begins to be.
pub async fn follow(
    core: Core,
    settings: Settings,
    stop: CancellationToken,
) -> Result<watch::Receiver<Arc<Rendered>>> {
    let mut changed = core.wake.watch_routes();
    let (first, left_out) = read(&core, &settings).await?;
    let mut known = Vec::new();
    tell(&mut known, left_out);
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            match read(&core, &settings).await {
                Ok((new, left_out)) => {
                    tell(&mut known, left_out);
                    sender.send_if_modified(|old| {
                        let differs = old.etag != new.etag;
                        if differs {
                            *old = Arc::new(new);
                        }
                        differs
                    });
                }
                Err(error) => tracing::warn!(%error, "the routes cannot be read now"),
            }
        }
    });
    Ok(receiver)
}

fn tell(known: &mut Vec<String>, left_out: Vec<String>) {
    for line in left_out.iter().filter(|line| !known.contains(line)) {
        tracing::warn!("not served: {line}");
    }
    *known = left_out;
}

/// Keeps a private nginx on the newest state until `stop`.
pub async fn serve(
    core: Core,
    settings: Settings,
    config: ProxyConfig,
    stop: CancellationToken,
) -> Result<Kept> {
    let newest = follow(core, settings, stop.clone()).await?;
    let kept = nginx::keep(config, newest, stop).await;
    kept.map_err(|error| Error::Upstream(error.to_string()))
}

/// The renderer's settings from the configuration.
pub fn settings(config: &config::Config) -> Result<Settings, BadValue> {
    let nginx = &config.nginx;
    let path = |text: &str| text.parse::<ConfigPath>();
    let optional = |text: &Option<String>| text.as_deref().map(path).transpose();
    let sockets = |ports: &[u16]| -> Vec<SocketAddr> {
        let each = |ip: &IpAddr| {
            ports
                .iter()
                .map(|port| SocketAddr::new(*ip, *port))
                .collect::<Vec<_>>()
        };
        nginx.listen.iter().flat_map(each).collect()
    };
    Ok(Settings {
        http_listen: sockets(&nginx.http_ports),
        https_listen: sockets(&nginx.https_ports),
        stream_listen: nginx.listen.clone(),
        pid: path(&nginx.pid)?,
        error_log: ErrorLog::File(path(&nginx.error_log)?),
        access_log: optional(&nginx.access_log)?,
        user: nginx.user.as_deref().map(str::parse).transpose()?,
        flavour: if nginx.version == "1.22" {
            Flavour::Debian1_22
        } else {
            Flavour::V1_25 { http3: nginx.http3 }
        },
        stream_module: match nginx.stream_module.as_str() {
            "builtin" => StreamModule::Builtin,
            "none" => StreamModule::Missing,
            file => StreamModule::Dynamic(path(file)?),
        },
        temp_dir: optional(&nginx.temp_dir)?,
        portal: portal(config),
        include: optional(&nginx.include)?,
        ..Settings::debian(path(&nginx.certificate)?, path(&nginx.certificate_key)?)
    })
}

/// The portal is served too when its public name is a name that nginx serves.
fn portal(config: &config::Config) -> Option<(PublicName, SocketAddr)> {
    let name = config.public_url.host_str()?.parse().ok()?;
    let mut address = config.listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    config.secure().then_some((name, address))
}
