//! A chromedriver of the test's own, which ends with it together with its browser.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::lab::PATIENCE;

pub(crate) struct Driver {
    child: Child,
    pub(crate) port: u16,
    /// Set as soon as there is one, so that its browser is ended with it.
    pub(crate) session: Option<String>,
    home: TempDir,
}

impl Driver {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let told = home.path().join("out");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", home.path()).env("TMPDIR", home.path());
        command
            .stdin(Stdio::null())
            .stdout(File::create(&told).unwrap());
        command
            .stderr(File::create(home.path().join("err")).unwrap())
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("chromedriver cannot be started ({error}): run .ci/tools, which installs it")
        });
        let mut driver = Self {
            child,
            port: 0,
            session: None,
            home,
        };
        let deadline = Instant::now() + PATIENCE;
        while driver.port == 0 {
            let out = std::fs::read_to_string(&told).unwrap();
            let port = out.split_once("successfully on port ");
            let port = port.and_then(|(_, rest)| rest.split_once('.'));
            driver.port = port.map_or(0, |(port, _)| port.parse().unwrap());
            assert!(Instant::now() < deadline, "chromedriver says only: {out}");
            std::thread::sleep(Duration::from_millis(10));
        }
        driver
    }

    /// What a session is asked for: a browser that has no past and talks to the loopback network only.
    pub(crate) fn capabilities(&self) -> Map<String, Value> {
        let profile = self.home.path().join("profile");
        let profile = format!("--user-data-dir={}", profile.display());
        let asked = json!({
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*", profile,
            ]},
        });
        asked.as_object().unwrap().clone()
    }

    fn end_session(&self) -> std::io::Result<()> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "DELETE /session/{session} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        stream.read(&mut [0; 64]).map(drop)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.end_session();
        // A browser that did not end is in the group of its driver.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
