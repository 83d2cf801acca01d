//! Shell commands: rows without a kind. Own process group, output in order, the exit told as it was.
//! Not yet: whole process trees that leave their group, run-as users, time limits.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::output::{Sink, decode};
use super::{Running, Stop};

/// After the shell's exit, what still holds its pipes gets this long.
const DRAIN: Duration = Duration::from_secs(2);
/// The child sees these of our variables and nothing else.
const PASSED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TERM"];

pub(super) async fn run(job: &Running) -> Result<(), Stop> {
    if !job.core.config.runner.shell_jobs {
        return Err(Stop::Failed(
            "Shell commands are switched off here (SHELL_JOBS=off).".to_owned(),
        ));
    }
    job.go_on()?;
    let mut child = spawn(job)?;
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let out = child
        .stdout
        .take()
        .map(|pipe| tokio::spawn(pump(pipe, job.sink.clone())));
    let err = child
        .stderr
        .take()
        .map(|pipe| tokio::spawn(pump(pipe, job.sink.clone())));
    let ended = tokio::select! {
        status = child.wait() => Ok(status),
        () = job.cancel.cancelled() => Err(Stop::Cancelled("Cancelled.".to_owned())),
        () = job.hand_back.cancelled() => Err(Stop::Cancelled("Cancelled: the runner was shut down.".to_owned())),
        () = job.lost.cancelled() => Err(Stop::Lost),
    };
    if ended.is_err() {
        stop(&mut child, group, job.core.config.runner.grace).await;
    }
    // What the shell left behind in its group would hold the pipes for ever.
    signal(group, Signal::KILL);
    for pump in [out, err].into_iter().flatten() {
        let abort = pump.abort_handle();
        if tokio::time::timeout(DRAIN, pump).await.is_err() {
            abort.abort();
        }
    }
    let status =
        ended?.map_err(|error| Stop::Failed(format!("The command's end was not seen: {error}")))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Stop::Failed(format!(
            "The command exited with status {code}."
        ))),
        (None, Some(number)) => Err(Stop::Failed(format!(
            "The command was ended by signal {number}."
        ))),
        (None, None) => Err(Stop::Failed(
            "The command ended in a way that the system does not tell.".to_owned(),
        )),
    }
}

fn spawn(job: &Running) -> Result<Child, Stop> {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(&job.claim.command)
        .current_dir(&job.core.config.runner.cwd);
    command.env_clear();
    for name in PASSED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command.spawn().map_err(|error| {
        let cwd = job.core.config.runner.cwd.display();
        Stop::Failed(format!(
            "The shell could not be started in `{cwd}` (JOB_RUNNER_CWD): {error}"
        ))
    })
}

async fn stop(child: &mut Child, group: Option<Pid>, grace: Duration) {
    signal(group, Signal::TERM);
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        signal(group, Signal::KILL);
        let _ = child.wait().await;
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It fails when the group is empty, which is what we want anyway.
        let _ = kill_process_group(group, signal);
    }
}

async fn pump(mut pipe: impl AsyncRead + Unpin, sink: Sink) {
    let mut buffer = vec![0; 8 * 1024];
    let mut bytes = Vec::new();
    loop {
        let read = pipe.read(&mut buffer).await.unwrap_or(0);
        bytes.extend_from_slice(&buffer[..read]);
        let text = decode(&mut bytes, read == 0);
        if !text.is_empty() && sink.send(text).await.is_err() {
            return;
        }
        if read == 0 {
            return;
        }
    }
}
