//! A portal, an nginx that runs as a system's does, and what `cac proxy sync` needs to keep it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use cac_core::args;
use cac_core::db::Db;
use cac_core::nginx::{StreamModule, find_nginx, self_signed};
use cac_core::testing::{self, TestDb};
use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::{Running, good, own_address, run, simulator, until};
use crate::portal::{Browser, Portal};

pub(crate) const HTTPS: u16 = 8443;

pub(crate) struct Front {
    pub(crate) dir: TempDir,
    pub(crate) ip: Ipv4Addr,
    database: TestDb,
    pub(crate) vars: Vec<(&'static str, String)>,
    pub(crate) portal: Portal,
    pub(crate) admin: String,
    pub(crate) token: String,
    /// What its proxies pin.
    pub(crate) key: String,
    pub(crate) browser: Browser,
    pub(crate) http: Option<Running>,
    pub(crate) nginx: Running,
    _simulator: Running,
}

impl Front {
    pub(crate) async fn new(names: &[String]) -> Self {
        let (dir, ip) = (tempfile::tempdir().unwrap(), own_address());
        let tls = self_signed(&["proxy.test".parse().unwrap()], &dir.path().join("tls")).unwrap();
        let database = testing::sqlite().await;
        let (simulator, proxmox) = simulator(&[]);
        let vars = vars(&database, ip, dir.path(), &proxmox);
        let portal = Portal::new(format!("http://{ip}:3000"));
        let names = names.iter().map(|name| format!("{name}.proxy.test"));
        let names: Vec<String> = names.collect();
        let mut front = Self {
            browser: Browser::new(&names, (ip, HTTPS).into(), &tls.certificate),
            nginx: {
                let foreign = format!("pid {}/nginx.pid;\nevents {{}}\n", dir.path().display());
                std::fs::write(dir.path().join("nginx.conf"), foreign).unwrap();
                nginx(dir.path())
            },
            token: String::new(),
            key: String::new(),
            admin: String::new(),
            dir,
            ip,
            database,
            vars,
            portal,
            http: None,
            _simulator: simulator,
        };
        front.http().await;
        front.admin = front.portal.login("admin", "admin-demo").await.unwrap();
        front.token = front.new_token(&["nginx:read", "nginx:report"]).await;
        let key = front.portal.get("/proxy-key", &front.admin).await;
        let key = crate::portal::json(key, 200).await;
        front.key = key["key"].as_str().unwrap().to_owned();
        front
    }

    /// A token of the admin's with these scopes.
    pub(crate) async fn new_token(&self, scopes: &[&str]) -> String {
        let request = self.portal.request(Method::POST, "/tokens");
        let asked = json!({"name": scopes.join(" "), "scopes": scopes});
        let answer = request.header("cookie", &self.admin).json(&asked).send();
        let token = crate::portal::json(answer.await.unwrap(), 201).await;
        token["token"].as_str().unwrap().to_owned()
    }

    /// The portal starts again with another setting.
    pub(crate) async fn set(&mut self, name: &'static str, value: &str) {
        drop(self.http.take());
        self.vars.retain(|(known, _)| *known != name);
        self.vars.push((name, value.to_owned()));
        self.http().await;
    }

    pub(crate) async fn http(&mut self) {
        let vars: Vec<(&str, &str)> = self.vars.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.http = Some(Running::start("cac-http", &[], &vars));
        until("the portal answers", async || {
            let request = self.portal.request(Method::GET, "/healthz");
            request.send().await.ok()
        })
        .await;
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("nginx.conf")
    }

    /// Words of a command, and which nginx it is about.
    pub(crate) fn machine_words(&self, words: &[&str]) -> Vec<String> {
        let file = self.file().display().to_string();
        let words = words
            .iter()
            .copied()
            .chain(["--file", &file, "--name", "here"]);
        words.map(ToOwned::to_owned).collect()
    }

    pub(crate) fn words(&self, more: &[&'static str]) -> Vec<String> {
        let file = self.file().display().to_string();
        let words = ["proxy", "sync", "--file", &file, "--name", "here"];
        words.iter().chain(more).map(ToString::to_string).collect()
    }

    pub(crate) fn sync(&self, more: &[&'static str]) -> Running {
        let words = self.words(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let vars = self.puller_vars(&self.token);
        Running::start("cac", &words, &borrowed(&vars))
    }

    /// The environment of a puller of this machine: where its portal is, whose key it pins, and which paths a file may name.
    pub(crate) fn puller_vars(&self, token: &str) -> Vec<(&'static str, String)> {
        let below = |name: &str| self.dir.path().join(name).display().to_string();
        vec![
            ("CAC_URL", format!("http://{}:3000", self.ip)),
            ("CAC_TOKEN", token.to_owned()),
            ("CAC_PROXY_KEY", self.key.clone()),
            (
                "CAC_PROXY_PID",
                format!("{},{}", below("nginx.pid"), below("other.pid")),
            ),
            ("CAC_PROXY_LOGS", self.dir.path().display().to_string()),
            ("CAC_PROXY_TEMP", self.dir.path().display().to_string()),
            ("CAC_PROXY_INCLUDE", below("more*.conf")),
        ]
    }

    /// As a timer runs it.
    pub(crate) fn once(&self, token: &str) -> Output {
        self.once_with(token, &self.file())
    }

    pub(crate) fn once_with(&self, token: &str, file: &Path) -> Output {
        let file = file.to_str().unwrap();
        let words = ["proxy", "sync", "--once", "--file", file, "--name", "here"];
        run("cac", &words, &borrowed(&self.puller_vars(token)))
    }

    /// Another machine with an nginx and a puller: it has files and a loopback network of its own, and its puller reaches the portal.
    pub(crate) fn elsewhere(&self, name: &'static str) -> Elsewhere {
        let dir = tempfile::tempdir().unwrap();
        let start = format!(
            "pid {};\nevents {{}}\n",
            self.dir.path().join("nginx.pid").display()
        );
        std::fs::write(dir.path().join("nginx.conf"), start).unwrap();
        std::fs::create_dir(dir.path().join("tls")).unwrap();
        for file in ["tls/certificate.pem", "tls/certificate.key"] {
            std::fs::copy(self.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        const SCRIPT: &str = r#"set -eu
            mount --bind "$1" "$2"
            unshare --net setpriv --pdeathsig TERM sh -c 'ip link set lo up && exec "$0" -c "$1" -e stderr -g "daemon off;"' "$3" "$2/nginx.conf" &
            until [ -s "$2/nginx.pid" ]; do sleep 0.05; done
            shift 3
            exec "$@""#;
        let text = |path: &Path| path.display().to_string();
        let nginx = find_nginx().unwrap().binary;
        let mut words: Vec<String> = if rustix::process::geteuid().is_root() {
            vec![]
        } else {
            vec!["--map-root-user".to_owned()]
        };
        words.extend(["--mount", "sh", "-c", SCRIPT, "sh"].map(str::to_owned));
        words.extend([
            text(dir.path()),
            text(self.dir.path()),
            text(&nginx),
            env!("CARGO_BIN_EXE_cac").to_owned(),
        ]);
        words.extend(
            [
                "proxy",
                "sync",
                "--name",
                name,
                "--interval",
                "0.2",
                "--file",
            ]
            .map(str::to_owned),
        );
        words.push(text(&self.file()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let vars = self.puller_vars(&self.token);
        Elsewhere {
            sync: Running::start("/usr/bin/unshare", &words, &borrowed(&vars)),
            dir,
            ip: self.ip,
        }
    }

    /// Makes the service of a container one of `tcp` or `udp` at this port.
    pub(crate) async fn as_stream(&self, container: i64, kind: &str, port: u16) {
        let sql = r#"UPDATE "Services" SET "type" = ?, "externalHostname" = NULL, "externalPort" = ? WHERE "containerId" = ?"#;
        let db = self.db().await;
        db.exec(sql, args![kind, port, container]).await.unwrap();
    }

    pub(crate) async fn db(&self) -> Db {
        Db::connect(&self.database.url).await.unwrap()
    }

    /// A container with a name, as somebody at the database's own prompt would add it; its row id.
    pub(crate) async fn add(&self, name: &str) -> i64 {
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
    pub(crate) async fn stands(&self, container: i64, state: &str) -> Value {
        until(&format!("container {container} is {state}"), async || {
            let container = self.portal.container(&self.admin, container).await;
            let service = container["services"][0].clone();
            (service["state"] == state).then_some(service)
        })
        .await
    }
}

/// As commands take it.
pub(crate) fn borrowed<'a>(vars: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    vars.iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

pub(crate) struct Elsewhere {
    pub(crate) sync: Running,
    dir: TempDir,
    ip: Ipv4Addr,
}

impl Elsewhere {
    fn pid(&self) -> String {
        let pid = std::fs::read_to_string(self.dir.path().join("nginx.pid"));
        pid.unwrap().trim().to_owned()
    }

    /// What a visitor there is answered.
    pub(crate) fn status(&self, name: &str) -> u16 {
        let pid = self.pid();
        let (resolve, url) = (
            format!("{name}:{HTTPS}:{}", self.ip),
            format!("https://{name}:{HTTPS}/"),
        );
        let enter = if rustix::process::geteuid().is_root() {
            "-n"
        } else {
            "-Un"
        };
        let words = [
            enter,
            "-t",
            &pid,
            "curl",
            "-sk",
            "--resolve",
            &resolve,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url,
        ];
        let said = good("/usr/bin/nsenter", &words, &[]);
        said.parse().unwrap()
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
    let stream = match find_nginx().unwrap().stream_module {
        StreamModule::Dynamic(file) => file.to_string(),
        StreamModule::Builtin => "builtin".to_owned(),
        StreamModule::Missing => panic!("these tests need libnginx-mod-stream"),
    };
    vec![
        ("NGINX_STREAM_MODULE", stream),
        ("RATE_LIMIT_USER", "1000000".to_owned()),
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

/// On the file that is there.
pub(crate) fn nginx(dir: &Path) -> Running {
    let file = dir.join("nginx.conf");
    let program = find_nginx().expect("nginx is installed").binary;
    let words = [
        "-c",
        file.to_str().unwrap(),
        "-e",
        "stderr",
        "-g",
        "daemon off;",
    ];
    Running::start(program.to_str().unwrap(), &words, &[]).gently()
}

/// A web server: says one thing, on `/slow` in two halves, and gives back what comes over a WebSocket.
async fn backend() -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    if request.contains("\r\nupgrade: websocket\r\n") {
        let begin =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
        stream.write_all(begin.as_bytes()).await?;
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await?;
        return Ok(());
    }
    let begin = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\no";
    stream.write_all(begin.as_bytes()).await?;
    if request.starts_with("get /slow ") {
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    stream.write_all(b"k").await
}
