//! The progress page: how a job stands, its steps and where they led. Script streams its output; without script the end of it is
//! shown, and loaded again.

use cac_core::job::{self, Job, Output, Status};
use cac_core::{Actor, Core, container};
use serde_json::{Value, json};

use super::{container::shape, render};
use crate::error::Result;

/// Rows that the page shows at most without script.
const ROWS: u32 = 1000;

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
            "c": row.map(|row| shape(&core.config, &row, None)),
            "place": job::place(core, &job).await?,
            "steps": if typed { steps(&job, &rows) } else { Vec::new() },
            "typed": typed,
            "log": strip_ansi_escapes::strip_str(log),
            "more": skipped > 0,
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
            let millis = (end - *at).num_milliseconds().max(0);
            format!("{}.{} s", millis / 1000, millis % 1000 / 100)
        });
        json!({"title": title, "class": class, "took": took})
    };
    begun.iter().enumerate().map(one).collect()
}
