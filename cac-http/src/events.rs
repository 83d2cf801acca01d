//! Event streams of a job: its output and state as they come, taken up again where the client left off.

use std::marker::PhantomData;
use std::time::Duration;

use cac_core::job::{self, Job, Output};
use cac_core::session;
use futures_util::{Stream, StreamExt as _, stream};
use poem::web::sse::{Event, SSE};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::auth::Signed;

/// How often a comment keeps the connection open.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often output that another process wrote is looked for.
const LOOK: Duration = Duration::from_millis(300);
/// How often the session is looked at again.
const CHECK: Duration = Duration::from_secs(5);
/// Rows a look takes at most.
const ROWS: u32 = 500;

/// What happens to a job.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Output(Output),
    /// The job changed its state; sent once at the beginning, too.
    State(Job),
    /// The last one.
    End(Job),
}

struct Follower {
    who: Signed,
    id: i64,
    changed: watch::Receiver<u64>,
    /// The last row that was sent.
    after: i64,
    state: Option<job::Status>,
    ended: bool,
    /// When the session was last seen to be good.
    checked: Instant,
}

/// Follows a job from the row after `after`, as long as the session lasts; rights were checked by finding `job`.
pub(crate) fn follow(
    who: Signed,
    job: &Job,
    after: i64,
) -> impl Stream<Item = Happening> + Send + use<> {
    let follower = Follower {
        changed: who.core.wake.watch_output(),
        who,
        id: job.id,
        after,
        state: None,
        ended: false,
        checked: Instant::now(),
    };
    stream::unfold(follower, |mut follower| async move {
        let happened = follower.next().await?;
        Some((stream::iter(happened), follower))
    })
    .flatten()
}

impl Follower {
    async fn next(&mut self) -> Option<Vec<Happening>> {
        if self.ended {
            return None;
        }
        loop {
            self.changed.mark_unchanged();
            if self.checked.elapsed() >= CHECK {
                self.checked = Instant::now();
                if !matches!(
                    session::find(&self.who.core, &self.who.session).await,
                    Ok(Some(_))
                ) {
                    return None;
                }
            }
            match self.look().await {
                Ok(happened) if !happened.is_empty() => return Some(happened),
                Ok(_) => {}
                Err(error) => {
                    // The client comes back with its Last-Event-ID.
                    tracing::warn!(job = self.id, %error, "a stream ends early");
                    return None;
                }
            }
            tokio::select! {
                () = self.who.stop.cancelled() => return None,
                _ = self.changed.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The state is read before the output, so that nothing written before the end is missed.
    async fn look(&mut self) -> cac_core::Result<Vec<Happening>> {
        let job = job::find(&self.who.core, &self.who.actor, self.id).await?;
        let rows = job::output_after(&self.who.core, self.id, self.after, ROWS).await?;
        let full = rows.len() == ROWS as usize;
        self.after = rows.last().map_or(self.after, |row| row.id);
        let mut happened = Vec::new();
        if self.state != Some(job.status) && !job.status.ended() {
            self.state = Some(job.status);
            happened.push(Happening::State(job.clone()));
        }
        happened.extend(rows.into_iter().map(Happening::Output));
        if job.status.ended() && !full {
            self.ended = true;
            happened.push(Happening::End(job));
        }
        Ok(happened)
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
