//! What nginx is to serve now: the published services rendered with the configured settings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::nginx::{
    self, BadValue, ConfigPath, ErrorLog, Flavour, PublicName, Rendered, Settings, StreamModule,
};
use crate::{Core, Error, Result, service};

/// How often a change that another process made is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// The whole file as it should be now.
pub async fn render(core: &Core) -> Result<Rendered> {
    let settings = settings(&core.config).map_err(|error| Error::Internal(error.to_string()))?;
    render_with(core, &settings).await
}

/// The same for an nginx with settings of its own, as the demo has one.
pub async fn render_with(core: &Core, settings: &Settings) -> Result<Rendered> {
    let published = service::published(core).await?;
    Ok(nginx::render(settings, &published.http, &published.streams))
}

/// Follows the state: a receiver that always holds the newest file. Ends with `stop`.
pub async fn follow(
    core: Core,
    settings: Settings,
    stop: CancellationToken,
) -> Result<watch::Receiver<Arc<Rendered>>> {
    let mut changed = core.wake.watch_routes();
    let (sender, receiver) = watch::channel(Arc::new(render_with(&core, &settings).await?));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            match render_with(&core, &settings).await {
                Ok(new) => {
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
