//! One private nginx and the file it runs on: a new file is checked before it takes the place of the old one, and
//! counts as applied when no worker of the old one takes connections any more. Who decides when is [`super::keep()`].

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::Rendered;
use super::certificate::write_private;
use super::found::Found;
use super::process::{self, Process};

/// How often `/proc` is looked at while a new configuration comes to life.
const LOOK: Duration = Duration::from_millis(2);

/// Where a private nginx lives and how often it is reloaded.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    pub found: Found,
    /// Its prefix, ours alone; made when it is missing. [`super::Settings::private`] must have got the same.
    pub dir: PathBuf,
    /// Least time between two reloads; the first change after a quiet time is applied at once.
    pub min_interval: Duration,
    /// How long nginx may take to start or to change over before that counts as failed.
    pub patience: Duration,
}

impl ProxyConfig {
    /// At most one reload a second.
    pub fn new(found: Found, dir: impl Into<PathBuf>) -> Self {
        Self {
            found,
            dir: dir.into(),
            min_interval: Duration::from_secs(1),
            patience: Duration::from_secs(15),
        }
    }
}

/// Why nginx does not run, or not on the newest file.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Nothing changed: the old file is still in force.
    #[error("nginx refuses the configuration: {words}")]
    Refused { words: String },
    #[error(
        "Port {} of {} is taken by another program: stop that one or choose another port.",
        address.port(), address.ip()
    )]
    PortTaken { address: SocketAddr },
    #[error(
        "nginx itself has port {} at another address and cannot change over to {} while it runs: stop it, and start it again half a minute later.",
        address.port(), address.ip()
    )]
    PortMoved { address: SocketAddr },
    #[error(
        "nginx may not listen on port {} of {}: choose a port from 1024 on, or start it as root.",
        address.port(), address.ip()
    )]
    PortForbidden { address: SocketAddr },
    #[error("{} is not an address of this machine, so nginx cannot listen on it: choose another.", address.ip())]
    NotOurAddress { address: SocketAddr },
    #[error("nginx ended: {how}")]
    Ended { how: String },
    #[error("nginx does not run ({} names no process of it): start it.", pid.display())]
    NotRunning { pid: PathBuf },
    #[error("nginx (process {master}) takes no connections: start it again.")]
    Idle { master: i32 },
    #[error("The nginx that runs (process {master}) does not read {}, but {}: say its own file with --file.", file.display(), other.display())]
    OtherFile {
        master: i32,
        file: PathBuf,
        other: PathBuf,
    },
    #[error("`nginx -t` does not end within {} s.", limit.as_secs())]
    Slow { limit: Duration },
    #[error("nginx was not told to read its file: {words}")]
    Reload { words: String },
    #[error("nginx does not run on its new configuration after {} s.", patience.as_secs())]
    NotLive { patience: Duration },
    #[error(
        "Another process keeps the nginx in {}: stop that one or choose another folder.",
        dir.display()
    )]
    InUse { dir: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl ProxyError {
    /// What nginx' words of level `emerg` mean.
    fn read(words: String) -> Self {
        let bind = words.strip_prefix("bind() to ").and_then(|rest| {
            let (address, why) = rest.split_once(" failed (")?;
            Some((address.parse().ok()?, why.split_once(':')?.0))
        });
        match bind {
            Some((address, "98")) => Self::PortTaken { address },
            Some((address, "13")) => Self::PortForbidden { address },
            Some((address, "99")) => Self::NotOurAddress { address },
            _ => Self::Refused { words },
        }
    }

    /// Whether there is no nginx that could take any file: the newest one waits for its start.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NotRunning { .. } | Self::Idle { .. } | Self::OtherFile { .. }
        )
    }

    /// Whether the same file may be taken later, without any change to it.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// What [`Proxy::apply`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// nginx runs on this very file already.
    Unchanged,
    /// Every new connection is served by the new file.
    Live {
        /// Time for writing the candidate and nginx' own check.
        check: Duration,
        /// Time from the signal until no old worker took connections.
        reload: Duration,
    },
}

/// A running private nginx. Dropped without [`Proxy::stop`] it is told to end and nobody waits for it.
#[derive(Debug)]
pub struct Proxy {
    config: ProxyConfig,
    process: Process,
    text: String,
    etag: String,
    /// Held while we live: two of us would end each other's nginx.
    _lock: File,
}

impl Proxy {
    /// Ends what a killed predecessor left in the folder, checks the file and starts nginx on it. Returns when its
    /// workers take connections.
    pub async fn start(config: ProxyConfig, rendered: &Rendered) -> Result<Self, ProxyError> {
        let (config, lock) = prepare(config)?;
        let left = process::end_leftovers(&config.dir).await;
        if left > 0 {
            tracing::warn!(processes = left, "ended an nginx that was left running");
        }
        check(&config, &rendered.text).await?;
        put(&config, &rendered.text)?;
        let process = spawn(&config).await?;
        Ok(Self {
            config,
            process,
            text: rendered.text.clone(),
            etag: rendered.etag.clone(),
            _lock: lock,
        })
    }

    /// Changes over to a new file. On an error the old one stays in force.
    pub async fn apply(&mut self, rendered: &Rendered) -> Result<Applied, ProxyError> {
        if rendered.etag == self.etag && !self.process.has_ended() {
            return Ok(Applied::Unchanged);
        }
        let begun = Instant::now();
        check(&self.config, &rendered.text).await?;
        let checked = Instant::now();
        let changed = self.change_over(&rendered.text).await;
        if let Err(error) = changed {
            self.roll_back().await?;
            return Err(error);
        }
        self.text.clone_from(&rendered.text);
        self.etag.clone_from(&rendered.etag);
        Ok(Applied::Live {
            check: checked - begun,
            reload: checked.elapsed(),
        })
    }

    async fn change_over(&mut self, text: &str) -> Result<(), ProxyError> {
        while self.process.refusal().is_some() {}
        let before = self.process.workers();
        put(&self.config, text)?;
        self.process.reload();
        let deadline = Instant::now() + self.config.patience;
        let (mut refused, mut retired) = (None, false);
        loop {
            let now = self.process.workers();
            if !now.is_empty() && now.is_disjoint(&before) {
                return Ok(());
            }
            if !retired && now.difference(&before).next().is_some() {
                self.process.retire(&before);
                retired = true;
            }
            while let Some(words) = self.process.refusal() {
                // nginx tries a port for two seconds before it gives up with these words.
                let gave_up = words.starts_with(GAVE_UP);
                let error = refused.take().unwrap_or_else(|| ProxyError::read(words));
                if gave_up || !error.may_pass() {
                    return Err(error);
                }
                refused = Some(error);
            }
            self.look_again(deadline).await?;
        }
    }

    /// Waits for the next look; an error when there is none.
    async fn look_again(&self, deadline: Instant) -> Result<(), ProxyError> {
        if Instant::now() > deadline {
            let patience = self.config.patience;
            return Err(ProxyError::NotLive { patience });
        }
        match tokio::time::timeout(LOOK, self.process.ended()).await {
            Ok(how) => Err(ProxyError::Ended { how }),
            Err(_) => Ok(()),
        }
    }

    /// Puts the old file back, and nginx surely on it.
    async fn roll_back(&mut self) -> Result<(), ProxyError> {
        if self.process.has_ended() {
            return put(&self.config, &self.text);
        }
        let text = self.text.clone();
        if let Err(error) = self.change_over(&text).await {
            tracing::error!(%error, "nginx does not take back its old configuration");
        }
        Ok(())
    }

    /// Resolves when nginx ended by itself or was killed; nothing of it is left then.
    pub async fn ended(&self) -> String {
        self.process.ended().await
    }

    /// Starts nginx again on the file in force.
    pub async fn restart(&mut self) -> Result<(), ProxyError> {
        self.process.kill().await;
        self.process = spawn(&self.config).await?;
        Ok(())
    }

    /// The tag of the file in force.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// Ends nginx: at once when it is idle, in well under a second when clients hold connections.
    pub async fn stop(self) {
        self.process.stop().await;
    }
}

/// The folders, and the right to use them.
fn prepare(mut config: ProxyConfig) -> Result<(ProxyConfig, File), ProxyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ProxyError::Io { path, source }
    };
    let temp = config.dir.join("temp");
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&temp).map_err(failed(&temp))?;
    config.dir = config.dir.canonicalize().map_err(failed(&config.dir))?;
    let lock = lock(&config.dir.join("lock"), &config.dir)?;
    Ok((config, lock))
}

/// A lock that lasts as long as the file: nobody else may look after `what` meanwhile.
pub(super) fn lock(path: &Path, what: &Path) -> Result<File, ProxyError> {
    let failed = |source| ProxyError::Io {
        path: path.to_owned(),
        source,
    };
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let lock = options.open(path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ProxyError::InUse {
            dir: what.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn file(config: &ProxyConfig) -> PathBuf {
    config.dir.join("nginx.conf")
}

fn put(config: &ProxyConfig, text: &str) -> Result<(), ProxyError> {
    let path = file(config);
    write_private(&path, text).map_err(|source| ProxyError::Io { path, source })
}

/// `nginx -t` on a candidate beside the file in force.
async fn check(config: &ProxyConfig, text: &str) -> Result<(), ProxyError> {
    let path = config.dir.join("candidate.conf");
    write_private(&path, text).map_err(|source| ProxyError::Io {
        path: path.clone(),
        source,
    })?;
    let mut command = tokio::process::Command::new(&config.found.binary);
    command.arg("-t").arg("-p").arg(&config.dir);
    command.arg("-c").arg(&path).stdin(Stdio::null());
    if config.found.version >= (1, 19, 5) {
        command.args(["-e", "stderr"]);
    }
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|source| ProxyError::Io {
        path: config.found.binary.clone(),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(refusal(&said))
}

/// What the first words of level `emerg` mean, if there are any.
pub(super) fn emergency(said: &str) -> Option<ProxyError> {
    let lines = said.lines().map(process::level_and_words);
    let mut emergencies = lines.filter(|(level, _)| *level == "emerg");
    // How an attempt ends whose first words say why; it may be the one before.
    let (_, words) = emergencies.find(|(_, words)| !words.starts_with(GAVE_UP))?;
    Some(ProxyError::read(cut(words)))
}

/// nginx' last words after it has tried a port for two seconds.
pub(super) const GAVE_UP: &str = "still could not bind()";

/// Why a check failed that said this.
pub(super) fn refusal(said: &str) -> ProxyError {
    let words = || cut(said.trim());
    emergency(said).unwrap_or_else(|| ProxyError::Refused { words: words() })
}

/// Words of other programs have an end.
pub(super) fn cut(words: &str) -> String {
    words.chars().take(4000).collect()
}

/// Starts nginx on the file in force and waits until its workers are ready.
async fn spawn(config: &ProxyConfig) -> Result<Process, ProxyError> {
    let started = Process::spawn(&config.found, &config.dir, &file(config)).await;
    let mut process = started.map_err(|source| ProxyError::Io {
        path: config.found.binary.clone(),
        source,
    })?;
    let deadline = Instant::now() + config.patience;
    loop {
        if let Some(words) = process.refusal() {
            // Its further tries would take two seconds more.
            process.kill().await;
            return Err(ProxyError::read(words));
        }
        if !process.workers().is_empty() {
            return Ok(process);
        }
        if Instant::now() > deadline {
            process.kill().await;
            let patience = config.patience;
            return Err(ProxyError::NotLive { patience });
        }
        if let Ok(how) = tokio::time::timeout(LOOK, process.ended()).await {
            let words = process.refusal();
            return Err(words.map_or(ProxyError::Ended { how }, ProxyError::read));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_cannot_be_had_is_one_sentence() {
        let read = |words: &str| ProxyError::read(words.to_owned()).to_string();
        assert_eq!(
            read("bind() to 127.0.0.1:8443 failed (98: Address already in use)"),
            "Port 8443 of 127.0.0.1 is taken by another program: stop that one or choose another port."
        );
        assert_eq!(
            read("bind() to [::1]:80 failed (13: Permission denied)"),
            "nginx may not listen on port 80 of ::1: choose a port from 1024 on, or start it as root."
        );
        assert_eq!(
            read("bind() to 192.0.2.1:80 failed (99: Cannot assign requested address)"),
            "192.0.2.1 is not an address of this machine, so nginx cannot listen on it: choose another."
        );
        assert_eq!(
            read("unknown directive \"x\" in a:1"),
            "nginx refuses the configuration: unknown directive \"x\" in a:1"
        );
    }

    #[test]
    fn of_several_words_those_count_that_say_why_and_they_have_an_end() {
        let before = "2026/01/02 03:04:05 [emerg] 7#7: still could not bind()\n";
        assert!(emergency(before).is_none());
        let bind = "nginx: [emerg] bind() to 127.0.0.1:80 failed (98: Address already in use)\n";
        let said = format!("{before}{bind}");
        assert!(matches!(
            emergency(&said),
            Some(ProxyError::PortTaken { .. })
        ));
        let ProxyError::Refused { words } = refusal(&"ä".repeat(1_000_000)) else {
            panic!("it is refused")
        };
        assert_eq!(words.chars().count(), 4000);
    }
}
