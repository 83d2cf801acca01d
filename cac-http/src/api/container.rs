//! Containers and what they offer; what they look like on the wire is `container/shape.rs`.

use cac_core::Actor;
use cac_core::audit::Via;
use cac_core::container::{self, ContainerChange, Deletion};
use cac_core::quota;
use cac_core::token::Scope;
use poem::http::StatusCode;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, OpenApi};

use super::{Tag, life, page as bounds};
use crate::accept::Both;
use crate::auth::{self, Anyone, Signed, Told};
use crate::error::{ApiError, Result};
use crate::input::{self, Input};
use crate::{origin, page};

mod shape;

use shape::{Accepted, AtOnce, ContainerRequest, ContainerUpdate, Deleted, Possible, Registered};
pub(crate) use shape::{Container, Service, stand};

pub(crate) struct Api;

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
    /// Registered, or its address was changed; the answer to a dry run: it could be made now
    #[oai(status = 200)]
    Answered(Json<AtOnce>),
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
        /// Only those in whose name, owner, system, address or public names this text stands, in any case.
        search: Query<Option<String>>,
        /// At most 1000.
        limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
    ) -> Result<List> {
        let limit = limit.0.or(who.html.then_some(page::ROWS));
        let (limit, offset) = bounds(limit, offset.0);
        let all = all.0.unwrap_or(false);
        let filter = container::Filter {
            all,
            user: user.0,
            search: search.0.filter(|text| !text.trim().is_empty()),
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
                    ..Container::of(&who.core, row)
                }
            };
            let mut rows: Vec<Container> = rows.into_iter().map(shown).collect();
            stand(&who.core, rows.iter_mut().flat_map(|row| &mut row.services)).await?;
            Both::Json(Json(rows))
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
    /// admins, by their tokens with `containers:register` and by scripts on machines in `REGISTRATION_ALLOW` without a login. VMID, name and
    /// MAC address are compared with Proxmox VE; what is not so is refused (409), and what cannot be asked now is stored as unverified. The
    /// same node, VMID, name and MAC address again change the address and keep services and ports.
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
            // The form asks while it is filled in.
            who.identity.only_asks();
            let place = container::preflight(&who.core, actor, &body.read_some()?.into()).await?;
            return Ok(Asked::Answered(Json(AtOnce::Possible(Possible {
                success: true,
                node: place.node,
                template: place.template,
                storage: place.storage,
                bridge: place.bridge,
            }))));
        }
        let created = match body.read_some() {
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
    async fn container_find(
        &self,
        who: Signed,
        id: Path<i64>,
        /// Of the page's pictures: `hour` (the default), `day`, `week`, `month` or `year`.
        timeframe: Query<Option<String>>,
    ) -> Result<Found> {
        let row = container::find(&who.core, &who.actor, id.0).await?;
        Ok(Found::Container(if who.html {
            let frame = timeframe.0.as_deref().unwrap_or("hour");
            let page = page::container::one(&who.core, &who.actor, &row, frame, None).await;
            Both::Html(Html(page))
        } else {
            let status = container::live_status(&who.core, &row).await;
            let mut row = Container {
                status,
                ..Container::of(&who.core, row)
            };
            stand(&who.core, row.services.iter_mut()).await?;
            Both::Json(Json(row))
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
        let change = async {
            let asked = body.read()?;
            // Otherwise an admin would take a container over first, and then delete an own one.
            if asked.username.is_some() {
                must_be_proved_for(&who, id.0).await?;
            }
            let change = ContainerChange {
                cores: asked.cores,
                memory: asked.memory,
                disk: asked.disk,
                protected: asked.protected,
                username: asked.username,
            };
            let patience = life::patience(&who);
            let changed = container::update(&who.core, &who.actor, id.0, &change, patience.limit);
            life::answer(&who, id.0, changed).await
        };
        page::container::or_page(&who, id.0, change).await
    }

    /// Delete a container
    ///
    /// From Proxmox VE and from the database. A form may send `_method=DELETE`. The request is stored: it waits for a job that works
    /// on the container, and until it has begun it can be withdrawn (`POST /containers/{id}/keep`). Where it fails the container says
    /// why in `deletionError`, and the same call tries again. A container that is another one in Proxmox VE is not touched (409); then
    /// an admin may let go of the row. For somebody else's a session's password must have been given lately (`POST /reauthenticate`).
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
        must_be_proved_for(&who, id.0).await?;
        let patience = life::patience(&who);
        let delete = async {
            if forget.0.unwrap_or(false) {
                return container::forget(&who.core, &who.actor, id.0, patience.limit).await;
            }
            container::delete(&who.core, &who.actor, id.0, patience.limit).await
        };
        let deletion = async {
            tokio::select! {
                deletion = delete => Ok(deletion?),
                () = who.stop.cancelled() => {
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    Err(ApiError::new(status, "The portal is stopping. A deletion that was stored goes on; look at the container when the portal is back."))
                }
            }
        };
        let deletion = page::container::or_page(&who, id.0, deletion).await?;
        Ok(ended(&who, deletion))
    }
}

/// Refuses an admin whose password was given too long ago where the container is somebody else's.
pub(super) async fn must_be_proved_for(who: &Signed, id: i64) -> Result<()> {
    if !who.actor.admin {
        return Ok(());
    }
    match container::find(&who.core, &who.actor, id).await {
        Ok(row) if row.username != who.actor.username => who.must_be_proved().await,
        // Whatever else is wrong is the deed's own matter.
        _ => Ok(()),
    }
}

async fn register(who: &Anyone, body: &Input<ContainerRequest>) -> Result<Asked> {
    let allowed = &who.core.config.registration_allow;
    let local = origin::is_machine(&who.core, who.source, allowed).await?;
    let local = || local.then(Actor::local);
    who.needs(Scope::ContainersRegister)?;
    // The scope counts only while its owner is an admin.
    let token = who.token.as_ref();
    let token = token.map(|token| Actor::new(&token.username, token.admin));
    let admin = || who.actor.clone().filter(|actor| actor.admin);
    let actor = match token.or_else(admin).or_else(local) {
        Some(actor) => actor,
        None if who.actor.is_none() => return Err(ApiError::unauthenticated()),
        None => {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "Containers are registered by admins, by their tokens with `containers:register` and by machines in REGISTRATION_ALLOW. \
                 To ask for a new container, send `init=true`.",
            ));
        }
    };
    // Otherwise an admin would register somebody else's container as an own one, and then delete that.
    auth::must_be_proved(&who.core, who.credential.as_ref()).await?;
    if who.actor.is_none() {
        who.identity.tell(Told {
            via: Some(Via::Machine),
            origin: Some(who.origin.clone()),
            ..Told::default()
        });
    }
    let row = container::register(&who.core, &actor, &body.read_some()?.into()).await?;
    let mut message = format!("Container {} is registered.", row.hostname);
    if row.unverified_since.is_some() {
        message.push_str(" Its node can't be asked now; it is verified as soon as it answers.");
    }
    for exceeded in quota::exceeded(&who.core, &row.username).await? {
        message.push_str(&format!(" Quota of {} exceeded: {exceeded}.", row.username));
    }
    Ok(Asked::Answered(Json(AtOnce::Registered(Registered {
        success: true,
        container_id: row.id,
        message,
        data: Container::of(&who.core, row),
    }))))
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
        Deletion::Going { job_id, waits_for } => {
            let path = format!("/status/{job_id}");
            if who.html {
                return Ended::There(path);
            }
            let url = origin::absolute(&who.core.config, &path);
            let body = Deleted {
                success: true,
                message: match waits_for {
                    Some(other) => {
                        format!("The container is deleted when job {other} has finished.")
                    }
                    None => "The container is being deleted.".to_owned(),
                },
                job_id: Some(job_id),
            };
            Ended::Going(Json(body), url)
        }
    }
}
