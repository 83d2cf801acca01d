//! Jobs that are shell commands: rows without a kind, inserted by hand as the documentation of the original shows.

use cac_core::job::Status;
use cac_core::{args, testing};

use crate::lab::{Lab, until};

#[tokio::test]
async fn a_row_inserted_by_hand_runs() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.runner();
        let id = lab
            .insert("echo \"Hello\" && sleep 0.2 && echo \"World\"")
            .await;
        assert_eq!(lab.job(id).await.status, Status::Success);
        assert_eq!(lab.log(id).await, "Hello\nWorld\n");
        lab.end().await;
    }
}

/// J8 of the original: output swapped, and the last lines came after the end or never.
#[tokio::test]
async fn output_keeps_its_order_and_its_last_line() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.runner();
        let id = lab.insert("for i in $(seq 1 20000); do echo \"line $i\"; done; printf 'the end, no newline \\342\\234\\205'").await;
        assert_eq!(lab.job(id).await.status, Status::Success);
        let mut expected: String = (1..=20_000).map(|n| format!("line {n}\n")).collect();
        expected.push_str("the end, no newline \u{2705}");
        assert!(
            lab.log(id).await == expected,
            "{}: the log differs",
            lab.database.name
        );
        lab.end().await;
    }
}

/// J6 of the original: one failure of the database while output was stored ended the runner with all its jobs. Here the
/// table is away for two seconds in the middle of a job.
#[tokio::test]
async fn output_outlives_a_failing_database() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.runner();
        let id = lab
            .insert("for i in $(seq 1 30); do echo \"line $i\"; sleep 0.1; done")
            .await;
        until("it prints", async || lab.log(id).await.contains("line 3\n")).await;
        let (away, back) = (
            r#"ALTER TABLE "JobStatuses" RENAME TO "Away""#,
            r#"ALTER TABLE "Away" RENAME TO "JobStatuses""#,
        );
        lab.core.db.exec(away, args![]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        lab.core.db.exec(back, args![]).await.unwrap();
        let other = lab.insert("echo other").await;
        assert_eq!(lab.job(other).await.status, Status::Success);
        assert_eq!(lab.job(id).await.status, Status::Success);
        let expected: String = (1..=30).map(|n| format!("line {n}\n")).collect();
        assert_eq!(lab.log(id).await, expected, "{}", lab.database.name);
        lab.end().await;
    }
}

/// J12 of the original: death by a signal was told as an exit with code null.
#[tokio::test]
async fn the_exit_is_told_as_it_was() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.runner();
        for (command, reason) in [("exit 3", "status 3"), ("kill -9 $$", "signal 9")] {
            let id = lab.insert(command).await;
            let job = lab.job(id).await;
            assert_eq!(job.status, Status::Failure);
            assert!(job.reason.as_deref().unwrap().contains(reason), "{job:?}");
        }
        lab.end().await;
    }
}

/// J7: the child saw the database password and the session secret.
#[tokio::test]
async fn the_environment_of_a_command_holds_nothing_of_ours() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.runner();
        let id = lab.insert("env").await;
        lab.job(id).await;
        let log = lab.log(id).await;
        for name in ["CAC_", "MYSQL", "DATABASE_URL", "SESSION_SECRET", "CARGO"] {
            assert!(!log.contains(name), "{log}");
        }
        assert!(log.contains("PATH="), "{log}");
        lab.end().await;
    }
}

/// J5 of the original: only the shell was signalled, what it had started went on.
#[tokio::test]
async fn a_cancel_ends_the_whole_group() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.runner();
        let id = lab
            .insert("sh -c 'echo child $$; exec sleep 1000' & wait")
            .await;
        until("the child has begun", async || {
            lab.log(id).await.contains("child ")
        })
        .await;
        let log = lab.log(id).await;
        let pid: i32 = log.trim().rsplit(' ').next().unwrap().parse().unwrap();
        cac_core::job::cancel(&lab.core, &crate::lab::admin(), id)
            .await
            .unwrap();
        assert_eq!(lab.job(id).await.status, Status::Cancelled);
        until("the child is gone", async || {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        })
        .await;
        lab.end().await;
    }
}

#[tokio::test]
async fn a_shutdown_cancels_commands() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let stop = lab.runner();
        let id = lab.insert("echo begun; sleep 1000").await;
        until("the command has begun", async || {
            lab.log(id).await.contains("begun")
        })
        .await;
        stop.cancel();
        assert_eq!(lab.job(id).await.status, Status::Cancelled);
        lab.end().await;
    }
}

#[tokio::test]
async fn an_unknown_kind_fails_with_a_message() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.runner();
        let now = chrono::Utc::now();
        let mut tx = lab.core.db.write().await.unwrap();
        let sql = r#"INSERT INTO "Jobs" ("command", "status", "kind", "createdAt", "updatedAt") VALUES ('# x', 'pending', 'from_the_future', ?, ?)"#;
        let id = tx.insert(sql, args![now, now]).await.unwrap();
        tx.commit().await.unwrap();
        let job = lab.job(id).await;
        assert_eq!(job.status, Status::Failure);
        assert!(
            job.reason.as_deref().unwrap().contains("from_the_future"),
            "{job:?}"
        );
        lab.end().await;
    }
}

/// J11 of the original: output was kept without a limit and for ever.
#[tokio::test]
async fn endless_output_is_cut_with_a_mark_and_its_end_is_told() {
    for database in testing::databases().await {
        let more = [("JOB_OUTPUT_LIMIT_MIB", "1")];
        let lab = Lab::with(database, &more).await;
        lab.runner();
        let id = lab.insert("yes 0123456789 | head -c 3000000; exit 5").await;
        assert_eq!(lab.job(id).await.status, Status::Failure);
        let log = lab.log(id).await;
        assert!(log.len() < (1 << 20) + 300, "{}", log.len());
        let end = &log[log.len() - 200..];
        assert!(
            end.contains(
                "[The output is cut here: it is longer than 1 MiB (JOB_OUTPUT_LIMIT_MIB).]"
            ),
            "{end}"
        );
        assert!(
            end.ends_with("The command exited with status 5.\n"),
            "{end}"
        );
        lab.end().await;
    }
}

#[tokio::test]
async fn old_output_goes_in_small_steps_and_jobs_stay() {
    for database in testing::databases().await {
        let more = [("JOB_OUTPUT_DAYS", "30")];
        let lab = Lab::with(database, &more).await;
        let now = chrono::Utc::now();
        let old = now - chrono::Duration::days(31);
        let mut tx = lab.core.db.write().await.unwrap();
        for (status, finished) in [("success", old), ("failure", now), ("running", old)] {
            let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt", "finishedAt") VALUES ('true', ?, ?, ?, ?)"#;
            let ended = (status != "running").then_some(finished);
            let id = tx
                .insert(sql, args![status, old, finished, ended])
                .await
                .unwrap();
            for number in 0..600 {
                let sql = r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
                tx.insert(sql, args![id, format!("line {number}\n"), old, old])
                    .await
                    .unwrap();
            }
        }
        tx.commit().await.unwrap();
        let mut steps = Vec::new();
        while let found @ 1.. = cac_core::job::retention::step(&lab.core).await.unwrap() {
            steps.push(found);
        }
        assert_eq!(steps, [500, 100], "{}", lab.database.name);
        let left = lab
            .core
            .db
            .one(r#"SELECT COUNT(*) AS "n" FROM "JobStatuses""#, args![])
            .await
            .unwrap();
        assert_eq!(left.get::<i64>("n").unwrap(), 1200);
        let jobs = lab
            .core
            .db
            .one(r#"SELECT COUNT(*) AS "n" FROM "Jobs""#, args![])
            .await
            .unwrap();
        assert_eq!(jobs.get::<i64>("n").unwrap(), 3);
        lab.end().await;
    }
}
