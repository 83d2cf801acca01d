//! One service of a container: added, changed, removed by its owner or an admin.

use super::{NewService, Service, ServiceType, create};
use crate::actor::Actor;
use crate::container::{self, Container, check};
use crate::db::Tx;
use crate::error::Fields;
use crate::hostname;
use crate::infrastructure;
use crate::nginx::PublicName;
use crate::quota::{self, Amounts};
use crate::{Core, Error, Result, args, audit, transaction};

/// Services of one container at most.
const MOST: i64 = 64;
/// In MiB: 100 GiB.
const MOST_BODY: i64 = 102_400;
/// A day.
const MOST_SECONDS: i64 = 86_400;

/// A service that somebody asks for: by a word of the protocol table, else by type and port.
#[derive(Debug, Clone, Default)]
pub struct NewOne {
    /// A name of the protocol table in any case, or `8080/tcp`.
    pub protocol: Option<String>,
    /// `http`, `tcp` or `udp`.
    pub r#type: Option<String>,
    pub internal_port: Option<i64>,
    /// Only http: a label under `CAC_DOMAIN`, or (admins) any other public name.
    pub external_hostname: Option<String>,
    pub options: Options,
}

/// What is changed of a service; absent fields stay.
#[derive(Debug, Clone, Default)]
pub struct ServiceChange {
    pub internal_port: Option<i64>,
    /// Only http.
    pub external_hostname: Option<String>,
    pub options: Options,
}

/// How nginx treats a service, where not as all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Only tcp: nginx ends TLS with the certificate of `CAC_DOMAIN`.
    pub tls: Option<bool>,
    /// Only http: the container speaks HTTPS itself.
    pub https: Option<bool>,
    /// Only http: the largest body of a request, in MiB; 0: as for all.
    pub max_body: Option<i64>,
    /// Only http: seconds for which the container may be silent; 0: as for all.
    pub timeout: Option<i64>,
}

impl Options {
    fn check(&self, r#type: ServiceType, fields: &mut Fields) {
        let http = r#type == ServiceType::Http;
        if self.tls == Some(true) && r#type != ServiceType::Tcp {
            fields.add(
                "tls",
                "Only `tcp` services can have it; `http` services always do.",
            );
        }
        if self.https == Some(true) && !http {
            fields.add("https", "Only `http` services can have it.");
        }
        let mut number = |name, given: Option<i64>, most, what: &str| match given {
            Some(given) if given != 0 && !http => {
                fields.add(name, "Only `http` services can have it.");
            }
            Some(given) if !(0..=most).contains(&given) => {
                fields.add(
                    name,
                    format!("Give {what}, {most} at most; 0 for what all have."),
                );
            }
            _ => {}
        };
        number(
            "maxBody",
            self.max_body,
            MOST_BODY,
            "the largest body of a request in MiB",
        );
        number(
            "timeout",
            self.timeout,
            MOST_SECONDS,
            "the time limit in seconds",
        );
    }

    async fn store(&self, tx: &mut Tx, id: i64) -> Result<()> {
        if let Some(tls) = self.tls {
            let sql = r#"UPDATE "Services" SET "tls" = ? WHERE "id" = ? AND "type" = 'tcp'"#;
            tx.exec(sql, args![tls, id]).await?;
        }
        if let Some(https) = self.https {
            let sql = r#"UPDATE "Services" SET "https" = ? WHERE "id" = ?"#;
            tx.exec(sql, args![https, id]).await?;
        }
        if let Some(given) = self.max_body {
            let sql = r#"UPDATE "Services" SET "maxBody" = ? WHERE "id" = ?"#;
            tx.exec(sql, args![(given != 0).then_some(given), id])
                .await?;
        }
        if let Some(given) = self.timeout {
            let sql = r#"UPDATE "Services" SET "timeout" = ? WHERE "id" = ?"#;
            tx.exec(sql, args![(given != 0).then_some(given), id])
                .await?;
        }
        Ok(())
    }
}

/// Adds a service; tcp and udp ones get the first free external port of their range.
pub async fn add(core: &Core, actor: &Actor, container: i64, new: &NewOne) -> Result<Service> {
    let container = container::find(core, actor, container).await?;
    let options = new.options;
    let new = check_new(core, actor, &container, new)?;
    permit(core, &container, new.internal_port()).await?;
    let id = transaction!(core.db, tx => {
        hold(tx, container.id).await?;
        let sql = r#"SELECT COUNT(*) AS "n" FROM "Services" WHERE "containerId" = ?"#;
        if tx.one(sql, args![container.id]).await?.get::<i64>("n")? >= MOST {
            let message = format!("A container has at most {MOST} services; remove one first.");
            return Err(Error::conflict("type", message));
        }
        match &new {
            NewService::Http { name, .. } => check::name_is_free(tx, core, "externalHostname", name, (container.id, 0)).await?,
            NewService::Port { r#type, internal_port, .. } => {
                let published = Published { container: container.id, r#type: *r#type, internal_port: *internal_port };
                published.must_be_free(tx, 0).await?;
            }
        }
        let mut fields = Fields::default();
        let more = Amounts::of_services(std::slice::from_ref(&new));
        quota::check(tx, core, actor, &container.username, more, &mut fields).await?;
        fields.into_result()?;
        tx.lock("ports").await?;
        let id = create(tx, core, container.id, std::slice::from_ref(&new)).await?[0];
        options.store(tx, id).await?;
        let made = super::find(tx, id).await?;
        audit::Change::new("service_create", path(container.id, id)).created().altered(None, made.as_ref())
            .write(tx, core, actor).await?;
        id
    })?;
    core.wake.routes();
    find(core, container.id, id).await
}

/// Changes a service. Its type and external port stay: remove it and add another one for that.
pub async fn update(
    core: &Core,
    actor: &Actor,
    container: i64,
    id: i64,
    change: &ServiceChange,
) -> Result<Service> {
    let container = container::find(core, actor, container).await?;
    // The type of a service never changes.
    let old = find(core, container.id, id).await?;
    let mut fields = Fields::default();
    let port = change
        .internal_port
        .map(|port| internal_port(core, old.r#type, Some(port), &mut fields));
    let name = change.external_hostname.as_deref();
    let name = match name.map(str::trim).filter(|name| !name.is_empty()) {
        Some(name) if old.r#type == ServiceType::Http => {
            let has = old.external_hostname.as_deref();
            let has = [container.hostname.as_str(), has.unwrap_or_default()];
            public_name(core, actor, name, &has, &mut fields)
        }
        Some(_) => {
            fields.add(
                "externalHostname",
                "Only `http` services have a public name.",
            );
            None
        }
        None => None,
    };
    change.options.check(old.r#type, &mut fields);
    fields.into_result()?;
    if let Some(port) = port {
        permit(core, &container, port).await?;
    }
    transaction!(core.db, tx => {
        hold(tx, container.id).await?;
        if let Some(name) = &name {
            check::name_is_free(tx, core, "externalHostname", name, (container.id, id)).await?;
        }
        let before = super::find(tx, id).await?;
        if let Some(internal_port) = port
            && old.r#type != ServiceType::Http
        {
            let published = Published { container: container.id, r#type: old.r#type, internal_port };
            published.must_be_free(tx, id).await?;
            keeps_its_range(core, &old, internal_port)?;
        }
        // Only what is carried: somebody else may change the rest at the same time.
        let sql = r#"UPDATE "Services" SET "internalPort" = COALESCE(?, "internalPort"), "externalHostname" = COALESCE(?, "externalHostname"),
                            "updatedAt" = ? WHERE "id" = ? AND "containerId" = ?"#;
        if tx.exec(sql, args![port, name.as_deref(), core.clock.now(), id, container.id]).await? == 0 {
            return Err(missing(id));
        }
        change.options.store(tx, id).await?;
        let after = super::find(tx, id).await?;
        audit::Change::new("service_update", path(container.id, id)).altered(before.as_ref(), after.as_ref())
            .write(tx, core, actor).await?;
    })?;
    core.wake.routes();
    find(core, container.id, id).await
}

/// A port of a container, of which only one service may be.
struct Published {
    container: i64,
    r#type: ServiceType,
    internal_port: u16,
}

impl Published {
    /// Refuses a port that another service than this one publishes; 0 for none. The caller holds the lock `names`.
    async fn must_be_free(&self, tx: &mut Tx, service: i64) -> Result<()> {
        let sql = r#"SELECT "id" FROM "Services" WHERE "containerId" = ? AND "type" = ? AND "internalPort" = ? AND "id" <> ?"#;
        let port = self.internal_port;
        let given = args![self.container, self.r#type.as_str(), port, service];
        if tx.opt(sql, given).await?.is_some() {
            let message = format!("Port {port} is published already.");
            return Err(Error::conflict("internalPort", message));
        }
        Ok(())
    }
}

/// An ssh service has an external port of the range for ssh, and the external port of a service stays.
fn keeps_its_range(core: &Core, old: &Service, internal_port: u16) -> Result<()> {
    let config = &core.config.containers;
    let becomes_ssh = old.r#type == ServiceType::Tcp
        && internal_port == config.ssh_port
        && old.internal_port != internal_port;
    let external = old.external_port.unwrap_or_default();
    if becomes_ssh && !config.ssh_ports.contains(&external) {
        let message = format!(
            "Port {internal_port} is the one of ssh, which gets an external port of its own range. Remove this service and add `ssh`."
        );
        return Err(Error::conflict("internalPort", message));
    }
    Ok(())
}

/// Refuses a port at which not the container answers but a part of the installation, such as the portal on a loopback network. Routes are
/// looked at again when they are made: the container may get another address.
async fn permit(core: &Core, container: &Container, port: u16) -> Result<()> {
    let address = container.ipv4_address.as_deref();
    let Some(address) = address.and_then(|text| text.parse().ok()) else {
        return Ok(());
    };
    let known = infrastructure::load(core).await?;
    known.permit(address, Some(port)).map_err(|denial| {
        Error::invalid(
            "internalPort",
            format!("Port {port} of this container's address cannot be published: {denial}"),
        )
    })
}

/// Removes a service: its name or port is free again.
pub async fn remove(core: &Core, actor: &Actor, container: i64, id: i64) -> Result<()> {
    let container = container::find(core, actor, container).await?;
    transaction!(core.db, tx => {
        hold(tx, container.id).await?;
        let before = super::find(tx, id).await?;
        let sql = r#"DELETE FROM "Services" WHERE "id" = ? AND "containerId" = ?"#;
        if tx.exec(sql, args![id, container.id]).await? == 0 {
            return Err(missing(id));
        }
        audit::Change::new("service_delete", path(container.id, id)).deleted().altered(before.as_ref(), None)
            .write(tx, core, actor).await?;
    })?;
    core.wake.routes();
    Ok(())
}

async fn find(core: &Core, container: i64, id: i64) -> Result<Service> {
    let services = super::list(&core.db, vec![container]).await?;
    let mut services = services.into_values().flatten();
    services
        .find(|service| service.id == id)
        .ok_or_else(|| missing(id))
}

/// How the audit log names a service.
fn path(container: i64, id: i64) -> String {
    format!("/containers/{container}/services/{id}")
}

fn missing(id: i64) -> Error {
    Error::NotFound(format!("This container has no service {id}."))
}

/// Nobody else gives or takes names meanwhile, and the container is not about to go.
async fn hold(tx: &mut Tx, container: i64) -> Result<()> {
    tx.lock("names").await?;
    let sql = r#"SELECT "state" FROM "Containers" WHERE "id" = ?"#;
    let Some(row) = tx.opt(sql, args![container]).await? else {
        return Err(Error::NotFound(format!(
            "There is no container {container}."
        )));
    };
    match row.get::<Option<String>>("state")?.as_deref() {
        Some("deleting" | "undoing") => Err(Error::conflict(
            "id",
            "This container is being removed; its services go with it.",
        )),
        _ => Ok(()),
    }
}

fn check_new(
    core: &Core,
    actor: &Actor,
    container: &Container,
    new: &NewOne,
) -> Result<NewService> {
    let mut fields = Fields::default();
    let given = |text: &Option<String>| {
        let text = text.as_deref().map(|text| text.trim().to_lowercase());
        text.filter(|text| !text.is_empty())
    };
    let name = given(&new.external_hostname);
    if let Some(word) = given(&new.protocol) {
        let service = core.config.containers.protocols.parse(&word);
        if let Err(message) = &service {
            fields.add("protocol", message);
        }
        if new.r#type.is_some() || new.internal_port.is_some() || name.is_some() {
            fields.add("protocol", "Give either a protocol, or a type and a port.");
        }
        if let Ok(NewService::Port { r#type, .. }) = &service {
            new.options.check(*r#type, &mut fields);
        }
        fields.into_result()?;
        let ssh_port = core.config.containers.ssh_port;
        let service = service.map(|service| service.with_ssh_port(ssh_port));
        return service.map_err(|message| Error::invalid("protocol", message));
    }
    let r#type = match given(&new.r#type).map(|word| word.parse()) {
        Some(Ok(r#type)) => r#type,
        Some(Err(message)) => {
            fields.add("type", format!("{message}."));
            ServiceType::Tcp
        }
        None => {
            let message =
                "Give a protocol such as `rdp` or `8080/tcp`, or a type and an internal port.";
            return Err(Error::invalid("protocol", message));
        }
    };
    let internal_port = internal_port(core, r#type, new.internal_port, &mut fields);
    new.options.check(r#type, &mut fields);
    let service = if r#type == ServiceType::Http {
        let name = name.unwrap_or_else(|| container.hostname.clone());
        let name = public_name(core, actor, &name, &[&container.hostname], &mut fields);
        NewService::Http {
            internal_port,
            name: name.unwrap_or_default(),
        }
    } else {
        if name.is_some() {
            fields.add(
                "externalHostname",
                "Only `http` services have a public name.",
            );
        }
        NewService::Port {
            r#type,
            internal_port,
            ssh: r#type == ServiceType::Tcp && internal_port == core.config.containers.ssh_port,
            external_port: None,
        }
    };
    fields.into_result()?;
    Ok(service)
}

fn internal_port(core: &Core, r#type: ServiceType, given: Option<i64>, fields: &mut Fields) -> u16 {
    if r#type == ServiceType::Http {
        return check::port(core, "internalPort", given, fields);
    }
    let port = given.and_then(|port| u16::try_from(port).ok());
    port.filter(|port| *port > 0).unwrap_or_else(|| {
        let message = "Give the port that it listens on in the container, from 1 to 65535.";
        fields.add("internalPort", message);
        1
    })
}

/// The stored form of a public name: the bare label where it is under `CAC_DOMAIN`; `has` are names that its container has already.
fn public_name(
    core: &Core,
    actor: &Actor,
    name: &str,
    has: &[&str],
    fields: &mut Fields,
) -> Option<String> {
    let name = name.trim_end_matches('.').to_lowercase();
    let under = format!(".{}", core.config.domain);
    let label = name.strip_suffix(&under).unwrap_or(&name);
    if !label.contains('.') {
        // Names that exist stay, whatever was reserved since.
        if has.contains(&label) {
            check::existing_label(core, "externalHostname", label, fields);
        } else {
            check::label(core, "externalHostname", label, fields);
        }
        return Some(label.to_owned());
    }
    if !actor.admin {
        let message = format!(
            "Use one label under {}; other names are set by admins.",
            core.config.domain
        );
        fields.add("externalHostname", message);
    } else if let Err(error) = name.parse::<PublicName>() {
        fields.add("externalHostname", error.to_string());
    } else if hostname::is_own(&core.config, &name) {
        fields.add("externalHostname", "This is the portal's own name.");
    }
    Some(name)
}
