//! The processes of an nginx that somebody else runs: whether it reads our file, checks it, and changes over to it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::super::process::{has_workers, master_words, workers_of};
use super::super::proxy::{GAVE_UP, ProxyError, cut, emergency, refusal};
use super::{Installed, directive};

/// How often is looked whether nginx has changed over.
const LOOK: Duration = Duration::from_millis(10);
/// How long a master may be without workers: one that fell over has its successor by then.
const IDLE: Duration = Duration::from_secs(1);
/// How long `nginx -t` may take.
const CHECK: Duration = Duration::from_secs(30);
/// How long nginx may take to change over.
const PATIENCE: Duration = Duration::from_secs(15);

impl Installed {
    /// nginx' first process.
    pub(super) fn running(&self) -> Result<i32, ProxyError> {
        let found = self.pids.iter().find_map(|path| {
            let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            Some((pid, master_words(pid)?))
        });
        let (master, words) = found.ok_or_else(|| ProxyError::NotRunning {
            pid: self.pids[0].clone(),
        })?;
        match self.other_file(&words) {
            Some(other) => Err(ProxyError::OtherFile {
                master,
                file: self.file.clone(),
                other,
            }),
            None => Ok(master),
        }
    }

    /// Which file an nginx that was started so reads, if it is not this one. Whoever has a command for it knows it.
    fn other_file(&self, words: &str) -> Option<PathBuf> {
        let plain = !self.file.to_string_lossy().contains(char::is_whitespace);
        if self.reload.is_some() || !plain {
            return None;
        }
        let mut words = words.split_ascii_whitespace();
        let told = loop {
            match words.next() {
                Some("-c") => break words.next().map(PathBuf::from),
                Some(_) => {}
                None => break None,
            }
        };
        let read = told.or_else(|| self.found.file.clone())?;
        let same = || fs::canonicalize(&read).is_ok_and(|read| read == self.file);
        (read.is_absolute() && read != self.file && !same()).then_some(read)
    }

    /// One that takes connections.
    async fn serving(&self) -> Result<i32, ProxyError> {
        let master = self.running()?;
        let deadline = Instant::now() + IDLE;
        while !has_workers(master) {
            if Instant::now() > deadline {
                return Err(ProxyError::Idle { master });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(master)
    }

    /// `nginx -t`.
    pub(super) async fn check(&self, file: &Path) -> Result<(), ProxyError> {
        let mut command = tokio::process::Command::new(&self.found.binary);
        command.args(["-t", "-q", "-c"]).arg(file);
        let output = ended(command, CHECK).await;
        let output = output.map_err(|source| ProxyError::Io {
            path: self.found.binary.clone(),
            source,
        })?;
        let output = output.ok_or(ProxyError::Slow { limit: CHECK })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(refusal(&said))
    }

    /// Resolves when workers of the new file take connections, and none of the old one's.
    pub(super) async fn change_over(&self, text: &str) -> Result<(), ProxyError> {
        let before = workers_of(self.serving().await?);
        let log = directive(text, "error_log").and_then(|words| words.split(' ').next());
        let mut log = log.and_then(|path| File::open(path).ok());
        if let Some(log) = &mut log {
            let _ = log.seek(SeekFrom::End(0));
        }
        self.reload(self.running()?).await?;
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            let now = match self.running() {
                Ok(master) => workers_of(master),
                // A command may start another one.
                Err(_) if self.reload.is_some() && Instant::now() < deadline => BTreeSet::new(),
                Err(error) => return Err(error),
            };
            if !now.is_empty() && now.is_disjoint(&before) {
                return Ok(());
            }
            if let Some(log) = &mut log {
                let _ = log.read_to_end(&mut said);
            }
            let said = String::from_utf8_lossy(&said);
            // nginx tries a port for two seconds before it gives up.
            let gave_up = said.contains(GAVE_UP);
            match emergency(&said) {
                Some(error) if gave_up || !error.may_pass() => return Err(error),
                _ => {}
            }
            if Instant::now() > deadline {
                let patience = PATIENCE;
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
        command.arg("-c").arg(line);
        let told = |words: String| ProxyError::Reload { words };
        match ended(command, PATIENCE).await {
            Ok(Some(output)) if output.status.success() => Ok(()),
            Ok(Some(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = cut(said.trim());
                Err(told(format!("`{line}`: {} {said}", output.status)))
            }
            Err(error) => Err(told(format!("`{line}`: {error}"))),
            Ok(None) => Err(told(format!("`{line}` does not end"))),
        }
    }
}

/// What a command said when it ended; nothing is left of one that does not in time.
async fn ended(
    mut command: tokio::process::Command,
    limit: Duration,
) -> io::Result<Option<Output>> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let command = command.stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.process_group(0).spawn()?;
    let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(output) => output.map(Some),
        Err(_) => {
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::test_kill_process_group;

    use super::*;

    #[tokio::test]
    async fn nothing_is_left_of_a_command_that_does_not_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        let mut command = tokio::process::Command::new("/bin/sh");
        command.args(["-c", "echo $$ >\"$0\"; sleep 600 & sleep 600"]);
        command.arg(&file);
        let output = ended(command, Duration::from_millis(500)).await.unwrap();
        assert!(output.is_none());
        let number = fs::read_to_string(file).unwrap();
        let group = Pid::from_raw(number.trim().parse().unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < deadline, "something goes on");
            tokio::time::sleep(LOOK).await;
        }
    }
}
