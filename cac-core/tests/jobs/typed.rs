//! Typed jobs: whatever happens to them, each ends once and truthfully.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cac_core::job::{Runner, Status, Stop};
use cac_core::{args, testing};
use tokio::sync::Semaphore;

use crate::lab::{Lab, core, until};

#[tokio::test]
async fn an_error_that_is_worth_it_is_tried_again_later() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.run(
            Runner::new(lab.core.clone()).kind("flaky", |job| async move {
                if job.retries() == 2 {
                    job.line("done").await;
                    return Ok(());
                }
                job.line(format!("try {}", job.retries())).await;
                Err(Stop::Retry {
                    after: Some(Duration::from_millis(50)),
                    reason: "not yet".to_owned(),
                })
            }),
        );
        let id = lab.add("flaky").await;
        assert_eq!(lab.job(id).await.status, Status::Success);
        assert_eq!(lab.log(id).await, "try 0\ntry 1\ndone\n");
        assert_eq!(lab.job(id).await.reason, None);
        lab.end().await;
    }
}

/// Between tries it waits longer and longer, and stands at `pending` with its reason.
#[tokio::test]
async fn tries_are_spaced_out() {
    let lab = Lab::new(testing::databases().await.swap_remove(0)).await;
    lab.run(Runner::new(lab.core.clone()).kind("never", |_| async {
        Err(Stop::Retry {
            after: None,
            reason: "away".to_owned(),
        })
    }));
    let id = lab.add("never").await;
    let sql = r#"SELECT "startAfter" - NOW_MS() AS "wait", "status", "reason", "retries" FROM "Jobs" WHERE "id" = ?"#;
    let mut waits = Vec::new();
    until("three tries", async || {
        let row = lab.core.db.one(sql, args![id]).await.unwrap();
        let wait: Option<i64> = row.get("wait").unwrap();
        let tries: i64 = row.get("retries").unwrap();
        if let Some(wait) = wait.filter(|_| usize::try_from(tries).unwrap() > waits.len()) {
            assert_eq!(row.get::<String>("status").unwrap(), "pending");
            assert_eq!(row.get::<String>("reason").unwrap(), "away");
            waits.push(wait);
        }
        waits.len() == 3
    })
    .await;
    for (wait, most) in waits.iter().zip([1200, 2400, 4800]) {
        assert!(*wait <= most && *wait > most / 4, "{waits:?}");
    }
    cac_core::job::cancel(&lab.core, &crate::lab::admin(), id)
        .await
        .unwrap();
    lab.end().await;
}

/// A panic used to leave the job `running` with a lease that its runner renewed for ever.
#[tokio::test]
async fn a_job_that_panics_fails_and_its_runner_goes_on() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.run(
            Runner::new(lab.core.clone()).kind("broken", |job| async move {
                assert_eq!(job.id(), -1, "this test wants a panic");
                Ok(())
            }),
        );
        for _ in 0..2 {
            let id = lab.add("broken").await;
            let job = lab.job(id).await;
            assert_eq!(job.status, Status::Failure);
            assert!(job.reason.unwrap().contains("internal error"));
        }
        lab.end().await;
    }
}

/// J11 of the original: at most one job began at each poll. Here the poll is a minute, so all of them begin by one look.
#[tokio::test]
async fn waiting_jobs_begin_together_up_to_the_limit() {
    for database in testing::databases().await {
        let more = [
            ("JOB_RUNNER_POLL_MS", "60000"),
            ("JOB_RUNNER_CONCURRENCY", "5"),
        ];
        let lab = Lab::with(database, &more).await;
        let (at_once, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let gate = Arc::new(Semaphore::new(0));
        let mut ids = Vec::new();
        for _ in 0..12 {
            ids.push(lab.add("slow").await);
        }
        let shared = (Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&gate));
        lab.run(Runner::new(lab.core.clone()).kind("slow", move |_| {
            let (at_once, most, gate) = shared.clone();
            async move {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                at_once.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        }));
        until("five of them run", async || {
            at_once.load(Ordering::SeqCst) == 5
        })
        .await;
        gate.add_permits(12);
        for id in ids {
            assert_eq!(lab.job(id).await.status, Status::Success);
        }
        assert_eq!(most.load(Ordering::SeqCst), 5, "{}", lab.database.name);
        lab.end().await;
    }
}

/// The poll is a minute: what begins in time was not found by it.
#[tokio::test]
async fn a_delayed_job_begins_at_its_time() {
    for database in testing::databases().await {
        let more = [("JOB_RUNNER_POLL_MS", "60000")];
        let lab = Lab::with(database, &more).await;
        lab.run(Runner::new(lab.core.clone()).kind("later", |_| async { Ok(()) }));
        let id = lab.add("later").await;
        assert_eq!(lab.job(id).await.status, Status::Success);
        let mut tx = lab.core.db.write().await.unwrap();
        let sql = r#"INSERT INTO "Jobs" ("command", "status", "kind", "startAfter", "createdAt", "updatedAt")
                     VALUES ('# later', 'pending', 'later', NOW_MS() + 1500, ?, ?)"#;
        let now = chrono::Utc::now();
        let later = tx.insert(sql, args![now, now]).await.unwrap();
        tx.commit().await.unwrap();
        lab.core.wake.jobs();
        let job = lab.job(later).await;
        let begun = job.started_at.unwrap();
        assert!(
            begun >= job.start_after.unwrap() - chrono::Duration::milliseconds(20),
            "{job:?}"
        );
        lab.end().await;
    }
}

/// Everything that the engine promises to many runners on one database.
#[tokio::test(flavor = "multi_thread")]
async fn many_runners_share_the_work_and_do_each_job_once() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let began = Arc::new(AtomicU32::new(0));
        let mut ids = Vec::new();
        for _ in 0..200 {
            ids.push(lab.add("count").await);
        }
        for _ in 0..4 {
            let other = core(&lab.database, &[]).await;
            let began = Arc::clone(&began);
            lab.run(Runner::new(other).kind("count", move |job| {
                let began = Arc::clone(&began);
                async move {
                    began.fetch_add(1, Ordering::SeqCst);
                    job.line("once").await;
                    Ok(())
                }
            }));
        }
        for id in ids {
            assert_eq!(lab.job(id).await.status, Status::Success);
            assert_eq!(lab.log(id).await, "once\n");
        }
        assert_eq!(began.load(Ordering::SeqCst), 200, "{}", lab.database.name);
        lab.end().await;
    }
}

/// A runner that was cut off for longer than its lease comes back: nothing that it says counts any more.
#[tokio::test]
async fn a_late_runner_changes_nothing() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let gate = Arc::new(Semaphore::new(0));
        let late = Arc::clone(&gate);
        lab.run(Runner::new(lab.core.clone()).kind("slow", move |job| {
            let gate = Arc::clone(&late);
            async move {
                gate.acquire().await.unwrap().forget();
                job.line("too late").await;
                Ok(())
            }
        }));
        let id = lab.add("slow").await;
        let sql = r#"SELECT "fence" FROM "Jobs" WHERE "id" = ? AND "status" = 'running'"#;
        until("it runs", async || {
            lab.core.db.opt(sql, args![id]).await.unwrap().is_some()
        })
        .await;
        // As if another runner had taken it over and ended it.
        let sql = r#"UPDATE "Jobs" SET "fence" = "fence" + 1, "runner" = 'another', "status" = 'cancelled' WHERE "id" = ?"#;
        lab.core.db.exec(sql, args![id]).await.unwrap();
        gate.add_permits(1);
        lab.stop().await;
        assert_eq!(lab.job(id).await.status, Status::Cancelled);
        assert_eq!(lab.log(id).await, "", "{}", lab.database.name);
    }
}
