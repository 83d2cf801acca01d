//! Ports of TCP and UDP services on the machine of an nginx: where a file of ours has them, and whether another program has them there.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
use serde::{Deserialize, Serialize};

use super::{BadValue, Protocol};

/// Ports that other programs have; as text a comma list in order, such as `9000/tcp,9001/udp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct TakenPorts(BTreeSet<(u16, Protocol)>);

impl TakenPorts {
    /// Of one machine; more are no accident.
    pub const MOST: usize = 500;

    #[must_use]
    pub fn has(&self, port: u16, protocol: Protocol) -> bool {
        self.0.contains(&(port, protocol))
    }

    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each as text.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .map(|(port, protocol)| format!("{port}/{protocol}"))
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    fn read(text: &str) -> Option<(u16, Protocol)> {
        let (port, protocol) = text.split_once('/')?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        Some((port.parse().ok().filter(|port| *port > 0)?, protocol))
    }
}

impl FromIterator<(u16, Protocol)> for TakenPorts {
    fn from_iter<T: IntoIterator<Item = (u16, Protocol)>>(ports: T) -> Self {
        Self(ports.into_iter().collect())
    }
}

impl From<TakenPorts> for String {
    fn from(ports: TakenPorts) -> Self {
        ports.to_string()
    }
}

impl FromStr for TakenPorts {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        match parts.map(Self::read).collect::<Option<BTreeSet<_>>>() {
            Some(ports) if ports.len() <= Self::MOST => Ok(Self(ports)),
            _ => Err(BadValue(format!(
                "Give up to {} ports with what they speak, such as `10001/tcp,10007/udp`.",
                Self::MOST
            ))),
        }
    }
}

impl fmt::Display for TakenPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(","))
    }
}

/// Where a TCP or UDP service listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Listen {
    pub(super) at: SocketAddr,
    pub(super) protocol: Protocol,
}

/// Ports at which the kernel knows any socket, of whatever address.
pub(super) struct Sockets(BTreeSet<(u16, Protocol)>);

impl Sockets {
    pub(super) fn now() -> Self {
        let mut all = BTreeSet::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for version in ["", "6"] {
                let table = std::fs::read_to_string(format!("/proc/net/{protocol}{version}"));
                let table = table.unwrap_or_default();
                let local = |line: &str| {
                    let (_, port) = line.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
                    Some((u16::from_str_radix(port, 16).ok()?, protocol))
                };
                all.extend(table.lines().filter_map(local));
            }
        }
        Self(all)
    }

    /// Whether somebody has it; nothing is disturbed where nobody does.
    pub(super) fn have(&self, listen: &Listen) -> bool {
        self.0.contains(&(listen.at.port(), listen.protocol)) && listen.cannot_be_bound()
    }
}

impl Listen {
    /// Of a line of a file.
    pub(super) fn read(line: &str) -> Option<Self> {
        let words = line.trim_start().strip_prefix("listen ")?;
        let mut words = words.split([' ', ';']);
        Some(Self {
            at: words.next()?.parse().ok()?,
            protocol: match words.next() {
                Some("udp" | "quic") => Protocol::Udp,
                _ => Protocol::Tcp,
            },
        })
    }

    /// As nginx would bind it, without taking connections.
    fn cannot_be_bound(&self) -> bool {
        let family = match self.at {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let kind = match self.protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let bound = socket(family, kind, None).and_then(|socket| {
            if self.protocol == Protocol::Tcp {
                sockopt::set_socket_reuseaddr(&socket, true)?;
            }
            if self.at.is_ipv6() {
                sockopt::set_ipv6_v6only(&socket, true)?;
            }
            bind(&socket, &self.at)
        });
        bound == Err(Errno::ADDRINUSE)
    }
}

/// Where the TCP and UDP services of a file of ours listen.
pub(super) fn listens(file: &str) -> impl Iterator<Item = Listen> {
    let (_, streams) = file.split_once(STREAMS).unwrap_or_default();
    streams.lines().filter_map(Listen::read)
}

/// Where its web servers do.
pub(super) fn web_listens(file: &str) -> impl Iterator<Item = Listen> {
    let web = file.split_once(STREAMS).map_or(file, |(web, _)| web);
    web.lines().filter_map(Listen::read)
}

/// Begins the last block of a file that has TCP or UDP services.
const STREAMS: &str = "\nstream {\n";

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_port_is_one_of_tcp_or_of_udp() {
        let ports: TakenPorts = "9001/udp,,9000/tcp".parse().unwrap();
        assert!(ports.has(9000, Protocol::Tcp) && !ports.has(9000, Protocol::Udp));
        assert_eq!(ports.to_string(), "9000/tcp,9001/udp");
        let many: String = (1..=501).map(|n| format!("{n}/tcp,")).collect();
        for bad in ["9000", "x", "0/tcp", "70000/tcp", "1/sctp", "-1/udp", &many] {
            assert!(bad.parse::<TakenPorts>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_another_program_has_is_seen_by_what_it_speaks() {
        let is_taken = |at, protocol| Sockets::now().have(&Listen { at, protocol });
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        assert!(is_taken(at, Protocol::Tcp));
        let everywhere = SocketAddr::from(([0; 4], at.port()));
        assert!(is_taken(everywhere, Protocol::Tcp));
        let elsewhere = SocketAddr::from(([127, 0, 0, 2], at.port()));
        assert!(!is_taken(elsewhere, Protocol::Tcp));
        drop(tcp);
        assert!(!is_taken(at, Protocol::Tcp));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = udp.local_addr().unwrap();
        assert!(is_taken(at, Protocol::Udp));
        assert!(!is_taken(at, Protocol::Tcp));
    }
}
