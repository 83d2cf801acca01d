//! A command as a process: its output in order, its exit told as it was, and nothing of it left when its job ends. With a
//! supervisor (`job/supervisor.rs`) that holds for its whole tree, else for its process group.

use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::output::{Piece, Sink, decode};
use super::supervisor::MODE;
use super::{Running, Stop};

/// After the end, what still holds the command's pipe gets this long.
const DRAIN: Duration = Duration::from_secs(2);
/// How much longer than the grace a supervisor may take to end a tree.
const SPARE: Duration = Duration::from_secs(5);
/// The child sees these of our variables and nothing else.
const PASSED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TERM"];

/// How a command ended.
pub(super) enum Ended {
    Exit(i32),
    Signal(i32),
    Unseen(String),
}

impl Ended {
    /// As the reason of a job.
    pub(super) fn well(&self) -> Result<(), String> {
        match self {
            Self::Exit(0) => Ok(()),
            Self::Exit(code) => Err(format!("The command exited with status {code}.")),
            Self::Signal(number) => Err(format!("The command was ended by signal {number}.")),
            Self::Unseen(why) => Err(format!("The command's end was not seen: {why}")),
        }
    }
}

/// Runs a program to its end; `limit` is told with where it was set.
pub(super) async fn run(
    job: &Running,
    words: &[String],
    (limit, setting): (Duration, &str),
) -> Result<Ended, Stop> {
    job.go_on()?;
    let (reader, writer) = std::io::pipe().map_err(|error| Stop::Failed(error.to_string()))?;
    let mut process = Process::start(job, words, writer.into())?;
    // Aborted when this is dropped.
    let mut pumping = JoinSet::new();
    if let Some(sink) = job.output.sink() {
        pumping.spawn(pump(reader, sink));
    }
    let ended = tokio::select! {
        ended = process.ended() => Ok(ended),
        () = job.cancel.cancelled() => Err(Stop::Cancelled("Cancelled.".to_owned())),
        () = job.hand_back.cancelled() => Err(Stop::Cancelled("Cancelled: the runner was shut down.".to_owned())),
        () = job.lost.cancelled() => Err(Stop::Lost),
        () = tokio::time::sleep(limit) => Err(Stop::Failed(format!(
            "The command was ended after {} s ({setting}).", limit.as_secs()
        ))),
    };
    if ended.is_err() {
        process.stop(job.core.config.runner.grace).await;
    }
    process.sweep();
    let _ = tokio::time::timeout(DRAIN, pumping.join_next()).await;
    ended
}

impl From<std::io::Result<ExitStatus>> for Ended {
    fn from(status: std::io::Result<ExitStatus>) -> Self {
        match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Self::Exit(code),
                (None, Some(number)) => Self::Signal(number),
                (None, None) => Self::Unseen("the system does not tell it".to_owned()),
            },
            Err(error) => Self::Unseen(error.to_string()),
        }
    }
}

/// A command that runs.
struct Process {
    child: Child,
    /// To the supervisor, where there is one; its last word comes out of it. Dropped, it ends the tree.
    supervisor: Option<UnixStream>,
    /// Without a supervisor: the group that the command leads.
    group: Option<Pid>,
}

impl Process {
    fn start(job: &Running, words: &[String], output: OwnedFd) -> Result<Self, Stop> {
        let failed = |error: std::io::Error| {
            let cwd = job.core.config.runner.cwd.display();
            Stop::Failed(format!(
                "The command could not be started in `{cwd}` (JOB_RUNNER_CWD): {error}"
            ))
        };
        let mut all = as_user(job);
        all.extend_from_slice(words);
        match &job.core.config.runner.supervisor {
            Some(program) => Self::supervised(job, program, &all, output),
            None => Self::alone(job, &all, output),
        }
        .map_err(failed)
    }

    fn supervised(
        job: &Running,
        program: &Path,
        words: &[String],
        output: OwnedFd,
    ) -> std::io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = command(job, program, output)?;
        let grace = job.core.config.runner.grace.as_millis().to_string();
        command.arg(MODE).arg(grace).args(words);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        Ok(Self {
            child: command.spawn()?,
            supervisor: Some(UnixStream::from_std(ours)?),
            group: None,
        })
    }

    fn alone(job: &Running, words: &[String], output: OwnedFd) -> std::io::Result<Self> {
        let mut command = command(job, Path::new(&words[0]), output)?;
        command.args(&words[1..]).stdin(Stdio::null());
        let child = command.kill_on_drop(true).process_group(0).spawn()?;
        let number = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Self {
            child,
            supervisor: None,
            group: number.and_then(Pid::from_raw),
        })
    }

    /// Resolves when the command has ended; with a supervisor, when its tree has.
    async fn ended(&mut self) -> Ended {
        let Some(supervisor) = &mut self.supervisor else {
            return self.child.wait().await.into();
        };
        let mut said = String::new();
        let read = supervisor.read_to_string(&mut said).await;
        let _ = self.child.wait().await;
        let word = said.trim().split_once(' ');
        let number = word.and_then(|(_, number)| number.parse().ok());
        match (word.map(|(how, _)| how), number) {
            (Some("exit"), Some(code)) => Ended::Exit(code),
            (Some("signal"), Some(number)) => Ended::Signal(number),
            _ => Ended::Unseen(match read {
                Err(error) => error.to_string(),
                Ok(_) => "its supervisor could not start it or was killed".to_owned(),
            }),
        }
    }

    /// TERM, grace, KILL, and then it is gone. A supervisor goes on with what even KILL does not end at once.
    async fn stop(&mut self, grace: Duration) {
        if let Some(supervisor) = &mut self.supervisor {
            // Should it not be there any more, its end is seen below.
            let _ = supervisor.write_all(b"t").await;
            let _ = tokio::time::timeout(grace + SPARE, self.ended()).await;
            return;
        }
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.child.wait())
            .await
            .is_err()
        {
            self.signal(Signal::KILL);
            let _ = self.child.wait().await;
        }
    }

    /// What the command left behind in its group would hold the pipe for ever.
    fn sweep(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It fails when the group is empty, which is what we want anyway.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// The words that change to the account of `JOB_RUNNER_USER` before the command is started.
fn as_user(job: &Running) -> Vec<String> {
    let Some(account) = &job.core.config.runner.user else {
        return Vec::new();
    };
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    let change = [
        "setpriv",
        "--reuid",
        &uid,
        "--regid",
        &gid,
        "--init-groups",
        // A runner that is not root changes its user by ambient capabilities, which its commands may not have.
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--",
    ];
    let mut words = change.map(str::to_owned).to_vec();
    if let Some(cwd) = closed_cwd(job) {
        words.extend(["env", "-C", cwd].map(str::to_owned));
    }
    words
}

/// The working directory, where only the user of the jobs may enter it: a runner that is not root starts them elsewhere, and they go
/// there themselves.
fn closed_cwd(job: &Running) -> Option<&str> {
    let settings = &job.core.config.runner;
    let closed = access(&settings.cwd, Access::EXEC_OK) == Err(Errno::ACCESS);
    settings
        .cwd
        .to_str()
        .filter(|_| settings.user.is_some() && closed)
}

/// Standard output and error are one pipe, so that what is printed stays in order.
fn command(job: &Running, program: &Path, output: OwnedFd) -> std::io::Result<Command> {
    let mut command = Command::new(program);
    let settings = &job.core.config.runner;
    if closed_cwd(job).is_none() {
        command.current_dir(&settings.cwd);
    }
    command.env_clear();
    for name in PASSED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if let Some(account) = &settings.user {
        command.env("HOME", &account.home);
        command
            .env("USER", &account.name)
            .env("LOGNAME", &account.name);
    }
    command
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(output));
    Ok(command)
}

async fn pump(reader: PipeReader, sink: Sink) {
    let Ok(mut reader) = pipe::Receiver::from_owned_fd(reader.into()) else {
        return;
    };
    let mut buffer = vec![0; 16 * 1024];
    let mut bytes = Vec::new();
    loop {
        let read = reader.read(&mut buffer).await.unwrap_or(0);
        bytes.extend_from_slice(&buffer[..read]);
        let text = decode(&mut bytes, read == 0);
        if !text.is_empty() && sink.send(Piece::Printed(text)).await.is_err() {
            return;
        }
        if read == 0 {
            return;
        }
    }
}
