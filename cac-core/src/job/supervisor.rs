//! The process between a runner and a shell command: it owns the command's whole tree, so that nothing of it outlives the job,
//! be it in other groups or sessions, or the runner killed. A mode of our own programs ([`asked`]); it knows no database.
//!
//! It is the command's subreaper, so whatever loses its parent becomes its own child. It speaks with the runner over its
//! standard input, a socket: `t` asks for the end of the tree (TERM, grace, KILL), and so does the end of the socket, which
//! is the end of the runner; the last word is `exit N` or `signal N`.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getrlimit,
    set_child_subreaper, set_dumpable_behavior, setrlimit, setsid, wait,
};

use crate::processes::{descendants, signal_descendants};

/// The first word of a process that is to supervise; after it the grace in milliseconds, then program and words.
pub(super) const MODE: &str = "supervise-job";

/// How often the tree is looked at while it is being ended.
const LOOK: Duration = Duration::from_millis(2);

static ENDING: AtomicBool = AtomicBool::new(false);

/// Carries out the supervisor's mode, if the words of this process ask for it. A program that runs jobs with
/// [`crate::config::Runner::supervisor`] set to itself calls this first, before it starts any thread.
#[must_use]
pub fn asked() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != MODE {
        return None;
    }
    Some(match supervise(words.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("supervise-job: {error}");
            ExitCode::FAILURE
        }
    })
}

/// The program that this process runs, as a supervisor of its jobs.
#[must_use]
pub fn own_program() -> PathBuf {
    // The file itself, also when another one has taken its place meanwhile.
    PathBuf::from("/proc/self/exe")
}

/// Keeps other processes of the same user from reading this one's memory and environment, where secrets are, and the kernel from
/// writing them to a core dump. A program calls it first of all; what it starts is not hidden.
pub fn hide() {
    // Non-dumpable is enough for both while `fs.suid_dumpable` is 0. With 2 the kernel dumps even then, but not with this limit; the
    // hard limit stays, for jobs that want their own dumps.
    let limit = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Core)
    };
    let limited = setrlimit(Resource::Core, limit);
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable).and(limited) {
        // Before there is a log.
        eprintln!("warning: other programs of this user may read this process's memory: {error}");
    }
}

fn supervise(words: Vec<OsString>) -> io::Result<()> {
    let [grace, program, words @ ..] = words.as_slice() else {
        return Err(io::Error::other("this mode is for job runners only"));
    };
    let grace = grace.to_str().and_then(|text| text.parse().ok());
    let grace = Duration::from_millis(grace.unwrap_or(5000));
    let mut runner = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let watched = runner.try_clone()?;
    set_child_subreaper(Some(getpid()))?;
    // Jobs that run as the same user may not look into this process.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // It fails when we lead a session already, which is as good.
    let _ = setsid();
    let leader = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    let leader = Pid::from_child(&leader);
    std::thread::spawn(move || watch(watched, grace));
    let status = reap(leader)?;
    // The runner may be gone; then nobody asks.
    let _ = runner.write_all(last_word(status).as_bytes());
    Ok(())
}

/// Waits for the runner to ask, or to be gone.
fn watch(mut runner: UnixStream, grace: Duration) {
    let mut byte = [0];
    // Whatever it says, or that it says nothing more: the tree is to end.
    let _ = runner.read(&mut byte);
    ENDING.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + grace;
    signal_descendants(own(), Signal::TERM);
    while Instant::now() < deadline && !descendants(own()).is_empty() {
        std::thread::sleep(LOOK);
    }
    end_all();
}

/// Waits for the leader, then for everything it left behind, which is killed.
fn reap(leader: Pid) -> io::Result<WaitStatus> {
    let mut status = None;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, how))) if pid == leader => {
                status = Some(how);
                if !ENDING.load(Ordering::SeqCst) {
                    end_all();
                }
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No child is left.
            Err(rustix::io::Errno::CHILD) => {
                return status.ok_or_else(|| io::Error::other("the command was never seen to end"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn end_all() {
    while signal_descendants(own(), Signal::KILL) > 0 {
        std::thread::sleep(LOOK);
    }
}

fn own() -> i32 {
    getpid().as_raw_pid()
}

fn last_word(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit {code}\n"),
        (None, signal) => format!("signal {}\n", signal.unwrap_or_default()),
    }
}
