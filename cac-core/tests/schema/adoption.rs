//! The original's MariaDB database becomes ours in place: what changes, what is told, and what stays.

use cac_core::schema;
use cac_core::{Actor, args, testing};

use crate::common::{counts, original, text};

#[tokio::test]
async fn only_sessions_lose_rows_and_the_account_is_true() {
    let database = original().await;
    let db = &database.db;
    let before = counts(db).await;
    assert_eq!((before["Containers"], before["Sessions"]), (60, 2));
    assert!(schema::is_original(db).await.unwrap());
    let report = schema::up(db).await.unwrap();
    assert!(!schema::is_original(db).await.unwrap());
    let adoption = report.adoption.unwrap();
    assert_eq!(
        (
            adoption.sessions_dropped,
            adoption.jobs_failed,
            adoption.jobs_pending
        ),
        (2, 1, 2)
    );
    let mut expected = before;
    expected.insert("Sessions", 0);
    // The job that ran says in its output, too, why it failed.
    *expected.get_mut("JobStatuses").unwrap() += 1;
    assert_eq!(counts(db).await, expected);
    let job = text(
        db,
        r#"SELECT CONCAT("status", ': ', "reason") AS "text" FROM "Jobs" WHERE "id" = 13"#,
    )
    .await
    .unwrap();
    assert!(
        job.starts_with("failure: The job was running when"),
        "{job}"
    );
    let line = text(
        db,
        r#"SELECT "output" AS "text" FROM "JobStatuses" WHERE "jobId" = 13"#,
    )
    .await
    .unwrap();
    assert!(job.ends_with(line.trim_end()), "{line}");
    // Told in words, for whoever ran it.
    let told = schema::Report {
        applied: report.applied,
        adoption: Some(adoption),
    }
    .to_string();
    for part in [
        "sessions dropped: 2",
        "set to failure: 1",
        "pending jobs that will run: 2",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn a_label_goes_to_the_node_on_which_all_its_containers_stand() {
    let database = original().await;
    let adoption = schema::up(&database.db).await.unwrap().adoption.unwrap();
    let labels: Vec<&str> = adoption
        .labelled
        .iter()
        .map(|(label, _)| label.as_str())
        .collect();
    assert_eq!(labels, ["FORTWAYNE", "PHOENIX"]);
    assert!(adoption.unplaced.is_empty());
    let sql = r#"SELECT "name" AS "text" FROM "Nodes" WHERE "aiContainer" = 'FORTWAYNE'"#;
    assert_eq!(
        text(&database.db, sql).await.as_deref(),
        Some(adoption.labelled[0].1.as_str())
    );

    // One that stands elsewhere, and the label belongs to no node.
    let database = original().await;
    database
        .script("UPDATE `Containers` SET `nodeId` = 1 WHERE `id` = 10")
        .await;
    let adoption = schema::up(&database.db).await.unwrap().adoption.unwrap();
    assert_eq!(adoption.unplaced, ["FORTWAYNE"]);
    assert_eq!(text(&database.db, sql).await, None);
}

#[tokio::test]
async fn rows_that_break_the_naming_rules_stay_and_are_listed() {
    let database = original().await;
    database
        .script(
            "UPDATE `Containers` SET `hostname` = 'Bad_Name' WHERE `id` = 1; \
             UPDATE `Services` SET `externalHostname` = 'a b;c' WHERE `id` = 3",
        )
        .await;
    let report = schema::up(&database.db).await.unwrap();
    let adoption = report.adoption.as_ref().unwrap();
    let found: Vec<_> = adoption
        .violations
        .iter()
        .map(|v| (v.table, v.id, v.container, v.name.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("Containers", 1, 1, "Bad_Name"),
            ("Services", 3, 2, "a b;c")
        ]
    );
    assert!(report.to_string().contains("Bad_Name"));
    let sql = r#"SELECT "hostname" AS "text" FROM "Containers" WHERE "id" = 1"#;
    assert_eq!(text(&database.db, sql).await.as_deref(), Some("Bad_Name"));
}

/// Going back: the original finds its tables as it left them, but for widened columns, and can be adopted again.
#[tokio::test]
async fn an_adoption_can_be_undone_and_repeated() {
    let database = original().await;
    let db = &database.db;
    schema::up(db).await.unwrap();
    let adopted = counts(db).await;
    for title in testing::migrations()[1..].iter().rev() {
        assert_eq!(schema::down_discarding(db).await.unwrap(), *title);
    }
    assert!(schema::is_original(db).await.unwrap());
    assert_eq!(counts(db).await, adopted);
    let again = schema::up(db).await.unwrap().adoption.unwrap();
    assert_eq!(
        (
            again.sessions_dropped,
            again.jobs_failed,
            again.jobs_pending
        ),
        (0, 0, 2)
    );
}

/// Names of the original compare without case; Proxmox VE's do not.
#[tokio::test]
async fn adopted_owners_compare_byte_by_byte() {
    let database = original().await;
    schema::up(&database.db).await.unwrap();
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE "username" = ?"#;
    let count = async |name: &str| {
        let row = database.db.one(sql, args![name]).await.unwrap();
        row.get::<i64>("n").unwrap()
    };
    assert!(count("alice").await > 0);
    assert_eq!(count("Alice").await, 0);
    assert!(!Actor::new("Alice", false).may_see(Some("alice")));
}
