//! The whole product in one process: portal, runner, a simulated Proxmox VE, and an nginx of its own where one is installed.
//! Everything it keeps lies in one folder, so that it goes on where it was stopped. What people are told is `cmd/demo.rs`.
//!
//! - `demo/proxmox.rs` the simulated cluster, its accounts, and its nodes in our database
//! - `demo/web.rs` which ports can be had, and the settings of nginx

use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cac_core::config::{Config, Program, Vars};
use cac_core::job::{self, supervisor};
use cac_core::nginx::{Kept, ProxyConfig};
use cac_core::{Core, routes};
use cac_simulator::Simulator;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::print::Failure;

pub(crate) mod proxmox;
mod web;

pub(crate) use proxmox::Account;
use web::Web;

/// Shell jobs get no longer than this when the demo is stopped.
const GRACE: Duration = Duration::from_millis(500);
/// Between two reloads of nginx; the demo has few containers, and somebody who waits for each.
const RELOAD: Duration = Duration::from_millis(200);

/// What a demo is started with.
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) data_dir: PathBuf,
    /// The times of a real machine, instead of none.
    pub(crate) slow: bool,
    /// Serve names by an nginx, if one is installed.
    pub(crate) nginx: bool,
}

/// A running demo.
pub(crate) struct Demo {
    pub(crate) core: Core,
    pub(crate) accounts: [Account; 3],
    pub(crate) simulator: Simulator,
    /// The certificate of the names, if an nginx serves them.
    pub(crate) certificate: Option<PathBuf>,
    nginx: Option<Kept>,
    served: JoinHandle<std::io::Result<()>>,
    runner: JoinHandle<()>,
    _lock: File,
}

impl Demo {
    /// Ready when this returns; it ends soon after `stop`, and [`Demo::ended`] waits for that.
    pub(crate) async fn start(options: Options, stop: CancellationToken) -> Result<Self, Failure> {
        let lock = folder(&options.data_dir)?;
        let dir = options.data_dir.canonicalize()?;
        let listener = cac_http::bind(options.listen, "--listen ADDRESS:PORT").await?;
        let listen = listener.local_addr()?;
        let web = if options.nginx {
            Web::find(listen.ip(), &dir)?
        } else {
            None
        };
        let config = config(listen, &dir, web.as_ref())?;
        let (simulator, core) =
            tokio::join!(proxmox::start(&dir, options.slow), Core::start(config));
        let (simulator, core) = (simulator?, core?);
        let accounts = proxmox::accounts(&simulator, !listen.ip().is_loopback());
        proxmox::nodes(&core, &simulator).await?;
        let certificate = web.as_ref().map(|web| web.certificate.certificate.clone());
        let nginx = match web {
            Some(web) => Some(serve_names(&core, web, &dir, &stop).await?),
            None => None,
        };
        Ok(Self {
            accounts,
            certificate,
            nginx,
            runner: tokio::spawn(job::runner::run(core.clone(), stop.clone())),
            served: serve(&core, listener, stop),
            core,
            simulator,
            _lock: lock,
        })
    }

    /// Resolves when everything has ended: at the stop that was asked for, or when the portal failed.
    pub(crate) async fn ended(self) -> Result<(), Failure> {
        let served = self.served.await?;
        self.runner.await?;
        if let Some(nginx) = self.nginx {
            nginx.ended().await;
        }
        // Last, since the others talk to it to their end.
        self.simulator.stop().await;
        self.core.db.close().await;
        Ok(served?)
    }
}

fn serve(
    core: &Core,
    listener: TcpListener,
    stop: CancellationToken,
) -> JoinHandle<std::io::Result<()>> {
    let core = core.clone();
    tokio::spawn(async move {
        let served = cac_http::serve(core, listener, stop.clone()).await;
        // Without the portal nothing else is of use.
        stop.cancel();
        served
    })
}

async fn serve_names(
    core: &Core,
    web: Web,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<Kept, Failure> {
    let config = ProxyConfig {
        min_interval: RELOAD,
        ..ProxyConfig::new(web.found, dir.join("nginx"))
    };
    Ok(routes::serve(core.clone(), web.settings, config, stop.clone()).await?)
}

/// The folder for this demo alone.
fn folder(dir: &Path) -> Result<File, Failure> {
    let unusable = |error: std::io::Error| {
        format!(
            "The folder {} cannot be used ({error}): choose one that this user may write with --data-dir.",
            dir.display()
        )
    };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(unusable)?;
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(format!(
            "Another demo runs in {}: stop that one or choose another folder with --data-dir.",
            dir.display()
        )
        .into()),
        Err(TryLockError::Error(error)) => Err(unusable(error).into()),
    }
}

fn config(listen: SocketAddr, dir: &Path, web: Option<&Web>) -> Result<Config, Failure> {
    let text = |path: PathBuf| path.display().to_string();
    let mut vars = Vars::default();
    vars.set("CAC_DATA_DIR", text(dir.to_owned()));
    vars.set("CAC_LISTEN", listen.to_string());
    vars.set("CONTAINER_NETWORKS", "127.0.0.0/8");
    vars.set("CONTAINER_SSH_PORT", proxmox::SSH_PORT.to_string());
    vars.set("JOB_RUNNER_CWD", text(dir.to_owned()));
    if let Some((lowest, reason)) = web::lowest_web_port() {
        vars.set("CONTAINER_LOWEST_WEB_PORT", lowest.to_string());
        vars.set("CONTAINER_LOWEST_WEB_PORT_REASON", reason);
    }
    if !listen.ip().is_loopback() {
        vars.set("SHELL_JOBS", "off");
    }
    if let Some(web) = web {
        web.vars(&mut vars, dir);
    }
    let mut config = Config::load(&vars, Program::Http)?;
    config.runner.grace = GRACE;
    config.runner.supervisor = Some(supervisor::own_program());
    config.nginx.http_listen.clear();
    if web.is_none() {
        config.nginx.https_listen.clear();
    }
    Ok(config)
}
