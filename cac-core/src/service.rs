//! Services: what a container offers to the outside. Types, protocol names, external ports; what nginx serves of them is [`crate::routes`].
//! Adding, changing and removing them one by one is `service/change.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::db::{Db, Row, Tx};
use crate::nginx::Protocol;
use crate::{Core, Error, Result, args, db, proxy};

mod change;

pub use change::{NewOne, Options, ServiceChange, add, remove, update};

/// What kind of traffic a service takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceType {
    /// Reached by public name over TLS.
    Http,
    /// Reached by external port.
    Tcp,
    /// Reached by external port.
    Udp,
}

impl ServiceType {
    /// The word stored in `Services.type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// What an external port of it speaks.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Udp,
            Self::Http | Self::Tcp => Protocol::Tcp,
        }
    }
}

impl std::str::FromStr for ServiceType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "http" => Ok(Self::Http),
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => Err(format!(
                "`{other}` is not a service type; use `http`, `tcp` or `udp`"
            )),
        }
    }
}

/// A row of `Services`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub id: i64,
    /// The row id of the container, not a VMID.
    pub container_id: i64,
    pub r#type: ServiceType,
    pub internal_port: u16,
    /// Only tcp and udp.
    pub external_port: Option<u16>,
    /// Only tcp.
    pub tls: Option<bool>,
    /// Only http: a bare label under `CAC_DOMAIN`, or a full name.
    pub external_hostname: Option<String>,
    /// Only http: the container speaks HTTPS itself.
    pub https: bool,
    /// Only http: the largest body of a request in MiB; absent: as for all.
    pub max_body: Option<i64>,
    /// Only http: seconds for which the container may be silent; absent: as for all.
    pub timeout: Option<i64>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = r#"SELECT "id", "containerId", "type", "internalPort", "externalPort", "tls", "externalHostname", "https",
    "maxBody", "timeout", "createdAt", "updatedAt" FROM "Services" WHERE "containerId" IN ? ORDER BY "id""#;

impl Service {
    fn from_row(row: &Row) -> Result<Self> {
        let kind: String = row.get("type")?;
        Ok(Self {
            id: row.get("id")?,
            container_id: row.get("containerId")?,
            r#type: kind.parse().map_err(Error::Internal)?,
            internal_port: row.get("internalPort")?,
            external_port: row.get("externalPort")?,
            tls: row.get("tls")?,
            external_hostname: row.get("externalHostname")?,
            https: row.get("https")?,
            max_body: row.get("maxBody")?,
            timeout: row.get("timeout")?,
            created_at: row.get("createdAt")?,
            updated_at: row.get("updatedAt")?,
        })
    }
}

/// The services of some containers, by container, in order of their ids.
pub async fn list(db: &Db, containers: Vec<i64>) -> Result<BTreeMap<i64, Vec<Service>>> {
    let mut by_container: BTreeMap<i64, Vec<Service>> = BTreeMap::new();
    for row in db.all(COLUMNS, args![containers]).await? {
        let service = Service::from_row(&row)?;
        by_container
            .entry(service.container_id)
            .or_default()
            .push(service);
    }
    Ok(by_container)
}

/// A service as it is within a transaction.
pub(crate) async fn find(tx: &mut Tx, id: i64) -> Result<Option<Service>> {
    let row = tx
        .opt(r#"SELECT * FROM "Services" WHERE "id" = ?"#, args![id])
        .await?;
    row.map(|row| Service::from_row(&row)).transpose()
}

/// A service that is about to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewService {
    /// Published under the name.
    Http { internal_port: u16, name: String },
    /// Published on a port of the reverse proxy.
    Port {
        r#type: ServiceType,
        internal_port: u16,
        ssh: bool,
        /// Absent: the first free one of its range.
        external_port: Option<u16>,
    },
}

impl NewService {
    /// The port in the container.
    #[must_use]
    pub fn internal_port(&self) -> u16 {
        match self {
            Self::Http { internal_port, .. } | Self::Port { internal_port, .. } => *internal_port,
        }
    }

    /// The service in a few characters, such as `tcp 2222 → 22`.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::Http {
                internal_port,
                name,
            } => format!("http {name} → {internal_port}"),
            Self::Port {
                r#type,
                internal_port,
                external_port,
                ..
            } => {
                let external = external_port
                    .map(|port| format!("{port} "))
                    .unwrap_or_default();
                format!("{} {external}→ {internal_port}", r#type.as_str())
            }
        }
    }

    /// Whether both are on the same port of the container. Public names share ports, others do not.
    pub(crate) fn same_port(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Port {
                    r#type,
                    internal_port,
                    ..
                },
                Self::Port {
                    r#type: other_type,
                    internal_port: other_port,
                    ..
                },
            ) => r#type == other_type && internal_port == other_port,
            _ => false,
        }
    }

    /// The same where ssh of containers listens on this port: `ssh` means that port, and that port means ssh.
    pub(crate) fn with_ssh_port(mut self, ssh_port: u16) -> Self {
        if let Self::Port {
            r#type: ServiceType::Tcp,
            internal_port,
            ssh,
            ..
        } = &mut self
        {
            if *ssh {
                *internal_port = ssh_port;
            }
            *ssh = *internal_port == ssh_port;
        }
        self
    }
}

/// Adds services to a container, giving each its external port. The caller holds the lock `ports`
/// (so that a hundred requests at once get a hundred ports) and, for names, the lock `names`.
pub async fn create(
    tx: &mut Tx,
    core: &Core,
    container: i64,
    new: &[NewService],
) -> Result<Vec<i64>> {
    let mut ids = Vec::with_capacity(new.len());
    let now = core.clock.now();
    for service in new {
        let (kind, internal, external, tls, name) = match service {
            NewService::Http {
                internal_port,
                name,
            } => (
                ServiceType::Http,
                *internal_port,
                None,
                None,
                Some(name.as_str()),
            ),
            NewService::Port {
                r#type,
                internal_port,
                ssh,
                external_port,
            } => {
                let port = match external_port {
                    Some(port) => wanted_port(tx, &core.config, *r#type, *port).await?,
                    None => free_port(tx, &core.config, *r#type, *ssh).await?,
                };
                (
                    *r#type,
                    *internal_port,
                    Some(port),
                    (*r#type == ServiceType::Tcp).then_some(false),
                    None,
                )
            }
        };
        let id = tx.insert(
            r#"INSERT INTO "Services" ("containerId", "type", "internalPort", "externalPort", "tls", "externalHostname", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)"#,
            args![container, kind.as_str(), internal, external, tls, name, now, now],
        )
        .await
        .map_err(|error| match error {
            db::Error::Unique(_) if name.is_some() => Error::conflict("hostname", "This name is already taken; choose another."),
            db::Error::Unique(_) => Error::conflict("additionalProtocols", "A port was taken meanwhile; try again."),
            other => other.into(),
        })?;
        ids.push(id);
    }
    Ok(ids)
}

/// A port that must be this one, if nobody has it.
async fn wanted_port(tx: &mut Tx, config: &Config, kind: ServiceType, port: u16) -> Result<u16> {
    if kind == ServiceType::Tcp && own_ports(config).any(|own| own == port) {
        let message = format!("Port {port}/tcp is the reverse proxy's or the portal's own.");
        return Err(Error::conflict("ports", message));
    }
    let sql = r#"SELECT "containerId" FROM "Services" WHERE "type" = ? AND "externalPort" = ?"#;
    match tx.opt(sql, args![kind.as_str(), port]).await? {
        None => Ok(port),
        Some(row) => {
            let id: i64 = row.get("containerId")?;
            let message = format!("Port {port}/{} is container {id}'s.", kind.as_str());
            Err(Error::conflict("ports", message))
        }
    }
}

/// nginx itself, and we, listen there.
fn own_ports(config: &Config) -> impl Iterator<Item = u16> {
    let nginx = &config.nginx;
    let listen = nginx.http_listen.iter().chain(&nginx.https_listen);
    listen.map(|at| at.port()).chain([config.listen.port()])
}

async fn free_port(tx: &mut Tx, config: &Config, kind: ServiceType, ssh: bool) -> Result<u16> {
    let range: &RangeInclusive<u16> = if ssh {
        &config.containers.ssh_ports
    } else {
        &config.containers.service_ports
    };
    let rows = tx
        .all(
            r#"SELECT "externalPort" FROM "Services" WHERE "type" = ? AND "externalPort" BETWEEN ? AND ?"#,
            args![kind.as_str(), *range.start(), *range.end()],
        )
        .await?;
    let mut taken = BTreeSet::new();
    for row in rows {
        taken.insert(row.get::<u16>("externalPort")?);
    }
    if kind == ServiceType::Tcp {
        taken.extend(own_ports(config));
    }
    let elsewhere = proxy::taken_anywhere(tx).await?;
    let free = |port: &u16| !taken.contains(port) && !elsewhere.has(*port, kind.protocol());
    range.clone().find(free).ok_or_else(|| {
        let message = format!(
            "No free {} port is left between {} and {}; ask an admin to delete unused services or to widen the range.",
            kind.as_str(), range.start(), range.end()
        );
        Error::conflict("additionalProtocols", message)
    })
}

/// The protocol names that requests may use, from one data file in the original's format.
#[derive(Debug, Clone)]
pub struct Protocols(BTreeMap<String, Known>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Known {
    port: u16,
    protocol: ServiceType,
}

impl Default for Protocols {
    fn default() -> Self {
        Self::from_text(include_str!("../data/services.json"))
            .expect("the embedded table is tested")
    }
}

impl Protocols {
    /// Reads a table such as `{"ssh": {"port": 22, "protocol": "tcp"}}`.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot be read ({}): {error}", path.display()))?;
        Self::from_text(&text)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let table: BTreeMap<String, Known> = serde_json::from_str(text)
            .map_err(|error| format!("must be a table such as {{\"ssh\": {{\"port\": 22, \"protocol\": \"tcp\"}}}}: {error}"))?;
        Ok(Self(
            table
                .into_iter()
                .map(|(name, known)| (name.to_lowercase(), known))
                .collect(),
        ))
    }

    /// The names of the table, for people.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.join(", ")
    }

    /// The service that a word of `additionalProtocols` asks for: a name of the table in any case, or `8080/tcp`.
    pub fn parse(&self, word: &str) -> Result<NewService, String> {
        let word = word.trim().to_lowercase();
        if let Some(known) = self.0.get(&word) {
            let ssh = word == "ssh";
            // `http` and `https` by name mean a port of their own; the web service has the public name.
            let kind = if known.protocol == ServiceType::Udp {
                ServiceType::Udp
            } else {
                ServiceType::Tcp
            };
            return Ok(NewService::Port {
                r#type: kind,
                internal_port: known.port,
                ssh,
                external_port: None,
            });
        }
        let numbered = word.split_once('/').and_then(|(port, kind)| {
            let kind = kind
                .parse()
                .ok()
                .filter(|kind| *kind != ServiceType::Http)?;
            Some((port.parse().ok().filter(|port| *port > 0)?, kind))
        });
        match numbered {
            Some((internal_port, r#type)) => Ok(NewService::Port {
                r#type,
                internal_port,
                ssh: false,
                external_port: None,
            }),
            None => {
                let names: Vec<_> = self.0.keys().map(String::as_str).collect();
                Err(format!(
                    "`{word}` is not known; use one of {}, or a port such as `8080/tcp`",
                    names.join(", ")
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_words_of_the_contract() {
        let protocols = Protocols::default();
        let port = |r#type, internal_port, ssh| {
            Ok(NewService::Port {
                r#type,
                internal_port,
                ssh,
                external_port: None,
            })
        };
        assert_eq!(protocols.parse("SSH"), port(ServiceType::Tcp, 22, true));
        assert_eq!(protocols.parse(" dns "), port(ServiceType::Udp, 53, false));
        assert_eq!(protocols.parse("domain"), port(ServiceType::Udp, 53, false));
        assert_eq!(protocols.parse("rdp"), port(ServiceType::Tcp, 3389, false));
        assert_eq!(
            protocols.parse("8080/tcp"),
            port(ServiceType::Tcp, 8080, false)
        );
        for bad in [
            "",
            "gopher",
            "0/tcp",
            "70000/tcp",
            "80/http",
            "80/",
            "/tcp",
            "-1/udp",
        ] {
            assert!(protocols.parse(bad).is_err(), "{bad}");
        }
    }
}
