//! The processes of an nginx that somebody else runs: whether it reads our file, checks it, and changes over to it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt as _;

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
        let started = Started::read(words);
        let read = started.file.or_else(|| self.found.file.clone())?;
        let prefix = started.prefix.or_else(|| self.found.prefix.clone());
        let read = prefix.map_or_else(|| read.clone(), |prefix| prefix.join(&read));
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
        let ended = ended(command, CHECK).await;
        let ended = ended.map_err(|source| ProxyError::Io {
            path: self.found.binary.clone(),
            source,
        })?;
        let (status, said) = ended.ok_or(ProxyError::Slow { limit: CHECK })?;
        match status.success() {
            true => Ok(()),
            false => Err(refusal(&said)),
        }
    }

    /// Resolves when workers of the new file take connections, and none of the old one's.
    pub(super) async fn change_over(&self, text: &str) -> Result<(), ProxyError> {
        let master = self.serving().await?;
        let before = workers_of(master);
        let log = directive(text, "error_log").and_then(|words| words.split(' ').next());
        let mut log = log.and_then(|path| File::open(path).ok());
        if let Some(log) = &mut log {
            let _ = log.seek(SeekFrom::End(0));
        }
        self.reload(master).await?;
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
            // Others write there, too.
            let own = format!("] {master}#");
            let said = String::from_utf8_lossy(&said);
            let said: Vec<&str> = said.lines().filter(|line| line.contains(&own)).collect();
            let said = said.join("\n");
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
            Ok(Some((status, _))) if status.success() => Ok(()),
            Ok(Some((status, said))) => {
                let said = cut(said.trim());
                Err(told(format!("`{line}`: {status} {said}")))
            }
            Err(error) => Err(told(format!("`{line}`: {error}"))),
            Ok(None) => Err(told(format!("`{line}` does not end"))),
        }
    }
}

/// The words with which nginx was started, as far as they name files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Started {
    file: Option<PathBuf>,
    prefix: Option<PathBuf>,
}

impl Started {
    /// As nginx reads them: letters may stand together, and a value at its letter.
    fn read(words: &str) -> Self {
        let mut found = Self::default();
        let mut words = words.split_ascii_whitespace();
        while let Some(word) = words.next() {
            let Some(letters) = word.strip_prefix('-') else {
                continue;
            };
            let takes_value = |letter: char| "pecgs".contains(letter);
            let Some(at) = letters.find(takes_value) else {
                continue;
            };
            let (letter, rest) = (&letters[at..=at], &letters[at + 1..]);
            let value = Some(rest).filter(|rest| !rest.is_empty());
            let value = value.or_else(|| words.next()).map(PathBuf::from);
            match letter {
                "c" => found.file = value,
                "p" => found.prefix = value,
                _ => {}
            }
        }
        found
    }
}

/// How a command ended, and what it said until then; nothing is left of one that does not in time.
async fn ended(
    mut command: tokio::process::Command,
    limit: Duration,
) -> io::Result<Option<(ExitStatus, String)>> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let command = command.stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.process_group(0).spawn()?;
    let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let mut stderr = child.stderr.take().expect("it was piped");
    let mut said = Vec::new();
    let end = async {
        let mut open = true;
        loop {
            tokio::select! {
                status = child.wait() => return status,
                read = stderr.read_buf(&mut said), if open => open = read.is_ok_and(|read| read > 0),
            }
        }
    };
    let Ok(status) = tokio::time::timeout(limit, end).await else {
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        return Ok(None);
    };
    // What it has started may go on, and hold the other end.
    while let Ok(Ok(1..)) = tokio::time::timeout(LOOK, stderr.read_buf(&mut said)).await {}
    Ok(Some((status?, String::from_utf8_lossy(&said).into_owned())))
}

#[cfg(test)]
mod tests {
    use rustix::process::test_kill_process_group;

    use super::*;

    #[test]
    fn the_file_of_an_nginx_is_read_from_its_words_as_nginx_does() {
        let read = |words: &str| {
            let Started { file, prefix } = Started::read(words);
            let text = |path: Option<PathBuf>| path.unwrap_or_default().display().to_string();
            format!("{}|{}", text(prefix), text(file))
        };
        for (words, wanted) in [
            ("/usr/sbin/nginx -g daemon on; master_process on;", "|"),
            ("nginx -c /a/n.conf -e stderr -g daemon off;", "|/a/n.conf"),
            ("nginx -c/a/n.conf", "|/a/n.conf"),
            ("nginx -qc /a/n.conf", "|/a/n.conf"),
            ("nginx -p /a/ -c n.conf", "/a/|n.conf"),
            ("nginx -e c -p/a", "/a|"),
        ] {
            assert_eq!(read(words), wanted, "{words}");
        }
    }

    #[tokio::test]
    async fn a_command_has_ended_though_what_it_started_goes_on() {
        let mut command = tokio::process::Command::new("/bin/sh");
        command.args(["-c", "echo begun >&2; sleep 3 & exit 7"]);
        let (status, said) = ended(command, Duration::from_secs(2))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((status.code(), said.trim()), (Some(7), "begun"));
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_command_that_does_not_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        let mut command = tokio::process::Command::new("/bin/sh");
        command.args(["-c", "echo $$ >\"$0\"; sleep 600 & sleep 600"]);
        command.arg(&file);
        let ended = ended(command, Duration::from_millis(500)).await.unwrap();
        assert!(ended.is_none());
        let number = fs::read_to_string(file).unwrap();
        let group = Pid::from_raw(number.trim().parse().unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < deadline, "something goes on");
            tokio::time::sleep(LOOK).await;
        }
    }
}
