//! Sends the recorded requests with proofs, UPIDs and secrets of the simulator's own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Once;
use std::time::Duration;

use cac_simulator::{Config, Delay, Simulator};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::compare::{Got, difference};
use crate::exchange::Exchange;

pub(crate) const PASSWORD: &str = "a-long-password";

pub(crate) enum Outcome {
    Same,
    Different(String),
    /// The simulator does not take part in it.
    Outside(String),
}

pub(crate) struct Player {
    pub(crate) simulator: Simulator,
    pub(crate) http: reqwest::Client,
    /// Ticket and CSRF token by user.
    sessions: HashMap<String, (String, String)>,
    pub(crate) secrets: HashMap<String, String>,
    challenge: String,
    /// Recorded UPID to the simulator's.
    pub(crate) upids: HashMap<String, String>,
    /// Containers that are not there, or other than recorded, after a call that is not simulated.
    strange: BTreeSet<String>,
}

pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn delay() -> Delay {
    // Long enough that a task is still seen running on a busy machine.
    let step = Duration::from_millis(200);
    Delay {
        create: step,
        start: step,
        stop: step,
        shutdown: step,
        destroy: step,
        dhcp: Duration::from_millis(800),
        overview: Duration::from_secs(5),
        ..Delay::none()
    }
}

impl Player {
    /// The world as it was before the first call.
    pub(crate) async fn start() -> Self {
        static TLS: Once = Once::new();
        TLS.call_once(|| {
            rustls::crypto::ring::default_provider()
                .install_default()
                .unwrap();
        });
        let config = Config {
            nodes: vec!["pve1".to_owned()],
            network: Some([127, 90]),
            root_password: PASSWORD.to_owned(),
            delay: delay(),
            ..Config::default()
        };
        let simulator = Simulator::start(config).await.unwrap();
        for (file, size) in [
            ("alpine-3.20-default_20240908_amd64.tar.zst", 1_028_765),
            ("broken-1.0_amd64.tar.zst", 100_000),
            ("notanos-1.0_amd64.tar.zst", 107),
            ("debian-14-standard_14.1-1_amd64.tar.zst", 35_263_488),
            ("debian-17-standard_17.1-1_amd64.tar.zst", 35_263_488),
        ] {
            simulator.add_template("pve1", file, size);
        }
        let http = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            simulator,
            http,
            sessions: HashMap::new(),
            secrets: HashMap::new(),
            challenge: String::new(),
            upids: HashMap::new(),
            strange: BTreeSet::new(),
        }
    }

    pub(crate) async fn end(self) {
        self.simulator.stop().await;
    }

    pub(crate) async fn play(&mut self, exchange: &Exchange) -> Outcome {
        self.happen(exchange).await;
        if let Some(reason) = self.outside(exchange) {
            self.forget(exchange);
            return Outcome::Outside(reason);
        }
        if exchange.body.contains(r#""stopped""#) && exchange.upid().is_some() {
            self.wait(exchange).await;
        }
        let got = self.send(exchange).await;
        if got.reason.starts_with("the simulator does not do") {
            self.forget(exchange);
            return Outcome::Outside(got.reason);
        }
        self.learn(exchange, &got).await;
        match difference(exchange, &got) {
            None => Outcome::Same,
            Some(what) => Outcome::Different(what),
        }
    }

    fn outside(&self, exchange: &Exchange) -> Option<String> {
        let why = match exchange.number() {
            _ if exchange.cut || exchange.large => "too long to be kept",
            _ if exchange.target.starts_with("/api2/") && exchange.path().is_none() => {
                "another format than JSON"
            }
            797..=822 => "nodes, daemons or storages were taken away",
            834..=840 => "a disk image was deleted behind Proxmox VE's back",
            841..=876 => "another cluster was set up",
            663..=687 => "backups",
            962..=967 => "uploads of files",
            178 => "certificates",
            823 => "pvedaemon was asked without pveproxy",
            411..=441 => "the guest's init was frozen",
            343 | 345 | 346 => "the kernel of the recorded machine lacks AppArmor",
            _ => {
                let upid = exchange.upid();
                let known = |upid: &String| {
                    self.upids.contains_key(upid) || !upid.starts_with("UPID:pve1:")
                };
                if upid
                    .as_ref()
                    .is_some_and(|upid| !known(upid) && exchange.status == 200)
                {
                    "a task of a call outside"
                } else if exchange
                    .vmid()
                    .is_some_and(|vmid| self.strange.contains(vmid))
                {
                    "a container that calls outside made or changed"
                } else {
                    return None;
                }
            }
        };
        Some(why.to_owned())
    }

    /// Remembers what a call that was not made would have changed.
    fn forget(&mut self, exchange: &Exchange) {
        if exchange.status != 200 || exchange.method == "GET" {
            return;
        }
        let path = exchange.path().unwrap_or_default();
        if path.ends_with("/rollback") || path.ends_with("/template") {
            self.strange.extend(exchange.vmid().map(str::to_owned));
        }
        let made = exchange.given("newid").or_else(|| exchange.given("vmid"));
        self.strange.extend(made.map(str::to_owned));
    }

    pub(crate) async fn session(&mut self, user: &str) -> (String, String) {
        if let Some(session) = self.sessions.get(user) {
            return session.clone();
        }
        let url = format!("{}/api2/json/access/ticket", self.simulator.url());
        let form = [("username", user), ("password", PASSWORD)];
        let answer = self.http.post(url).form(&form).send().await.unwrap();
        let body: Value = answer.json().await.unwrap_or_default();
        let text = |key: &str| body["data"][key].as_str().unwrap_or("none").to_owned();
        let session = (text("ticket"), text("CSRFPreventionToken"));
        self.sessions.insert(user.to_owned(), session.clone());
        session
    }

    /// Name and value of the header that says who asks.
    async fn proof(&mut self, auth: &str) -> (&'static str, String) {
        let cookie = |value: String| ("cookie", format!("PVEAuthCookie={value}"));
        let secret = |id: &str| self.secrets.get(id).cloned().unwrap_or_default();
        match auth.split(' ').collect::<Vec<_>>()[..] {
            ["token", "colon", id] => ("authorization", format!("PVEAPIToken={id}:{}", secret(id))),
            ["token", id] => ("authorization", format!("PVEAPIToken={id}={}", secret(id))),
            ["ticket", user] => cookie(encode(&self.session(user).await.0)),
            ["bare", "ticket", user] => cookie(self.session(user).await.0),
            ["header", "ticket", user] => {
                let ticket = self.session(user).await.0;
                ("authorization", format!("PVEAuthCookie={ticket}"))
            }
            ["header", ..] => ("authorization", auth["header ".len()..].to_owned()),
            ["challenge"] => cookie(encode(&self.challenge)),
            // Its signature does not fit the time.
            ["expired"] => cookie(encode("PVE:root@pam:6B03BB77::c2lnbmF0dXJl")),
            _ => cookie("hello".to_owned()),
        }
    }

    async fn send(&mut self, exchange: &Exchange) -> Got {
        let mut target = exchange.target.clone();
        let recorded = exchange.upid();
        if let Some((recorded, own)) = recorded.and_then(|upid| self.upids.get_key_value(&upid)) {
            target = target
                .replace("%3A", ":")
                .replace("%40", "@")
                .replace(recorded, own);
        }
        let url = format!("{}{target}", self.simulator.url());
        let mut request = self.http.request(exchange.method.parse().unwrap(), url);
        if let Some(auth) = &exchange.auth {
            let (name, value) = self.proof(auth).await;
            request = request.header(name, value);
        }
        if let Some(csrf) = &exchange.csrf {
            let user = exchange
                .auth
                .as_deref()
                .and_then(|auth| auth.rsplit(' ').next());
            let good = self.session(user.unwrap_or("root@pam")).await.1;
            request = request.header(
                "csrfpreventiontoken",
                if csrf == "good" {
                    good
                } else {
                    "zzz".to_owned()
                },
            );
        }
        if let Some(kind) = &exchange.content_type {
            request = request.header("content-type", kind);
        }
        if let Some(text) = &exchange.send {
            let ticket = if text.contains("{ticket}") {
                self.session("root@pam").await.0
            } else {
                String::new()
            };
            request = request.body(
                text.replace("{password}", PASSWORD)
                    .replace("{wrong}", "wrong")
                    .replace("{ticket}", &encode(&ticket))
                    .replace("{challenge}", &encode(&self.challenge)),
            );
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let reason = phrase.map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
        Got {
            status: status.as_u16(),
            reason: reason.unwrap_or_else(|| status.canonical_reason().unwrap_or("").to_owned()),
            body: response.text().await.unwrap(),
        }
    }

    /// Takes UPIDs, secrets and tickets out of an answer.
    async fn learn(&mut self, exchange: &Exchange, got: &Got) {
        let (theirs, ours) = (
            exchange.json(),
            serde_json::from_str::<Value>(&got.body).unwrap_or_default(),
        );
        let (theirs, ours) = (&theirs["data"], &ours["data"]);
        if let (Some(recorded), Some(own)) = (theirs.as_str(), ours.as_str())
            && recorded.starts_with("UPID:")
        {
            self.upids.insert(recorded.to_owned(), own.to_owned());
        }
        if exchange.path() == Some("/nodes/pve1/lxc") && got.status == 200 {
            self.strange.remove(&exchange.json_or_form("vmid"));
        }
        if let (Some(id), Some(secret)) = (ours["full-tokenid"].as_str(), ours["value"].as_str()) {
            self.secrets.insert(id.to_owned(), secret.to_owned());
        }
        if ours["NeedTFA"] == 1 {
            ours["ticket"]
                .as_str()
                .unwrap()
                .clone_into(&mut self.challenge);
        }
        let made = exchange
            .given("userid")
            .filter(|_| exchange.path() == Some("/access/users"));
        if let Some(user) = made.filter(|_| got.status == 200) {
            // A ticket from before the user is disabled.
            self.session(&user.replace("%40", "@")).await;
        }
    }
}
