//! Following a job: every row once and in order, for however many, however slow.

use cac_core::job::{self, Happening, Status};
use cac_core::{Core, args, testing};

use crate::lab::{Lab, until};

/// Follows to the end: the text, the statuses on the way, and the last one.
pub(crate) async fn all(core: &Core, id: i64, after: i64) -> (String, Vec<Status>, Option<Status>) {
    let (mut text, mut states, mut end) = (String::new(), Vec::new(), None);
    let mut last = after;
    let mut follower = job::follow(core, id, after);
    while let Some(happened) = follower.next().await {
        for happening in happened {
            match happening {
                Happening::Output(row) => {
                    assert!(row.id > last, "{} after {last}", row.id);
                    last = row.id;
                    text.push_str(&row.output);
                }
                Happening::State(job) => states.push(job.status),
                Happening::End(job) => end = Some(job.status),
            }
        }
    }
    (text, states, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_of_any_pace_see_every_row() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let id = lab
            .insert("for i in $(seq 1 30); do seq 1 1000; sleep 0.05; done; echo end")
            .await;
        let early = tokio::spawn({
            let core = lab.core.clone();
            async move { all(&core, id, 0).await }
        });
        // It takes one step and then nothing until the job has ended.
        let mut slow = job::follow(&lab.core, id, 0);
        assert!(matches!(
            slow.next().await.unwrap()[..],
            [Happening::State(_), ..]
        ));
        lab.runner();
        until("some of it is there", async || {
            lab.log(id).await.len() > 20_000
        })
        .await;
        let late = tokio::spawn({
            let core = lab.core.clone();
            async move { all(&core, id, 0).await }
        });
        assert_eq!(lab.job(id).await.status, Status::Success);
        let stored = lab.log(id).await;
        assert!(stored.ends_with("1000\nend\n"), "{}", lab.database.name);
        let (text, states, end) = early.await.unwrap();
        assert!(text == stored && end == Some(Status::Success));
        assert_eq!(states, [Status::Pending, Status::Running]);
        let (text, _, end) = late.await.unwrap();
        assert!(text == stored && end == Some(Status::Success));
        let mut text = String::new();
        while let Some(happened) = slow.next().await {
            for happening in happened {
                if let Happening::Output(row) = happening {
                    text.push_str(&row.output);
                }
            }
        }
        assert!(text == stored, "{}", lab.database.name);
        // And again when it is over.
        let (text, states, end) = all(&lab.core, id, 0).await;
        assert!(text == stored && states.is_empty() && end == Some(Status::Success));
        lab.end().await;
    }
}

/// More rows than the reader keeps for those who come later.
#[tokio::test]
async fn a_long_log_is_read_from_any_row_on() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let now = chrono::Utc::now();
        let id = lab.insert("true").await;
        let sql = r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
        let rows = |id: i64| (0..3000).map(move |n| args![id, format!("{n}\n"), now, now]);
        let other = lab.insert("true").await;
        let mut tx = lab.core.db.write().await.unwrap();
        let mixed = rows(id)
            .zip(rows(other))
            .flat_map(|(a, b)| [a, b])
            .collect();
        tx.insert_all(sql, mixed).await.unwrap();
        tx.exec(r#"UPDATE "Jobs" SET "status" = 'failure'"#, args![])
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let stored = job::output(&lab.core, id, 10_000, 0).await.unwrap();
        for from in [0, 1, 1500, 2749, 2999, 3000] {
            let after = if from == 0 { 0 } else { stored[from - 1].id };
            let expected: String = stored[from..]
                .iter()
                .map(|row| row.output.as_str())
                .collect();
            let (text, _, end) = all(&lab.core, id, after).await;
            assert!(text == expected && end == Some(Status::Failure), "{from}");
        }
        lab.end().await;
    }
}
