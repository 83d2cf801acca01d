//! Liveness, readiness and metrics, for supervisors, load balancers and Prometheus.

use poem_openapi::payload::{Json, PlainText};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::auth::{Anyone, Carried};
use crate::error::{ApiError, Result};
use crate::origin;
use cac_core::overview;
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

#[derive(ApiResponse)]
pub(crate) enum Metrics {
    /// In the text format of OpenMetrics
    #[oai(
        status = 200,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )]
    Text(PlainText<String>),
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

    /// Metrics
    ///
    /// What this process served, and how much there is of everything; for machines of `METRICS_ALLOW` and for admins.
    #[oai(
        path = "/metrics",
        method = "get",
        operation_id = "metrics_find",
        tag = "Tag::Health"
    )]
    async fn metrics(&self, who: Anyone) -> Result<Metrics> {
        let allowed = &who.core.config.metrics_allow;
        let local = origin::is_machine(&who.core, who.source, allowed).await?;
        if !local {
            let actor = who.actor.as_ref().ok_or_else(ApiError::unauthenticated)?;
            actor.must_be_admin()?;
        }
        let now = overview::find(&who.core).await?;
        Ok(Metrics::Text(PlainText(who.served.tell(&now))))
    }

    /// Whether requests can be served: the database answers, and no work in the background keeps failing
    #[oai(
        path = "/readyz",
        method = "get",
        operation_id = "readiness_find",
        tag = "Tag::Health"
    )]
    async fn ready(&self, carried: Data<&Carried>) -> Result<Answer> {
        let message = if carried.readiness.is_ready() {
            let failing = carried.core.background.failing();
            if failing.is_empty() {
                return Ok(ok());
            }
            format!(
                "Background work failed within the last minute: {}. The log has the cause.",
                failing.join(", ")
            )
        } else {
            "The database does not answer now.".to_owned()
        };
        let status = poem::http::StatusCode::SERVICE_UNAVAILABLE;
        Err(ApiError::new(status, message))
    }
}
