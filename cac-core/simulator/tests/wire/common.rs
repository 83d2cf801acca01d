//! A client for the tests: one login, JSON in and out, tasks waited for.

use std::sync::Once;
use std::time::{Duration, Instant};

use cac_simulator::Simulator;
use serde_json::Value;

pub(crate) const DEBIAN: &str = "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst";

pub(crate) fn http() -> reqwest::Client {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .expect("the first provider of this process");
    });
    reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .no_proxy()
        .build()
        .expect("a client")
}

pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    headers: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn data(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        &self.body["data"]
    }
}

impl Client {
    pub(crate) fn anonymous(simulator: &Simulator) -> Self {
        Self {
            http: http(),
            base: format!("{}/api2/json", simulator.url()),
            headers: Vec::new(),
        }
    }

    pub(crate) async fn login(simulator: &Simulator, user: &str, password: &str) -> Self {
        let mut client = Self::anonymous(simulator);
        let form = [("username", user), ("password", password)];
        let answer = client.send("POST", "/access/ticket", &form).await;
        let text = |key: &str| answer.data()[key].as_str().expect("text").to_owned();
        let cookie = format!("PVEAuthCookie={}", text("ticket"));
        client.headers = vec![
            ("cookie", cookie),
            ("csrfpreventiontoken", text("CSRFPreventionToken")),
        ];
        client
    }

    pub(crate) fn token(simulator: &Simulator, id: &str, secret: &str) -> Self {
        let mut client = Self::anonymous(simulator);
        client.headers = vec![("authorization", format!("PVEAPIToken={id}={secret}"))];
        client
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<Answer, reqwest::Error> {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !form.is_empty() {
            request = request.form(form);
        }
        let response = request.send().await?;
        let reason = response
            .extensions()
            .get::<hyper::ext::ReasonPhrase>()
            .map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
        let status = response.status();
        let reason = reason.unwrap_or_else(|| status.canonical_reason().unwrap_or("").to_owned());
        let bytes = response.bytes().await?;
        Ok(Answer {
            status: status.as_u16(),
            reason,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        })
    }

    pub(crate) async fn send(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Answer {
        self.try_send(method, path, form).await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[]).await
    }

    /// Waits for a task and answers with its exit status.
    pub(crate) async fn ended(&self, upid: &Value) -> String {
        let upid = upid.as_str().expect("a UPID");
        let node = upid.split(':').nth(1).expect("a node");
        let path = format!("/nodes/{node}/tasks/{upid}/status");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let answer = self.get(&path).await;
            if let Some(exit) = answer.data()["exitstatus"].as_str() {
                return exit.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("task {upid} does not end");
    }

    /// Sends a call that starts a task and waits for it.
    pub(crate) async fn task(&self, method: &str, path: &str, form: &[(&str, &str)]) -> String {
        let answer = self.send(method, path, form).await;
        self.ended(answer.data()).await
    }

    /// Makes a small Debian container on pve1.
    pub(crate) async fn create(&self, vmid: &str, more: &[(&str, &str)]) -> String {
        let mut form = vec![
            ("vmid", vmid),
            ("ostemplate", DEBIAN),
            ("rootfs", "local:8"),
            ("unprivileged", "1"),
            ("net0", "name=eth0,bridge=vmbr0,ip=dhcp"),
        ];
        form.extend_from_slice(more);
        self.task("POST", "/nodes/pve1/lxc", &form).await
    }
}
