//! A portal as a process, with what is asked of it, and a bare server beside it.

use std::collections::BTreeMap;

use cac_core::config::{Config, Program, Vars};
use cac_core::db::Db;
use cac_core::node::{self, NewNode};
use cac_core::testing::{self, TestDb};
use cac_core::{Actor, Core, args};
use chrono::Utc;
use reqwest::Method;
use serde_json::Value;

use crate::lab::{Running, own_address, simulator, until};
use crate::portal::Portal;
use crate::{bare, fill};

const CONTAINERS: i64 = 50;
const SERVICES: i64 = 1000;
const LINES: i64 = 50;

pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) bare_url: String,
    pub(crate) session: String,
    etag: String,
    http: Running,
    _bare: Running,
    _simulator: Running,
    _database: TestDb,
}

impl Place {
    pub(crate) async fn new(name: &str, streams: usize) -> Self {
        let database = match name {
            "sqlite" => testing::sqlite().await,
            _ => testing::mariadb().await,
        };
        let (simulator, proxmox) = simulator(&[]);
        let vars = vars(&database.url, &proxmox, streams);
        let vars: Vec<(&str, &str)> = vars.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let mut map = Vars(BTreeMap::new());
        for (name, value) in &vars {
            map.set(name, *value);
        }
        let core = Core::start(Config::load(&map, Program::Http).unwrap())
            .await
            .unwrap();
        let told = |field: &str| proxmox[field].as_str().map(ToOwned::to_owned);
        let node = NewNode {
            name: "pve1".to_owned(),
            api_url: told("url"),
            token_id: told("tokenId"),
            secret: told("tokenSecret"),
            tls_fingerprint: told("fingerprint"),
            ..NewNode::default()
        };
        node::create(&core, &Actor::local(), node).await.unwrap();
        fill(&core.db).await;
        let http = Running::start("cac-http", &[], &vars);
        let url = format!("http://{}", map.get("CAC_LISTEN").unwrap());
        let portal = Portal::new(&*url);
        until("the portal answers", async || {
            let request = portal.request(Method::GET, "/healthz");
            request.send().await.ok()
        })
        .await;
        let session = portal.login("alice", "alice-demo").await.unwrap();
        let file = portal.get("/nginx.conf", "").await;
        let etag = file.headers()["etag"].to_str().unwrap().to_owned();
        let program = std::env::current_exe().unwrap();
        let session_id = session.split_once('=').unwrap().1;
        let words = [bare::MODE, &database.url, session_id];
        let mut bare = Running::start(program.to_str().unwrap(), &words, &vars);
        let bare_url = bare.until(|out| out.lines().next().map(ToOwned::to_owned));
        Self {
            url,
            bare_url,
            session,
            etag,
            http,
            _bare: bare,
            _simulator: simulator,
            _database: database,
        }
    }

    pub(crate) fn path(&self, name: &str) -> &'static str {
        match name {
            "list" => "/containers",
            "show" => "/containers/1",
            "page" => "/status/1",
            _ => "/nginx.conf",
        }
    }

    pub(crate) fn headers(&self, name: &str) -> Vec<String> {
        let cookie = format!("Cookie: {}", self.session);
        match name {
            "same" => vec![format!("If-None-Match: {}", self.etag)],
            "whole" => vec!["X-Whole: yes".to_owned()],
            "page" => vec![cookie, "Accept: text/html".to_owned()],
            _ => vec![cookie],
        }
    }

    /// Resident, of the portal's process.
    pub(crate) fn megabytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.http.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() / 1024
    }
}

fn vars(database: &str, proxmox: &Value, streams: usize) -> Vec<(&'static str, String)> {
    let told = |field: &str| proxmox[field].as_str().unwrap().to_owned();
    let listen = format!("{}:3000", own_address());
    vec![
        ("DATABASE_URL", database.to_owned()),
        ("CAC_PUBLIC_URL", format!("http://{listen}/")),
        ("CAC_LISTEN", listen),
        (
            "CAC_SECRET_KEY",
            "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_owned(),
        ),
        (
            "SESSION_SECRET",
            "a secret for measurements only".to_owned(),
        ),
        ("PROXMOX_URL", told("url")),
        ("PROXMOX_TLS", told("fingerprint")),
        ("PROXMOX_TOKEN_ID", told("tokenId")),
        ("PROXMOX_TOKEN_SECRET", told("tokenSecret")),
        ("CONTAINER_NETWORKS", "127.0.0.0/8".to_owned()),
        ("NGINX_CONF_ALLOW", "127.0.0.0/8".to_owned()),
        ("RATE_LIMIT", "1000000000".to_owned()),
        ("RATE_LIMIT_USER", "1000000000".to_owned()),
        // Where the load comes from; others are bounded as they are in production.
        ("TRUSTED_PROXIES", "127.0.0.1/32".to_owned()),
        ("STREAMS_PER_USER", streams.to_string()),
        ("QUOTA_SERVICES", "1000000".to_owned()),
        ("QUOTA_PORTS", "1000000".to_owned()),
        ("CAC_LOG", "warn".to_owned()),
    ]
}

/// 50 containers of alice's and as many of others as make 1,000 services, and a job with its output.
async fn fill(db: &Db) {
    let now = Utc::now() - chrono::Duration::hours(1);
    let owner = |n: i64| if n < CONTAINERS { "alice" } else { "bob" };
    fill::containers(db, 0..SERVICES / 2, owner).await;
    let mut tx = db.write().await.unwrap();
    let sql = r#"INSERT INTO "Jobs" ("command", "createdBy", "status", "createdAt", "updatedAt") VALUES ('true', 'alice', 'success', ?, ?)"#;
    tx.exec(sql, args![now, now]).await.unwrap();
    // No runner works here, so it waits.
    let sql = r#"INSERT INTO "Jobs" ("command", "createdBy", "status", "createdAt", "updatedAt") VALUES ('true', 'alice', 'pending', ?, ?)"#;
    tx.exec(sql, args![now, now]).await.unwrap();
    let line = |n: i64| args![1_i64, format!("line {n} of what a job writes\n"), now, now];
    let sql = r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
    tx.insert_all(sql, (0..LINES).map(line).collect())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}
