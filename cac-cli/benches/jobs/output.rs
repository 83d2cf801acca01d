//! Lines that one job prints, stored per second, beside the same bytes put into the same table by bare inserts.

use std::time::Instant;

use cac_core::args;

use crate::bare::Bare;
use crate::lab::Running;
use crate::place::{add, databases, ended, fresh, span};
use crate::rate::per_second;

const LINES: usize = 1_000_000;
const LINE: &str = "A line of output as a build would print it, one hundred bytes long with its end, and nothing to it.";
/// As the engine cuts its rows.
const CHUNK: usize = 16 * 1024;

pub(crate) async fn measure() {
    assert_eq!(LINE.len() + 1, 100);
    for name in databases() {
        let limit = bare(name).await;
        let engine = ours(name).await;
        let is = "bare inserts of 16 KiB each";
        crate::rates("lines of one job (100 bytes)", name, engine, limit, is);
    }
}

async fn ours(name: &str) -> f64 {
    let database = fresh(name).await;
    let runner = Running::start(
        "cac-runner",
        &[],
        &[
            ("DATABASE_URL", &database.url),
            ("JOB_OUTPUT_LIMIT_MIB", "1024"),
        ],
    );
    add(
        &database,
        1,
        &format!("yes '{LINE}' | head -n {LINES}"),
        None,
    )
    .await;
    ended(&database.db).await;
    runner.stop();
    assert_eq!(
        stored(&database.db).await,
        i64::try_from(100 * LINES).unwrap()
    );
    per_second(LINES, span(&database.db).await)
}

async fn stored(db: &cac_core::db::Db) -> i64 {
    let mut bytes = 0;
    let mut after = 0;
    // All at once would be a large answer.
    loop {
        let sql =
            r#"SELECT "id", "output" FROM "JobStatuses" WHERE "id" > ? ORDER BY "id" LIMIT 500"#;
        let rows = db.all(sql, args![after]).await.unwrap();
        let Some(last) = rows.last() else {
            return bytes;
        };
        after = last.get::<i64>("id").unwrap();
        for row in &rows {
            bytes += i64::try_from(row.get::<String>("output").unwrap().len()).unwrap();
        }
    }
}

async fn bare(name: &str) -> f64 {
    let database = fresh(name).await;
    add(&database, 1, "# bare", Some("bare")).await;
    let mut conn = Bare::open(&database.url).await;
    let text = format!("{LINE}\n").repeat(CHUNK / 100 + 1);
    let began = Instant::now();
    let mut left = 100 * LINES;
    while left > 0 {
        let chunk = CHUNK.min(left);
        conn.append(1, &text[..chunk]).await;
        left -= chunk;
    }
    per_second(LINES, began.elapsed())
}
