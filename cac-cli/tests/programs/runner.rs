//! `cac-runner` as systemd runs it.

use cac_core::db::Db;
use cac_core::{args, testing};

use crate::lab::{Running, until};

/// The seed's own snippet, and its promise for SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_by_hand_runs_and_a_shutdown_cancels_what_runs() {
    for database in testing::databases().await {
        let vars = [
            ("DATABASE_URL", database.url.as_str()),
            ("JOB_RUNNER_POLL_MS", "50"),
        ];
        let runner = Running::start("cac-runner", &[], &vars);
        let quick = insert(&database.db, r#"echo "Hello" && echo "World""#).await;
        assert_eq!(ended(&database.db, quick).await, "success");
        let long = insert(&database.db, "echo begun; sleep 600").await;
        until("the command runs", async || {
            let row = database
                .db
                .opt(
                    r#"SELECT "id" FROM "JobStatuses" WHERE "jobId" = ?"#,
                    args![long],
                )
                .await
                .unwrap();
            row.map(drop)
        })
        .await;
        runner.stop();
        assert_eq!(ended(&database.db, long).await, "cancelled");
    }
}

async fn insert(db: &Db, command: &str) -> i64 {
    let now = chrono::Utc::now();
    let mut tx = db.write().await.unwrap();
    let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt") VALUES (?, 'pending', ?, ?)"#;
    let id = tx.insert(sql, args![command, now, now]).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn ended(db: &Db, job: i64) -> String {
    until("the job has ended", async || {
        let row = db
            .one(r#"SELECT "status" FROM "Jobs" WHERE "id" = ?"#, args![job])
            .await
            .unwrap();
        let status: String = row.get("status").unwrap();
        (!matches!(status.as_str(), "pending" | "running")).then_some(status)
    })
    .await
}
