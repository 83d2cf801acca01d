//! How long the main job takes in the demo, and what the demo costs: `cargo bench -p cac-cli --bench main_job`.
//!
//! Each figure is printed beside a bare limit that was measured in the same run: the same calls of Proxmox VE without us, and
//! `nginx -t` alone. About two minutes; nothing but loopback addresses is asked.
#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a measurement that failed reports"
)]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/programs/lab.rs"]
mod lab;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/programs/portal.rs"]
mod portal;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use lab::Running;
use portal::{Browser, Portal, json};
use reqwest::{Client, Method};
use rustix::process::Signal;
use serde_json::Value;

const RUNS: usize = 20;
const STARTS: usize = 10;
/// What the demo logs so that the stages can be told apart.
const LOG: &str = "warn,cac_core::job=debug,cac_core::nginx::keep=info";

#[tokio::main]
async fn main() {
    // `cargo bench` and `cargo test --benches` hand words on; with `--test` nothing is to be measured.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    println!("`cac demo`, release build, SQLite, simulator without delay, {RUNS} runs\n");
    starts(dir.path());
    let calls = bare_calls().await;
    jobs(&dir.path().join("jobs"), &calls).await;
}

struct Demo {
    running: Running,
    portal: Portal,
    browser: Browser,
    certificate: PathBuf,
}

fn start(dir: &Path) -> (Duration, Demo) {
    let began = Instant::now();
    let listen = format!("{}:8080", lab::own_address());
    let words = [
        "demo",
        "--listen",
        &listen,
        "--data-dir",
        dir.to_str().unwrap(),
    ];
    let mut running = Running::start("cac", &words, &[("CAC_LOG", LOG)]);
    let out = running.until(|out| out.contains("Ctrl-C ends it.\n").then(|| out.to_owned()));
    let took = began.elapsed();
    let after = |word: &str| {
        out.split_once(word)
            .unwrap()
            .1
            .split_whitespace()
            .next()
            .unwrap()
    };
    let certificate = PathBuf::from(after("--cacert"));
    let https = after("NAME.cac.localhost:")
        .trim_end_matches('/')
        .parse()
        .unwrap();
    let proxy = (listen.parse::<std::net::SocketAddr>().unwrap().ip(), https);
    let names: Vec<String> = (0..=RUNS).map(name).collect();
    let demo = Demo {
        portal: Portal::new(after("Portal")),
        browser: Browser::new(&names, proxy.into(), &certificate),
        running,
        certificate,
    };
    (took, demo)
}

fn name(number: usize) -> String {
    format!("bench-{number}.cac.localhost")
}

/// Start to ready on a new folder and on one that is there, resident memory after 10 s, and Ctrl-C to the end.
fn starts(dir: &Path) {
    let mut fresh = Vec::new();
    let mut again = Vec::new();
    let mut stops = Vec::new();
    for number in 0..STARTS {
        let dir = dir.join(format!("start-{number}"));
        for times in [&mut fresh, &mut again] {
            let (took, mut demo) = start(&dir);
            times.push(took);
            let asked = Instant::now();
            demo.running.signal(Signal::INT);
            assert!(demo.running.ended().success());
            stops.push(asked.elapsed());
        }
    }
    row("start to ready, first start", &mut fresh);
    row("start to ready, again", &mut again);
    row("Ctrl-C to the end", &mut stops);
    let (_, demo) = start(&dir.join("start-0"));
    std::thread::sleep(Duration::from_secs(10));
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", demo.running.pid().as_raw_pid()))
            .unwrap();
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    println!("{:<34} {}\n", "resident memory after 10 s idle", rss.trim());
}

/// The moments of one run, in order.
const STAGES: [&str; 11] = [
    "POST answered",
    "job begun",
    "node chosen",
    "VMID reserved",
    "created",
    "rights given",
    "started",
    "address known",
    "published",
    "nginx live",
    "first 200",
];

async fn jobs(dir: &Path, calls: &[Duration]) {
    let (_, demo) = start(dir);
    let alice = demo.portal.login("alice", "alice-demo").await.unwrap();
    let mut totals = Vec::new();
    let mut shares = vec![Vec::new(); STAGES.len()];
    // The first one, which warms connections and caches up, does not count.
    for number in 0..=RUNS {
        // So that nginx may be reloaded at once, as after any quiet second.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let seen = demo.running.err().len();
        let asked = Utc::now();
        let (id, _) = demo.portal.create(&alice, &format!("bench-{number}")).await;
        let answered = Utc::now();
        while demo.browser.open(&name(number)).await.0 != 200 {}
        let reached = Utc::now();
        // nginx tells of its reload a moment after a new worker may have answered.
        let log = lab::until("nginx tells", async || {
            let log = demo.running.err()[seen..].to_owned();
            log.contains("nginx is up to date").then_some(log)
        });
        let moments = moments(&log.await, answered, reached);
        if number > 0 {
            let mut before = asked;
            for (share, moment) in shares.iter_mut().zip(&moments) {
                share.push((*moment - before).to_std().unwrap_or_default());
                before = *moment;
            }
            totals.push((reached - asked).to_std().unwrap());
        }
        json(
            demo.portal
                .delete(&format!("/containers/{id}"), &alice)
                .await,
            200,
        )
        .await;
    }
    let check = nginx_checks(dir, &demo.certificate);
    let (total, worst) = (percentile(&mut totals, 50), percentile(&mut totals, 95));
    println!(
        "POST /containers to the first 200 by name: median {}, p95 {}",
        ms(total),
        ms(worst)
    );
    for (stage, share) in STAGES.iter().zip(&mut shares) {
        let median = percentile(share, 50);
        let part = 100.0 * median.as_secs_f64() / total.as_secs_f64();
        println!("  {stage:<20} {:>9}  {part:>4.0} %", ms(median));
    }
    let calls = percentile(&mut calls.to_vec(), 50);
    let bare = calls + check;
    println!(
        "\nbare: the same calls of Proxmox VE {}, `nginx -t` {}",
        ms(calls),
        ms(check)
    );
    println!(
        "ratio: {:.1} times the bare limit",
        total.as_secs_f64() / bare.as_secs_f64()
    );
    demo.running.stop();
}

/// From the log of one run: when each stage had ended.
fn moments(log: &str, answered: DateTime<Utc>, reached: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let at = |words: &str| {
        let line = log.lines().find(|line| line.contains(words));
        let line = line.unwrap_or_else(|| panic!("no {words:?} in {log}"));
        let time = line.split_whitespace().next().unwrap();
        DateTime::parse_from_rfc3339(time).unwrap().to_utc()
    };
    let mut moments = vec![answered];
    moments.extend((1..=7).map(|number| at(&format!("number={number} "))));
    moments.extend([
        at("worked"),
        at("nginx is up to date").min(reached),
        reached,
    ]);
    moments
}

/// The calls that a container takes, by a client that does nothing else.
async fn bare_calls() -> Vec<Duration> {
    let (simulator, told) = lab::simulator(&[]);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bare = Bare {
        base: format!("{}/api2/json", told["url"].as_str().unwrap()),
        token: format!(
            "PVEAPIToken={}={}",
            told["tokenId"].as_str().unwrap(),
            told["tokenSecret"].as_str().unwrap()
        ),
        client: Client::builder()
            .no_proxy()
            .http1_only()
            .tls_danger_accept_invalid_certs(true)
            .build()
            .unwrap(),
    };
    let mut times = Vec::new();
    for number in 0..=RUNS {
        let began = Instant::now();
        let vmid = bare.container(number).await;
        if number > 0 {
            times.push(began.elapsed());
        }
        let task = bare
            .call(
                Method::DELETE,
                &format!("/nodes/pve1/lxc/{vmid}?force=1&purge=1"),
                &[],
            )
            .await;
        bare.wait(&task).await;
    }
    simulator.stop();
    times
}

struct Bare {
    base: String,
    token: String,
    client: Client,
}

impl Bare {
    async fn call(&self, method: Method, path: &str, form: &[(&str, &str)]) -> Value {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = request.header("authorization", &self.token);
        let request = if form.is_empty() {
            request
        } else {
            request.form(form)
        };
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer.json::<Value>().await.unwrap()["data"].clone()
    }

    async fn wait(&self, task: &Value) {
        let path = format!("/nodes/pve1/tasks/{}/status", task.as_str().unwrap());
        while self.call(Method::GET, &path, &[]).await["status"] == "running" {}
    }

    /// Placement looks at three nodes with three calls each and at the node's disks; then what makes one container.
    async fn container(&self, number: usize) -> String {
        for node in ["pve1", "pve2", "pve3"] {
            self.call(Method::GET, "/nodes", &[]).await;
            self.call(
                Method::GET,
                &format!("/nodes/{node}/storage?content=vztmpl"),
                &[],
            )
            .await;
            self.call(
                Method::GET,
                &format!("/nodes/{node}/storage/local/content?content=vztmpl"),
                &[],
            )
            .await;
            self.call(
                Method::GET,
                &format!("/nodes/{node}/storage?content=rootdir"),
                &[],
            )
            .await;
        }
        let next = self.call(Method::GET, "/cluster/nextid", &[]).await;
        let vmid = next
            .as_str()
            .map_or_else(|| next.to_string(), str::to_owned);
        let template = "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst";
        let hostname = format!("bare-{number}");
        let form = [
            ("vmid", vmid.as_str()),
            ("hostname", &hostname),
            ("ostemplate", template),
            ("rootfs", "local:8"),
            ("cores", "2"),
            ("memory", "2048"),
            ("net0", "name=eth0,bridge=vmbr0,ip=dhcp"),
            ("unprivileged", "1"),
            ("description", "http 8080"),
        ];
        let task = self.call(Method::POST, "/nodes/pve1/lxc", &form).await;
        self.wait(&task).await;
        let path = format!("/vms/{vmid}");
        let acl = [
            ("path", path.as_str()),
            ("roles", "PVEVMUser"),
            ("users", "alice@pve"),
        ];
        self.call(Method::PUT, "/access/acl", &acl).await;
        let lxc = format!("/nodes/pve1/lxc/{vmid}");
        let task = self
            .call(Method::POST, &format!("{lxc}/status/start"), &[])
            .await;
        self.wait(&task).await;
        self.call(Method::GET, &format!("{lxc}/interfaces"), &[])
            .await;
        self.call(Method::GET, &format!("{lxc}/config"), &[]).await;
        vmid
    }
}

/// What nginx itself needs to read the file in force.
fn nginx_checks(dir: &Path, certificate: &Path) -> Duration {
    assert!(certificate.is_file());
    let file = dir.join("nginx/nginx.conf");
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        let mut check = Command::new("nginx");
        check
            .arg("-t")
            .arg("-p")
            .arg(dir.join("nginx"))
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"]);
        assert!(check.output().unwrap().status.success());
        times.push(began.elapsed());
    }
    percentile(&mut times, 50)
}

fn row(what: &str, times: &mut [Duration]) {
    let (median, worst) = (percentile(times, 50), percentile(times, 95));
    println!("{what:<34} median {:>8}, p95 {:>8}", ms(median), ms(worst));
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent).div_ceil(100).max(1) - 1]
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
