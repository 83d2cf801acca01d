//! Containers and what they offer.

use cac_core::Actor;
use cac_core::audit::Via;
use cac_core::container::{self, ContainerChange, Deletion, NewContainer, Registration};
use cac_core::token::Scope;

use cac_core::service::{self, ServiceType};
use chrono::{DateTime, Utc};
use poem::http::StatusCode;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};

use super::{Tag, life, page as bounds};
use crate::accept::Both;
use crate::auth::{Anyone, Signed, Told};
use crate::error::{ApiError, Result};
use crate::input::{self, Input};
use crate::{origin, page};

pub(crate) struct Api;

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
    id: i64,
    /// The row id of the container, not a VMID.
    container_id: i64,
    r#type: ServiceKind,
    internal_port: u16,
    /// Only tcp and udp.
    external_port: Option<u16>,
    /// Only tcp.
    tls: Option<bool>,
    /// Only http: a bare label under `CAC_DOMAIN`, or a full name.
    external_hostname: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<service::Service> for Service {
    fn from(service: service::Service) -> Self {
        Self {
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
            external_hostname: service.external_hostname,
            created_at: service.created_at,
            updated_at: service.updated_at,
        }
    }
}

/// An LXC container.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Container {
    id: i64,
    /// One DNS label; the public name is this under `CAC_DOMAIN`.
    hostname: String,
    /// The owner.
    username: String,
    os_release: Option<String>,
    /// The VMID; absent until one is reserved.
    container_id: Option<u32>,
    /// Absent until it is made.
    mac_address: Option<String>,
    /// Absent until it runs.
    ipv4_address: Option<String>,
    /// The label of the node that was asked for; `N` for none.
    ai_container: String,
    node_id: Option<i64>,
    /// Absent when nothing works on it; else `creating`, `changing`, `undoing` or `deleting`.
    state: Option<String>,
    /// What Proxmox VE says now, such as `running`; absent when it cannot tell, and in answers that only repeat the row.
    status: Option<String>,
    /// The job that works on it, or did last.
    job_id: Option<i64>,
    /// The template's volume id.
    template: Option<String>,
    cores: Option<u32>,
    /// MiB
    memory: Option<u32>,
    /// GiB
    disk: Option<u32>,
    /// Whether it may not be deleted.
    protected: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    services: Vec<Service>,
}

impl From<container::Container> for Container {
    fn from(row: container::Container) -> Self {
        Self {
            id: row.id,
            hostname: row.hostname,
            username: row.username,
            os_release: row.os_release,
            container_id: row.container_id,
            mac_address: row.mac_address,
            ipv4_address: row.ipv4_address,
            ai_container: row.ai_container,
            node_id: row.node_id,
            state: row.state,
            status: None,
            job_id: row.job_id,
            template: row.template,
            cores: row.cores,
            memory: row.memory,
            disk: row.disk,
            protected: row.protected,
            created_at: row.created_at,
            updated_at: row.updated_at,
            services: row.services.into_iter().map(Service::from).collect(),
        }
    }
}

/// What somebody asks for; sizes that are left out are the configured ones.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct ContainerRequest {
    /// `true` asks for a new container; may stand in the query instead.
    init: Option<bool>,
    /// Required. One DNS label: 1 to 63 of a-z, 0-9 and `-`.
    hostname: Option<String>,
    /// Registration only, required: its address in `CONTAINER_NETWORKS`.
    ipv4_address: Option<String>,
    /// Registration only, required: the owner.
    username: Option<String>,
    /// Registration only, required: the VMID.
    container_id: Option<i64>,
    /// Registration only, required: such as `BC:24:11:00:00:01`.
    mac_address: Option<String>,
    /// Required. An operating system, such as `debian` or `debian-12`.
    os_release: Option<String>,
    /// Required. The port of the web server in the container, 80 to 60000.
    http_port: Option<i64>,
    /// The label of a node; left out or `N`: any.
    ai_container: Option<String>,
    /// Names such as `rdp`, or ports such as `8080/tcp`; a comma list is understood, too.
    additional_protocols: Option<Vec<String>>,
    /// One line as in `~/.ssh/id_ed25519.pub`.
    ssh_public_key: Option<String>,
    cores: Option<i64>,
    /// MiB
    memory: Option<i64>,
    /// GiB
    disk: Option<i64>,
    /// A node's name.
    node: Option<String>,
    /// A template as its node lists it.
    template: Option<String>,
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
    success: bool,
    node: String,
    /// The template's volume id.
    template: String,
    storage: String,
    bridge: String,
}

/// A container that is registered now.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct Registered {
    success: bool,
    /// The container's row id, not a VMID.
    container_id: i64,
    message: String,
    data: Container,
}

/// What is changed of a container; fields that are left out stay.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct ContainerUpdate {
    cores: Option<i64>,
    /// MiB
    memory: Option<i64>,
    /// GiB; only larger than before.
    disk: Option<i64>,
    /// `true`: it cannot be deleted until this is `false` again.
    protected: Option<bool>,
    /// For admins: the new owner.
    username: Option<String>,
}

/// The container's row and the job that makes it.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct Accepted {
    success: bool,
    /// The container's row id.
    id: i64,
    job_id: i64,
    message: String,
    /// The page that shows the progress.
    status_url: String,
}

/// How a deletion stands.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Deleted {
    success: bool,
    message: String,
    /// The job that goes on with it.
    job_id: Option<i64>,
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// A page of containers in order of their ids
    #[oai(status = 200)]
    Containers(Both<Vec<Container>>, #[oai(header = "X-Total-Count")] i64),
}

#[derive(ApiResponse)]
pub(crate) enum Found {
    /// The container
    #[oai(status = 200)]
    Container(Both<Container>),
}

#[derive(ApiResponse)]
pub(crate) enum FormPage {
    /// The form
    #[oai(status = 200)]
    Form(Html<String>),
}

#[derive(ApiResponse)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and moved once")]
pub(crate) enum Asked {
    /// Registered, or its address was changed
    #[oai(status = 200)]
    Registered(Json<Registered>),
    /// The answer to a dry run: it could be made now
    #[oai(status = 200)]
    Possible(Json<Possible>),
    /// The job is waiting for a runner
    #[oai(status = 202)]
    Accepted(Json<Accepted>, #[oai(header = "Location")] String),
    /// For browsers: to the page that shows the progress
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Ended {
    /// It is gone, in Proxmox VE and here
    #[oai(status = 200)]
    Done(Json<Deleted>),
    /// The job goes on
    #[oai(status = 202)]
    Going(Json<Deleted>, #[oai(header = "Location")] String),
    /// For browsers
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[OpenApi]
impl Api {
    /// List containers
    ///
    /// One's own, with their services; admins may see everyone's.
    #[oai(
        path = "/containers",
        method = "get",
        operation_id = "container_list",
        tag = "Tag::Containers"
    )]
    async fn container_list(
        &self,
        who: Signed,
        /// Everyone's, for admins.
        all: Query<Option<bool>>,
        /// One owner's, for admins.
        user: Query<Option<String>>,
        /// At most 1000.
        limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
    ) -> Result<List> {
        let (limit, offset) = bounds(limit.0, offset.0);
        let all = all.0.unwrap_or(false);
        let filter = container::Filter {
            all,
            user: user.0,
            limit,
            offset,
        };
        if (all
            || filter
                .user
                .as_ref()
                .is_some_and(|user| *user != who.actor.username))
            && !who.actor.admin
        {
            who.admin()?;
        }
        let (rows, total) = container::list(&who.core, &who.actor, &filter).await?;
        let shown = if who.html {
            Both::Html(Html(
                page::container::list(&who.core, &who.actor, &rows, total, &filter).await,
            ))
        } else {
            let mut live = container::live(&who.core, &rows).await;
            let shown = |row: container::Container| {
                let status = live.remove(&row.id).map(|live| live.status);
                Container {
                    status,
                    ..row.into()
                }
            };
            Both::Json(Json(rows.into_iter().map(shown).collect()))
        };
        Ok(List::Containers(shown, total))
    }

    /// The form for a new container
    #[oai(
        path = "/containers/new",
        method = "get",
        operation_id = "container_page",
        tag = "Tag::Containers"
    )]
    async fn container_page(&self, who: Signed) -> Result<FormPage> {
        Ok(FormPage::Form(Html(
            page::container::form(&who.core, &who.actor, None).await,
        )))
    }

    /// Ask for a container, or register one
    ///
    /// With `init` in the query or the body a new one is made. Without, a container that exists already is registered, by
    /// admins, by tokens with `containers:register` and by scripts on machines in `REGISTRATION_ALLOW` without a login. The same node, VMID, name and MAC address
    /// again change the address and keep services and ports.
    #[oai(
        path = "/containers",
        method = "post",
        operation_id = "container_create",
        tag = "Tag::Containers"
    )]
    async fn container_create(
        &self,
        who: Anyone,
        init: Query<Option<bool>>,
        /// With `init`: only says what would be refused (400, with all of it), or where it would be made.
        #[oai(name = "dryRun")]
        dry_run: Query<Option<bool>>,
        /// The same key of the same owner within 24 h makes nothing new.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Input<ContainerRequest>,
    ) -> Result<Asked> {
        let body_flag = input::flag(&body.raw, "init")?;
        if !init.0.or(body_flag).unwrap_or(false) {
            return register(&who, &body).await;
        }
        let Some(actor) = &who.actor else {
            return Err(ApiError::unauthenticated());
        };
        who.needs(Scope::ContainersWrite)?;
        if dry_run.0.unwrap_or(false) {
            let place = container::preflight(&who.core, actor, &body.read()?.into()).await?;
            return Ok(Asked::Possible(Json(Possible {
                success: true,
                node: place.node,
                template: place.template,
                storage: place.storage,
                bridge: place.bridge,
            })));
        }
        let created = match body.read() {
            Ok(asked) => container::create(
                &who.core,
                actor,
                &asked.into(),
                idempotency_key.0.as_deref(),
            )
            .await
            .map_err(ApiError::from),
            Err(error) => Err(error),
        };
        match created {
            Ok(created) => Ok(accepted(&who, created)),
            Err(error) if who.html => {
                let sent = input::shown(&body.raw);
                let page =
                    page::container::form(&who.core, actor, Some((&sent, &error.0.problem))).await;
                Err(error.with_page(page))
            }
            Err(error) => Err(error),
        }
    }

    /// One container
    #[oai(
        path = "/containers/:id",
        method = "get",
        operation_id = "container_find",
        tag = "Tag::Containers"
    )]
    async fn container_find(&self, who: Signed, id: Path<i64>) -> Result<Found> {
        let row = container::find(&who.core, &who.actor, id.0).await?;
        let status = container::live_status(&who.core, &row).await;
        Ok(Found::Container(if who.html {
            let status = status.as_deref();
            Both::Html(Html(page::container::one(
                &who.core, &who.actor, &row, status,
            )))
        } else {
            Both::Json(Json(Container {
                status,
                ..row.into()
            }))
        }))
    }

    /// Change a container
    ///
    /// Sizes, delete protection and (admins) the owner. Only the fields that are sent.
    #[oai(
        path = "/containers/:id",
        method = "put",
        operation_id = "container_update",
        tag = "Tag::Containers"
    )]
    async fn container_update(
        &self,
        who: Signed,
        id: Path<i64>,
        body: Input<ContainerUpdate>,
    ) -> Result<life::Answer> {
        let asked = body.read()?;
        let change = ContainerChange {
            cores: asked.cores,
            memory: asked.memory,
            disk: asked.disk,
            protected: asked.protected,
            username: asked.username,
        };
        let changed = container::update(&who.core, &who.actor, id.0, &change, life::WAIT);
        life::answer(&who, id.0, changed).await
    }

    /// Delete a container
    ///
    /// From Proxmox VE and from the database. A form may send `_method=DELETE`. A container that is another one in Proxmox VE
    /// is not touched (409); then an admin may let go of the row.
    #[oai(
        path = "/containers/:id",
        method = "delete",
        operation_id = "container_delete",
        tag = "Tag::Containers"
    )]
    async fn container_delete(
        &self,
        who: Signed,
        id: Path<i64>,
        /// For admins: only the row goes, and only if Proxmox VE does not have its container.
        forget: Query<Option<bool>>,
    ) -> Result<Ended> {
        let delete = async {
            if forget.0.unwrap_or(false) {
                return container::forget(&who.core, &who.actor, id.0, life::WAIT).await;
            }
            container::delete(&who.core, &who.actor, id.0, life::WAIT).await
        };
        let deletion = tokio::select! {
            deletion = delete => deletion?,
            () = who.stop.cancelled() => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Err(ApiError::new(status, "The portal is stopping; the deletion goes on when it is back."));
            }
        };
        Ok(ended(&who, deletion))
    }
}

async fn register(who: &Anyone, body: &Input<ContainerRequest>) -> Result<Asked> {
    let local = || {
        who.source
            .is_in(&who.core.config.registration_allow)
            .then(Actor::local)
    };
    who.needs(Scope::ContainersRegister)?;
    // A token with this scope registers what its owner may register.
    let token = who.token.as_ref();
    let token = token.map(|token| Actor::new(&token.username, token.admin));
    let admin = || who.actor.clone().filter(|actor| actor.admin);
    let actor = match token.or_else(admin).or_else(local) {
        Some(actor) => actor,
        None if who.actor.is_none() => return Err(ApiError::unauthenticated()),
        None => {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "Containers are registered by admins, by tokens with `containers:register` and by machines in REGISTRATION_ALLOW. \
                 To ask for a new container, send `init=true`.",
            ));
        }
    };
    if who.actor.is_none() {
        who.identity.tell(Told {
            via: Some(Via::Machine),
            ..Told::default()
        });
    }
    let row = container::register(&who.core, &actor, &body.read()?.into()).await?;
    Ok(Asked::Registered(Json(Registered {
        success: true,
        container_id: row.id,
        message: format!("Container {} is registered.", row.hostname),
        data: row.into(),
    })))
}

fn accepted(who: &Anyone, created: container::Created) -> Asked {
    let path = format!("/status/{}", created.job_id);
    if who.html {
        return Asked::There(path);
    }
    let url = origin::absolute(&who.core.config, &path);
    let body = Accepted {
        success: true,
        id: created.id,
        job_id: created.job_id,
        message: "The container is being made.".to_owned(),
        status_url: url.clone(),
    };
    Asked::Accepted(Json(body), url)
}

fn ended(who: &Signed, deletion: Deletion) -> Ended {
    match deletion {
        Deletion::Done if who.html => Ended::There("/containers".to_owned()),
        Deletion::Done => Ended::Done(Json(Deleted {
            success: true,
            message: "Container deleted successfully".to_owned(),
            job_id: None,
        })),
        Deletion::Going { job_id } => {
            let path = format!("/status/{job_id}");
            if who.html {
                return Ended::There(path);
            }
            let url = origin::absolute(&who.core.config, &path);
            let body = Deleted {
                success: true,
                message: "The container is being deleted.".to_owned(),
                job_id: Some(job_id),
            };
            Ended::Going(Json(body), url)
        }
    }
}
