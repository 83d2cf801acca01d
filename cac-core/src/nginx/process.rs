//! A private nginx as processes: started so that it ends with us, watched through `/proc`, ended with everything it
//! started. It knows nothing of configurations.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};

use super::found::Found;
use crate::processes::{children, hold, seen};

/// For requests that are still running when nginx is told to stop.
const QUIT_GRACE: Duration = Duration::from_millis(300);
const TERM_GRACE: Duration = Duration::from_millis(300);
/// For processes that got KILL.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Our nginx master. It leads a process group of its own, so that Ctrl-C in a terminal reaches only us.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// Unlike the number it can never mean another process.
    handle: OwnedFd,
    ended: watch::Receiver<Option<String>>,
    /// Lines of level `emerg`, without time and number.
    refusals: mpsc::UnboundedReceiver<String>,
}

impl Process {
    /// Starts nginx in the foreground with `dir` as prefix and working directory.
    pub(super) async fn spawn(found: &Found, dir: &Path, file: &Path) -> io::Result<Self> {
        let mut command = command(found)?;
        command.arg("-p").arg(dir).arg("-c").arg(file);
        command.args(["-g", "daemon off;"]);
        if found.version >= (1, 19, 5) {
            command.args(["-e", "stderr"]);
        }
        command
            .current_dir(dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = watch::channel(None);
        // The death signal belongs to the thread that starts the child, so that thread stays until the child ends.
        std::thread::Builder::new()
            .name("nginx".to_owned())
            .spawn(move || attend(command, tell_started, &tell_ended))?;
        let (pid, handle, stderr) = started.await.map_err(io::Error::other)??;
        let (tell_refusal, refusals) = mpsc::unbounded_channel();
        tokio::spawn(listen(pipe::Receiver::from_owned_fd(stderr)?, tell_refusal));
        Ok(Self {
            pid,
            handle,
            ended,
            refusals,
        })
    }

    /// Reads the file again.
    pub(super) fn reload(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        // It fails when the process has ended, which `ended` tells.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// The workers that are ready and still take new connections. One that has yet to set itself up bears its
    /// master's title, and one that only finishes what it carries says so.
    pub(super) fn workers(&self) -> BTreeSet<i32> {
        workers_of(self.pid.as_raw_pid())
    }

    /// Has these workers finish what they carry and take nothing new. After a reload nginx does the same itself, a
    /// tenth of a second after their successors were started.
    pub(super) fn retire(&self, workers: &BTreeSet<i32>) {
        for pid in self.workers().intersection(workers) {
            let _ = Pid::from_raw(*pid).map(|pid| kill_process(pid, Signal::QUIT));
        }
    }

    /// The next refusal that nginx wrote, if one is waiting.
    pub(super) fn refusal(&mut self) -> Option<String> {
        self.refusals.try_recv().ok()
    }

    /// Resolves when nginx and all its workers are gone, with how it ended.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or_default(),
            Err(_) => "unseen".to_owned(),
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Ends nginx: requests may finish for a moment, then nothing is left of it.
    pub(super) async fn stop(&self) {
        for (signal, grace) in [
            (Signal::QUIT, QUIT_GRACE),
            (Signal::TERM, TERM_GRACE),
            (Signal::KILL, KILL_GRACE),
        ] {
            self.signal(signal);
            if tokio::time::timeout(grace, self.ended()).await.is_ok() {
                return;
            }
        }
        tracing::error!(pid = self.pid.as_raw_pid(), "nginx does not end");
    }

    /// Ends nginx without waiting for requests.
    pub(super) async fn kill(&self) {
        self.signal(Signal::KILL);
        let _ = tokio::time::timeout(KILL_GRACE, self.ended()).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

/// The same of any master.
pub(super) fn workers_of(master: i32) -> BTreeSet<i32> {
    let children = seen().filter(|seen| seen.parent == master);
    children.map(|seen| seen.pid).filter(takes).collect()
}

/// Whether a master has any: a quick look, for often.
pub(super) fn has_workers(master: i32) -> bool {
    children(master).iter().any(takes) || !workers_of(master).is_empty()
}

fn takes(pid: &i32) -> bool {
    title(*pid) == "nginx: worker process"
}

/// What this process was started with, if it is a master of nginx: the program and its words.
pub(super) fn master_words(pid: i32) -> Option<String> {
    let title = title(pid);
    let words = title.strip_prefix("nginx: master process")?;
    Some(words.trim().to_owned())
}

/// nginx, ended by the kernel should this process be killed; without util-linux the next start cleans up instead.
fn command(found: &Found) -> io::Result<Command> {
    static SETPRIV: LazyLock<bool> = LazyLock::new(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "TERM", "true"]);
        probe
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    let binary = std::path::absolute(&found.binary)?;
    if !*SETPRIV {
        return Ok(Command::new(binary));
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(binary);
    Ok(command)
}

type Started = io::Result<(Pid, OwnedFd, OwnedFd)>;

/// Starts the child, waits for its end and ends what it left behind.
fn attend(
    mut command: Command,
    started: oneshot::Sender<Started>,
    ended: &watch::Sender<Option<String>>,
) {
    let (mut child, pid) = match command.spawn().and_then(opened) {
        Ok((child, pid, handle, stderr)) => {
            let _ = started.send(Ok((pid, handle, stderr)));
            (child, pid)
        }
        Err(error) => return drop(started.send(Err(error))),
    };
    // Not reaped yet: until then its number, which is the group's too, cannot mean anybody else.
    let _ = waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    );
    let _ = kill_process_group(pid, Signal::KILL);
    let how = match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let deadline = Instant::now() + KILL_GRACE;
    while Instant::now() < deadline && seen().any(|seen| seen.group == pid.as_raw_pid()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    ended.send_replace(Some(how));
}

fn opened(mut child: Child) -> io::Result<(Child, Pid, OwnedFd, OwnedFd)> {
    let pid = Pid::from_child(&child);
    let stderr = child.stderr.take().expect("it was piped");
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Ok((child, pid, handle, stderr.into())),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error.into())
        }
    }
}

/// Passes on what nginx writes, by its level.
async fn listen(stderr: pipe::Receiver, refusals: mpsc::UnboundedSender<String>) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        let (level, words) = level_and_words(&line);
        match level {
            "emerg" => {
                tracing::error!("nginx: {words}");
                let _ = refusals.send(words.to_owned());
            }
            "alert" | "crit" => tracing::error!("nginx: {words}"),
            "error" | "warn" => tracing::warn!("nginx: {words}"),
            _ => tracing::info!("nginx: {words}"),
        }
    }
}

/// `2026/01/02 03:04:05 [warn] 7#7: words` or `nginx: [warn] words`.
pub(super) fn level_and_words(line: &str) -> (&str, &str) {
    let parted = line
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once("] "));
    let Some((level, rest)) = parted else {
        return ("", line);
    };
    let numbered = rest.split_once(": ").filter(|(number, _)| {
        number
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'#' | b'*'))
    });
    (level, numbered.map_or(rest, |(_, words)| words))
}

fn title(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

/// Ends every nginx that works in `dir`: what a predecessor left that was killed. `dir` is canonical. The number of
/// processes found.
pub(super) async fn end_leftovers(dir: &Path) -> usize {
    let found = leftovers(dir);
    for (signal, grace) in [(Signal::TERM, TERM_GRACE), (Signal::KILL, KILL_GRACE)] {
        let deadline = Instant::now() + grace;
        for handle in leftovers(dir) {
            let _ = pidfd_send_signal(handle, signal);
        }
        while Instant::now() < deadline && !leftovers(dir).is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    found.len()
}

fn leftovers(dir: &Path) -> Vec<OwnedFd> {
    let works_here = |pid: i32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
            && title(pid).starts_with("nginx: ")
    };
    seen()
        .filter_map(|seen| hold(seen.pid, works_here))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_a_line_have_a_level() {
        let bind = "bind() to 127.0.0.1:80 failed (98: Address already in use)";
        let logged = format!("2026/01/02 03:04:05 [emerg] 17#17: {bind}");
        assert_eq!(level_and_words(&logged), ("emerg", bind));
        let early = format!("nginx: [emerg] {bind}");
        assert_eq!(level_and_words(&early), ("emerg", bind));
        let request = "2026/01/02 03:04:05 [error] 17#17: *3 connect() failed, client: 127.0.0.1";
        let words = "*3 connect() failed, client: 127.0.0.1";
        assert_eq!(level_and_words(request), ("error", words));
        assert_eq!(level_and_words("anything else"), ("", "anything else"));
    }
}
