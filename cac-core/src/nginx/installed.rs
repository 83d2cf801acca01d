//! An nginx that somebody else runs, such as systemd: its file is replaced once nginx finds the new one good, it is told to read it, and
//! where it does not take it over the old one is put back. Whoever is killed in between leaves a whole file that nginx found good.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::found::Found;
use super::process::{is_master, workers_of};
use super::proxy::{ProxyError, emergency, lock, refusal};

/// How often is looked whether nginx has changed over.
const LOOK: Duration = Duration::from_millis(10);
/// What every file of ours begins with.
const OURS: &str = "# Made by cac ";

/// Where such an nginx reads its configuration, and how it is told to do so.
#[derive(Debug, Clone)]
pub struct Installed {
    pub found: Found,
    /// Such as `/etc/nginx/nginx.conf`.
    pub file: PathBuf,
    /// A shell command that has nginx read its file again; absent: the signal HUP to the process of its PID file.
    pub reload: Option<String>,
    /// How long nginx may take to change over.
    pub patience: Duration,
}

impl Installed {
    /// Held as long as this process looks after the file: two would undo each other's work.
    pub fn lock(&self) -> Result<File, ProxyError> {
        lock(&self.beside("lock"), &self.file)
    }

    /// The file as it is, if it is one of ours.
    pub fn current(&self) -> Option<String> {
        let text = fs::read_to_string(&self.file).ok()?;
        text.starts_with(OURS).then_some(text)
    }

    /// Puts the file in place and nginx on it. On an error the old one is in force.
    pub async fn apply(&self, text: &str) -> Result<(), ProxyError> {
        let old = match fs::read_to_string(&self.file) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(self.failed(source)),
        };
        let candidate = self.beside("new");
        write(&candidate, text).map_err(|source| self.failed(source))?;
        self.check(&candidate).await?;
        if let Some(foreign) = old.as_deref().filter(|old| !old.starts_with(OURS)) {
            let kept = self.beside("before-cac");
            if !kept.exists() {
                write(&kept, foreign).map_err(|source| self.failed(source))?;
            }
        }
        self.put(&candidate)?;
        let Err(error) = self.change_over(text).await else {
            return Ok(());
        };
        if let (Some(old), false) = (old, matches!(error, ProxyError::NotRunning { .. })) {
            write(&candidate, &old).map_err(|source| self.failed(source))?;
            self.put(&candidate)?;
            if let Err(error) = self.change_over(&old).await {
                tracing::error!(%error, "nginx does not take back its old configuration");
            }
        }
        Err(error)
    }

    fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.file.as_os_str().to_owned();
        name.push(".");
        name.push(what);
        PathBuf::from(name)
    }

    fn failed(&self, source: io::Error) -> ProxyError {
        let path = self.file.clone();
        ProxyError::Io { path, source }
    }

    fn put(&self, candidate: &Path) -> Result<(), ProxyError> {
        let put = || {
            fs::rename(candidate, &self.file)?;
            match self.file.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        };
        put().map_err(|source| self.failed(source))
    }

    /// `nginx -t`.
    async fn check(&self, file: &Path) -> Result<(), ProxyError> {
        let mut command = tokio::process::Command::new(&self.found.binary);
        command.args(["-t", "-q", "-c"]).arg(file);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|source| ProxyError::Io {
            path: self.found.binary.clone(),
            source,
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(refusal(&said))
    }

    /// Resolves when workers of the new file take connections, and none of the old one's.
    async fn change_over(&self, text: &str) -> Result<(), ProxyError> {
        let pid = directive(text, "pid").unwrap_or("/run/nginx.pid");
        let master = || {
            let pid = fs::read_to_string(pid).ok()?.trim().parse().ok()?;
            is_master(pid).then_some(pid)
        };
        let not_running = || ProxyError::NotRunning { pid: pid.into() };
        let before = workers_of(master().ok_or_else(not_running)?);
        let log = directive(text, "error_log").and_then(|words| words.split(' ').next());
        let mut log = log.and_then(|path| File::open(path).ok());
        if let Some(log) = &mut log {
            let _ = log.seek(SeekFrom::End(0));
        }
        self.reload(master().ok_or_else(not_running)?).await?;
        let deadline = Instant::now() + self.patience;
        let mut said = String::new();
        loop {
            let now = workers_of(master().ok_or_else(not_running)?);
            if !now.is_empty() && now.is_disjoint(&before) {
                return Ok(());
            }
            if let Some(log) = &mut log {
                let _ = log.read_to_string(&mut said);
            }
            // nginx tries a port for two seconds before it gives up.
            let gave_up = said.contains("still could not bind()");
            match emergency(&said) {
                Some(error) if gave_up || !error.may_pass() => return Err(error),
                _ => {}
            }
            if Instant::now() > deadline {
                let patience = self.patience;
                return Err(emergency(&said).unwrap_or(ProxyError::NotLive { patience }));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn reload(&self, master: i32) -> Result<(), ProxyError> {
        let Some(line) = &self.reload else {
            let pid = Pid::from_raw(master);
            let sent = pid.map_or(Ok(()), |pid| kill_process(pid, Signal::HUP));
            return sent.map_err(|error| ProxyError::Reload {
                words: format!("nginx (process {master}) cannot be signalled: {error}"),
            });
        };
        let mut command = tokio::process::Command::new("/bin/sh");
        command.arg("-c").arg(line).stdin(Stdio::null());
        let output = command.kill_on_drop(true).output();
        let told = |words: String| ProxyError::Reload { words };
        match tokio::time::timeout(self.patience, output).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(told(format!("`{line}`: {} {}", output.status, said.trim())))
            }
            Ok(Err(error)) => Err(told(format!("`{line}`: {error}"))),
            Err(_) => Err(told(format!("`{line}` does not end"))),
        }
    }
}

/// What a directive of the outermost block says, in a file of ours.
fn directive<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(' ')?;
        rest.strip_suffix(';')
    })
}

/// As others may read it, whole on the disk.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
