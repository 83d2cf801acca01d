//! Pages of jobs: the list with the form for a shell command, and the progress page: how a job
//! stands, its steps and where they led. Script streams its output; without script the end of it is shown, and loaded again.

use std::collections::BTreeMap;

use cac_core::job::{self, Filter, Job, Output, Status};
use cac_core::{Actor, Core, container};
use poem_openapi::types::ToJSON as _;
use serde_json::{Value, json};

use super::{Refused, container as containers, part, render};
use crate::error::Result;

/// Rows of output that the page shows at most without script.
const ROWS: u32 = 1000;
const STATUSES: [Status; 5] = [
    Status::Pending,
    Status::Running,
    Status::Success,
    Status::Failure,
    Status::Cancelled,
];

/// The list, and how many jobs there are.
pub(crate) async fn list(
    core: &Core,
    who: &Actor,
    filter: &Filter,
    refused: Option<Refused<'_>>,
) -> Result<(String, i64)> {
    let (rows, total) = job::list(core, who, filter).await?;
    let ids = rows.iter().filter_map(|job| job.container_id).collect();
    let names = container::names(core, who, ids).await?;
    let jobs: Vec<Value> = rows
        .iter()
        .map(|job| shape(core, who, job, &names))
        .collect();
    let status = filter.status.map(|status| status.as_str().to_owned());
    let set = [
        ("container", filter.container.map(|id| id.to_string())),
        ("status", status.clone()),
        ("user", filter.user.clone()),
        ("newest", (!filter.newest).then(|| "false".to_owned())),
    ];
    let (sent, problem) = refused.unzip();
    let page = render(
        "jobs.html",
        Some(who),
        json!({
            "here": "/jobs", "jobs": jobs, "statuses": STATUSES, "narrowed": set[..3].iter().any(|(_, value)| value.is_some()),
            "pages": part::pages("/jobs", &set, (filter.limit, filter.offset), (rows.len(), total)),
            "f": {"container": filter.container, "status": status, "user": filter.user},
            "own": filter.user.as_ref() == Some(&who.username),
            "mine": part::address("/jobs", &[("user", Some(who.username.clone()))], &[]),
            "shell": who.admin && core.config.runner.shell_jobs,
            "tasks": tasks(core, who, sent), "sent": sent,
            "problem": problem.map(|problem| problem.to_json()),
        }),
    );
    Ok((page, total))
}

/// A job as the list shows it.
fn shape(core: &Core, who: &Actor, job: &Job, names: &BTreeMap<i64, String>) -> Value {
    let took = job.started_at.map(|began| {
        let end = job.finished_at.unwrap_or_else(|| core.clock.now());
        part::lasted(began, end)
    });
    let name = job.container_id.and_then(|id| names.get(&id));
    json!({
        "id": job.id, "command": job.command, "owner": job.created_by, "status": job.status,
        "reason": job.reason, "asked": job.created_at, "after": job.start_after, "took": took,
        "container": name.map(|name| json!({"id": job.container_id, "name": name})),
        "ended": job.status.ended(), "again": again(core, who, job),
    })
}

/// The tasks that may be started, each with the fields of its form.
fn tasks(core: &Core, who: &Actor, sent: Option<&BTreeMap<String, String>>) -> Vec<Value> {
    let allowed = core.config.tasks.allowed(who);
    let shown = allowed.map(|(name, task)| {
        let sent = sent.filter(|sent| sent.get("task").is_some_and(|task| task == name));
        let fields = task.parameters.iter().map(|(field, parameter)| {
            let value = sent.and_then(|sent| sent.get(&format!("parameters.{field}")));
            json!({
                "name": field, "about": parameter.about, "default": parameter.default,
                "choices": parameter.choices, "value": value,
            })
        });
        let fields: Vec<Value> = fields.collect();
        json!({"name": name, "about": task.about, "fields": fields, "sent": sent.is_some()})
    });
    shown.collect()
}

/// The fields of a form that asks for the same work again, where that may be asked for.
fn again(core: &Core, who: &Actor, job: &Job) -> Option<Value> {
    if !job.status.ended() {
        return None;
    }
    if job.kind.is_none() {
        let may = who.admin && core.config.runner.shell_jobs;
        return may.then(|| json!({"command": job.command}));
    }
    let work = job.task.as_ref()?;
    let known = core.config.tasks.get(&work.task)?;
    let parameters = serde_json::to_string(&work.parameters).ok()?;
    let fields = || json!({"task": work.task, "parameters": parameters});
    known.allows(who).then(fields)
}

pub(crate) async fn status(core: &Core, who: &Actor, id: i64) -> Result<String> {
    let job = job::find(core, who, id).await?;
    let count = job::output_count(core, id).await?;
    let skipped = u32::try_from(count)
        .unwrap_or(u32::MAX)
        .saturating_sub(ROWS);
    let rows = job::output(core, id, ROWS, skipped).await?;
    let row = match job.container_id {
        Some(id) => container::find_any(core, id).await?,
        None => None,
    };
    let row = row.filter(|row| who.may_see(Some(&row.username)));
    let good = job.status == Status::Success;
    let log: String = rows.iter().map(|row| row.output.as_str()).collect();
    let typed = job.kind.is_some();
    Ok(render(
        "status.html",
        Some(who),
        json!({
            "here": "/jobs",
            "ended": job.status.ended(),
            "good": good,
            "arrived": good && row.as_ref().is_some_and(|row| row.state.is_none()) && job.kind.as_deref() == Some("container_create"),
            "c": row.map(|row| containers::shape(&core.config, &row, None)),
            "place": job::place(core, &job).await?,
            "steps": if typed { steps(&job, &rows) } else { Vec::new() },
            "typed": typed,
            "log": strip_ansi_escapes::strip_str(log),
            "more": skipped > 0,
            "again": again(core, who, &job),
            "job": job,
        }),
    ))
}

/// The steps that began, with how long each took.
fn steps(job: &Job, rows: &[Output]) -> Vec<Value> {
    let lines = rows
        .iter()
        .flat_map(|row| row.output.lines().map(|line| (row.created_at, line)));
    let begun: Vec<_> = lines
        .filter_map(|(at, line)| {
            let (number, title) = line.strip_prefix('[')?.split_once("] ")?;
            let (number, of) = number.split_once('/')?;
            number.parse::<u8>().ok().zip(of.parse::<u8>().ok())?;
            Some((at, title))
        })
        .collect();
    let one = |(index, (at, title)): (usize, &(chrono::DateTime<chrono::Utc>, &str))| {
        let next = begun.get(index + 1).map(|(at, _)| *at);
        let class = match (next, job.status) {
            (Some(_), _) | (None, Status::Success) => "done",
            (None, status) if status.ended() => "failed",
            _ => "now",
        };
        let took = next.or(job.finished_at).map(|end| {
            let millis = (end - *at).num_milliseconds();
            match millis {
                ..100 => "< 0.1 s".to_owned(),
                _ => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
            }
        });
        json!({"title": title, "class": class, "took": took})
    };
    begun.iter().enumerate().map(one).collect()
}
