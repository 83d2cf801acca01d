//! What `cac proxy sync` and its helper are told about their machine: its nginx, its name, the keys that it trusts, and the paths that a
//! file may name.

use std::path::PathBuf;
use std::process::ExitCode;

use cac_core::nginx::{
    Found, GuardedNginx, LocalLimits, PinnedKey, ProxyTrust, find_nginx, helper,
};
use cac_core::program;
use clap::Args;

use crate::cmd::environment;
use crate::print::{Exit, Failure};

#[derive(Args)]
pub(super) struct Machine {
    /// The file that nginx reads
    #[arg(
        long,
        value_name = "FILE",
        env = "CAC_PROXY_FILE",
        default_value = "/etc/nginx/nginx.conf"
    )]
    file: PathBuf,
    /// The nginx program; left out, the one that is installed
    #[arg(long, value_name = "FILE", env = "CAC_PROXY_NGINX")]
    nginx: Option<PathBuf>,
    /// A shell command that has nginx read its file; left out, its process is signalled
    #[arg(long, value_name = "COMMAND", env = "CAC_PROXY_RELOAD")]
    reload: Option<String>,
    #[command(flatten)]
    trust: Trust,
    /// The file of nginx' number that the configuration may name; two with a comma while it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "CAC_PROXY_PID",
        value_delimiter = ',',
        default_value = "/run/nginx.pid"
    )]
    pid: Vec<PathBuf>,
    /// The folder of logs that it may name
    #[arg(
        long,
        value_name = "DIR",
        env = "CAC_PROXY_LOGS",
        default_value = "/var/log/nginx"
    )]
    logs: PathBuf,
    /// The folder of temporary files that it may name
    #[arg(
        long,
        value_name = "DIR",
        env = "CAC_PROXY_TEMP",
        default_value = "/var/lib/nginx"
    )]
    temp: PathBuf,
    /// What it may include, or `none`
    #[arg(
        long,
        value_name = "PATTERN",
        env = "CAC_PROXY_INCLUDE",
        default_value = "/etc/nginx/conf.d/*.conf"
    )]
    include: String,
    /// An account that nginx' workers may run as, beside www-data, nginx and nobody
    #[arg(long, value_name = "USER", env = "CAC_PROXY_USER")]
    user: Option<String>,
}

/// Whose files this machine takes.
#[derive(Args)]
pub(super) struct Trust {
    /// The name under which this proxy reports, and for which its files are signed; left out, the machine's
    #[arg(long, env = "CAC_PROXY_NAME")]
    name: Option<String>,
    /// The portal's key, as `cac proxy key show` prints it there; two with a comma while it changes
    #[arg(long, value_name = "KEY", env = "CAC_PROXY_KEY", value_delimiter = ',')]
    key: Vec<String>,
}

impl Trust {
    pub(super) fn name(&self) -> String {
        match self.name.as_deref().map(str::trim) {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        }
    }

    pub(super) fn keys(&self) -> Result<Vec<PinnedKey>, Failure> {
        let given = self.key.iter().map(|key| key.trim());
        let read = given.filter(|key| !key.is_empty()).map(str::parse);
        let keys: Result<Vec<PinnedKey>, _> = read.collect();
        keys.map_err(|error| Exit::usage(&error.to_string()))
    }
}

impl Machine {
    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(super) fn open(self) -> Result<GuardedNginx, Failure> {
        let found = match &self.nginx {
            Some(binary) => Found::ask(binary),
            None => find_nginx(),
        };
        let found = found.ok_or_else(|| {
            Exit::usage("No nginx answers here: install it (Debian: nginx and libnginx-mod-stream) or say where it is with --nginx.")
        })?;
        let mut limits = LocalLimits::debian(&found.stream_module);
        limits.include = Some(self.include).filter(|pattern| pattern != "none");
        limits.pid = self.pid;
        limits.logs = self.logs;
        limits.temp = self.temp;
        match self.user.as_deref() {
            None | Some("") => {}
            Some("root") => {
                return Err(Exit::usage(
                    "nginx' workers do not run as root: give another account with --user.",
                ));
            }
            Some(user) => limits.users.push(user.to_owned()),
        }
        let trust = ProxyTrust {
            keys: self.trust.keys()?,
            proxy: self.trust.name(),
            limits,
        };
        let mut nginx = GuardedNginx::open(found, &self.file, self.reload, trust)?;
        nginx.refresh();
        Ok(nginx)
    }
}

#[derive(Args)]
pub(super) struct Apply {
    /// Where pullers ask; its folder says who may
    #[arg(long, value_name = "SOCKET")]
    listen: PathBuf,
    #[command(flatten)]
    machine: Machine,
}

impl Apply {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        program::log(&environment()?, "info")?;
        if self.machine.trust().keys()?.is_empty() {
            tracing::warn!("{}", cac_core::nginx::StatementError::NoKey);
        }
        let nginx = self.machine.open()?;
        let stop = program::stop_on_signals()?;
        let served = helper::serve(nginx, &self.listen, &stop).await;
        served.map_err(|error| format!("{}: {error}", self.listen.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
