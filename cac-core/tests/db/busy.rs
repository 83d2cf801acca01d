//! Busy databases: what is repeated, how often, and how it ends.

use std::sync::Arc;

use cac_core::db::{Db, Dialect, Tx};
use cac_core::{Error, args, testing, transaction};
use tokio::sync::Barrier;

/// MariaDB (1205) and PostgreSQL (55P03) refuse this at once while somebody holds the row.
const AT_ONCE: &str = r#"SELECT "name" FROM "Locks" WHERE "name" = 'names' FOR UPDATE NOWAIT"#;
const SETTING: &str =
    r#"INSERT INTO "Settings" ("name", "value", "createdAt", "updatedAt") VALUES (?, '', ?, ?)"#;
const COUNT: &str = r#"SELECT COUNT(*) AS "n" FROM "Settings""#;

async fn add(tx: &mut Tx, name: &str) -> Result<(), Error> {
    let now = chrono::Utc::now();
    tx.exec(SETTING, args![name, now, now]).await?;
    Ok(())
}

async fn settings(db: &Db) -> i64 {
    let row = db.one(COUNT, args![]).await.unwrap();
    row.get("n").unwrap()
}

/// Locks two rows; the first time it waits until the other one holds its first, too.
async fn two_locks(
    db: Db,
    first: &'static str,
    second: &'static str,
    both: Arc<Barrier>,
) -> (u32, Result<(), Error>) {
    let mut attempts = 0;
    let outcome = transaction!(db, tx => {
        attempts += 1;
        add(tx, first).await?;
        tx.lock(first).await?;
        if attempts == 1 {
            both.wait().await;
        }
        tx.lock(second).await?;
    });
    (attempts, outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_resolved_by_running_one_of_them_again() {
    for test in testing::databases().await {
        if test.db.dialect() == Dialect::Sqlite {
            continue; // One writer in all: nothing to deadlock with.
        }
        let both = Arc::new(Barrier::new(2));
        let one = two_locks(test.db.clone(), "names", "ports", both.clone());
        let two = two_locks(test.db.clone(), "ports", "names", both);
        let (one, two) = tokio::join!(tokio::spawn(one), tokio::spawn(two));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(
            one.1.is_ok() && two.1.is_ok(),
            "{}: {one:?} {two:?}",
            test.name
        );
        assert!(one.0 + two.0 >= 3, "{}: there was no deadlock", test.name);
        // What the loser had written before was undone, so it could write it again.
        assert_eq!(settings(&test.db).await, 2, "{}", test.name);
    }
}

#[tokio::test]
async fn a_busy_row_is_tried_again_until_it_is_free() {
    for test in testing::databases().await {
        if test.db.dialect() == Dialect::Sqlite {
            continue; // It has no row locks.
        }
        let mut holder = test.db.write().await.unwrap();
        holder.lock("names").await.unwrap();
        let mut holder = Some(holder);
        let mut attempts = 0;
        let outcome: Result<(), Error> = transaction!(test.db, tx => {
            attempts += 1;
            add(tx, "mine").await?;
            if attempts == 3 && let Some(holder) = holder.take() {
                holder.commit().await?;
            }
            tx.all(AT_ONCE, args![]).await?;
        });
        assert!(outcome.is_ok(), "{}: {outcome:?}", test.name);
        assert_eq!(attempts, 3, "{}", test.name);
        assert_eq!(settings(&test.db).await, 1, "{}", test.name);
    }
}

#[tokio::test]
async fn a_database_that_stays_busy_is_given_up_after_a_bounded_number_of_tries() {
    for test in testing::databases().await {
        let other = Db::connect(&test.url).await.unwrap();
        let sqlite = test.db.dialect() == Dialect::Sqlite;
        if sqlite {
            // Its own waiting of 5 s is not what is tried here.
            let sql = "PRAGMA busy_timeout = 0";
            test.db.exec(sql, args![]).await.unwrap();
        }
        let mut holder = other.write().await.unwrap();
        holder.lock("names").await.unwrap();
        let mut attempts = 0;
        let outcome: Result<(), Error> = transaction!(test.db, tx => {
            attempts += 1;
            add(tx, "mine").await?;
            tx.all(AT_ONCE, args![]).await?;
        });
        assert!(
            matches!(&outcome, Err(error @ Error::Busy { .. }) if error.retryable()),
            "{}: {outcome:?}",
            test.name
        );
        let expected = if sqlite { 0..1 } else { 5..30 };
        assert!(
            expected.contains(&attempts),
            "{}: {attempts} tries",
            test.name
        );
        holder.commit().await.unwrap();
        assert_eq!(settings(&test.db).await, 0, "{}", test.name);
        transaction!(test.db, tx => { add(tx, "free").await?; }).unwrap();
        other.close().await;
    }
}

/// Several processes on one SQLite file: each waits for the one writer instead of failing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_many_handles_wait_for_each_other() {
    for test in testing::databases().await {
        let mut tasks = tokio::task::JoinSet::new();
        for handle in 0..6 {
            let db = Db::connect(&test.url).await.unwrap();
            tasks.spawn(async move {
                for n in 0..10 {
                    let name = format!("{handle} {n}");
                    transaction!(db, tx => { add(tx, &name).await?; }).unwrap();
                }
                db.close().await;
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(settings(&test.db).await, 60, "{}", test.name);
    }
}

/// The file holds the nodes' secrets.
#[tokio::test]
async fn a_new_sqlite_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = testing::sqlite().await;
    cac_core::schema::up(&test.db).await.unwrap();
    let path = test.url.trim_start_matches("sqlite:");
    for file in [path.to_owned(), format!("{path}-wal")] {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}
