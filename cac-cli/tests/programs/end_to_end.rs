//! The main job by the programs of a production: simulator, `cac migrate`, `cac node`, `cac-http`, `cac-runner`, and an nginx
//! that runs on `/nginx.conf` as it is. On each database, the runner killed in the middle included.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cac_core::nginx::{find_nginx, self_signed};
use cac_core::testing::{self, TestDb};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Running, answers, command, good, own_address, simulator, text, until};
use crate::local::{add_node, simulator_secret};
use crate::portal::{Browser, Portal, greeting, json, ssh_port};

const HTTPS: u16 = 8443;

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_sqlite() {
    main_job(testing::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_mariadb() {
    main_job(testing::mariadb().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_on_postgres() {
    main_job(testing::postgres().await).await;
}

/// J1 of the original, too: a creation lived in the web server's memory and was gone with it.
async fn main_job(database: TestDb) {
    let lab = Lab::start(&database);
    let portal = Portal::new(&lab.url);
    let http = lab.http().await;
    let runner = lab.runner();

    // Sign in, ask, follow the stream to its end.
    assert_eq!(portal.login("alice", "wrong").await, Err(401));
    let alice = portal.login("alice", "alice-demo").await.unwrap();
    let (id, job) = portal.create(&alice, "web").await;
    let stream = portal.follow(&alice, job).await;
    for part in [
        "[1/7]",
        "[7/7]",
        "TASK OK",
        "Ready: https://web.e2e.test:8443/",
    ] {
        assert!(stream.contains(part), "{part}: {stream}");
    }
    let end = "event: close\ndata: Process finished with status: success\n\n";
    assert!(stream.ends_with(end), "{stream}");

    // What /nginx.conf says is live: the page over TLS by its public name, the ssh port through the stream proxy.
    let nginx = lab.nginx(&portal).await;
    let page = lab.browser.until("web.e2e.test", 200).await;
    assert!(page.contains("<h1>web</h1>"), "{page}");
    let container = portal.container(&alice, id).await;
    assert_eq!(container["status"], "running");
    let ssh = ssh_port(&container);
    let banner = greeting(lab.ip.into(), ssh).await.unwrap();
    assert!(banner.starts_with("SSH-2.0-"), "{banner}");

    // A second one, whose runner is killed while Proxmox VE works: another runner finishes it, once.
    let (second, job) = portal.create(&alice, "survivor").await;
    until("the creation is under way", async || {
        let rows = json(
            portal.get(&format!("/jobs/{job}/status"), &alice).await,
            200,
        )
        .await;
        rows.to_string().contains("[3/7]").then_some(())
    })
    .await;
    runner.signal(Signal::KILL);
    drop(runner);
    let runner = lab.runner();
    let stream = portal.follow(&alice, job).await;
    assert!(
        stream.contains("Going on after an interruption.") && stream.ends_with(end),
        "{stream}"
    );
    assert_eq!(lab.vmids().len(), 2, "{stream}");
    nginx.reload(&portal).await;
    lab.browser.until("survivor.e2e.test", 200).await;

    // Delete; all of it is gone.
    let address = container["ipv4Address"]
        .as_str()
        .unwrap()
        .parse::<Ipv4Addr>()
        .unwrap();
    for (id, name) in [(id, "web"), (second, "survivor")] {
        let answer = json(
            portal.delete(&format!("/containers/{id}"), &alice).await,
            200,
        )
        .await;
        assert_eq!(answer["message"], "Container deleted successfully");
        assert_eq!(
            portal
                .get(&format!("/containers/{id}"), &alice)
                .await
                .status(),
            404
        );
        nginx.reload(&portal).await;
        lab.browser.until(&format!("{name}.e2e.test"), 404).await;
    }
    until("nobody listens for ssh", async || {
        (!answers((lab.ip, ssh))).then_some(())
    })
    .await;
    assert!(!answers((address, 8080)) && !answers((address, 2022)));
    assert!(lab.vmids().is_empty());

    // Ends as systemd asks.
    runner.stop();
    http.stop();
}

struct Lab {
    dir: TempDir,
    ip: Ipv4Addr,
    url: String,
    vars: Vec<(&'static str, String)>,
    proxmox: Value,
    browser: Browser,
    /// Ends with the lab.
    _simulator: Running,
}

impl Lab {
    /// Everything up to the programs that go on: schema, nodes, certificate.
    fn start(database: &TestDb) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ip = own_address();
        let (simulator, proxmox) = simulator(&["--slow"]);
        let tls = self_signed(&["e2e.test".parse().unwrap()], &dir.path().join("tls")).unwrap();
        let names = ["web.e2e.test".to_owned(), "survivor.e2e.test".to_owned()];
        let lab = Self {
            url: format!("http://{ip}:3000"),
            vars: vars(database, ip, dir.path()),
            browser: Browser::new(&names, (ip, HTTPS).into(), &tls.certificate),
            dir,
            ip,
            proxmox,
            _simulator: simulator,
        };
        let migrated = good("cac", &["migrate", "up"], &lab.database());
        assert!(migrated.contains("Migrated: 0002_cac"), "{migrated}");
        for node in lab.proxmox["nodes"].as_array().unwrap() {
            lab.add_node(node.as_str().unwrap());
        }
        lab
    }

    fn add_node(&self, name: &str) {
        let told = |field: &str| self.proxmox[field].as_str().unwrap();
        let words = [
            "node",
            "--local",
            "add",
            name,
            "--api-url",
            told("url"),
            "--token-id",
            told("tokenId"),
            "--tls",
            told("fingerprint"),
        ];
        let mut add = command("cac", &words, &self.database());
        add.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut add = add.spawn().unwrap();
        let secret = told("tokenSecret").as_bytes();
        add.stdin.take().unwrap().write_all(secret).unwrap();
        let output = add.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let tested = good("cac", &["node", "--local", "test", name], &self.database());
        assert!(tested.contains("Containers can be made there."), "{tested}");
    }

    /// What the runner and local commands are told: where the database is, its key, where containers are, and that this is production.
    fn database(&self) -> Vec<(&'static str, &str)> {
        let needed = |name: &str| {
            name.starts_with("MYSQL_")
                || matches!(
                    name,
                    "DATABASE_URL"
                        | "NODE_ENV"
                        | "JOB_RUNNER_LEASE_SECONDS"
                        | "CAC_SECRET_KEY"
                        | "CONTAINER_NETWORKS"
                )
        };
        let vars = self.vars.iter().filter(|(name, _)| needed(name));
        vars.map(|(name, value)| (*name, value.as_str())).collect()
    }

    async fn http(&self) -> Running {
        let vars: Vec<_> = self
            .vars
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let http = Running::start("cac-http", &[], &vars);
        until("the portal answers", async || {
            answers((self.ip, 3000)).then_some(())
        })
        .await;
        http
    }

    fn runner(&self) -> Running {
        Running::start("cac-runner", &[], &self.database())
    }

    async fn nginx(&self, portal: &Portal) -> Nginx {
        let nginx = Nginx {
            program: find_nginx().unwrap().binary,
            file: self.dir.path().join("nginx.conf"),
            ip: self.ip.into(),
        };
        nginx.put(portal).await;
        nginx.run(&["-t"]);
        nginx.run(&[]);
        nginx
    }

    /// The containers that Proxmox VE has.
    fn vmids(&self) -> Vec<u64> {
        let told = |field: &str| self.proxmox[field].as_str().unwrap();
        let token = format!(
            "Authorization: PVEAPIToken={}={}",
            told("tokenId"),
            told("tokenSecret")
        );
        let url = format!("{}/api2/json/cluster/resources?type=vm", told("url"));
        let asked = Command::new("curl")
            .args(["-sSfk", "--noproxy", "*", "-H", &token, &url])
            .output();
        let answer: Value = serde_json::from_slice(&asked.unwrap().stdout).unwrap();
        let rows = answer["data"].as_array().unwrap();
        rows.iter()
            .map(|row| row["vmid"].as_u64().unwrap())
            .collect()
    }
}

/// A production's variables; MariaDB is named as the seed names it.
fn vars(database: &TestDb, ip: Ipv4Addr, dir: &Path) -> Vec<(&'static str, String)> {
    let below = |name: &str| dir.join(name).display().to_string();
    let mut vars = vec![
        ("NODE_ENV", "production".to_owned()),
        ("JOB_RUNNER_LEASE_SECONDS", "3".to_owned()),
        ("CAC_LISTEN", format!("{ip}:3000")),
        ("CAC_PUBLIC_URL", format!("http://{ip}:3000")),
        ("CAC_DOMAIN", "e2e.test".to_owned()),
        ("CAC_SECRET_KEY", cac_core::secret::random()),
        ("SESSION_SECRET", "a secret for tests only".to_owned()),
        ("CONTAINER_NETWORKS", "127.0.0.0/8".to_owned()),
        ("CONTAINER_SSH_PORT", "2022".to_owned()),
        ("NGINX_CONF_ALLOW", "127.0.0.0/8".to_owned()),
        ("NGINX_LISTEN", ip.to_string()),
        ("NGINX_HTTP_PORTS", "8080".to_owned()),
        ("NGINX_HTTPS_PORTS", HTTPS.to_string()),
        ("NGINX_CERTIFICATE", below("tls/certificate.pem")),
        ("NGINX_CERTIFICATE_KEY", below("tls/certificate.key")),
        ("NGINX_PID", below("nginx.pid")),
        ("NGINX_ERROR_LOG", below("error.log")),
        ("NGINX_ACCESS_LOG", below("access.log")),
        ("NGINX_TEMP_DIR", dir.display().to_string()),
        ("NGINX_USER", "none".to_owned()),
        ("NGINX_INCLUDE", "none".to_owned()),
    ];
    match url::Url::parse(&database.url) {
        Ok(url) if database.name == "mariadb" => vars.extend([
            ("MYSQL_HOST", url.host_str().unwrap().to_owned()),
            ("MYSQL_PORT", url.port().unwrap().to_string()),
            ("MYSQL_USER", url.username().to_owned()),
            ("MYSQL_PASSWORD", String::new()),
            (
                "MYSQL_DATABASE",
                url.path().trim_start_matches('/').to_owned(),
            ),
        ]),
        _ => vars.push(("DATABASE_URL", database.url.clone())),
    }
    vars
}

/// Debian's nginx on the file that the portal serves, as a system runs it.
struct Nginx {
    program: PathBuf,
    file: PathBuf,
    ip: IpAddr,
}

impl Nginx {
    async fn put(&self, portal: &Portal) {
        let answer = portal.get("/nginx.conf", "").await;
        assert_eq!(answer.status(), 200);
        std::fs::write(&self.file, answer.text().await.unwrap()).unwrap();
    }

    fn run(&self, words: &[&str]) {
        let mut command = Command::new(&self.program);
        command
            .arg("-c")
            .arg(&self.file)
            .args(["-e", "stderr"])
            .args(words);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}",
            text(&output.stderr)
        );
    }

    async fn reload(&self, portal: &Portal) {
        self.put(portal).await;
        self.run(&["-s", "reload"]);
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let mut quit = Command::new(&self.program);
        let quit = quit
            .arg("-c")
            .arg(&self.file)
            .args(["-e", "stderr", "-s", "stop"])
            .output();
        assert!(quit.is_ok(), "nginx on {} is left", self.ip);
    }
}

/// The page of code that the library's examples show, against a simulated Proxmox VE.
#[tokio::test(flavor = "multi_thread")]
async fn another_program_makes_a_container_and_deletes_it() {
    let (simulator, proxmox) = simulator(&[]);
    let dir = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", dir.path().join("cac.db").display());
    let told = |field: &str| proxmox[field].as_str().unwrap();
    let vars = [
        ("DATABASE_URL", database.as_str()),
        ("CAC_DATA_DIR", dir.path().to_str().unwrap()),
        ("CONTAINER_NETWORKS", "127.0.0.0/8"),
        ("CONTAINER_SSH_PORT", "2022"),
    ];
    let secret = simulator_secret(told("tokenSecret"));
    add_node(told("url"), told("fingerprint"), &secret, &vars);
    let out = good(
        "examples/embed",
        &["alice", "debian", "mine", "8080"],
        &vars,
    );
    for line in [
        "[1/7] choose a node",
        "It is reached at Some(\"https://mine.cac.localhost/\").",
        "It is gone.",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    simulator.stop();
}
