//! Whose job is next: nobody waits behind everything that somebody else asked for.

use std::sync::{Arc, Mutex};

use cac_core::job::{self, NewJob, Runner};
use cac_core::{args, testing};

use crate::lab::{self, Lab, until};

async fn add(lab: &Lab, owner: &str, title: &str) -> i64 {
    add_for(lab, Some(owner), title).await
}

async fn add_for(lab: &Lab, owner: Option<&str>, title: &str) -> i64 {
    let mut tx = lab.core.db.write().await.unwrap();
    let new = NewJob {
        kind: "noted",
        title: title.to_owned(),
        payload: serde_json::json!({"title": title}),
        container_id: None,
        created_by: owner,
    };
    let id = job::create(&mut tx, &lab.core, new).await.unwrap();
    tx.commit().await.unwrap();
    id
}

#[tokio::test]
async fn another_users_request_takes_the_next_free_place() {
    for database in testing::databases().await {
        let lab = Lab::with(database, &[("JOB_RUNNER_CONCURRENCY", "1")]).await;
        let mut many = Vec::new();
        for number in 0..50 {
            many.push(add(&lab, "greedy", &format!("greedy{number}")).await);
        }
        let one = add(&lab, "modest", "modest").await;
        let greedy = lab.core.clone();
        let place = async |id: i64| {
            let job = job::find(&greedy, &lab::admin(), id).await.unwrap();
            job::place(&greedy, &job).await.unwrap()
        };
        assert_eq!(
            (
                place(many[0]).await,
                place(many[49]).await,
                place(one).await
            ),
            (Some(1), Some(51), Some(2))
        );
        let order: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&order);
        lab.run(Runner::new(lab.core.clone()).kind("noted", move |job| {
            let payload: serde_json::Value = job.payload().unwrap();
            noted
                .lock()
                .unwrap()
                .push(payload["title"].as_str().unwrap().to_owned());
            std::future::ready(Ok(()))
        }));
        until("all have run", async || order.lock().unwrap().len() == 51).await;
        let order = order.lock().unwrap().clone();
        assert_eq!(
            order[..3],
            ["greedy0", "modest", "greedy1"],
            "{}",
            lab.database.name
        );
        assert_eq!(order[50], "greedy49");
        // Whoever has ended has no place.
        assert_eq!(place(one).await, None);
        lab.end().await;
    }
}

async fn place(lab: &Lab, id: i64) -> i64 {
    let job = job::find(&lab.core, &lab::admin(), id).await.unwrap();
    job::place(&lab.core, &job).await.unwrap().unwrap()
}

/// Mails have no owner, and each of them was put before everybody's containers.
#[tokio::test]
async fn a_flood_of_mails_is_in_front_of_nobody() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        for number in 0..30 {
            add_for(&lab, None, &format!("mail{number}")).await;
        }
        let one = add(&lab, "modest", "modest").await;
        assert_eq!(place(&lab, one).await, 2, "{}", lab.database.name);
        lab.end().await;
    }
}

/// A job for next month kept the first place, so that each new user was put before everybody who had waited.
#[tokio::test]
async fn a_job_that_may_not_start_yet_holds_no_place() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let later = add(&lab, "admin", "later").await;
        let sql = r#"UPDATE "Jobs" SET "startAfter" = 99999999999999 WHERE "id" = ?"#;
        lab.core.db.exec(sql, args![later]).await.unwrap();
        for number in 0..10 {
            add(&lab, "alice", &format!("old{number}")).await;
        }
        let sql = r#"UPDATE "Jobs" SET "status" = 'success' WHERE "createdBy" = 'alice'"#;
        lab.core.db.exec(sql, args![]).await.unwrap();
        let first = add(&lab, "alice", "first").await;
        for number in 0..10 {
            add(&lab, "bob", &format!("new{number}")).await;
        }
        assert!(place(&lab, first).await <= 3, "{}", lab.database.name);
        lab.end().await;
    }
}
