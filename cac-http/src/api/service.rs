//! The services of a container, one by one.

use cac_core::container;
use cac_core::service::{self, NewOne, Options, ServiceChange};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use super::container::{Service, stand};
use crate::auth::Signed;
use crate::error::Result;
use crate::input::Input;
use crate::{origin, page};

pub(crate) struct Api;

/// A service that is to be added: by `protocol`, or by `type` and `internalPort`.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct ServiceRequest {
    /// A name such as `rdp`, or a port such as `8080/tcp`.
    protocol: Option<String>,
    /// `http`, `tcp` or `udp`.
    r#type: Option<String>,
    internal_port: Option<i64>,
    /// Only http: a label under `CAC_DOMAIN`; left out, the container's name. Other names may be set by admins.
    external_hostname: Option<String>,
    /// Only tcp: the reverse proxy ends TLS, with the certificate of `CAC_DOMAIN`.
    tls: Option<bool>,
    /// Only http: the container speaks HTTPS itself; its certificate is not checked.
    https: Option<bool>,
    /// Only http: the largest body of a request in MiB, at most 102400; left out or 0: 2048.
    max_body: Option<i64>,
    /// Only http: seconds for which the container may be silent, at most 86400; left out or 0: 3600.
    timeout: Option<i64>,
}

/// What is changed of a service.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct ServiceUpdate {
    internal_port: Option<i64>,
    /// Only http.
    external_hostname: Option<String>,
    /// Only tcp: the reverse proxy ends TLS, with the certificate of `CAC_DOMAIN`.
    tls: Option<bool>,
    /// Only http: the container speaks HTTPS itself; its certificate is not checked.
    https: Option<bool>,
    /// Only http: the largest body of a request in MiB, at most 102400; 0: 2048.
    max_body: Option<i64>,
    /// Only http: seconds for which the container may be silent, at most 86400; 0: 3600.
    timeout: Option<i64>,
}

#[derive(ApiResponse)]
pub(crate) enum Listed {
    /// The services in order of their ids
    #[oai(status = 200)]
    Services(Json<Vec<Service>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum Added {
    /// The service
    #[oai(status = 201)]
    Service(Json<Service>, #[oai(header = "Location")] String),
    /// For browsers: back to the container
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Changed {
    /// The service
    #[oai(status = 200)]
    Service(Json<Service>),
    /// For browsers: back to the container
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Removed {
    /// It is gone, and its name or port is free
    #[oai(status = 204)]
    Gone,
    /// For browsers: back to the container
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[OpenApi]
impl Api {
    /// List a container's services
    #[oai(
        path = "/containers/:id/services",
        method = "get",
        operation_id = "service_list",
        tag = "Tag::Containers"
    )]
    async fn service_list(&self, who: Signed, id: Path<i64>) -> Result<Listed> {
        let row = container::find(&who.core, &who.actor, id.0).await?;
        let reach = who.core.config.reach();
        let services = row.services.iter();
        let mut services: Vec<_> = services
            .map(|service| Service::of(&reach, &row, service))
            .collect();
        stand(&who.core, services.iter_mut()).await?;
        let total = services.len() as u64;
        Ok(Listed::Services(Json(services), total))
    }

    /// Add a service
    ///
    /// tcp and udp services get the first free external port of their range; http services are reached by their name.
    #[oai(
        path = "/containers/:id/services",
        method = "post",
        operation_id = "service_create",
        tag = "Tag::Containers"
    )]
    async fn service_create(
        &self,
        who: Signed,
        id: Path<i64>,
        body: Input<ServiceRequest>,
    ) -> Result<Added> {
        let add = async {
            let asked = body.read()?;
            let name = asked.external_hostname;
            let new = NewOne {
                options: Options {
                    tls: asked.tls,
                    https: asked.https,
                    max_body: asked.max_body,
                    timeout: asked.timeout,
                },
                protocol: asked.protocol,
                r#type: asked.r#type,
                internal_port: asked.internal_port,
                // A form sends the field for the name whatever the type is.
                external_hostname: name.filter(|name| !(body.form && name.trim().is_empty())),
            };
            Ok(service::add(&who.core, &who.actor, id.0, &new).await?)
        };
        let row = page::container::or_page(&who, id.0, add).await?;
        if who.html {
            return Ok(Added::There(place(id.0)));
        }
        let path = format!("{}/services/{}", place(id.0), row.id);
        let at = origin::absolute(&who.core.config, &path);
        Ok(Added::Service(Json(shown(&who, &row).await?), at))
    }

    /// Change a service
    ///
    /// Only the fields that are sent. Its type and external port stay.
    #[oai(
        path = "/containers/:id/services/:sid",
        method = "put",
        operation_id = "service_update",
        tag = "Tag::Containers"
    )]
    async fn service_update(
        &self,
        who: Signed,
        id: Path<i64>,
        sid: Path<i64>,
        body: Input<ServiceUpdate>,
    ) -> Result<Changed> {
        let update = async {
            let asked = body.read()?;
            let change = ServiceChange {
                options: Options {
                    tls: asked.tls,
                    https: asked.https,
                    max_body: asked.max_body,
                    timeout: asked.timeout,
                },
                internal_port: asked.internal_port,
                external_hostname: asked.external_hostname,
            };
            Ok(service::update(&who.core, &who.actor, id.0, sid.0, &change).await?)
        };
        let row = page::container::or_page(&who, id.0, update).await?;
        if who.html {
            return Ok(Changed::There(place(id.0)));
        }
        Ok(Changed::Service(Json(shown(&who, &row).await?)))
    }

    /// Remove a service
    #[oai(
        path = "/containers/:id/services/:sid",
        method = "delete",
        operation_id = "service_delete",
        tag = "Tag::Containers"
    )]
    async fn service_delete(&self, who: Signed, id: Path<i64>, sid: Path<i64>) -> Result<Removed> {
        let remove = async { Ok(service::remove(&who.core, &who.actor, id.0, sid.0).await?) };
        page::container::or_page(&who, id.0, remove).await?;
        if who.html {
            return Ok(Removed::There(place(id.0)));
        }
        Ok(Removed::Gone)
    }
}

async fn shown(who: &Signed, service: &service::Service) -> Result<Service> {
    let row = container::find(&who.core, &who.actor, service.container_id).await?;
    let mut shown = Service::of(&who.core.config.reach(), &row, service);
    stand(&who.core, std::iter::once(&mut shown)).await?;
    Ok(shown)
}

fn place(id: i64) -> String {
    format!("/containers/{id}")
}
