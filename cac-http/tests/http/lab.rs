//! What every test here stands on: a simulator, a core on SQLite, a runner and a served portal on a free port.

use std::collections::BTreeMap;

use cac_core::config::{Config, Program, Vars};
use cac_core::node::{self, NewNode};
use cac_core::pve::NewLxc;
use cac_core::testing::{self, TestDb};
use cac_core::{Actor, Core, args, job};
use cac_simulator::Simulator;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) use cac_core::testing::PATIENCE;
pub(crate) const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

pub(crate) struct Lab {
    pub(crate) core: Core,
    pub(crate) simulator: Simulator,
    pub(crate) url: String,
    pub(crate) stop: CancellationToken,
    pub(crate) served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    client: reqwest::Client,
    _database: TestDb,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With further variables; a runner works.
    pub(crate) async fn with(more: &[(&str, &str)]) -> Self {
        let lab = Self::idle(more).await;
        tokio::spawn(job::runner::run(lab.core.clone(), lab.stop.clone()));
        lab
    }

    /// With a Proxmox VE that takes its time; a runner works.
    pub(crate) async fn slow(more: &[(&str, &str)], delay: cac_simulator::Delay) -> Self {
        let lab = Self::simulated(more, delay).await;
        tokio::spawn(job::runner::run(lab.core.clone(), lab.stop.clone()));
        lab
    }

    /// Without a runner.
    pub(crate) async fn idle(more: &[(&str, &str)]) -> Self {
        Self::simulated(more, cac_simulator::Config::default().delay).await
    }

    async fn simulated(more: &[(&str, &str)], delay: cac_simulator::Delay) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let simulator = Simulator::start(cac_simulator::Config {
            delay,
            ..cac_simulator::Config::default()
        })
        .await
        .unwrap();
        simulator.add_user("alice@pve", "alice-demo", &[]);
        simulator.add_user("bob@pve", "bob-demo", &[]);
        simulator.add_user("admin@pve", "admin-demo", &["administrators"]);
        let secret = simulator.add_token("cac@pve", "web", false);
        simulator.grant("/", "cac@pve", "Administrator");
        let database = testing::sqlite().await;
        let listener = cac_http::bind("127.0.0.1:0".parse().unwrap(), "CAC_LISTEN")
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let core = Core::start(config(&database.url, &url, more))
            .await
            .unwrap();
        for name in ["pve1", "pve2", "pve3"] {
            let new = NewNode {
                name: name.to_owned(),
                api_url: Some(simulator.url()),
                token_id: Some("cac@pve!web".to_owned()),
                secret: Some(secret.clone()),
                tls_fingerprint: Some(simulator.fingerprint()),
                ..NewNode::default()
            };
            node::create(&core, &Actor::new("admin", true), new)
                .await
                .unwrap();
        }
        // The tests look at what they do themselves.
        let sql = r#"DELETE FROM "AuditEntries""#;
        core.db.exec(sql, args![]).await.unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(cac_http::serve(core.clone(), listener, stop.clone()));
        let redirects = reqwest::redirect::Policy::none();
        Self {
            core,
            simulator,
            url,
            stop,
            served: Some(served),
            client: reqwest::Client::builder()
                .redirect(redirects)
                .build()
                .unwrap(),
            _database: database,
        }
    }

    /// A request as the holder of a session or an API token, or as nobody with an empty one.
    pub(crate) fn ask(&self, method: Method, path: &str, session: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match session {
            "" => request,
            token if token.starts_with("cac_") => request.bearer_auth(token),
            session => request.header("cookie", session),
        }
    }

    /// Makes an API token.
    pub(crate) async fn token(&self, session: &str, scopes: &[&str]) -> String {
        let body = json!({"name": "a test", "scopes": scopes});
        let answer = self.post("/tokens", session).json(&body).send().await;
        let made = expect(answer.unwrap(), 201).await;
        made["token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn get(&self, path: &str, session: &str) -> RequestBuilder {
        self.ask(Method::GET, path, session)
    }

    pub(crate) fn post(&self, path: &str, session: &str) -> RequestBuilder {
        self.ask(Method::POST, path, session)
    }

    pub(crate) fn delete(&self, path: &str, session: &str) -> RequestBuilder {
        self.ask(Method::DELETE, path, session)
    }

    /// Signs in; the session as a `Cookie` header.
    pub(crate) async fn login(&self, name: &str) -> String {
        let body = json!({"username": name, "password": format!("{name}-demo")});
        let answer = self.post("/login", "").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        cookie(&answer)
    }

    /// Asks for a container that must be accepted: row id and job id.
    pub(crate) async fn create(&self, session: &str, hostname: &str) -> (i64, i64) {
        let answer = self
            .post("/containers?init=true", session)
            .json(&wanted(hostname))
            .send()
            .await
            .unwrap();
        let answer = expect(answer, 202).await;
        (
            answer["id"].as_i64().unwrap(),
            answer["jobId"].as_i64().unwrap(),
        )
    }

    /// A container that scripts made on a node themselves, with this MAC address.
    pub(crate) async fn foreign(&self, node: &str, vmid: u32, name: &str, mac: &str) {
        let admin = Actor::new("admin", true);
        let row = node::find_named(&self.core, &admin, node).await.unwrap();
        let pve = self.core.pve(&row).unwrap();
        let new = NewLxc {
            vmid,
            hostname: name.to_owned(),
            ostemplate: "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst".to_owned(),
            storage: "local".to_owned(),
            disk_gib: 4,
            cores: 1,
            memory_mib: 256,
            swap_mib: 0,
            bridge: "vmbr0".to_owned(),
            description: String::new(),
            tags: Vec::new(),
            ssh_public_keys: None,
            onboot: false,
            pool: None,
        };
        let upid = pve.lxc_create(node, &new).await.unwrap();
        let ended = pve.task_wait(&upid, PATIENCE, |_| ()).await.unwrap();
        assert!(ended.is_success(), "{ended}");
        let net = format!("name=eth0,bridge=vmbr0,hwaddr={mac},ip=dhcp,type=veth");
        self.simulator.set_option(vmid, "net0", Some(&net));
    }

    /// Waits until a job has ended; its status.
    pub(crate) async fn ended(&self, job: i64) -> String {
        testing::ended(&self.core, job)
            .await
            .status
            .as_str()
            .to_owned()
    }
}

impl Lab {
    /// Waits until no job works on a container any more.
    pub(crate) async fn settled(&self, id: i64) {
        let until = std::time::Instant::now() + PATIENCE;
        let sql = r#"SELECT "id" FROM "Containers" WHERE "id" = ? AND "state" IS NOT NULL"#;
        while self.core.db.opt(sql, args![id]).await.unwrap().is_some() {
            assert!(std::time::Instant::now() < until, "container {id} is busy");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn wanted(hostname: &str) -> Value {
    json!({"hostname": hostname, "osRelease": "debian", "httpPort": 8080, "aiContainer": "N"})
}

/// The session that an answer sets.
pub(crate) fn cookie(answer: &Response) -> String {
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

/// The JSON of an answer that must have this status.
pub(crate) async fn expect(answer: Response, status: u16) -> Value {
    let (got, url) = (answer.status(), answer.url().clone());
    let kind = answer
        .headers()
        .get("content-type")
        .map(|v| v.to_str().unwrap().to_owned());
    let text = answer.text().await.unwrap();
    assert_eq!(got, StatusCode::from_u16(status).unwrap(), "{url}: {text}");
    if status >= 400 {
        assert_eq!(kind.as_deref(), Some("application/problem+json"), "{url}");
    }
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"))
}

fn config(database_url: &str, url: &str, more: &[(&str, &str)]) -> Config {
    let mut vars = Vars(BTreeMap::new());
    for (name, value) in [
        ("DATABASE_URL", database_url),
        ("CAC_PUBLIC_URL", url),
        ("SESSION_SECRET", "a secret for tests only"),
        ("CONTAINER_NETWORKS", "127.0.0.0/8"),
        ("CONTAINER_SSH_PORT", "2022"),
        ("JOB_RUNNER_POLL_MS", "100"),
        ("RATE_LIMIT", "100000"),
        ("RATE_LIMIT_USER", "100000"),
    ] {
        vars.set(name, value);
    }
    for (name, value) in more {
        vars.set(name, *value);
    }
    Config::load(&vars, Program::Http).unwrap()
}
