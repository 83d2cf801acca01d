//! A portal, an nginx that runs as a system's does, and what `cac proxy sync` needs to keep it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cac_core::args;
use cac_core::db::Db;
use cac_core::nginx::{find_nginx, self_signed};
use cac_core::testing::{self, TestDb};
use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::lab::{Running, own_address, simulator, until};
use crate::portal::{Browser, Portal};

const HTTPS: u16 = 8443;

pub(crate) struct Front {
    pub(crate) dir: TempDir,
    pub(crate) ip: Ipv4Addr,
    database: TestDb,
    pub(crate) vars: Vec<(&'static str, String)>,
    pub(crate) portal: Portal,
    pub(crate) admin: String,
    pub(crate) token: String,
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
        front.http().await;
        front.admin = front.portal.login("admin", "admin-demo").await.unwrap();
        let request = front.portal.request(Method::POST, "/tokens");
        let asked = json!({"name": "proxy", "scopes": ["nginx:read", "nginx:report"]});
        let answer = request.header("cookie", &front.admin).json(&asked).send();
        let token = crate::portal::json(answer.await.unwrap(), 201).await;
        front.token = token["token"].as_str().unwrap().to_owned();
        front
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

    pub(crate) fn words(&self, more: &[&'static str]) -> Vec<String> {
        let file = self.file().display().to_string();
        let words = ["proxy", "sync", "--file", &file, "--name", "here"];
        words.iter().chain(more).map(ToString::to_string).collect()
    }

    pub(crate) fn sync(&self, more: &[&'static str]) -> Running {
        let words = self.words(more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let url = format!("http://{}:3000", self.ip);
        Running::start(
            "cac",
            &words,
            &[("CAC_URL", &url), ("CAC_TOKEN", &self.token)],
        )
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
