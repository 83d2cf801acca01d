//! Event streams of a job: its output and state as they come, taken up again where the client left off.

use std::marker::PhantomData;
use std::time::Duration;

use cac_core::credential;
use cac_core::job::{self, Follower, Happening, Job};
use futures_util::{Stream, StreamExt as _, stream};
use poem::web::sse::{Event, SSE};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type;
use tokio::time::{Instant, Interval};

use crate::auth::Signed;
use crate::error::Result;
use crate::slots::Slot;

/// How often a comment keeps the connection open.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often the session or token is looked at again.
const CHECK: Duration = Duration::from_secs(5);

/// Follows a job from the row after `after`, as long as the session lasts; rights were checked by finding `job`. Refused (429) where
/// the user follows too many already.
pub(crate) fn follow(
    who: Signed,
    job: &Job,
    after: i64,
) -> Result<impl Stream<Item = Happening> + Send + use<>> {
    let viewer = Viewer {
        _open: who.limits.open_stream(&who.actor.username)?,
        follower: job::follow(&who.core, job.id, after),
        owner: job.created_by.clone(),
        check: tokio::time::interval_at(Instant::now() + CHECK, CHECK),
        who,
    };
    let happenings = stream::unfold(viewer, |mut viewer| async move {
        let happened = viewer.next().await?;
        Some((stream::iter(happened), viewer))
    });
    Ok(happenings.flatten())
}

/// Somebody who looks at a job's stream.
struct Viewer {
    who: Signed,
    follower: Follower,
    owner: Option<String>,
    check: Interval,
    _open: Slot<String>,
}

impl Viewer {
    async fn next(&mut self) -> Option<Vec<Happening>> {
        loop {
            tokio::select! {
                happened = self.follower.next() => return happened,
                () = self.who.stop.cancelled() => return None,
                _ = self.check.tick() => if !self.may_see().await {
                    return None;
                },
            }
        }
    }

    async fn may_see(&self) -> bool {
        match credential::recent(&self.who.core, &self.who.credential).await {
            Ok(actor) => actor.is_some_and(|actor| actor.may_see(self.owner.as_deref())),
            Err(error) => {
                // The client comes back with its Last-Event-ID.
                tracing::warn!(%error, "a stream ends early");
                false
            }
        }
    }
}

/// An event stream whose messages carry `T`; poem-openapi's own cannot name events that are not part of `T`.
pub(crate) struct Frames<T>(SSE, PhantomData<fn() -> T>);

impl<T> Frames<T> {
    pub(crate) fn new(events: impl Stream<Item = Event> + Send + 'static) -> Self {
        Self(SSE::new(events).keep_alive(HEARTBEAT), PhantomData)
    }
}

impl<T> IntoResponse for Frames<T> {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl<T: Type> ApiResponse for Frames<T> {
    fn meta() -> MetaResponses {
        let schema = MetaSchema {
            items: Some(Box::new(T::schema_ref())),
            ..MetaSchema::new_with_format("array", "event-stream")
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The stream; a comment every 15 s keeps it open",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: "text/event-stream",
                    schema: MetaSchemaRef::Inline(Box::new(schema)),
                }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}
