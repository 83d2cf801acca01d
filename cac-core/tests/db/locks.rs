//! Row locks: `tx.lock("names")` lets one writer in at a time, across handles as across processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cac_core::db::{Db, Dialect, Error};
use cac_core::{args, testing, transaction};
use tokio::time::timeout;

use crate::common::PATIENCE;

const FIND: &str = r#"SELECT "value" FROM "Settings" WHERE "name" = 'counter'"#;

async fn counter(db: &Db) -> i64 {
    let row = db.one(FIND, args![]).await.unwrap();
    row.get::<String>("value").unwrap().parse().unwrap()
}

/// Reads, then writes one more: without the lock two of these lose an update.
async fn add_one(db: &Db, inside: &AtomicBool) -> Result<(), cac_core::Error> {
    transaction!(db, tx => {
        tx.lock("names").await?;
        assert!(!inside.swap(true, Ordering::SeqCst), "two hold one lock");
        let value: String = tx.one(FIND, args![]).await?.get("value")?;
        let next = value.parse::<i64>().unwrap() + 1;
        tokio::task::yield_now().await;
        let sql = r#"UPDATE "Settings" SET "value" = ? WHERE "name" = 'counter'"#;
        tx.exec(sql, args![next.to_string()]).await?;
        inside.store(false, Ordering::SeqCst);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_lets_one_writer_in_at_a_time() {
    const TASKS: i64 = 8;
    const ROUNDS: i64 = 5;
    for test in testing::databases().await {
        let now = chrono::Utc::now();
        let sql = r#"INSERT INTO "Settings" ("name", "value", "createdAt", "updatedAt") VALUES ('counter', '0', ?, ?)"#;
        test.db.exec(sql, args![now, now]).await.unwrap();
        let other = Db::connect(&test.url).await.unwrap();
        let inside = Arc::new(AtomicBool::new(false));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..TASKS {
            let db = if n % 2 == 0 { &test.db } else { &other }.clone();
            let inside = inside.clone();
            tasks.spawn(async move {
                for _ in 0..ROUNDS {
                    add_one(&db, &inside).await.unwrap();
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(counter(&test.db).await, TASKS * ROUNDS, "{}", test.name);
        other.close().await;
    }
}

#[tokio::test]
async fn locks_of_different_names_do_not_wait_for_each_other_on_a_server() {
    for test in testing::databases().await {
        if test.db.dialect() == Dialect::Sqlite {
            continue; // One writer in all.
        }
        let mut names = test.db.write().await.unwrap();
        names.lock("names").await.unwrap();
        let mut ports = test.db.write().await.unwrap();
        for name in ["ports", "vmids", "settings"] {
            let got = timeout(PATIENCE / 6, ports.lock(name)).await;
            assert!(matches!(got, Ok(Ok(()))), "{}: {name}", test.name);
        }
        ports.commit().await.unwrap();
        names.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_that_does_not_exist_is_an_error() {
    for test in testing::databases().await {
        let mut tx = test.db.write().await.unwrap();
        let error = tx.lock("nosuch").await.unwrap_err();
        assert!(
            matches!(&error, Error::Other(text) if text.contains("nosuch")),
            "{}: {error}",
            test.name
        );
    }
}

/// Whoever was cut off while waiting for a lock must not get it afterwards and keep it.
#[tokio::test]
async fn a_waiter_that_gave_up_does_not_keep_the_lock() {
    for test in testing::databases().await {
        let mut holder = test.db.write().await.unwrap();
        holder.lock("names").await.unwrap();
        let db = test.db.clone();
        let (asked, ready) = tokio::sync::oneshot::channel();
        let waiter = tokio::spawn(async move {
            asked.send(()).unwrap();
            let mut tx = db.write().await.unwrap();
            tx.lock("names").await.unwrap();
        });
        ready.await.unwrap();
        tokio::task::yield_now().await;
        waiter.abort();
        drop(waiter.await);
        holder.commit().await.unwrap();
        let next = timeout(PATIENCE, async {
            transaction!(test.db, tx => { tx.lock("names").await?; })
        })
        .await;
        assert!(matches!(next, Ok(Ok(()))), "{}: {next:?}", test.name);
    }
}
