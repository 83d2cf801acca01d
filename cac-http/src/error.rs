//! Errors on the wire: one mapping from the library's error to `application/problem+json` (RFC 9457).
//! Making an answer of it, JSON or a page, is `edge.rs`.

use std::collections::BTreeMap;

use cac_core::Error;
use cac_core::error::Fields;
use poem::error::ResponseError;
use poem::http::StatusCode;
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::{ApiResponse, Object, payload::Payload};

/// Every error answer, whatever the operation (RFC 9457).
#[derive(Debug, Clone, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct Problem {
    /// Only where clients should tell it from others of its status: `urn:cac:reauthentication-required`, give the password again
    /// (`POST /reauthenticate`) and then send the request again.
    #[oai(rename = "type")]
    pub kind: Option<String>,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do.
    pub detail: String,
    /// For bad input and conflicts: one message for each field.
    pub errors: Option<BTreeMap<String, String>>,
    /// Names this request in the server's log.
    #[oai(rename = "requestId")]
    pub request_id: Option<String>,
    /// Only when a second factor is asked for: send it back with the code.
    pub challenge: Option<String>,
    /// Only when a second factor is asked for: what Proxmox VE accepts, such as `totp`.
    pub kinds: Option<Vec<String>>,
}

/// `type` of the problem that the password has not been given for too long.
pub(crate) const REAUTHENTICATION: &str = "urn:cac:reauthentication-required";

/// A problem with what must not leave the server.
#[derive(Debug)]
pub(crate) struct Told {
    pub problem: Problem,
    /// For the log only.
    pub cause: Option<String>,
    /// Seconds.
    pub retry_after: Option<u64>,
    /// The page that a browser is shown instead of the general one.
    pub page: Option<String>,
}

/// What handlers fail with.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.problem.detail)]
pub(crate) struct ApiError(pub Box<Told>);

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Told {
            problem: Problem {
                title: status.canonical_reason().unwrap_or("Error").to_owned(),
                status: status.as_u16(),
                detail: detail.into(),
                ..Problem::default()
            },
            cause: None,
            retry_after: None,
            page: None,
        }))
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Sign in first: POST /login.")
    }

    /// The session is good, but its password was given too long ago for this.
    pub(crate) fn unproved() -> Self {
        let mut error = Self::new(
            StatusCode::FORBIDDEN,
            "Your password is needed again for this, since you gave it more than 15 minutes ago: POST /reauthenticate, then send the \
             request again.",
        );
        error.0.problem.kind = Some(REAUTHENTICATION.to_owned());
        error
    }

    /// Whether this is [`Self::unproved`], or a second factor that goes with it.
    pub(crate) fn is_unproved(&self) -> bool {
        self.0.problem.kind.as_deref() == Some(REAUTHENTICATION)
    }

    /// A defect or a failed dependency; the cause goes to the log.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong here. Try again; if it stays, give an admin the request's id.",
        );
        error.0.cause = Some(cause.into());
        error
    }

    pub(crate) fn field(mut self, field: &str, message: impl Into<String>) -> Self {
        let errors = self.0.problem.errors.get_or_insert_default();
        errors.insert(field.to_owned(), message.into());
        self
    }

    pub(crate) fn with_page(mut self, page: String) -> Self {
        self.0.page = Some(page);
        self
    }
}

fn invalid(fields: Fields) -> ApiError {
    let detail = format!("Please correct: {fields}");
    let mut error = ApiError::new(StatusCode::BAD_REQUEST, detail);
    for (field, message) in fields.0 {
        error = error.field(field, message);
    }
    error
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(text) => Self::new(StatusCode::NOT_FOUND, text),
            Error::Conflict { field, message } => {
                Self::new(StatusCode::CONFLICT, message.clone()).field(field, message)
            }
            Error::Invalid(fields) => invalid(fields),
            Error::Forbidden(text) => Self::new(StatusCode::FORBIDDEN, text),
            Error::Unauthenticated(text) => Self::new(StatusCode::UNAUTHORIZED, text),
            Error::Busy { message, after } => {
                let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, message);
                error.0.retry_after = Some(after.as_secs().max(1));
                error
            }
            Error::TooMany { message, after } => {
                let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, message);
                error.0.retry_after = Some(after.as_secs().max(1));
                error
            }
            Error::Upstream(text) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
            Error::Unreachable(text) => {
                let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, text);
                error.0.retry_after = Some(5);
                error
            }
            Error::Internal(cause) => Self::internal(cause),
        }
    }
}

impl ResponseError for ApiError {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl ApiResponse for ApiError {
    /// Which statuses an operation may answer with is said by `spec.rs`; this one names the type.
    fn meta() -> MetaResponses {
        let response = MetaResponse {
            description: "",
            status: Some(500),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: "application/problem+json",
                schema: <Json<Problem> as Payload>::schema_ref(),
            }],
            headers: vec![],
        };
        MetaResponses {
            responses: vec![response],
        }
    }

    fn register(registry: &mut Registry) {
        <Json<Problem> as Payload>::register(registry);
    }
}
