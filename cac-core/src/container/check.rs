//! What holds for every container that comes in, whether we make it (`create.rs`) or somebody has made it (`register.rs`,
//! `import.rs`).

use super::is_label;
use crate::db::Tx;
use crate::error::Fields;
use crate::hostname;
use crate::service::{NewService, ServiceType};
use crate::user;
use crate::{Core, Error, Result, args};

/// A label that somebody may be given.
pub(crate) fn label(core: &Core, field: &'static str, label: &str, fields: &mut Fields) {
    if !existing_label(core, field, label, fields) {
        return;
    }
    if let Some(problem) = hostname::problem(&core.config, label) {
        fields.add(field, problem);
    }
}

/// A label that somebody has already: only its shape counts. Whether it fits.
pub(crate) fn existing_label(
    core: &Core,
    field: &'static str,
    label: &str,
    fields: &mut Fields,
) -> bool {
    if is_label(label) {
        return true;
    }
    let shape = "Use 1 to 63 of a-z, 0-9 and `-`, with no `-` at either end.";
    fields.add(
        field,
        match hostname::encoded(&core.config, label) {
            Some(written) => format!("Write it as `{written}`."),
            None => shape.to_owned(),
        },
    );
    false
}

/// The stored form of an owner's name, by Proxmox VE's rules.
pub(super) fn owner(core: &Core, typed: &str, fields: &mut Fields) -> String {
    // Where Proxmox VE takes several users they are parted by these.
    let several = typed.contains([',', ';']);
    match user::canonical(core, typed) {
        Ok(name) if !several => name,
        _ => {
            fields.add(
                "username",
                "Give the owner's name in Proxmox VE, such as `alice` or `alice@pam`.",
            );
            String::new()
        }
    }
}

/// The port of a web service in the container.
pub(crate) fn port(
    core: &Core,
    field: &'static str,
    port: Option<i64>,
    fields: &mut Fields,
) -> u16 {
    let (lowest, reason) = &core.config.containers.lowest_web_port;
    let Some(port) = port
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| (80..=60000).contains(port))
    else {
        fields.add(
            field,
            "Give the port that your web server listens on in the container, from 80 to 60000.",
        );
        return 80;
    };
    if port < *lowest {
        let reason = reason
            .as_deref()
            .unwrap_or("smaller ones are not allowed here");
        fields.add(field, format!("Use a port from {lowest} on: {reason}."));
    }
    port
}

/// The services that a container begins with: its web service if it has one, ssh, and those that words ask for.
pub(super) fn services(
    core: &Core,
    hostname: &str,
    http_port: Option<u16>,
    words: &[String],
    fields: &mut Fields,
) -> Vec<NewService> {
    let config = &core.config.containers;
    let web = http_port.map(|port| NewService::Http {
        internal_port: port,
        name: hostname.to_owned(),
    });
    let ssh = NewService::Port {
        r#type: ServiceType::Tcp,
        internal_port: config.ssh_port,
        ssh: true,
        external_port: None,
    };
    let mut services: Vec<_> = web.into_iter().chain([ssh]).collect();
    if words.len() > 32 {
        fields.add(
            "additionalProtocols",
            "Ask for at most 32 protocols at once; more can be added later.",
        );
        return services;
    }
    for word in words.iter().filter(|word| !word.trim().is_empty()) {
        match config.protocols.parse(word) {
            // Every container has ssh already.
            Ok(NewService::Port { ssh: true, .. }) => {}
            // Only one service is on a port, however it was asked for: `22/tcp` is ssh, too.
            Ok(service) if services.iter().any(|other| other.same_port(&service)) => {}
            Ok(service) => services.push(service),
            Err(message) => fields.add("additionalProtocols", message),
        }
    }
    services
}

/// Refuses a label or public name that belongs to another container, as its host name or as a service's; `container` and `service`
/// are those that may have it, 0 for none. The caller holds the lock `names`.
pub(crate) async fn name_is_free(
    tx: &mut Tx,
    core: &Core,
    field: &'static str,
    name: &str,
    (container, service): (i64, i64),
) -> Result<()> {
    let full = core.config.full_name(name);
    let sql = r#"SELECT "id" FROM "Services" WHERE ("externalHostname" = ? OR "externalHostname" = ?) AND "id" <> ?"#;
    let served = tx.opt(sql, args![name, full, service]).await?.is_some();
    let sql = r#"SELECT "id" FROM "Containers" WHERE "hostname" = ? AND "id" <> ?"#;
    if served || tx.opt(sql, args![name, container]).await?.is_some() {
        return Err(taken(field, name));
    }
    Ok(())
}

/// The name is somebody else's.
pub(crate) fn taken(field: &'static str, name: &str) -> Error {
    Error::conflict(
        field,
        format!("`{name}` is already taken; choose another name."),
    )
}
