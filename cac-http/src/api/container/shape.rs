//! What containers look like in requests and answers.

use cac_core::Core;
use cac_core::container::{self, NewContainer, Registration};
use cac_core::reach::Reach;
use cac_core::routes;
use cac_core::service::{self, ServiceType};
use chrono::{DateTime, Utc};
use poem_openapi::{Enum, Object, Union};

use crate::error::Result;

/// What kind of traffic a service takes.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub(crate) enum ServiceKind {
    Http,
    Tcp,
    Udp,
}

/// What a container offers to the outside.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Service {
    pub(super) id: i64,
    /// The row id of the container, not a VMID.
    pub(super) container_id: i64,
    pub(super) r#type: ServiceKind,
    pub(super) internal_port: u16,
    /// Only tcp and udp.
    pub(super) external_port: Option<u16>,
    /// Only tcp.
    pub(super) tls: Option<bool>,
    /// Only http: a bare label under `CAC_DOMAIN`, or a full name.
    pub(super) external_hostname: Option<String>,
    /// Where it is reached from outside: a URL, else host and port; absent while nothing leads there.
    pub(super) address: Option<String>,
    /// Only http: the container speaks HTTPS itself; its certificate is not checked.
    pub(super) https: Option<bool>,
    /// Only http: the largest body of a request in MiB, where it is not 2048.
    pub(super) max_body: Option<i64>,
    /// Only http: seconds for which the container may be silent, where it is not 3600.
    pub(super) timeout: Option<i64>,
    /// How it stands at the reverse proxies; absent where only its container is told.
    pub(super) state: Option<ServiceState>,
    /// Why it is refused.
    pub(super) reason: Option<String>,
    /// The reverse proxies that serve it as it is now.
    pub(super) live: Option<Vec<LiveAt>>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

/// How a service stands at the reverse proxies.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub(crate) enum ServiceState {
    /// Every reverse proxy that is heard of serves it as it is now, and there is one.
    Live,
    /// Some reverse proxy does not serve it yet.
    Pending,
    /// It cannot be served as it is now.
    Refused,
}

/// A reverse proxy that serves something.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct LiveAt {
    /// Its name, as it reports.
    proxy: String,
    since: DateTime<Utc>,
}

/// Adds how the services stand.
pub(crate) async fn stand<'a>(
    core: &Core,
    services: impl Iterator<Item = &'a mut Service>,
) -> Result<()> {
    let services: Vec<&mut Service> = services.collect();
    let ids = services.iter().map(|service| service.id).collect();
    let mut standings = routes::standings(core, ids).await?;
    for service in services {
        let standing = standings.remove(&service.id).unwrap_or_default();
        service.state = Some(match standing.state {
            routes::State::Live => ServiceState::Live,
            routes::State::Pending => ServiceState::Pending,
            routes::State::Refused => ServiceState::Refused,
        });
        service.reason = standing.reason;
        let live = standing.live.into_iter().map(|at| LiveAt {
            proxy: at.proxy,
            since: at.since,
        });
        service.live = Some(live.collect());
    }
    Ok(())
}

impl Service {
    pub(crate) fn of(
        reach: &Reach,
        row: &container::Container,
        service: &service::Service,
    ) -> Self {
        Self {
            address: reach.service(row, service),
            id: service.id,
            container_id: service.container_id,
            r#type: match service.r#type {
                ServiceType::Http => ServiceKind::Http,
                ServiceType::Tcp => ServiceKind::Tcp,
                ServiceType::Udp => ServiceKind::Udp,
            },
            internal_port: service.internal_port,
            external_port: service.external_port,
            tls: service.tls,
            external_hostname: service.external_hostname.clone(),
            https: (service.r#type == ServiceType::Http).then_some(service.https),
            max_body: service.max_body,
            timeout: service.timeout,
            state: None,
            reason: None,
            live: None,
            created_at: service.created_at,
            updated_at: service.updated_at,
        }
    }
}

/// An LXC container.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Container {
    pub(super) id: i64,
    /// One DNS label; the public name is this under `CAC_DOMAIN`.
    pub(super) hostname: String,
    /// The owner.
    pub(super) username: String,
    pub(super) os_release: Option<String>,
    /// The VMID; absent until one is reserved.
    pub(super) container_id: Option<u32>,
    /// Absent until it is made.
    pub(super) mac_address: Option<String>,
    /// Absent until it runs.
    pub(super) ipv4_address: Option<String>,
    /// Why it does not get the address that Proxmox VE shows on it, or that another container shows its address, too; absent when neither is so.
    pub(super) address_problem: Option<String>,
    /// The label of the node that was asked for; `N` for none.
    pub(super) ai_container: String,
    pub(super) node_id: Option<i64>,
    /// Absent when nothing works on it; else `creating`, `changing`, `undoing` or `deleting`.
    pub(super) state: Option<String>,
    /// What Proxmox VE says now, such as `running`; absent when it cannot tell, and in answers that only repeat the row.
    pub(super) status: Option<String>,
    /// The job that works on it; absent when none does.
    pub(super) job_id: Option<i64>,
    /// Its deletion was requested, and has neither happened nor been withdrawn.
    pub(super) deletion_requested_at: Option<DateTime<Utc>>,
    pub(super) deletion_requested_by: Option<String>,
    /// The job that deletes it, or waits until no other job works on it; absent once that has failed.
    pub(super) deletion_job_id: Option<i64>,
    /// Why the last attempt to delete it failed.
    pub(super) deletion_error: Option<String>,
    /// What Proxmox VE did not apply of the last change.
    pub(super) change_error: Option<String>,
    /// The template's volume id.
    pub(super) template: Option<String>,
    pub(super) cores: Option<u32>,
    /// MiB
    pub(super) memory: Option<u32>,
    /// GiB
    pub(super) disk: Option<u32>,
    /// Whether it may not be deleted.
    pub(super) protected: bool,
    /// Since when it is registered without a look in Proxmox VE; absent once it was looked at.
    pub(super) unverified_since: Option<DateTime<Utc>>,
    /// When it was found that another container has its VMID in Proxmox VE; it is not served then. Absent while that is not so.
    pub(super) identity_mismatch_at: Option<DateTime<Utc>>,
    /// Where its first site is reached.
    pub(super) url: Option<String>,
    /// The command that opens a shell in it.
    pub(super) ssh: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
    pub(super) services: Vec<Service>,
}

impl Container {
    pub(crate) fn of(core: &Core, row: container::Container) -> Self {
        let reach = core.config.reach();
        Self {
            url: reach.url(&row),
            ssh: reach.ssh(&row),
            services: row
                .services
                .iter()
                .map(|service| Service::of(&reach, &row, service))
                .collect(),
            id: row.id,
            hostname: row.hostname,
            username: row.username,
            os_release: row.os_release,
            container_id: row.container_id,
            mac_address: row.mac_address,
            ipv4_address: row.ipv4_address,
            address_problem: row.address_problem.map(|problem| problem.to_string()),
            ai_container: row.ai_container,
            node_id: row.node_id,
            state: row.state,
            status: None,
            job_id: row.job_id,
            deletion_requested_at: row.deletion_requested_at,
            deletion_requested_by: row.deletion_requested_by,
            deletion_job_id: row.deletion_job_id,
            deletion_error: row.deletion_error,
            change_error: row.change_error,
            template: row.template,
            cores: row.cores,
            memory: row.memory,
            disk: row.disk,
            protected: row.protected,
            unverified_since: row.unverified_since,
            identity_mismatch_at: row.identity_mismatch_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What somebody asks for; sizes that are left out are the configured ones.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct ContainerRequest {
    /// `true` asks for a new container; may stand in the query instead.
    pub(super) init: Option<bool>,
    /// Required. One DNS label: 1 to 63 of a-z, 0-9 and `-`.
    pub(super) hostname: Option<String>,
    /// Registration only, required: its address in `CONTAINER_NETWORKS`.
    pub(super) ipv4_address: Option<String>,
    /// Registration only, required: the owner.
    pub(super) username: Option<String>,
    /// Registration only, required: the VMID.
    pub(super) container_id: Option<i64>,
    /// Registration only, required: such as `BC:24:11:00:00:01`.
    pub(super) mac_address: Option<String>,
    /// Required. An operating system, such as `debian` or `debian-12`.
    pub(super) os_release: Option<String>,
    /// Required. The port of the web server in the container, 80 to 60000.
    pub(super) http_port: Option<i64>,
    /// The label of a node; left out or `N`: any.
    pub(super) ai_container: Option<String>,
    /// Names such as `rdp`, or ports such as `8080/tcp`; a comma list is understood, too.
    pub(super) additional_protocols: Option<Vec<String>>,
    /// One line as in `~/.ssh/id_ed25519.pub`.
    pub(super) ssh_public_key: Option<String>,
    /// The name of a size that the operator offers, such as `small`; `cores`, `memory` and `disk` win where they are given.
    pub(super) size: Option<String>,
    pub(super) cores: Option<i64>,
    /// MiB
    pub(super) memory: Option<i64>,
    /// GiB
    pub(super) disk: Option<i64>,
    /// A node's name. A registration needs it where neither `aiContainer` nor Proxmox VE tells the node.
    pub(super) node: Option<String>,
    /// A template as its node lists it.
    pub(super) template: Option<String>,
}

impl From<ContainerRequest> for NewContainer {
    fn from(asked: ContainerRequest) -> Self {
        Self {
            hostname: asked.hostname.unwrap_or_default(),
            os_release: asked.os_release.unwrap_or_default(),
            http_port: asked.http_port,
            ai_container: asked.ai_container,
            additional_protocols: asked.additional_protocols.unwrap_or_default(),
            ssh_public_key: asked.ssh_public_key,
            size: asked.size,
            cores: asked.cores,
            memory: asked.memory,
            disk: asked.disk,
            node: asked.node,
            template: asked.template,
        }
    }
}

impl From<ContainerRequest> for Registration {
    fn from(given: ContainerRequest) -> Self {
        Self {
            hostname: given.hostname.unwrap_or_default(),
            ipv4_address: given.ipv4_address.unwrap_or_default(),
            username: given.username.unwrap_or_default(),
            os_release: given.os_release.unwrap_or_default(),
            container_id: given.container_id,
            mac_address: given.mac_address.unwrap_or_default(),
            ai_container: given.ai_container,
            http_port: given.http_port,
            additional_protocols: given.additional_protocols.unwrap_or_default(),
            node: given.node,
        }
    }
}

/// Where a container would be made.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct Possible {
    pub(super) success: bool,
    pub(super) node: String,
    /// The template's volume id.
    pub(super) template: String,
    pub(super) storage: String,
    pub(super) bridge: String,
}

/// A container that is registered now.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct Registered {
    pub(super) success: bool,
    /// The container's row id, not a VMID.
    pub(super) container_id: i64,
    pub(super) message: String,
    pub(super) data: Container,
}

/// What `POST /containers` answers when there is nothing to wait for.
#[derive(Union)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and moved once")]
pub(crate) enum AtOnce {
    Registered(Registered),
    Possible(Possible),
}

/// What is changed of a container; fields that are left out stay.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct ContainerUpdate {
    pub(super) cores: Option<i64>,
    /// MiB
    pub(super) memory: Option<i64>,
    /// GiB; only larger than before.
    pub(super) disk: Option<i64>,
    /// `true`: it cannot be deleted until this is `false` again.
    pub(super) protected: Option<bool>,
    /// For admins: the new owner.
    pub(super) username: Option<String>,
}

/// The container's row and the job that makes it.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct Accepted {
    pub(super) success: bool,
    /// The container's row id.
    pub(super) id: i64,
    pub(super) job_id: i64,
    pub(super) message: String,
    /// The page that shows the progress.
    pub(super) status_url: String,
}

/// How a deletion stands.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Deleted {
    pub(super) success: bool,
    pub(super) message: String,
    /// The job that goes on with it.
    pub(super) job_id: Option<i64>,
}
