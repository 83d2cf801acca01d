//! The progress page: a job's output so far; script keeps it live, without script it is loaded again.

use cac_core::job::{self, Status};
use cac_core::{Actor, Core, container};
use serde_json::json;

use super::render;
use crate::assets;
use crate::error::Result;

/// Rows that the page shows at most.
const ROWS: u32 = 1000;

pub(crate) async fn status(core: &Core, who: &Actor, id: i64) -> Result<String> {
    let job = job::find(core, who, id).await?;
    let rows = job::output(core, id, ROWS, 0).await?;
    let gone = match job.container_id {
        Some(container) => container::find_any(core, container).await?.is_none(),
        None => true,
    };
    let log: String = rows.iter().map(|row| row.output.as_str()).collect();
    Ok(render(
        "status.html",
        Some(who),
        json!({
            "ended": job.status.ended(),
            "good": job.status == Status::Success,
            "log": log,
            "after": rows.last().map_or(0, |row| row.id),
            "more": rows.len() == ROWS as usize,
            "gone": gone,
            "script": assets::script(),
            "job": job,
        }),
    ))
}
