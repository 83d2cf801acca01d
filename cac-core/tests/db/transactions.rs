//! Transactions: what a reader sees and may do, what is undone, and what others see of it.

use cac_core::db::{Db, Error};
use cac_core::{args, transaction};
use tokio::time::timeout;

use crate::common::{PATIENCE, count, things, words};

const COUNT: &str = r#"SELECT COUNT(*) AS "n" FROM "Things""#;
const INSERT: &str = r#"INSERT INTO "Things" ("words") VALUES (?)"#;

#[tokio::test]
async fn a_read_transaction_sees_one_state() {
    for test in things().await {
        words(&test.db, "before").await;
        let mut tx = test.db.read().await.unwrap();
        let first: i64 = tx.one(COUNT, args![]).await.unwrap().get("n").unwrap();
        words(&test.db, "meanwhile").await;
        let sql = r#"UPDATE "Things" SET "words" = 'changed'"#;
        assert_eq!(test.db.exec(sql, args![]).await.unwrap(), 2);
        let again: i64 = tx.one(COUNT, args![]).await.unwrap().get("n").unwrap();
        let rows = tx
            .all(r#"SELECT "words" FROM "Things""#, args![])
            .await
            .unwrap();
        assert_eq!((first, again), (1, 1), "{}", test.name);
        assert_eq!(
            rows[0].get::<String>("words").unwrap(),
            "before",
            "{}",
            test.name
        );
        drop(tx);
        let mut tx = test.db.read().await.unwrap();
        let later: i64 = tx.one(COUNT, args![]).await.unwrap().get("n").unwrap();
        assert_eq!(later, 2, "{}", test.name);
    }
}

#[tokio::test]
async fn a_read_transaction_writes_nothing() {
    for test in things().await {
        words(&test.db, "stays").await;
        for sql in [
            r#"INSERT INTO "Things" ("words") VALUES ('x')"#,
            r#"UPDATE "Things" SET "words" = 'x'"#,
            r#"DELETE FROM "Things""#,
        ] {
            let mut tx = test.db.read().await.unwrap();
            let refused = tx.exec(sql, args![]).await;
            assert!(
                matches!(refused, Err(Error::Other(_) | Error::Unable(_))),
                "{}: {sql}: {refused:?}",
                test.name
            );
            drop(tx);
        }
        let sql = r#"SELECT "words" FROM "Things""#;
        let row = test.db.one(sql, args![]).await.unwrap();
        assert_eq!(
            row.get::<String>("words").unwrap(),
            "stays",
            "{}",
            test.name
        );
        assert_eq!(count(&test.db).await, 1, "{}", test.name);
        // The connection is as good as before.
        words(&test.db, "writes go on").await;
    }
}

#[tokio::test]
async fn nobody_sees_what_is_not_committed() {
    for test in things().await {
        let other = Db::connect(&test.url).await.unwrap();
        let mut tx = test.db.write().await.unwrap();
        tx.insert(INSERT, args!["new"]).await.unwrap();
        let own: i64 = tx.one(COUNT, args![]).await.unwrap().get("n").unwrap();
        assert_eq!(own, 1, "{}", test.name);
        assert_eq!(count(&test.db).await, 0, "{}", test.name);
        assert_eq!(count(&other).await, 0, "{}", test.name);
        tx.commit().await.unwrap();
        assert_eq!(count(&test.db).await, 1, "{}", test.name);
        assert_eq!(count(&other).await, 1, "{}", test.name);
        other.close().await;
    }
}

#[tokio::test]
async fn a_dropped_write_transaction_is_rolled_back_and_lets_the_next_in() {
    for test in things().await {
        for n in 0..30 {
            let mut tx = test.db.write().await.unwrap();
            tx.insert(INSERT, args!["dropped"]).await.unwrap();
            if n % 2 == 0 {
                drop(tx);
            } else {
                tx.rollback().await;
            }
        }
        let next = timeout(PATIENCE, words(&test.db, "next")).await;
        assert!(
            next.is_ok(),
            "{}: the writer is never free again",
            test.name
        );
        assert_eq!(count(&test.db).await, 1, "{}", test.name);
    }
}

#[tokio::test]
async fn a_write_transaction_that_is_cut_off_in_a_statement_is_rolled_back() {
    for test in things().await {
        for _ in 0..10 {
            let db = test.db.clone();
            let (started, mut ready) = tokio::sync::watch::channel(false);
            let task = tokio::spawn(async move {
                let mut tx = db.write().await.unwrap();
                loop {
                    tx.insert(INSERT, args!["cut off"]).await.unwrap();
                    started.send_replace(true);
                }
            });
            ready.wait_for(|started| *started).await.unwrap();
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        let next = timeout(PATIENCE, words(&test.db, "next")).await;
        assert!(
            next.is_ok(),
            "{}: the writer is never free again",
            test.name
        );
        assert_eq!(count(&test.db).await, 1, "{}", test.name);
    }
}

#[tokio::test]
async fn the_macro_commits_its_value_and_undoes_its_errors() {
    for test in things().await {
        let kept: Result<i64, cac_core::Error> =
            transaction!(test.db, tx => { tx.insert(INSERT, args!["kept"]).await? });
        let sql = r#"SELECT "id" FROM "Things""#;
        let row = test.db.one(sql, args![]).await.unwrap();
        assert_eq!(
            row.get::<i64>("id").unwrap(),
            kept.unwrap(),
            "{}",
            test.name
        );
        let mut attempts = 0;
        let failed: Result<(), cac_core::Error> = transaction!(test.db, tx => {
            attempts += 1;
            tx.insert(INSERT, args!["undone"]).await?;
            tx.exec(r#"UPDATE "Things" SET "words" = 'undone'"#, args![]).await?;
            Err(cac_core::Error::invalid("words", "no"))?;
        });
        assert!(
            matches!(failed, Err(cac_core::Error::Invalid(_))),
            "{}",
            test.name
        );
        assert_eq!(
            attempts, 1,
            "{}: only a busy database is tried again",
            test.name
        );
        let row = test
            .db
            .one(r#"SELECT "words" FROM "Things""#, args![])
            .await
            .unwrap();
        assert_eq!(row.get::<String>("words").unwrap(), "kept", "{}", test.name);
        assert_eq!(count(&test.db).await, 1, "{}", test.name);
    }
}
