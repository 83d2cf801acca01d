//! The recorded exchanges: requests in their order, answers partly shared with the tests of the client.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

const REQUESTS: &str = include_str!("../../../tests/fixtures/pve/requests.jsonl");
const ANSWERS: &str = include_str!("../../../tests/fixtures/pve/recorded.jsonl");

/// Where the time of the answer was spent or what was sent with which proof; secrets are left out.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Exchange {
    pub(crate) file: String,
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    pub(crate) auth: Option<String>,
    pub(crate) csrf: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) send: Option<String>,
    #[serde(default)]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) body: String,
    /// The answer was too long to be kept.
    #[serde(default)]
    pub(crate) cut: bool,
    /// The request was too long to be kept.
    #[serde(default)]
    pub(crate) large: bool,
}

#[derive(Deserialize)]
struct Answer {
    file: String,
    status: u16,
    reason: String,
    body: String,
}

pub(crate) fn all() -> Vec<Exchange> {
    let answers = ANSWERS.lines().map(|line| {
        let answer: Answer = serde_json::from_str(line).unwrap();
        (answer.file.clone(), answer)
    });
    let mut answers: HashMap<String, Answer> = answers.collect();
    let requests = REQUESTS.lines().map(|line| {
        let mut exchange: Exchange = serde_json::from_str(line).unwrap();
        if let Some(answer) = answers.remove(&exchange.file) {
            exchange.status = answer.status;
            exchange.reason = answer.reason;
            exchange.body = answer.body;
        }
        exchange
    });
    requests.collect()
}

impl Exchange {
    pub(crate) fn number(&self) -> u32 {
        self.file.split('-').next().unwrap().parse().unwrap()
    }

    /// The path below `/api2/json`, if it is there.
    pub(crate) fn path(&self) -> Option<&str> {
        let path = self.target.split('?').next().unwrap();
        path.strip_prefix("/api2/json")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The VMID in the path.
    pub(crate) fn vmid(&self) -> Option<&str> {
        let (_, rest) = self.path()?.split_once("/lxc/")?;
        rest.split('/').next()
    }

    /// A number that the request gives, as `vmid=` or `newid=`.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        let start = format!("{name}=");
        let mut pairs = self.send.as_deref()?.split('&');
        pairs.find_map(|pair| pair.strip_prefix(start.as_str()))
    }

    /// As `given`, of a JSON body too; empty when it is not there.
    pub(crate) fn json_or_form(&self, name: &str) -> String {
        let text = self.send.as_deref().unwrap_or_default();
        match serde_json::from_str::<Value>(text) {
            Ok(body) => body[name].to_string(),
            Err(_) => self.given(name).unwrap_or_default().to_owned(),
        }
    }

    /// The task that the path is about.
    pub(crate) fn upid(&self) -> Option<String> {
        let (_, rest) = self.path()?.split_once("/tasks/")?;
        let upid = rest.split('/').next()?;
        Some(upid.replace("%3A", ":").replace("%40", "@"))
    }

    /// What the results are counted under.
    pub(crate) fn group(&self) -> &'static str {
        let path = self.path().unwrap_or_default();
        let refused = self.status >= 400;
        let has = |part: &str| path.contains(part);
        match () {
            () if has("/tasks") => "tasks",
            () if has("/access/ticket") => "login",
            () if has("/access") && refused => "access, refused",
            () if has("/access") => "access",
            () if has("/cluster") => "cluster",
            () if has("/pools") => "pools",
            () if has("/storage") => "storage",
            () if path.ends_with("/lxc") && self.method == "POST" && refused => "create, refused",
            () if path.ends_with("/lxc") && self.method == "POST" => "create",
            () if has("/lxc/") && has("/config") && refused => "configuration, refused",
            () if has("/lxc/") && has("/config") => "configuration",
            () if has("/lxc/") && has("/status/") && self.method == "POST" => "power",
            () if has("/lxc/") && self.method == "DELETE" => "destroy",
            () if has("/lxc") => "containers, other",
            () if has("/nodes") => "nodes",
            () => "transport",
        }
    }
}
