//! Liveness and readiness, for supervisors and load balancers.

use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::auth::Carried;
use crate::error::{ApiError, Result};
use cac_core::node;
use poem::web::Data;

pub(crate) struct Api;

/// That a program answers.
#[derive(Object)]
pub(crate) struct Health {
    /// `ok`
    status: String,
}

#[derive(ApiResponse)]
pub(crate) enum Home {
    /// To the list of containers
    #[oai(status = 303)]
    Containers(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Answer {
    /// It does
    #[oai(status = 200)]
    Health(Json<Health>),
}

fn ok() -> Answer {
    Answer::Health(Json(Health {
        status: "ok".to_owned(),
    }))
}

#[OpenApi]
impl Api {
    /// Go to the containers
    #[oai(
        path = "/",
        method = "get",
        operation_id = "home_find",
        tag = "Tag::Containers"
    )]
    async fn home(&self) -> Home {
        Home::Containers("/containers".to_owned())
    }

    /// Whether the process answers
    #[oai(
        path = "/healthz",
        method = "get",
        operation_id = "health_find",
        tag = "Tag::Health"
    )]
    async fn health(&self) -> Result<Answer> {
        Ok(ok())
    }

    /// Whether requests can be served: the database answers
    #[oai(
        path = "/readyz",
        method = "get",
        operation_id = "readiness_find",
        tag = "Tag::Health"
    )]
    async fn ready(&self, carried: Data<&Carried>) -> Result<Answer> {
        match node::all(&carried.core).await {
            Ok(_) => Ok(ok()),
            Err(error) => {
                tracing::warn!(%error, "not ready");
                let status = poem::http::StatusCode::SERVICE_UNAVAILABLE;
                Err(ApiError::new(status, "The database does not answer now."))
            }
        }
    }
}
