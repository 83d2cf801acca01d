//! Old output goes, a few rows at a time, so that nobody waits for it. Jobs themselves stay.

use std::time::Duration;

use crate::db::Row;
use crate::{Core, Result, args};

/// Rows of one step.
const STEP: u32 = 500;
/// Between two steps.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks when there is nothing to remove.
const LOOK: Duration = Duration::from_secs(600);

/// Removes output as it grows old, for as long as it is polled. Any number of runners may do so.
pub(super) async fn keep(core: &Core) {
    loop {
        let pause = match step(core).await {
            Ok(0) => LOOK,
            Ok(_) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, "old output is not removed now");
                LOOK
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Removes one step of rows of jobs that ended long ago; how many it found.
pub async fn step(core: &Core) -> Result<usize> {
    let Some(age) = core.config.runner.output_age else {
        return Ok(0);
    };
    let age = chrono::Duration::from_std(age).unwrap_or(chrono::Duration::MAX);
    let Some(before) = core.clock.now().checked_sub_signed(age) else {
        return Ok(0);
    };
    let rows = core
        .db
        .all(
            r#"SELECT s."id" FROM "JobStatuses" s JOIN "Jobs" j ON j."id" = s."jobId"
               WHERE j."status" IN ('success', 'failure', 'cancelled') AND COALESCE(j."finishedAt", j."updatedAt") < ?
               ORDER BY s."id" LIMIT ?"#,
            args![before, STEP],
        )
        .await?;
    let ids = rows
        .iter()
        .map(|row: &Row| Ok(row.get("id")?))
        .collect::<Result<Vec<i64>>>()?;
    let found = ids.len();
    if found > 0 {
        let sql = r#"DELETE FROM "JobStatuses" WHERE "id" IN ?"#;
        core.db.exec(sql, args![ids]).await?;
    }
    Ok(found)
}
