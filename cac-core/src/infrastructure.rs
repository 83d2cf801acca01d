//! What belongs to the installation itself and so is never an upstream: Proxmox VE nodes, database, mail server, reverse proxies, the
//! portal's listeners and the machines of its processes. Not which address a container has; that is `container/address.rs`.
//!
//! `CONTAINER_NETWORKS` alone is no wall: by default it is every private range, and with it the API of the nodes, the database and the
//! portal. An address is looked at where it is stored (registration, import, jobs), where a service's port is chosen, and again each time
//! routes are made, since rows also come by hand and from before an upgrade.
//!
//! On a real network the whole address is refused. On loopback, where demo and tests run everything, address and port are compared.
//! Each process publishes what it finds in `OwnAddresses`, so a portal knows the machine of a runner elsewhere and the other way round.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use url::{Host, Url};

use crate::config::Config;
use crate::{Core, Result, args};

mod machine;
mod publish;
#[cfg(test)]
mod tests;

pub use publish::publish;
pub(crate) use publish::publish_nodes;

/// How long a list is good: rows of nodes and proxies are changed by hand, too.
const FRESH: Duration = Duration::from_secs(1);
/// How long the addresses of a host name are good.
const RESOLVED: Duration = Duration::from_secs(60);
/// How long a name server may take. What is not resolved by then is what it was before.
const NAME_SERVER: Duration = Duration::from_secs(2);
/// After this long an address that no process has published again no longer counts, in milliseconds.
const EXPIRED: i64 = 24 * 60 * 60 * 1000;

/// A part of the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Node,
    Database,
    Mail,
    Proxy,
    Portal,
    /// A machine on which one of our processes runs.
    Machine,
}

impl Part {
    /// As `OwnAddresses.kind` has it.
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Database => "database",
            Self::Mail => "mail",
            Self::Proxy => "proxy",
            Self::Portal => "portal",
            Self::Machine => "machine",
        }
    }

    /// A kind that a newer release stored counts as a machine.
    fn parse(text: &str) -> Self {
        let all = [
            Self::Node,
            Self::Database,
            Self::Mail,
            Self::Proxy,
            Self::Portal,
        ];
        let found = all.into_iter().find(|part| part.name() == text);
        found.unwrap_or(Self::Machine)
    }
}

/// Where a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Endpoint {
    part: Part,
    /// Unspecified: every address of that machine, of which only loopback is not listed by itself.
    ip: IpAddr,
    /// Absent: every port.
    port: Option<u16>,
}

impl Endpoint {
    /// Whether a connection to this address arrives there; without a port, whether every port does.
    fn is_at(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let same_ip = self.ip == ip || (self.ip.is_unspecified() && ip.is_loopback());
        if !ip.is_loopback() {
            return same_ip;
        }
        // All parts share loopback with the containers of a demo. An endpoint without a port says nothing there.
        same_ip && self.port.is_some() && self.port == port
    }
}

/// Why nothing is passed on to an address. The text is fit for a container's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// It is not in `CONTAINER_NETWORKS`.
    Outside(IpAddr),
    /// It is in `CONTAINER_NETWORKS_EXCEPT`.
    Excepted(IpAddr),
    Own(IpAddr, Part),
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(ip) => write!(f, "{ip} is not in CONTAINER_NETWORKS."),
            Self::Excepted(ip) => write!(f, "{ip} is in CONTAINER_NETWORKS_EXCEPT."),
            // Which part it is, is nobody's business but the admins', who see it in the log.
            Self::Own(ip, _) => write!(
                f,
                "{ip} belongs to this installation itself, so nothing is passed on to it."
            ),
        }
    }
}

/// Everything that is known of the installation's own addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Infrastructure {
    networks: Vec<IpNet>,
    except: Vec<IpNet>,
    endpoints: Vec<Endpoint>,
}

impl Infrastructure {
    /// Refuses an address that no container may have; with a port, also an endpoint of ours on a loopback network that is listed.
    pub fn permit(&self, ip: IpAddr, port: Option<u16>) -> Result<(), Denial> {
        // `::ffff:127.0.0.1` reaches 127.0.0.1.
        let ip = ip.to_canonical();
        if !is_listed(&self.networks, ip) {
            return Err(Denial::Outside(ip));
        }
        if self.except.iter().any(|net| net.contains(&ip)) {
            return Err(Denial::Excepted(ip));
        }
        match self.endpoints.iter().find(|one| one.is_at(ip, port)) {
            Some(own) => Err(Denial::Own(ip, own.part)),
            None => Ok(()),
        }
    }

    /// Whether a stranger's bytes may come from this address: a reverse proxy passes TCP services on as they are, without saying for whom.
    #[must_use]
    pub fn may_relay(&self, ip: IpAddr) -> bool {
        let relays = [Part::Proxy, Part::Portal, Part::Machine];
        let mut all = self
            .endpoints
            .iter()
            .filter(|one| relays.contains(&one.part));
        all.any(|one| one.ip == ip.to_canonical())
    }
}

/// Whether one of the networks of `CONTAINER_NETWORKS` means this address.
pub(crate) fn is_listed(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|net| lists(net, ip))
}

/// Whether a network of `CONTAINER_NETWORKS` means this address. 0.0.0.0/0 contains loopback and link-local addresses and does not mean
/// them: they are each machine's own, so they count only where a network of that very kind is listed.
fn lists(net: &IpNet, ip: IpAddr) -> bool {
    let special = |ip: IpAddr| match ip {
        _ if ip.is_loopback() => 1,
        _ if ip.is_unspecified() || ip.is_multicast() => 2,
        IpAddr::V4(ip) if ip.is_link_local() => 3,
        IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0 => 2,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => 3,
        _ => 0,
    };
    match special(ip) {
        0 => net.contains(&ip),
        // Nothing answers there, or everything does: connecting to 0.0.0.0 is connecting to oneself.
        2 => false,
        kind => net.contains(&ip) && special(net.network()) == kind,
    }
}

/// A host by name or address, and its port where one is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    part: Part,
    host: String,
    port: Option<u16>,
}

impl Place {
    fn of(part: Part, url: &str, port: u16) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        Some(Self {
            part,
            // The host of a URL whose scheme the standard does not know is kept as it was written.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: Some(url.port_or_known_default().unwrap_or(port)),
        })
    }
}

/// What the configuration names.
fn configured(config: &Config) -> (Vec<Place>, Vec<Endpoint>) {
    let database = config.database_url.expose();
    let postgres = database.starts_with("postgres");
    let mail = config.mail.as_ref().map(|mail| mail.url.expose());
    let smtp = if mail.is_some_and(|url| url.starts_with("smtps")) {
        465
    } else {
        25
    };
    let places = [
        Place::of(Part::Database, database, if postgres { 5432 } else { 3306 }),
        config
            .proxmox
            .url
            .as_deref()
            .and_then(|url| Place::of(Part::Node, url, 443)),
        mail.and_then(|url| Place::of(Part::Mail, url, smtp)),
        Place::of(Part::Proxy, config.public_url.as_str(), 443),
    ];
    let endpoint = |part, at: SocketAddr| Endpoint {
        part,
        ip: at.ip().to_canonical(),
        port: Some(at.port()),
    };
    let nginx = &config.nginx;
    let listens = nginx.http_listen.iter().chain(&nginx.https_listen);
    let mut endpoints: Vec<Endpoint> = listens
        .map(|at| {
            // Which machine that nginx runs on is not known. Where it is this one, its other loopback addresses may be containers' own.
            let ip = match at.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            endpoint(Part::Proxy, SocketAddr::new(ip, at.port()))
        })
        .collect();
    endpoints.push(endpoint(Part::Portal, config.listen));
    endpoints.extend(
        nginx
            .portal
            .iter()
            .map(|(_, at)| endpoint(Part::Portal, *at)),
    );
    let single = config.trusted_proxies.iter().filter(|net| is_single(net));
    endpoints.extend(single.map(|net| Endpoint {
        part: Part::Proxy,
        ip: net.addr().to_canonical(),
        port: None,
    }));
    (places.into_iter().flatten().collect(), endpoints)
}

/// Whether a network is one address.
#[must_use]
pub fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// What a process remembers of it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    last: Mutex<Option<(Instant, Arc<Infrastructure>)>>,
    resolved: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
    /// Where this process itself listens.
    listening: Mutex<Vec<SocketAddr>>,
}

/// What is known now, at most a second old.
pub async fn known(core: &Core) -> Result<Arc<Infrastructure>> {
    let last = core
        .infrastructure
        .last
        .lock()
        .expect("nothing panics while it holds it")
        .clone();
    if let Some((at, known)) = last
        && at.elapsed() < FRESH
    {
        return Ok(known);
    }
    load(core).await
}

/// What is known now: for whoever stores an address.
pub(crate) async fn load(core: &Core) -> Result<Arc<Infrastructure>> {
    let mut endpoints = own(core).await?;
    let sql =
        r#"SELECT "kind", "address", "port" FROM "OwnAddresses" WHERE "seenAt" > NOW_MS() - ?"#;
    for row in core.db.all(sql, args![EXPIRED]).await? {
        let port: Option<u16> = row.get("port")?;
        if let Ok(ip) = row.get::<String>("address")?.parse() {
            endpoints.push(Endpoint {
                part: Part::parse(&row.get::<String>("kind")?),
                ip,
                port: port.filter(|port| *port != 0),
            });
        }
    }
    let containers = &core.config.containers;
    let known = Arc::new(Infrastructure {
        networks: containers.networks.clone(),
        except: containers.networks_except.clone(),
        endpoints,
    });
    let mut last = core
        .infrastructure
        .last
        .lock()
        .expect("nothing panics while it holds it");
    *last = Some((Instant::now(), Arc::clone(&known)));
    Ok(known)
}

/// What this process finds by itself.
async fn own(core: &Core) -> Result<Vec<Endpoint>> {
    let (mut places, mut endpoints) = configured(&core.config);
    for row in core
        .db
        .all(r#"SELECT "apiUrl" FROM "Nodes""#, args![])
        .await?
    {
        let url: Option<String> = row.get("apiUrl")?;
        places.extend(url.and_then(|url| Place::of(Part::Node, &url, 443)));
    }
    for row in core
        .db
        .all(
            r#"SELECT "address" FROM "Proxies" WHERE "address" IS NOT NULL"#,
            args![],
        )
        .await?
    {
        if let Ok(ip) = row.get::<String>("address")?.parse::<IpAddr>() {
            endpoints.push(Endpoint {
                part: Part::Proxy,
                ip: ip.to_canonical(),
                port: None,
            });
        }
    }
    let listening = core
        .infrastructure
        .listening
        .lock()
        .expect("nothing panics while it holds it")
        .clone();
    endpoints.extend(listening.into_iter().map(|at| Endpoint {
        part: Part::Portal,
        ip: at.ip().to_canonical(),
        port: Some(at.port()),
    }));
    endpoints.extend(machine::addresses().into_iter().map(|ip| Endpoint {
        part: Part::Machine,
        ip,
        port: None,
    }));
    for place in places {
        for ip in resolve(core, &place.host).await {
            endpoints.push(Endpoint {
                part: place.part,
                ip,
                port: place.port,
            });
        }
    }
    Ok(endpoints)
}

/// The addresses of a host; where a name server does not answer, those that it had before.
async fn resolve(core: &Core, host: &str) -> Vec<IpAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return vec![ip.to_canonical()];
    }
    let before = {
        let resolved = core
            .infrastructure
            .resolved
            .lock()
            .expect("nothing panics while it holds it");
        resolved.get(host).cloned()
    };
    if let Some((at, ips)) = &before
        && at.elapsed() < RESOLVED
    {
        return ips.clone();
    }
    let asked = tokio::time::timeout(NAME_SERVER, tokio::net::lookup_host((host, 0))).await;
    let ips = match asked {
        Ok(Ok(found)) => found.map(|at| at.ip().to_canonical()).collect(),
        _ => {
            tracing::debug!(host, "the addresses of this host are not known now");
            before.map(|(_, ips)| ips).unwrap_or_default()
        }
    };
    let mut resolved = core
        .infrastructure
        .resolved
        .lock()
        .expect("nothing panics while it holds it");
    resolved.insert(host.to_owned(), (Instant::now(), ips.clone()));
    ips
}
