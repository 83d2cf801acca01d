//! What the tests stand on: programs as processes that end with the test, and addresses of their own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a busy machine, short enough to end a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Cargo builds only this package's programs for its tests, so the others are built here, once.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_BIN_EXE_cac")).parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "build",
        "--quiet",
        "-p",
        "cac-http",
        "-p",
        "cac-runner",
        "-p",
        "cac-core",
    ]);
    build.args(["--bins", "--example", "embed"]);
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    build.env("CARGO_TARGET_DIR", folder.parent().unwrap());
    // What Cargo says of this package would make `ring` and all above it be built again, here and at the next test.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(
        build.status().unwrap().success(),
        "the programs cannot be built"
    );
    folder.to_owned()
});

/// An address of the loopback network that is this test's alone, so that its ports are free.
pub(crate) fn own_address() -> Ipv4Addr {
    let [a, b, c] = rand::random::<[u8; 3]>();
    Ipv4Addr::new(127, 200 + a % 50, b, 1 + c % 250)
}

/// A command line that knows nothing of this environment but where programs are.
pub(crate) fn command(program: &str, words: &[&str], vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(match program {
        "cac" => PathBuf::from(env!("CARGO_BIN_EXE_cac")),
        other => PROGRAMS.join(other),
    });
    command.args(words).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.envs(vars.iter().copied()).stdin(Stdio::null());
    // Programs make secrets in `data` of their working directory where nobody names another one: not in the tree.
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Runs a command to its end.
pub(crate) fn run(program: &str, words: &[&str], vars: &[(&str, &str)]) -> Output {
    command(program, words, vars).output().unwrap()
}

/// Runs a command that must end well; its standard output.
pub(crate) fn good(program: &str, words: &[&str], vars: &[(&str, &str)]) -> String {
    let output = run(program, words, vars);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {words:?}: {out}{err}");
    out
}

/// Runs a command that must fail with this status; its standard error.
pub(crate) fn bad(program: &str, words: &[&str], vars: &[(&str, &str)], status: i32) -> String {
    let output = run(program, words, vars);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        output.status.code(),
        Some(status),
        "{program} {words:?}: {out}{err}"
    );
    assert!(!err.contains("panicked"), "{err}");
    err
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A program that runs; it is killed with this value.
pub(crate) struct Running {
    name: String,
    end: Signal,
    child: Child,
    dir: TempDir,
}

impl Running {
    pub(crate) fn start(program: &str, words: &[&str], vars: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(dir.path().join(name)).unwrap();
        let mut command = command(program, words, vars);
        command.stdout(file("out")).stderr(file("err"));
        Self {
            name: format!("{program} {}", words.join(" ")),
            end: Signal::KILL,
            child: command.spawn().unwrap(),
            dir,
        }
    }

    /// A program whose children would outlive it if it were killed.
    pub(crate) fn gently(mut self) -> Self {
        self.end = Signal::TERM;
        self
    }

    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("out")).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("err")).unwrap()
    }

    /// Waits until standard output is what `read` understands.
    pub(crate) fn until<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = read(&self.out()) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            let told = || format!("{}: {ended:?}\n{}{}", self.name, self.out(), self.err());
            assert!(ended.is_none() && Instant::now() < deadline, "{}", told());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end as systemd does; it must end well.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert!(status.success(), "{}: {status}: {}", self.name, self.err());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(self.end);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}:\n{}{}", self.name, self.out(), self.err());
        }
    }
}

/// A simulated Proxmox VE, and what it says of itself.
pub(crate) fn simulator(more: &[&str]) -> (Running, Value) {
    let mut words = vec![
        "simulator",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--network",
        "auto",
    ];
    words.extend(more);
    let mut simulator = Running::start("cac", &words, &[]);
    let told = simulator.until(|out| serde_json::from_str(out).ok());
    (simulator, told)
}

/// Whether somebody accepts connections there.
pub(crate) fn answers(address: impl Into<SocketAddr>) -> bool {
    std::net::TcpStream::connect_timeout(&address.into(), Duration::from_secs(5)).is_ok()
}

/// Polls until `check` holds.
pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
