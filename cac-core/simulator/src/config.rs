//! What a simulator is started with, and why it may not start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a simulator is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// JSON file that keeps the state; certificate and key lie beside it. Without it everything is in memory.
    pub data_file: Option<PathBuf>,
    /// Nodes of a fresh cluster; a data file that exists already wins.
    pub nodes: Vec<String>,
    /// First two octets of the network the guests live in, normally 127.x. `None`: one that no other simulator of this machine has that was
    /// not told which one to take.
    pub network: Option<[u8; 2]>,
    /// Where guests greet as SSH servers.
    pub ssh_port: u16,
    /// How long things take.
    pub delay: Delay,
    /// Password of `root@pam` in a fresh cluster.
    pub root_password: String,
}

impl Default for Config {
    /// A free port on 127.0.0.1, a free network, three nodes, nothing kept, no delays, `root@pam` with password `simulator`.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_file: None,
            nodes: ["pve1", "pve2", "pve3"].map(str::to_owned).to_vec(),
            network: None,
            ssh_port: 2022,
            delay: Delay::none(),
            root_password: "simulator".to_owned(),
        }
    }
}

/// How long the simulated work takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// Making a container.
    pub create: Duration,
    /// Starting one.
    pub start: Duration,
    /// Stopping one hard.
    pub stop: Duration,
    /// Shutting one down in an orderly way.
    pub shutdown: Duration,
    /// Destroying one.
    pub destroy: Duration,
    /// From the start of a guest until DHCP has given it an address.
    pub dhcp: Duration,
    /// Until `/cluster/resources` knows the state of a new container.
    pub overview: Duration,
    /// Time an answer 401 takes.
    pub denied: Duration,
    /// How long a busy container is waited for.
    pub lock_timeout: Duration,
}

impl Delay {
    /// Everything at once, for tests; a busy container is waited for one second.
    pub fn none() -> Self {
        Self {
            create: Duration::ZERO,
            start: Duration::ZERO,
            stop: Duration::ZERO,
            shutdown: Duration::ZERO,
            destroy: Duration::ZERO,
            dhcp: Duration::ZERO,
            overview: Duration::ZERO,
            denied: Duration::ZERO,
            lock_timeout: Duration::from_secs(1),
        }
    }

    /// The times of a small Proxmox VE machine.
    pub fn realistic() -> Self {
        Self {
            create: Duration::from_millis(800),
            start: Duration::from_millis(1200),
            stop: Duration::from_millis(1100),
            shutdown: Duration::from_millis(1400),
            destroy: Duration::from_millis(200),
            dhcp: Duration::from_millis(1500),
            overview: Duration::from_secs(10),
            denied: Duration::from_secs(3),
            lock_timeout: Duration::from_secs(10),
        }
    }
}

/// Why the simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use or not of this machine.
    #[error("the simulator cannot listen on {address}: {reason}; choose another address or port")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The system's own words.
        reason: String,
    },
    /// All networks that a simulator chooses from are taken.
    #[error("no network of the loopback is free for the containers; name one")]
    NoNetwork,
    /// The data file, or the certificate beside it, cannot be read or written.
    #[error("the simulator cannot use {}: {reason}", file.display())]
    Data {
        /// The file in question.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate could not be made or used.
    #[error(
        "the certificate of the simulator: {0}; delete the .pem files beside the data file to get a new one"
    )]
    Certificate(String),
}
