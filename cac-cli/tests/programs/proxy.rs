//! `cac proxy sync` and an nginx that runs as a system's does: what changes is live, what nginx refuses stays out, and whoever is away or
//! killed harms nobody.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cac_core::args;
use cac_core::db::Db;
use cac_core::nginx::{find_nginx, self_signed};
use cac_core::testing::{self, TestDb};
use chrono::Utc;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::lab::{Running, own_address, run, simulator, text, until};
use crate::portal::{Browser, Portal};

const HTTPS: u16 = 8443;

struct Place {
    dir: TempDir,
    ip: Ipv4Addr,
    database: TestDb,
    vars: Vec<(&'static str, String)>,
    portal: Portal,
    admin: String,
    token: String,
    browser: Browser,
    http: Option<Running>,
    nginx: Running,
    _simulator: Running,
}

impl Place {
    async fn new() -> Self {
        let (dir, ip) = (tempfile::tempdir().unwrap(), own_address());
        let tls = self_signed(&["proxy.test".parse().unwrap()], &dir.path().join("tls")).unwrap();
        let database = testing::sqlite().await;
        let (simulator, proxmox) = simulator(&[]);
        let vars = vars(&database, ip, dir.path(), &proxmox);
        let portal = Portal::new(format!("http://{ip}:3000"));
        let names: Vec<String> = ["one", "two", "three"]
            .map(|name| format!("{name}.proxy.test"))
            .into();
        let mut place = Self {
            browser: Browser::new(&names, (ip, HTTPS).into(), &tls.certificate),
            nginx: nginx(dir.path()),
            token: String::new(),
            admin: String::new(),
            dir,
            ip,
            database,
            vars,
            portal,
            http: None,
            _simulator: simulator,
        };
        place.http().await;
        place.admin = place.portal.login("admin", "admin-demo").await.unwrap();
        let request = place.portal.request(Method::POST, "/tokens");
        let asked = json!({"name": "proxy", "scopes": ["nginx:read", "nginx:report"]});
        let answer = request.header("cookie", &place.admin).json(&asked).send();
        let token = crate::portal::json(answer.await.unwrap(), 201).await;
        place.token = token["token"].as_str().unwrap().to_owned();
        place
    }

    async fn http(&mut self) {
        let vars: Vec<(&str, &str)> = self.vars.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.http = Some(Running::start("cac-http", &[], &vars));
        until("the portal answers", async || {
            let request = self.portal.request(Method::GET, "/healthz");
            request.send().await.ok()
        })
        .await;
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("nginx.conf")
    }

    fn words(&self, more: &[&'static str]) -> Vec<String> {
        let file = self.file().display().to_string();
        let words = ["proxy", "sync", "--file", &file, "--name", "here"];
        words.iter().chain(more).map(ToString::to_string).collect()
    }

    fn sync(&self, more: &[&'static str]) -> Running {
        let words = self.words(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let url = format!("http://{}:3000", self.ip);
        Running::start(
            "cac",
            &words,
            &[("CAC_URL", &url), ("CAC_TOKEN", &self.token)],
        )
    }

    async fn db(&self) -> Db {
        Db::connect(&self.database.url).await.unwrap()
    }

    /// A container with a name, as somebody at the database's own prompt would add it; its row id.
    async fn add(&self, name: &str) -> i64 {
        let (db, now) = (self.db().await, Utc::now());
        let backend = backend().await;
        let mut tx = db.write().await.unwrap();
        let sql = r#"INSERT INTO "Containers" ("hostname", "username", "ipv4Address", "createdAt", "updatedAt") VALUES (?, 'admin', ?, ?, ?)"#;
        let address = backend.ip().to_string();
        let id = tx
            .insert(sql, args![name, address, now, now])
            .await
            .unwrap();
        let sql = r#"INSERT INTO "Services" ("containerId", "type", "internalPort", "externalHostname", "createdAt", "updatedAt") VALUES (?, 'http', ?, ?, ?, ?)"#;
        let given = args![id, backend.port(), name, now, now];
        tx.exec(sql, given).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// How the service of a container stands, once it is this.
    async fn stands(&self, container: i64, state: &str) -> Value {
        until(&format!("container {container} is {state}"), async || {
            let container = self.portal.container(&self.admin, container).await;
            let service = container["services"][0].clone();
            (service["state"] == state).then_some(service)
        })
        .await
    }
}

fn vars(
    database: &TestDb,
    ip: Ipv4Addr,
    dir: &Path,
    proxmox: &Value,
) -> Vec<(&'static str, String)> {
    let told = |field: &str| proxmox[field].as_str().unwrap().to_owned();
    let below = |name: &str| dir.join(name).display().to_string();
    vec![
        ("DATABASE_URL", database.url.clone()),
        ("CAC_LISTEN", format!("{ip}:3000")),
        ("CAC_PUBLIC_URL", format!("http://{ip}:3000")),
        ("CAC_DOMAIN", "proxy.test".to_owned()),
        ("SESSION_SECRET", "a secret for tests only".to_owned()),
        ("CONTAINER_NETWORKS", "127.0.0.0/8".to_owned()),
        ("PROXMOX_URL", told("url")),
        ("PROXMOX_TLS", told("fingerprint")),
        ("PROXMOX_TOKEN_ID", told("tokenId")),
        ("PROXMOX_TOKEN_SECRET", told("tokenSecret")),
        ("NGINX_LISTEN", ip.to_string()),
        ("NGINX_HTTP_PORTS", "8080".to_owned()),
        ("NGINX_HTTPS_PORTS", HTTPS.to_string()),
        ("NGINX_CERTIFICATE", below("tls/certificate.pem")),
        ("NGINX_CERTIFICATE_KEY", below("tls/certificate.key")),
        ("NGINX_PID", below("nginx.pid")),
        ("NGINX_ERROR_LOG", below("error.log")),
        ("NGINX_ACCESS_LOG", "off".to_owned()),
        ("NGINX_TEMP_DIR", dir.display().to_string()),
        ("NGINX_USER", "none".to_owned()),
        ("NGINX_INCLUDE", below("more*.conf")),
    ]
}

/// With a file of somebody else's.
fn nginx(dir: &Path) -> Running {
    let file = dir.join("nginx.conf");
    let pid = dir.join("nginx.pid");
    std::fs::write(&file, format!("pid {};\nevents {{}}\n", pid.display())).unwrap();
    let program = find_nginx().expect("nginx is installed").binary;
    let words = [
        "-c",
        file.to_str().unwrap(),
        "-e",
        "stderr",
        "-g",
        "daemon off;",
    ];
    Running::start(program.to_str().unwrap(), &words, &[])
}

/// A web server that says one thing.
async fn backend() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                stream.write_all(answer.as_bytes()).await
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_live_and_says_where_and_since_when() {
    let mut place = Place::new().await;
    let foreign = std::fs::read_to_string(place.file()).unwrap();
    let sync = place.sync(&["--interval", "0.2"]);
    let one = place.add("one").await;
    let service = place.stands(one, "live").await;
    place.browser.until("one.proxy.test", 200).await;
    assert_eq!(service["live"][0]["proxy"], "here");
    let kept = place.dir.path().join("nginx.conf.before-cac");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), foreign);

    // The portal goes: what is served goes on. It comes back: so does the puller.
    drop(place.http.take());
    tokio::time::sleep(Duration::from_millis(300)).await;
    place.browser.until("one.proxy.test", 200).await;
    let two = place.add("two").await;
    place.http().await;
    place.browser.until("two.proxy.test", 200).await;
    let first = place.stands(one, "live").await;
    assert_eq!(first["live"], service["live"], "since when it was");
    place.stands(two, "live").await;

    // Only one looks after a file.
    let words = place.words(&["--once"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let url = format!("http://{}:3000", place.ip);
    let vars = [("CAC_URL", url.as_str()), ("CAC_TOKEN", &place.token)];
    let second = run("cac", &words, &vars);
    let said = text(&second.stderr);
    assert!(
        !second.status.success() && said.contains("Another process"),
        "{said}"
    );
    sync.stop();
    let once = run("cac", &words, &vars);
    assert!(once.status.success(), "{}", text(&once.stderr));
    place.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nginx_refuses_stays_out_and_is_told_in_its_words() {
    let place = Place::new().await;
    let sync = place.sync(&["--interval", "0.2"]);
    let one = place.add("one").await;
    place.stands(one, "live").await;
    let good = std::fs::read_to_string(place.file()).unwrap();
    // A file that the operator includes.
    let more = place.dir.path().join("more.conf");
    std::fs::write(&more, "no_such_directive on;\n").unwrap();
    let two = place.add("two").await;
    let refused = place.stands(two, "refused").await;
    let reason = refused["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("here refused it: unknown directive \"no_such_directive\""),
        "{reason}"
    );
    assert_eq!(std::fs::read_to_string(place.file()).unwrap(), good);
    place.browser.until("one.proxy.test", 200).await;
    place.stands(one, "live").await;
    std::fs::remove_file(more).unwrap();
    let three = place.add("three").await;
    for id in [one, two, three] {
        place.stands(id, "live").await;
    }
    place.browser.until("two.proxy.test", 200).await;
    sync.stop();
    place.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_together_are_one_reload_a_second() {
    let place = Place::new().await;
    let sync = place.sync(&[]);
    let mut last = 0;
    let began = std::time::Instant::now();
    for n in 0..60 {
        last = place.add(&format!("c{n}")).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    place.stands(last, "live").await;
    let seconds = began.elapsed().as_secs();
    let told = sync.err() + &sync.out();
    let reloads = told.matches("nginx is up to date").count() as u64;
    assert!(
        (2..=seconds + 2).contains(&reloads),
        "{reloads} in {seconds} s: {told}"
    );
    sync.stop();
    place.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puller_that_is_killed_leaves_a_file_that_nginx_takes() {
    let place = Place::new().await;
    let program = find_nginx().unwrap().binary;
    for n in 0..12 {
        let mut sync = place.sync(&["--interval", "0"]);
        place.add(&format!("k{n}")).await;
        tokio::time::sleep(Duration::from_millis(40 + 23 * n)).await;
        sync.signal(Signal::KILL);
        sync.ended();
        let file = place.file();
        let words = ["-t", "-q", "-e", "stderr", "-c", file.to_str().unwrap()];
        let checked = run(program.to_str().unwrap(), &words, &[]);
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
    // Whoever comes next goes on from there.
    let sync = place.sync(&[]);
    let one = place.add("one").await;
    place.stands(one, "live").await;
    place.browser.until("one.proxy.test", 200).await;
    sync.stop();
    place.nginx.stop();
}
