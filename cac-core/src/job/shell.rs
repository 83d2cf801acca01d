//! Shell commands: rows without a kind. Output in order, the exit told as it was, and nothing of the command left when its job
//! ends. With a supervisor (`job/supervisor.rs`) that holds for its whole tree, else for its process group.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::output::{Piece, Sink, decode};
use super::supervisor::MODE;
use super::{Running, SWITCHED_OFF, Stop};

/// After the end, what still holds the command's pipes gets this long.
const DRAIN: Duration = Duration::from_secs(2);
/// How much longer than the grace a supervisor may take to end a tree.
const SPARE: Duration = Duration::from_secs(5);
/// The child sees these of our variables and nothing else.
const PASSED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TERM"];

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    let settings = &job.core.config.runner;
    if !settings.shell_jobs {
        return Err(Stop::Failed(SWITCHED_OFF.to_owned()));
    }
    job.go_on()?;
    let mut process = Process::start(job)?;
    let out = process
        .child
        .stdout
        .take()
        .map(|pipe| tokio::spawn(pump(pipe, job.sink.clone())));
    let err = process
        .child
        .stderr
        .take()
        .map(|pipe| tokio::spawn(pump(pipe, job.sink.clone())));
    let limit = settings.shell_limit;
    let ended = tokio::select! {
        ended = process.ended() => Ok(ended),
        () = job.cancel.cancelled() => Err(Stop::Cancelled("Cancelled.".to_owned())),
        () = job.hand_back.cancelled() => Err(Stop::Cancelled("Cancelled: the runner was shut down.".to_owned())),
        () = job.lost.cancelled() => Err(Stop::Lost),
        () = tokio::time::sleep(limit) => Err(Stop::Failed(format!(
            "The command was ended after {} s (SHELL_JOB_LIMIT_SECONDS).", limit.as_secs()
        ))),
    };
    if ended.is_err() {
        process.stop(settings.grace).await;
    }
    process.sweep();
    for pump in [out, err].into_iter().flatten() {
        let abort = pump.abort_handle();
        if tokio::time::timeout(DRAIN, pump).await.is_err() {
            abort.abort();
        }
    }
    match ended? {
        Ended::Exit(0) => Ok(()),
        Ended::Exit(code) => Err(Stop::Failed(format!(
            "The command exited with status {code}."
        ))),
        Ended::Signal(number) => Err(Stop::Failed(format!(
            "The command was ended by signal {number}."
        ))),
        Ended::Unseen(why) => Err(Stop::Failed(format!(
            "The command's end was not seen: {why}"
        ))),
    }
}

/// How a command ended.
enum Ended {
    Exit(i32),
    Signal(i32),
    Unseen(String),
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
    /// To the supervisor, where there is one; its last word comes out of it.
    supervisor: Option<UnixStream>,
    /// Without a supervisor: the group that the command leads.
    group: Option<Pid>,
}

impl Process {
    fn start(job: &Running) -> Result<Self, Stop> {
        let failed = |error: std::io::Error| {
            let cwd = job.core.config.runner.cwd.display();
            Stop::Failed(format!(
                "The shell could not be started in `{cwd}` (JOB_RUNNER_CWD): {error}"
            ))
        };
        let mut words = as_user(job);
        words.extend(["/bin/sh", "-c", &job.claim.command].map(str::to_owned));
        match &job.core.config.runner.supervisor {
            Some(program) => Self::supervised(job, program, &words),
            None => Self::alone(job, &words),
        }
        .map_err(failed)
    }

    fn supervised(job: &Running, program: &Path, words: &[String]) -> std::io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = command(job, program);
        let grace = job.core.config.runner.grace.as_millis().to_string();
        command.arg(MODE).arg(grace).args(words);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        Ok(Self {
            child: command.spawn()?,
            supervisor: Some(UnixStream::from_std(ours)?),
            group: None,
        })
    }

    fn alone(job: &Running, words: &[String]) -> std::io::Result<Self> {
        let mut command = command(job, Path::new(&words[0]));
        command.args(&words[1..]).stdin(Stdio::null());
        let child = command.process_group(0).spawn()?;
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

    /// TERM, grace, KILL, and then it is gone.
    async fn stop(&mut self, grace: Duration) {
        if let Some(supervisor) = &mut self.supervisor {
            // Should it not be there any more, its end is seen below.
            let _ = supervisor.write_all(b"t").await;
            if tokio::time::timeout(grace + SPARE, self.ended())
                .await
                .is_err()
            {
                let _ = self.child.kill().await;
            }
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

    /// What the shell left behind in its group would hold the pipes for ever.
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

/// The words that change to the account of `JOB_RUNNER_USER` before the shell is started.
fn as_user(job: &Running) -> Vec<String> {
    let Some(account) = &job.core.config.runner.user else {
        return Vec::new();
    };
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    let words = [
        "setpriv",
        "--reuid",
        &uid,
        "--regid",
        &gid,
        "--init-groups",
        "--inh-caps=-all",
        "--",
    ];
    words.map(str::to_owned).to_vec()
}

fn command(job: &Running, program: &Path) -> Command {
    let mut command = Command::new(program);
    let settings = &job.core.config.runner;
    command.current_dir(&settings.cwd).env_clear();
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
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

async fn pump(mut pipe: impl AsyncRead + Unpin, sink: Sink) {
    let mut buffer = vec![0; 8 * 1024];
    let mut bytes = Vec::new();
    loop {
        let read = pipe.read(&mut buffer).await.unwrap_or(0);
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
