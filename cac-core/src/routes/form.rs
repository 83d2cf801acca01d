//! From rows to what nginx can serve. Each service is looked at by itself; one that cannot be valid keeps its last good form for as long
//! as nobody else has a claim on it and its address is still one that containers may have, and does no harm to the others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::Config;
use crate::db::Row;
use crate::infrastructure::{self, Infrastructure};
use crate::nginx::{
    self, HttpOptions, HttpService, Protocol, PublicName, Service, Settings, StreamService,
};
use crate::service::ServiceType;
use crate::{Core, Result};

/// A service of a container that has an address, as the database has it now.
pub(super) struct Stored {
    pub(super) id: i64,
    container: i64,
    /// Another container stands under its container's VMID: its last good form is not kept, since it would lead there.
    withdrawn: bool,
    /// Why it has none is a sentence fit for its owner.
    pub(super) form: Result<Service, String>,
}

/// What stands in the database.
pub(super) struct Rows {
    pub(super) services: Vec<Stored>,
    /// Whose address it is.
    addresses: HashMap<IpAddr, BTreeSet<i64>>,
    infrastructure: Arc<Infrastructure>,
}

/// The last good form of a service, and the revision that it is part of since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) form: Service,
    pub(super) revision: i64,
}

/// Why a service is not served as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A sentence fit for its owner.
    pub reason: String,
    /// Whether it is served in its last good form meanwhile.
    pub kept: bool,
}

/// What is served, and what is not as it should be; by the ids of services.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) served: BTreeMap<i64, Service>,
    pub(super) troubles: BTreeMap<i64, Trouble>,
}

/// What only one service can have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Claim {
    Name(PublicName),
    Port(Protocol, u16),
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "The name {name}"),
            Self::Port(protocol, port) => write!(f, "Port {port}/{protocol}"),
        }
    }
}

fn claim(service: &Service) -> Claim {
    match service {
        Service::Http(service) => Claim::Name(service.name.clone()),
        Service::Stream(service) => Claim::Port(service.protocol, service.port),
    }
}

fn upstream(service: &Service) -> SocketAddr {
    match service {
        Service::Http(service) => service.upstream,
        Service::Stream(service) => service.upstream,
    }
}

/// Of two services that want the same, the one that had it first has it.
pub(super) fn choose(settings: &Settings, rows: &Rows, known: &HashMap<i64, Known>) -> Chosen {
    let mut chosen = Chosen::default();
    let mut claims: HashSet<Claim> = HashSet::new();
    let mut bad: Vec<(&Stored, String)> = Vec::new();
    let mut good: Vec<(i64, &Stored, &Service, Claim)> = Vec::new();
    for stored in &rows.services {
        match &stored.form {
            Err(reason) => bad.push((stored, reason.clone())),
            Ok(form) => match nginx::unfit(settings, form) {
                Some(reason) => bad.push((stored, reason)),
                None => {
                    let claim = claim(form);
                    let since = known
                        .get(&stored.id)
                        .filter(|known| self::claim(&known.form) == claim)
                        .map_or(i64::MAX, |known| known.revision);
                    good.push((since, stored, form, claim));
                }
            },
        }
    }
    good.sort_by_key(|(since, stored, ..)| (*since, stored.id));
    for (_, stored, form, claim) in good {
        if !claims.insert(claim.clone()) {
            bad.push((stored, format!("{claim} is taken by another service.")));
            continue;
        }
        chosen.served.insert(stored.id, form.clone());
    }
    for (stored, reason) in bad {
        let last = known.get(&stored.id).map(|known| &known.form);
        let last = last.filter(|form| {
            let at = upstream(form);
            let mut owners = rows.addresses.get(&at.ip()).into_iter().flatten();
            // What was good before an upgrade, or before a node or proxy got this address, is not served any longer either.
            let permitted = rows.infrastructure.permit(at.ip(), Some(at.port())).is_ok();
            !stored.withdrawn
                && permitted
                && nginx::unfit(settings, form).is_none()
                && !claims.contains(&claim(form))
                && owners.all(|owner| *owner == stored.container)
        });
        if let Some(form) = last {
            claims.insert(claim(form));
            chosen.served.insert(stored.id, form.clone());
        }
        let kept = last.is_some();
        chosen.troubles.insert(stored.id, Trouble { reason, kept });
    }
    chosen
}

/// What [`Rows`] are made of.
pub(super) const ROWS: &str = r#"SELECT s."id", s."type", s."internalPort", s."externalPort", s."externalHostname", s."tls", s."https", s."maxBody",
       s."timeout", c."id" AS "containerId", c."hostname", c."ipv4Address", c."identityMismatchAt"
FROM "Containers" c LEFT JOIN "Services" s ON c."id" = s."containerId" WHERE c."ipv4Address" IS NOT NULL ORDER BY s."id""#;

/// Why a service of a container with a proved mismatch is not served.
const MISMATCH: &str =
    "In Proxmox VE another container has this one's VMID, so nothing leads there. Ask an admin.";

pub(super) async fn read(core: &Core) -> Result<Rows> {
    let infrastructure = infrastructure::known(core).await?;
    Rows::read(
        &core.config,
        infrastructure,
        &core.db.all(ROWS, vec![]).await?,
    )
}

impl Rows {
    pub(super) fn read(
        config: &Config,
        infrastructure: Arc<Infrastructure>,
        rows: &[Row],
    ) -> Result<Self> {
        let mut services = Vec::with_capacity(rows.len());
        let mut addresses: HashMap<IpAddr, BTreeSet<i64>> = HashMap::new();
        for row in rows {
            let container = row.get("containerId")?;
            let text: Option<String> = row.get("ipv4Address")?;
            let withdrawn = row
                .get::<Option<DateTime<Utc>>>("identityMismatchAt")?
                .is_some();
            let text = text.filter(|_| !withdrawn);
            if let Some(address) = text.and_then(|text| text.parse().ok()) {
                let address: IpAddr = address;
                addresses
                    .entry(address.to_canonical())
                    .or_default()
                    .insert(container);
            }
            if let Some(id) = row.get("id")? {
                services.push(Stored {
                    id,
                    container,
                    withdrawn,
                    form: match withdrawn {
                        true => Err(MISMATCH.to_owned()),
                        false => form(config, &infrastructure, row),
                    },
                });
            }
        }
        Ok(Self {
            services,
            addresses,
            infrastructure,
        })
    }
}

fn form(config: &Config, infrastructure: &Infrastructure, row: &Row) -> Result<Service, String> {
    let text = |name: &str| row.get::<Option<String>>(name).map_err(|e| e.to_string());
    let number = |name: &str| row.get::<Option<i64>>(name).map_err(|e| e.to_string());
    let flag = |name: &str| row.get::<Option<bool>>(name).map_err(|e| e.to_string());
    let hostname = text("hostname")?.unwrap_or_default();
    // The original served names with capitals, and neither DNS nor nginx knows a difference.
    if !crate::container::is_label(&hostname.to_lowercase()) {
        return Err(format!(
            "The container's name `{hostname}` is not a valid label."
        ));
    }
    let address = text("ipv4Address")?.unwrap_or_default();
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("`{address}` is not an address."))?;
    // As it is reached: `::ffff:127.0.0.1` is 127.0.0.1.
    let address = address.to_canonical();
    let port = |name: &str, what: &str| {
        number(name)?
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("The {what} port is not a port number."))
    };
    let upstream = SocketAddr::new(address, port("internalPort", "internal")?);
    let permitted = infrastructure.permit(upstream.ip(), Some(upstream.port()));
    permitted.map_err(|denial| denial.to_string())?;
    match text("type")?.unwrap_or_default().parse()? {
        ServiceType::Http => {
            let name = text("externalHostname")?
                .filter(|name| !name.is_empty())
                .ok_or("The service has no public name.")?;
            let name: PublicName = config
                .full_name(&name.to_lowercase())
                .parse()
                .map_err(|e| format!("{e}"))?;
            let positive = |name: &str, what: &str| match number(name)? {
                None => Ok(None),
                Some(given) => u32::try_from(given)
                    .ok()
                    .filter(|given| *given > 0)
                    .map(Some)
                    .ok_or_else(|| format!("The {what} {given} is none.")),
            };
            let options = HttpOptions {
                https: flag("https")?.unwrap_or(false),
                max_body: positive("maxBody", "largest body")?,
                timeout: positive("timeout", "time limit")?,
            };
            Ok(Service::Http(HttpService {
                name,
                upstream,
                options,
            }))
        }
        kind => Ok(Service::Stream(StreamService {
            protocol: kind.protocol(),
            port: port("externalPort", "external")?,
            upstream,
            tls: kind == ServiceType::Tcp && flag("tls")?.unwrap_or(false),
        })),
    }
}
