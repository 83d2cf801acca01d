//! Many at once: `IN ?` with any number of ids, and rows inserted in batches.

use cac_core::args;
use cac_core::db::{Db, Error};

use crate::common::{count, things};

async fn fill(db: &Db, rows: i64) -> Vec<i64> {
    let mut tx = db.write().await.unwrap();
    let sql = r#"INSERT INTO "Things" ("whole", "words") VALUES (?, ?)"#;
    let values = (0..rows).map(|n| args![n, format!("row {n}")]);
    let inserted = tx.insert_all(sql, values.collect()).await.unwrap();
    assert_eq!(i64::try_from(inserted).unwrap(), rows);
    tx.commit().await.unwrap();
    let rows = db
        .all(r#"SELECT "id" FROM "Things" ORDER BY "whole""#, args![])
        .await
        .unwrap();
    rows.iter().map(|row| row.get("id").unwrap()).collect()
}

#[tokio::test]
async fn rows_inserted_together_are_all_there_in_their_order() {
    for test in things().await {
        // More than two batches, the last one short.
        let ids = fill(&test.db, 450).await;
        assert!(ids.is_sorted(), "{}", test.name);
        let sql = r#"SELECT "whole", "words" FROM "Things" ORDER BY "id""#;
        let rows = test.db.all(sql, args![]).await.unwrap();
        assert_eq!(rows.len(), 450);
        for (n, row) in rows.iter().enumerate() {
            assert_eq!(row.get::<String>("words").unwrap(), format!("row {n}"));
            assert_eq!(row.get::<u32>("whole").unwrap(), u32::try_from(n).unwrap());
        }
        let mut tx = test.db.write().await.unwrap();
        let sql = r#"INSERT INTO "Things" ("whole") VALUES (?)"#;
        assert_eq!(tx.insert_all(sql, Vec::new()).await.unwrap(), 0);
        tx.commit().await.unwrap();
        assert_eq!(count(&test.db).await, 450, "{}", test.name);
    }
}

#[tokio::test]
async fn in_takes_no_one_and_many_ids() {
    for test in things().await {
        let ids = fill(&test.db, 1100).await;
        let absent = ids.iter().max().unwrap() + 1;
        for wanted in [
            vec![],
            vec![ids[7]],
            vec![absent],
            vec![ids[1], ids[2]],
            vec![ids[3], ids[3], absent],
            ids[..5].to_vec(),
            ids[..1000].to_vec(),
            ids.clone(),
        ] {
            let mut expected: Vec<i64> =
                wanted.iter().copied().filter(|id| *id != absent).collect();
            expected.dedup();
            let sql = r#"SELECT "id" FROM "Things" WHERE "whole" >= ? AND "id" IN ? AND "words" <> ? ORDER BY "id""#;
            let rows = test
                .db
                .all(sql, args![0i64, wanted.clone(), "none of them"])
                .await
                .unwrap();
            let found: Vec<i64> = rows.iter().map(|row| row.get("id").unwrap()).collect();
            assert_eq!(found, expected, "{}: {} ids", test.name, wanted.len());
            let sql = r#"SELECT COUNT(*) AS "n" FROM "Things" WHERE "id" NOT IN ?"#;
            let row = test.db.one(sql, args![wanted]).await.unwrap();
            let others = ids.len() - expected.len();
            assert_eq!(
                row.get::<i64>("n").unwrap(),
                i64::try_from(others).unwrap(),
                "{}",
                test.name
            );
        }
    }
}

#[tokio::test]
async fn in_changes_and_deletes_exactly_the_listed_rows() {
    for test in things().await {
        let ids = fill(&test.db, 9).await;
        let sql = r#"UPDATE "Things" SET "words" = ? WHERE "id" IN ?"#;
        let changed = test.db.exec(sql, args!["x", ids[2..5].to_vec()]).await;
        assert_eq!(changed.unwrap(), 3, "{}", test.name);
        let sql = r#"DELETE FROM "Things" WHERE "id" IN ?"#;
        let none = test.db.exec(sql, args![Vec::<i64>::new()]).await;
        assert_eq!(none.unwrap(), 0, "{}", test.name);
        let gone = test.db.exec(sql, args![ids[3..].to_vec()]).await;
        assert_eq!(gone.unwrap(), 6, "{}", test.name);
        assert_eq!(count(&test.db).await, 3, "{}", test.name);
    }
}

/// A compare-and-set counts the rows it matched, also those that had the value already.
#[tokio::test]
async fn a_write_counts_matched_rows() {
    for test in things().await {
        fill(&test.db, 3).await;
        let sql = r#"UPDATE "Things" SET "words" = 'same' WHERE "whole" >= ?"#;
        for _ in 0..2 {
            let matched = test.db.exec(sql, args![1i64]).await.unwrap();
            assert_eq!(matched, 2, "{}", test.name);
        }
        let matched = test.db.exec(sql, args![99i64]).await.unwrap();
        assert_eq!(matched, 0, "{}", test.name);
    }
}

#[tokio::test]
async fn a_wrong_number_of_values_never_reaches_the_database() {
    for test in things().await {
        let sql = r#"INSERT INTO "Things" ("whole", "words") VALUES (?, ?)"#;
        for args in [args![1i64], args![1i64, "x", "y"]] {
            let refused = test.db.exec(sql, args).await;
            assert!(matches!(refused, Err(Error::Other(_))), "{}", test.name);
        }
        assert_eq!(count(&test.db).await, 0, "{}", test.name);
    }
}
