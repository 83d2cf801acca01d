//! Everything the simulated cluster knows and keeps: users, rights, nodes, storages, containers, tasks. Not how it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The whole state; this is what the data file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct World {
    /// Key that signs tickets, hex.
    pub(crate) secret: String,
    pub(crate) users: BTreeMap<String, User>,
    /// Group to comment.
    pub(crate) groups: BTreeMap<String, String>,
    /// Own roles; the built-in ones stand in `rights`.
    pub(crate) roles: BTreeMap<String, BTreeSet<String>>,
    pub(crate) acl: Vec<AclEntry>,
    pub(crate) pools: BTreeMap<String, Pool>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) storages: BTreeMap<String, Storage>,
    pub(crate) containers: BTreeMap<u32, Container>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) next_pid: u32,
    /// Seconds since 1970 when the cluster was first started; nodes count their uptime from it.
    pub(crate) born: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct User {
    /// Salt and hash, `salt:hash` in hex; absent for a user who cannot sign in with a password.
    pub(crate) password: Option<String>,
    pub(crate) enable: bool,
    /// Seconds since 1970, 0 for never.
    pub(crate) expire: u64,
    pub(crate) groups: BTreeSet<String>,
    /// comment, email, firstname, lastname, keys.
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) tokens: BTreeMap<String, Token>,
    /// The one-time code that is accepted as second factor.
    pub(crate) totp: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) secret: String,
    pub(crate) privsep: bool,
    pub(crate) expire: u64,
    pub(crate) comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AclEntry {
    pub(crate) path: String,
    pub(crate) kind: AclKind,
    pub(crate) who: String,
    pub(crate) role: String,
    pub(crate) propagate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AclKind {
    User,
    Group,
    Token,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) comment: Option<String>,
    pub(crate) guests: BTreeSet<u32>,
    pub(crate) storages: BTreeSet<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Node {
    /// An offline node is listed and answers nothing.
    pub(crate) online: bool,
    pub(crate) templates: Vec<Template>,
    pub(crate) bridges: Vec<String>,
    /// On its bridges and towards the other nodes, where it is not 127.0.0.1.
    #[serde(default)]
    pub(crate) address: Option<Ipv4Addr>,
}

impl Node {
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address.unwrap_or(Ipv4Addr::LOCALHOST)
    }
}

/// A file in `template/cache` of the storage `local`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Template {
    pub(crate) file: String,
    pub(crate) size: u64,
    pub(crate) ctime: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Storage {
    /// `dir` or `btrfs`.
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) content: Vec<String>,
    pub(crate) disabled: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Container {
    pub(crate) node: String,
    /// Options as the configuration file holds them, `lock` included.
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) running: Option<Running>,
    /// Where the running guest answers; kept so that a restart gives the same one.
    pub(crate) address: Option<Ipv4Addr>,
    /// Milliseconds since 1970 of the creation; the cluster overview learns of it later.
    pub(crate) created: u64,
    #[serde(default)]
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    /// The snapshot that the current state comes from.
    #[serde(default)]
    pub(crate) parent: Option<String>,
    #[serde(default)]
    pub(crate) network: GuestNetwork,
}

/// What root in a guest made of its network. It changes only what `/interfaces` shows: the guest goes on answering where it did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct GuestNetwork {
    /// Interfaces beside those of the configuration, such as `docker0`. They come first, which no order forbids.
    pub(crate) interfaces: Vec<GuestInterface>,
    /// The address that `net0` shows instead of its own.
    pub(crate) shown: Option<Ipv4Addr>,
    /// Whether DHCP gives `net0` no address for now.
    pub(crate) without_lease: bool,
}

/// An interface that only the guest knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInterface {
    /// Such as `docker0`, `tailscale0`, `eth0.10`.
    pub name: String,
    /// Its MAC; interfaces on top of another one often carry that one's.
    pub mac: String,
    /// Its address with the prefix length, such as `172.17.0.1/16`.
    pub address: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) description: String,
    pub(crate) parent: Option<String>,
    /// The container's options then, but for the description, which here is the snapshot's.
    pub(crate) config: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    /// Milliseconds since 1970.
    pub(crate) since: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) upid: String,
    pub(crate) node: String,
    pub(crate) pid: u32,
    pub(crate) pstart: u32,
    pub(crate) starttime: u64,
    pub(crate) kind: String,
    pub(crate) id: String,
    /// `user@realm` or `user@realm!token`.
    pub(crate) user: String,
    pub(crate) endtime: Option<u64>,
    /// Exit status; absent while the task runs.
    pub(crate) status: Option<String>,
    pub(crate) log: Vec<String>,
}

impl World {
    /// A fresh cluster: `root@pam` with the given password, storages, a bridge and templates on every node.
    pub(crate) fn new(nodes: &[String], root_password: &str) -> Self {
        let root = User {
            password: Some(hash_password(root_password)),
            enable: true,
            ..User::default()
        };
        let storage = |kind: &str, path: &str, content: &[&str]| Storage {
            kind: kind.to_owned(),
            path: path.to_owned(),
            content: content.iter().map(|c| (*c).to_owned()).collect(),
            disabled: false,
        };
        let local = storage(
            "dir",
            "/var/lib/vz",
            &["backup", "images", "iso", "rootdir", "vztmpl"],
        );
        let btrfs = storage("btrfs", "/srv/btrfs", &["images", "rootdir"]);
        Self {
            secret: random_hex(32),
            users: BTreeMap::from([("root@pam".to_owned(), root)]),
            groups: BTreeMap::new(),
            roles: BTreeMap::new(),
            acl: Vec::new(),
            pools: BTreeMap::new(),
            nodes: nodes
                .iter()
                .enumerate()
                .map(|(index, name)| (name.clone(), Node::new(index)))
                .collect(),
            storages: BTreeMap::from([
                ("local".to_owned(), local),
                ("local-btrfs".to_owned(), btrfs),
            ]),
            containers: BTreeMap::new(),
            tasks: Vec::new(),
            next_pid: 1200,
            born: now(),
        }
    }

    /// The pool a guest belongs to.
    pub(crate) fn pool_of(&self, vmid: u32) -> Option<&str> {
        self.pools
            .iter()
            .find(|(_, pool)| pool.guests.contains(&vmid))
            .map(|(name, _)| name.as_str())
    }

    pub(crate) fn take_pid(&mut self) -> u32 {
        self.next_pid = (self.next_pid + 1) % 4_000_000;
        self.next_pid
    }
}

impl Node {
    /// Templates differ from node to node: the first has all, the others lack some.
    fn new(index: usize) -> Self {
        let all = [
            ("debian-12-standard_12.12-1_amd64.tar.zst", 126_515_062),
            ("alpine-3.20-default_20240908_amd64.tar.xz", 3_215_180),
            ("debian-11-standard_11.7-1_amd64.tar.zst", 128_196_430),
            ("rockylinux-9-default_20240912_amd64.tar.xz", 103_154_112),
            ("rockylinux-8-default_20210929_amd64.tar.xz", 108_757_416),
        ];
        let templates = all
            .into_iter()
            .enumerate()
            .filter(|(place, _)| index == 0 || *place == 0 || place % 2 == index % 2)
            .map(|(_, (file, size))| Template {
                file: file.to_owned(),
                size,
                ctime: now(),
            })
            .collect();
        Self {
            online: true,
            templates,
            bridges: vec!["vmbr0".to_owned()],
            address: None,
        }
    }
}

impl User {
    /// Whether the user may act at this moment.
    pub(crate) fn is_active(&self) -> bool {
        self.enable && (self.expire == 0 || self.expire > now())
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    now_ms() / 1000
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random_hex(count: usize) -> String {
    hex(&random_bytes(count))
}

/// A random UUID, the form of token secrets and file system ids.
pub(crate) fn random_uuid() -> String {
    let text = random_hex(16);
    format!(
        "{}-{}-4{}-a{}-{}",
        &text[..8],
        &text[8..12],
        &text[13..16],
        &text[17..20],
        &text[20..]
    )
}

fn salted(salt: &str, password: &str) -> String {
    hex(&Sha256::digest(format!("{salt}:{password}")))
}

pub(crate) fn hash_password(password: &str) -> String {
    let salt = random_hex(8);
    let hash = salted(&salt, password);
    format!("{salt}:{hash}")
}

pub(crate) fn password_matches(stored: &str, password: &str) -> bool {
    stored
        .split_once(':')
        .is_some_and(|(salt, hash)| salted(salt, password) == hash)
}
