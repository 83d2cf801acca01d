//! Jobs, their output and their event streams.

use std::collections::HashMap;

use cac_core::job::{self, Happening, Status, Wanted, Work};
use cac_core::task::Values;
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use poem::web::sse::Event;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::{Html, Json};
use poem_openapi::types::ToJSON;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, Union};
use serde_json::{Map, Value};

use super::container::must_be_proved_for;
use super::{Tag, page as bounds};
use crate::accept::Both;
use crate::auth::Signed;
use crate::error::{ApiError, Result};
use crate::events::{self, Frames};
use crate::input::{self, Input};
use crate::{origin, page};

pub(crate) struct Api;

/// How a job stands.
#[derive(Enum, Clone, Copy)]
#[oai(rename_all = "lowercase")]
pub(crate) enum JobState {
    Pending,
    Running,
    Success,
    Failure,
    Cancelled,
}

impl From<Status> for JobState {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Running => Self::Running,
            Status::Success => Self::Success,
            Status::Failure => Self::Failure,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

/// A piece of durable work.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Job {
    id: i64,
    /// A shell command, or for typed jobs one readable line starting with `#`.
    command: String,
    status: JobState,
    created_by: Option<String>,
    /// Absent for shell commands.
    kind: Option<String>,
    /// Row id of the container that the job works on.
    container_id: Option<i64>,
    /// Why it ended otherwise than well, or why it waits for another try.
    reason: Option<String>,
    /// Only when one job is asked for, while it waits: its place among those that wait, from 1.
    place: Option<i64>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    /// It does not begin before this time.
    start_after: Option<DateTime<Utc>>,
}

impl From<JobState> for Status {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Pending => Self::Pending,
            JobState::Running => Self::Running,
            JobState::Success => Self::Success,
            JobState::Failure => Self::Failure,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

impl From<job::Job> for Job {
    fn from(job: job::Job) -> Self {
        Self {
            id: job.id,
            command: job.command,
            status: job.status.into(),
            created_by: job.created_by,
            kind: job.kind,
            container_id: job.container_id,
            reason: job.reason,
            place: None,
            created_at: job.created_at,
            updated_at: job.updated_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            start_after: job.start_after,
        }
    }
}

/// A chunk of a job's output.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct JobOutput {
    id: i64,
    job_id: i64,
    output: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<&job::Output> for JobOutput {
    fn from(row: &job::Output) -> Self {
        Self {
            id: row.id,
            job_id: row.job_id,
            output: row.output.clone(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The data of an event: of `output` a chunk, of `state` and `end` the job.
#[derive(Union)]
pub(crate) enum JobEvent {
    Output(JobOutput),
    Job(Job),
}

/// Work that somebody asks for: either `command` or `task`.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct NewJob {
    /// A shell command of at most 2000 characters, for admins.
    command: Option<String>,
    /// The name of a task that the administrator has described (`JOB_TASKS_FILE`).
    task: Option<String>,
    /// The values of the task's parameters; a form may send them one by one as `parameters.NAME`, left empty where there is none.
    parameters: Option<HashMap<String, String>>,
    /// The job does not begin before this time, which is within a year.
    start_after: Option<DateTime<Utc>>,
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// A page of jobs in order of their ids
    #[oai(status = 200)]
    Jobs(Both<Vec<Job>>, #[oai(header = "X-Total-Count")] i64),
}

#[derive(ApiResponse)]
pub(crate) enum Added {
    /// The job waits for a runner
    #[oai(status = 201)]
    Job(Json<Job>, #[oai(header = "Location")] String),
    /// For browsers: to the job's progress
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Found {
    /// The job as it is now
    #[oai(status = 200)]
    Job(Json<Job>),
    /// For browsers: to the job's progress
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum Outputs {
    /// A page of output in order
    #[oai(status = 200)]
    Rows(Json<Vec<JobOutput>>, #[oai(header = "X-Total-Count")] i64),
}

#[derive(ApiResponse)]
pub(crate) enum StatusPage {
    /// The page
    #[oai(status = 200)]
    Page(Html<String>),
}

#[OpenApi]
impl Api {
    /// List jobs
    ///
    /// One's own; for admins everyone's.
    #[oai(
        path = "/jobs",
        method = "get",
        operation_id = "job_list",
        tag = "Tag::Jobs"
    )]
    #[allow(clippy::too_many_arguments, reason = "one for each query parameter")]
    async fn job_list(
        &self,
        who: Signed,
        /// Only those that work on this container, or did; its row id.
        container: Query<Option<i64>>,
        /// Only those that stand so.
        status: Query<Option<JobState>>,
        /// Only this user's, for admins.
        user: Query<Option<String>>,
        /// Newest first; the page is so unless it is `false`.
        newest: Query<Option<bool>>,
        /// At most 1000.
        limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
    ) -> Result<List> {
        let limit = limit.0.or(who.html.then_some(page::ROWS));
        let (limit, offset) = bounds(limit, offset.0);
        let filter = job::Filter {
            container: container.0,
            status: status.0.map(Status::from),
            user: user.0,
            newest: newest.0.unwrap_or(who.html),
            limit,
            offset,
        };
        if who.html {
            let (page, total) = page::job::list(&who.core, &who.actor, &filter, None).await?;
            return Ok(List::Jobs(Both::Html(Html(page)), total));
        }
        let (jobs, total) = job::list(&who.core, &who.actor, &filter).await?;
        let jobs = jobs.into_iter().map(Job::from).collect();
        Ok(List::Jobs(Both::Json(Json(jobs)), total))
    }

    /// Add a job
    ///
    /// Admins may give a `command`, which a runner starts with `/bin/sh -c`; whoever a task allows may name that `task`. Who
    /// added the job stands in `createdBy`.
    #[oai(
        path = "/jobs",
        method = "post",
        operation_id = "job_create",
        tag = "Tag::Jobs"
    )]
    async fn job_create(
        &self,
        who: Signed,
        /// The same key of the same owner within 24 h adds nothing new.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Input<NewJob>,
    ) -> Result<Added> {
        let job = match ask(&who, &body, idempotency_key.0.as_deref()).await {
            Ok(job) => job,
            Err(error) if who.html => {
                let sent = input::shown(&body.raw);
                let filter = job::Filter {
                    newest: true,
                    limit: bounds(Some(page::ROWS), None).0,
                    ..job::Filter::default()
                };
                let refused = Some((&sent, &error.0.problem));
                let page = page::job::list(&who.core, &who.actor, &filter, refused).await?;
                return Err(error.with_page(page.0));
            }
            Err(error) => return Err(error),
        };
        if who.html {
            return Ok(Added::There(progress(job.id)));
        }
        let location = origin::absolute(&who.core.config, &format!("/jobs/{}", job.id));
        Ok(Added::Job(Json(job.into()), location))
    }

    /// One job
    ///
    /// To follow it live there are event streams, `/jobs/{id}/stream` and `/api/stream/{jobId}`.
    #[oai(
        path = "/jobs/:id",
        method = "get",
        operation_id = "job_find",
        tag = "Tag::Jobs"
    )]
    async fn job_find(&self, who: Signed, id: Path<i64>) -> Result<Found> {
        let job = job::find(&who.core, &who.actor, id.0).await?;
        if who.html {
            return Ok(Found::There(progress(job.id)));
        }
        let place = job::place(&who.core, &job).await?;
        Ok(Found::Job(Json(Job {
            place,
            ..job.into()
        })))
    }

    /// A job's output
    #[oai(
        path = "/jobs/:id/status",
        method = "get",
        operation_id = "job_output_list",
        tag = "Tag::Jobs"
    )]
    async fn job_output_list(
        &self,
        who: Signed,
        id: Path<i64>,
        /// At most 1000.
        limit: Query<Option<u64>>,
        /// Rows to skip.
        offset: Query<Option<u64>>,
    ) -> Result<Outputs> {
        job::find(&who.core, &who.actor, id.0).await?;
        let (limit, offset) = bounds(limit.0, offset.0);
        let total = job::output_count(&who.core, id.0).await?;
        let rows = job::output(&who.core, id.0, limit, offset).await?;
        let rows = rows.iter().map(JobOutput::from).collect();
        Ok(Outputs::Rows(Json(rows), total))
    }

    /// Stop a job
    #[oai(
        path = "/jobs/:id/cancel",
        method = "post",
        operation_id = "job_cancel",
        tag = "Tag::Jobs"
    )]
    async fn job_cancel(&self, who: Signed, id: Path<i64>) -> Result<Found> {
        // Cancelling a creation removes what is made of the container.
        if let Some(container) = job::find(&who.core, &who.actor, id.0).await?.container_id {
            must_be_proved_for(&who, container).await?;
        }
        let job = job::cancel(&who.core, &who.actor, id.0).await?;
        if who.html {
            return Ok(Found::There(progress(job.id)));
        }
        Ok(Found::Job(Json(job.into())))
    }

    /// Follow a job
    ///
    /// Events: `state` at first and when the job begins, `output` for each chunk, `end` at the end.
    #[oai(
        path = "/jobs/:id/stream",
        method = "get",
        operation_id = "job_stream",
        tag = "Tag::Jobs"
    )]
    async fn job_stream(
        &self,
        who: Signed,
        id: Path<i64>,
        /// The last event that the client has seen.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<i64>>,
    ) -> Result<Frames<JobEvent>> {
        let job = job::find(&who.core, &who.actor, id.0).await?;
        let after = last_event_id.0.unwrap_or(0);
        let happenings = events::follow(who, &job, after)?;
        Ok(Frames::new(happenings.map(|happened| match happened {
            Happening::Output(row) => {
                let id = row.id.to_string();
                event("output", &JobEvent::Output(row.as_ref().into())).id(id)
            }
            Happening::State(job) => event("state", &JobEvent::Job(job::Job::clone(&job).into())),
            Happening::End(job) => event("end", &JobEvent::Job(job::Job::clone(&job).into())),
        })))
    }

    /// Follow a job's output as text
    ///
    /// Each message is a chunk as a JSON string; the last event is `close`.
    #[oai(
        path = "/api/stream/:jobId",
        method = "get",
        operation_id = "job_text_stream",
        tag = "Tag::Jobs"
    )]
    async fn job_text_stream(
        &self,
        who: Signed,
        #[oai(name = "jobId")] id: Path<i64>,
        /// The last event that the client has seen.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<i64>>,
    ) -> Result<Frames<String>> {
        let job = job::find(&who.core, &who.actor, id.0).await?;
        let after = last_event_id.0.unwrap_or(0);
        let happenings = events::follow(who, &job, after)?;
        Ok(Frames::new(happenings.filter_map(
            async |happened| match happened {
                Happening::Output(row) => {
                    Some(Event::message(row.output.to_json_string()).id(row.id.to_string()))
                }
                Happening::State(_) => None,
                Happening::End(job) => {
                    let text = format!("Process finished with status: {}", job.status.as_str());
                    Some(Event::message(text).event_type("close"))
                }
            },
        )))
    }

    /// A job's progress as a page
    #[oai(
        path = "/status/:jobId",
        method = "get",
        operation_id = "job_page",
        tag = "Tag::Jobs"
    )]
    async fn job_page(
        &self,
        who: Signed,
        #[oai(name = "jobId")] id: Path<i64>,
    ) -> Result<StatusPage> {
        let page = page::job::status(&who.core, &who.actor, id.0).await?;
        Ok(StatusPage::Page(Html(page)))
    }
}

async fn ask(who: &Signed, body: &Input<NewJob>, key: Option<&str>) -> Result<job::Job> {
    let asked = body.read_some()?;
    let mut parameters: Values = asked.parameters.unwrap_or_default().into_iter().collect();
    if body.form {
        parameters.extend(one_by_one(&body.raw));
    }
    let command = match asked.command {
        // Browsers send lines so, and the shell would take the `\r` for a part of a word.
        Some(text) if body.form => Some(text.replace("\r\n", "\n")),
        command => command,
    };
    let work = match (&command, &asked.task) {
        (_, None) => Work::Shell(command.as_deref().unwrap_or_default()),
        (None, Some(task)) => Work::Task(task, &parameters),
        (Some(_), Some(_)) => {
            let message = "Give either a command or a task.";
            return Err(cac_core::Error::invalid("task", message).into());
        }
    };
    // A command may do whatever the jobs' user may.
    if command.is_some() && who.actor.admin {
        who.must_be_proved().await?;
    }
    let wanted = Wanted {
        work,
        start_after: asked.start_after,
        key,
    };
    let job = job::ask(&who.core, &who.actor, wanted).await;
    job.map_err(ApiError::from)
}

/// The values of a task's form.
fn one_by_one(raw: &Map<String, Value>) -> impl Iterator<Item = (String, String)> {
    raw.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("parameters.")?;
        let text = value.as_str().filter(|text| !text.is_empty())?;
        Some((name.to_owned(), text.to_owned()))
    })
}

fn progress(id: i64) -> String {
    format!("/status/{id}")
}

fn event(name: &str, data: &JobEvent) -> Event {
    Event::message(data.to_json_string()).event_type(name)
}
