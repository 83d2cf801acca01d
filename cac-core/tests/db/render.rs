//! One SQL text on three databases: literals stay as they are, names and placeholders become each database's own.

use cac_core::args;
use cac_core::db::Db;

use crate::common::{insert, things};

async fn text(db: &Db, sql: &'static str, args: Vec<cac_core::db::Arg>) -> String {
    db.one(sql, args).await.unwrap().get("text").unwrap()
}

#[tokio::test]
async fn a_literal_means_what_it_says() {
    for test in things().await {
        for (sql, expected) in [
            (r#"SELECT 'why? because' AS "text""#, "why? because"),
            (r#"SELECT 'say "hello"' AS "text""#, "say \"hello\""),
            (r#"SELECT 'it''s ?' AS "text""#, "it's ?"),
            (r#"SELECT '''?''' AS "text""#, "'?'"),
            (r#"SELECT '' AS "text""#, ""),
            (r#"SELECT 'back\slash\' AS "text""#, "back\\slash\\"),
            (r#"SELECT 'a `tick`, $1' AS "text""#, "a `tick`, $1"),
            (
                r#"SELECT 'NOW_MS() FOR UPDATE' AS "text""#,
                "NOW_MS() FOR UPDATE",
            ),
            (r#"SELECT 'ünï ✅ 🦀?' AS "text""#, "ünï ✅ 🦀?"),
            (r#"SELECT 'a' || 'b' AS "text""#, "ab"),
        ] {
            assert_eq!(
                text(&test.db, sql, args![]).await,
                expected,
                "{}: {sql}",
                test.name
            );
        }
    }
}

#[tokio::test]
async fn values_around_a_literal_with_a_question_mark_keep_their_places() {
    for test in things().await {
        let sql = r#"INSERT INTO "Things" ("words", "whole", "big") VALUES ('?', ?, ?)"#;
        let id = insert(&test.db, sql, args![1i64, 2i64]).await;
        let sql = r#"SELECT "words" AS "text", "whole", "big" FROM "Things"
            WHERE "id" = ? AND "words" = '?' AND "words" <> '"?"' AND "whole" = ? AND "big" = ?"#;
        let row = test.db.one(sql, args![id, 1i64, 2i64]).await.unwrap();
        assert_eq!(row.get::<String>("text").unwrap(), "?", "{}", test.name);
        assert_eq!(row.get::<i64>("big").unwrap(), 2, "{}", test.name);
    }
}

#[tokio::test]
async fn a_value_is_never_part_of_the_statement() {
    for test in things().await {
        for hostile in ["'", "''", "\\", "\\'; --", "x' OR '1'='1", "\"", "`", "?"] {
            let sql = r#"INSERT INTO "Things" ("words") VALUES (?)"#;
            let id = insert(&test.db, sql, args![hostile]).await;
            let sql = r#"SELECT "words" AS "text" FROM "Things" WHERE "id" = ? AND "words" = ?"#;
            assert_eq!(
                text(&test.db, sql, args![id, hostile]).await,
                hostile,
                "{}",
                test.name
            );
        }
    }
}

/// `IN ?` of a list, values before and after it, and a literal between: the numbers of PostgreSQL's places must fit.
#[tokio::test]
async fn lists_and_single_values_mix() {
    for test in things().await {
        let mut ids = Vec::new();
        for n in 0..4i64 {
            let sql = r#"INSERT INTO "Things" ("whole", "words") VALUES (?, 'a?b')"#;
            ids.push(insert(&test.db, sql, args![n]).await);
        }
        let sql = r#"SELECT "id" FROM "Things" WHERE "whole" > ? AND "id" IN ? AND "words" = 'a?b' AND "id" NOT IN ?
            AND "whole" < ? ORDER BY "id" FOR UPDATE"#;
        let mut tx = test.db.write().await.unwrap();
        let args = args![0i64, ids[..3].to_vec(), vec![ids[2]], 3i64];
        let rows = tx.all(sql, args).await.unwrap();
        let found: Vec<i64> = rows.iter().map(|row| row.get("id").unwrap()).collect();
        assert_eq!(found, [ids[1]], "{}", test.name);
        tx.commit().await.unwrap();
    }
}
