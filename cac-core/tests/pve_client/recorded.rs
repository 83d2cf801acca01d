//! Every recorded exchange that one of the client's calls could have made, played back byte for byte. What was a 200
//! must be understood, and every refusal must arrive with Proxmox VE's status and words.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cac_core::pve::{
    Auth, Content, Error, ExitStatus, Login, LxcChange, NewLxc, Pve, Secret, TaskStatus, Ticket,
    Upid,
};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::server::Server;

/// From a Proxmox VE 8.4.21 (node `pve1`, later clustered with an offline `pve2`); secrets are blanked out.
const RECORDED: &str = include_str!("../fixtures/pve/recorded.jsonl");

#[derive(Debug, Clone, Deserialize)]
struct Exchange {
    file: String,
    method: String,
    /// Below `/api2/json`, decoded.
    path: String,
    status: u16,
    reason: String,
    content_type: Option<String>,
    body: String,
}

impl Exchange {
    fn bytes(&self) -> Vec<u8> {
        let kind = self
            .content_type
            .as_ref()
            .map_or_else(String::new, |kind| format!("Content-Type: {kind}\r\n"));
        // pveproxy says both when it relays, as recorded.
        let head = format!(
            "HTTP/1.1 {} {}\r\nConnection: close\r\nConnection: Keep-Alive\r\n{kind}Content-Length: {}\r\n\r\n",
            self.status,
            self.reason,
            self.body.len()
        );
        [head.as_bytes(), self.body.as_bytes()].concat()
    }

    /// What Proxmox VE said, in one line.
    fn words(&self) -> String {
        let body: Option<serde_json::Value> = serde_json::from_str(&self.body).ok();
        let message = body.as_ref().and_then(|body| body["message"].as_str());
        let words = message.unwrap_or(&self.reason);
        words
            .split('\n')
            .collect::<Vec<_>>()
            .join(" ")
            .trim()
            .to_owned()
    }
}

fn exchanges() -> Vec<Exchange> {
    let lines = RECORDED.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

/// Answers with the exchange that is set, and keeps what was asked.
async fn replaying() -> (Server, Arc<Mutex<(Vec<u8>, String)>>) {
    let state = Arc::new(Mutex::new((Vec::new(), String::new())));
    let shared = state.clone();
    let server = Server::answering(move |request| {
        let mut state = shared.lock().unwrap();
        let path = request.target.split('?').next().unwrap_or_default();
        state.1 = format!(
            "{} {}",
            request.method,
            percent_decode_str(path).decode_utf8_lossy()
        );
        state.0.clone()
    })
    .await;
    (server, state)
}

type Called<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

fn drop_value<'a, T>(call: impl Future<Output = Result<T, Error>> + Send + 'a) -> Called<'a> {
    Box::pin(async move { call.await.map(drop) })
}

fn new_lxc() -> NewLxc {
    NewLxc {
        vmid: 100,
        hostname: "a".to_owned(),
        ostemplate: "local:vztmpl/a.tar.zst".to_owned(),
        storage: "local".to_owned(),
        disk_gib: 1,
        cores: 1,
        memory_mib: 64,
        swap_mib: 0,
        bridge: "vmbr0".to_owned(),
        description: String::new(),
        tags: Vec::new(),
        ssh_public_keys: None,
        onboot: false,
        pool: None,
    }
}

/// The call of the client that makes this exchange.
fn call<'a>(pve: &'a Pve, method: &'a str, path: &'a str) -> Called<'a> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, parts.as_slice()) {
        ("GET", ["version"]) => drop_value(pve.version()),
        ("POST", ["access", "ticket"]) => {
            drop_value(async { pve.login("alice@pve", &Secret::new("x")).await })
        }
        ("GET", ["access", "permissions"]) => drop_value(pve.permissions(None)),
        ("GET", ["access", "users"]) => drop_value(pve.users()),
        ("GET", ["access", "users", user]) => drop_value(pve.user(user)),
        ("PUT", ["access", "acl"]) => drop_value(pve.acl_grant("/", "PVEAuditor", "alice@pve")),
        ("GET", ["cluster", "nextid"]) => drop_value(pve.next_vmid()),
        ("GET", ["cluster", "resources"]) => drop_value(pve.resources("")),
        ("GET", ["nodes"]) => drop_value(pve.nodes()),
        ("GET", ["nodes", node, "storage"]) => drop_value(pve.storages(node, Content::RootDir)),
        ("GET", ["nodes", node, "storage", storage, "content"]) => {
            drop_value(pve.templates(node, storage))
        }
        ("GET", ["nodes", node, "network"]) => drop_value(pve.bridges(node)),
        ("GET", ["nodes", node, "lxc"]) => drop_value(pve.lxc_list(node)),
        ("POST", ["nodes", node, "lxc"]) => {
            let node = *node;
            drop_value(async move { pve.lxc_create(node, &new_lxc()).await })
        }
        ("GET", ["nodes", node, "tasks"]) => drop_value(pve.tasks(node, 101)),
        (_, ["nodes", _, "tasks", upid, below @ ..]) => {
            task_call(pve, upid, below.first().copied())
        }
        (_, ["nodes", node, "lxc", vmid, below @ ..]) => {
            lxc_call(pve, method, (node, vmid.parse().unwrap()), below.to_vec())
        }
        _ => panic!("no call makes {method} {path}"),
    }
}

fn task_call<'a>(pve: &'a Pve, upid: &str, below: Option<&str>) -> Called<'a> {
    let upid: Upid = upid.parse().unwrap();
    let below = below.map(str::to_owned);
    drop_value(async move {
        match below.as_deref() {
            Some("status") => pve.task_status(&upid).await.map(drop),
            Some("log") => pve.task_log(&upid, 0).await.map(drop),
            _ => pve.task_stop(&upid).await,
        }
    })
}

fn lxc_call<'a>(
    pve: &'a Pve,
    method: &str,
    (node, vmid): (&'a str, u32),
    below: Vec<&str>,
) -> Called<'a> {
    match (method, below.as_slice()) {
        ("DELETE", []) => drop_value(pve.lxc_destroy(node, vmid)),
        ("GET", ["config"]) => drop_value(pve.lxc_config(node, vmid)),
        ("PUT", ["config"]) => drop_value(async move {
            let change = LxcChange::default();
            pve.lxc_config_set(node, vmid, &change).await
        }),
        ("GET", ["interfaces"]) => drop_value(pve.lxc_interfaces(node, vmid)),
        ("GET", ["status", "current"]) => drop_value(pve.lxc_status(node, vmid)),
        ("POST", ["status", "start"]) => drop_value(pve.lxc_start(node, vmid)),
        ("POST", ["status", "stop"]) => drop_value(pve.lxc_stop(node, vmid)),
        ("POST", ["status", "shutdown"]) => {
            drop_value(pve.lxc_shutdown(node, vmid, Duration::from_secs(3)))
        }
        ("POST", ["status", "reboot"]) => drop_value(pve.lxc_reboot(node, vmid)),
        _ => panic!("no call makes {method} {below:?}"),
    }
}

#[tokio::test]
async fn every_exchange() {
    let (server, state) = replaying().await;
    let nobody = Pve::new(server.target(Auth::None)).unwrap();
    let ticket = Ticket {
        user: "root@pam".to_owned(),
        ticket: Secret::new("PVE:root@pam:6B03E6C6::x"),
        csrf: Secret::new("6B03E6C6:x"),
    };
    let pve = nobody.with_ticket(&ticket);
    let mut counts = BTreeMap::new();
    for exchange in exchanges() {
        let Exchange {
            file,
            method,
            path,
            status,
            ..
        } = &exchange;
        state.lock().unwrap().0 = exchange.bytes();
        let result = call(&pve, method, path).await;
        assert_eq!(
            state.lock().unwrap().1,
            format!("{method} /api2/json{path}"),
            "{file}"
        );
        match (status, result) {
            (200, Ok(()))
            | (
                595,
                Err(Error::Unsent {
                    transient: true, ..
                }),
            ) => {}
            (
                _,
                Err(Error::Refused {
                    status: got,
                    reason,
                    errors,
                }),
            ) if got == *status => {
                let words = exchange.words();
                assert_eq!(reason.replace(' ', ""), words.replace(' ', ""), "{file}");
                let said = exchange.body.contains("\"errors\"");
                assert_eq!(!errors.is_empty(), said, "{file}: {errors:?}");
            }
            (_, result) => panic!("{file}: {status} became {result:?}"),
        }
        *counts.entry(*status).or_insert(0) += 1;
    }
    let all: u32 = counts.values().sum();
    println!("{all} recorded exchanges, by status: {counts:?}");
    assert!(all > 800, "{all}");
}

/// The client, with this one recording as everybody's answer.
async fn with(file: &str) -> (Server, Pve) {
    let exchanges = exchanges();
    let found = exchanges
        .iter()
        .find(|exchange| exchange.file.starts_with(file));
    let bytes = found.expect(file).bytes();
    let server = Server::answering(move |_| bytes.clone()).await;
    let pve = server.client();
    (server, pve)
}

/// Pitfall 14: before DHCP there is an interface without an IPv4 address.
#[tokio::test]
async fn addresses_appear_with_dhcp() {
    let mut seen = Vec::new();
    for file in ["476-", "478-", "479-", "320-", "302-"] {
        let (_server, pve) = with(file).await;
        let interfaces = pve.lxc_interfaces("pve1", 100).await.unwrap();
        // The configuration that belongs to it, as far as it matters here.
        let mac = interfaces.iter().flatten().find(|one| one.name == "eth0");
        let mac = mac
            .and_then(|one| one.hwaddr.clone())
            .map(|mac| mac.to_uppercase());
        let net0 = cac_core::pve::Net {
            name: Some("eth0".to_owned()),
            hwaddr: mac,
            ip: Some("dhcp".to_owned()),
            ..cac_core::pve::Net::default()
        };
        let config = cac_core::pve::LxcConfig {
            net0: Some(net0),
            ..cac_core::pve::LxcConfig::default()
        };
        seen.push(interfaces.map(|list| config.net0_ipv4(&list).first().copied()));
    }
    let address = |last| Some(Some(Ipv4Addr::new(192, 0, 2, last)));
    // Only a link-local address, twice; DHCP done; a static one; stopped.
    assert_eq!(
        seen,
        [Some(None), Some(None), address(126), address(11), None]
    );
}

#[tokio::test]
async fn settings_are_as_they_were_sent() {
    let (_server, pve) = with("1065-").await;
    let config = pve.lxc_config("pve1", 100).await.unwrap();
    assert_eq!(config.description.as_deref(), Some("made by svc"));
    assert_eq!(config.mac(), Some("BC:24:11:25:0F:DA"));
    assert_eq!(config.hostname.as_deref(), Some("svc1"));
    assert_eq!(
        (config.cores, config.memory, config.swap),
        (Some(1), Some(256), Some(0))
    );
    assert_eq!(config.disk_gib(), Some(2));
    assert_eq!(config.tags, ["ci", "client"]);
    assert!(config.unprivileged && !config.onboot);
    let (_server, pve) = with("779-").await;
    let config = pve.lxc_config("pve1", 300).await.unwrap();
    assert_eq!(config.lock.as_deref(), Some("create"));
    assert_eq!((config.hostname, config.description), (None, None));
}

#[tokio::test]
async fn groups_in_both_forms() {
    let (_server, pve) = with("056-").await;
    let user = pve.user("alice@pve").await.unwrap();
    assert_eq!(user.userid, "alice@pve");
    assert!(!user.groups.is_empty() && user.is_active(1_795_417_477));
    let (_server, pve) = with("063-").await;
    let users = pve.users().await.unwrap();
    let alice = users
        .iter()
        .find(|user| user.userid == "alice@pve")
        .unwrap();
    assert_eq!(alice.groups, user.groups);
    assert!(users.iter().any(|user| !user.enable));
}

#[tokio::test]
async fn logins() {
    let (_server, pve) = with("133-").await;
    let login = pve.login("bob@pve", &Secret::new("x")).await.unwrap();
    assert!(matches!(login, Login::SecondFactor { kinds, .. } if kinds == ["totp"]));
    let (_server, pve) = with("136-").await;
    let login = pve.login("bob@pve", &Secret::new("x")).await.unwrap();
    assert!(matches!(login, Login::Ticket(ticket) if ticket.user == "bob@pve"));
}

/// Pitfall 13: a task with warnings has done its work, and `stopped` alone says nothing.
#[tokio::test]
async fn numbers_and_ends() {
    let (_server, pve) = with("151-").await;
    assert_eq!(pve.next_vmid().await, Ok(100));
    let (_server, pve) = with("296-").await;
    assert_eq!(pve.vmid_is_free(101).await, Ok(false));
    let (_server, pve) = with("153-").await;
    assert!(pve.vmid_is_free(99).await.is_err());
    let upid = "UPID:pve1:0000012B:00066606:6B03ED54:vzcreate:100:svc@pve!api:"
        .parse()
        .unwrap();
    let (_server, pve) = with("879-").await;
    let status = pve.task_status(&upid).await.unwrap();
    assert_eq!(status, TaskStatus::Ended(ExitStatus::Warnings(1)));
    let (_server, pve) = with("648-").await;
    let (lines, total) = pve.task_log(&upid, 0).await.unwrap();
    assert_eq!((lines.len(), total), (1, 1));
    let (_server, pve) = with("417-").await;
    assert_eq!(pve.task_log(&upid, 0).await, Ok((Vec::new(), 0)));
}

#[tokio::test]
async fn refusals_say_what_they_are() {
    type Test = fn(&Error) -> bool;
    let tests: [(&str, &str, Test); 10] = [
        ("295-", "POST", Error::is_already_exists),
        ("305-", "GET", Error::is_does_not_exist),
        ("059-", "GET", Error::is_does_not_exist),
        ("647-", "GET", Error::is_does_not_exist),
        ("979-", "PUT", Error::is_locked_or_lock_timeout),
        ("373-", "DELETE", Error::is_locked_or_lock_timeout),
        ("866-", "POST", Error::is_transient),
        ("808-", "GET", Error::is_transient),
        ("243-", "POST", Error::is_forbidden),
        ("001-", "GET", Error::is_unauthenticated),
    ];
    for (file, method, test) in tests {
        let (_server, pve) = with(file).await;
        let error = match method {
            "POST" => pve.lxc_start("pve1", 100).await.map(drop),
            "PUT" => pve.lxc_config_set("pve1", 100, &LxcChange::default()).await,
            "DELETE" => pve.lxc_destroy("pve1", 100).await.map(drop),
            _ => pve.version().await.map(drop),
        }
        .unwrap_err();
        assert!(test(&error), "{file} {error:?}");
        assert!(!error.may_have_happened());
        let forbidden = error.is_forbidden();
        assert!(!(forbidden && error.is_does_not_exist()), "{file}");
    }
}
