//! Values in, rows out: every kind of argument into every kind of column and back, alike on the three databases.

use cac_core::args;
use cac_core::db::{Arg, Db, Dialect, Row};
use chrono::{DateTime, TimeZone as _, Utc};

use crate::common::{insert, things, words};

async fn row(db: &Db, id: i64) -> Row {
    db.one(r#"SELECT * FROM "Things" WHERE "id" = ?"#, args![id])
        .await
        .unwrap()
}

#[tokio::test]
async fn integers_keep_their_value_in_columns_of_any_width() {
    for test in things().await {
        for (small, whole, big, natural) in [
            (0, 0, 0, 0),
            (i64::from(i16::MIN), i64::from(i32::MIN), i64::MIN, 1),
            (
                i64::from(i16::MAX),
                i64::from(i32::MAX),
                i64::MAX,
                i64::from(u32::MAX),
            ),
        ] {
            let sql =
                r#"INSERT INTO "Things" ("small", "whole", "big", "natural") VALUES (?, ?, ?, ?)"#;
            let id = insert(&test.db, sql, args![small, whole, big, natural]).await;
            let row = row(&test.db, id).await;
            assert_eq!(row.get::<i64>("small").unwrap(), small, "{}", test.name);
            assert_eq!(i64::from(row.get::<i32>("small").unwrap()), small);
            assert_eq!(row.get::<i64>("whole").unwrap(), whole, "{}", test.name);
            assert_eq!(i64::from(row.get::<i32>("whole").unwrap()), whole);
            assert_eq!(row.get::<i64>("big").unwrap(), big, "{}", test.name);
            assert_eq!(row.get::<i64>("natural").unwrap(), natural, "{}", test.name);
            assert_eq!(i64::from(row.get::<u32>("natural").unwrap()), natural);
            assert_eq!(
                row.get::<u64>("natural").unwrap(),
                u64::try_from(natural).unwrap()
            );
        }
    }
}

#[tokio::test]
async fn a_number_out_of_the_asked_range_is_an_error_and_never_cut() {
    for test in things().await {
        let sql = r#"INSERT INTO "Things" ("whole", "big") VALUES (?, ?)"#;
        let id = insert(&test.db, sql, args![-1i64, 1i64 << 40]).await;
        let row = row(&test.db, id).await;
        for error in [
            row.get::<u32>("whole").unwrap_err(),
            row.get::<u64>("whole").unwrap_err(),
            row.get::<u16>("whole").unwrap_err(),
            row.get::<i32>("big").unwrap_err(),
            row.get::<u16>("big").unwrap_err(),
        ] {
            assert!(
                error.to_string().contains("out of range"),
                "{}: {error}",
                test.name
            );
        }
        let sql = r#"INSERT INTO "Things" ("natural") VALUES (?)"#;
        let mut tx = test.db.write().await.unwrap();
        let negative = tx.insert(sql, args![-1i64]).await;
        if test.db.dialect() != Dialect::Sqlite {
            assert!(
                negative.is_err(),
                "{}: -1 was stored as unsigned",
                test.name
            );
        }
    }
}

#[tokio::test]
async fn a_sum_of_integers_is_an_integer() {
    for test in things().await {
        for whole in [3i64, 4] {
            let sql = r#"INSERT INTO "Things" ("whole") VALUES (?)"#;
            insert(&test.db, sql, args![whole]).await;
        }
        let sql =
            r#"SELECT SUM("whole") AS "sum", COUNT(*) AS "n", MAX("whole") AS "max" FROM "Things""#;
        let row = test.db.one(sql, args![]).await.unwrap();
        assert_eq!(row.get::<i64>("sum").unwrap(), 7, "{}", test.name);
        assert_eq!(row.get::<i64>("n").unwrap(), 2, "{}", test.name);
        assert_eq!(row.get::<u16>("max").unwrap(), 4, "{}", test.name);
    }
}

#[tokio::test]
async fn booleans_are_booleans() {
    for test in things().await {
        let sql = r#"INSERT INTO "Things" ("flag") VALUES (?)"#;
        let yes = insert(&test.db, sql, args![true]).await;
        let no = insert(&test.db, sql, args![false]).await;
        assert!(row(&test.db, yes).await.get::<bool>("flag").unwrap());
        assert!(!row(&test.db, no).await.get::<bool>("flag").unwrap());
        let sql = r#"SELECT "id" FROM "Things" WHERE "flag" = ? ORDER BY "id""#;
        for (flag, id) in [(true, yes), (false, no)] {
            let found = test.db.one(sql, args![flag]).await.unwrap();
            assert_eq!(found.get::<i64>("id").unwrap(), id, "{}", test.name);
        }
        let sql = r#"SELECT COUNT(*) AS "n" FROM "Things" WHERE (? OR "id" = ?)"#;
        for (flag, expected) in [(true, 2), (false, 1)] {
            let found = test.db.one(sql, args![flag, yes]).await.unwrap();
            assert_eq!(found.get::<i64>("n").unwrap(), expected, "{}", test.name);
        }
    }
}

#[tokio::test]
async fn nothing_stays_nothing_in_every_kind() {
    for test in things().await {
        let sql = r#"INSERT INTO "Things" ("whole", "flag", "words", "at") VALUES (?, ?, ?, ?)"#;
        let id = insert(
            &test.db,
            sql,
            vec![
                Arg::from(None::<i64>),
                Arg::from(None::<bool>),
                Arg::from(None::<&str>),
                Arg::from(None::<DateTime<Utc>>),
            ],
        )
        .await;
        let row = row(&test.db, id).await;
        assert_eq!(row.get::<Option<i64>>("whole").unwrap(), None);
        assert_eq!(row.get::<Option<bool>>("flag").unwrap(), None);
        assert_eq!(row.get::<Option<String>>("words").unwrap(), None);
        assert_eq!(row.get::<Option<DateTime<Utc>>>("at").unwrap(), None);
        for error in [
            row.get::<i64>("whole").unwrap_err(),
            row.get::<bool>("flag").unwrap_err(),
            row.get::<String>("words").unwrap_err(),
            row.get::<DateTime<Utc>>("at").unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("unexpected NULL"), "{}: {text}", test.name);
        }
        let text = row.get::<i64>("nosuch").unwrap_err().to_string();
        assert!(text.contains("nosuch"), "{}: {text}", test.name);
    }
}

#[tokio::test]
async fn text_of_any_script_survives() {
    let long = "0123456789abcdef".repeat(4000);
    for test in things().await {
        for text in [
            "",
            " both ends ",
            "Zoë ß İ ñ",
            "日本語 עברית",
            "🦀👩‍👩‍👧‍👦",
            "it's \"quoted\" `ticked` \\ back\\\\slash",
            "? $1 :name %s NOW_MS() -- /* */ ; DROP TABLE \"Things\"",
            "line\r\nline\ttab\u{1b}[35m",
            long.as_str(),
        ] {
            let id = words(&test.db, text).await;
            let read: String = row(&test.db, id).await.get("words").unwrap();
            assert_eq!(read, text, "{}", test.name);
            let sql = r#"SELECT "id" FROM "Things" WHERE "words" = ?"#;
            let found = test.db.all(sql, args![text]).await.unwrap();
            assert_eq!(found.len(), 1, "{}: {text:.40}", test.name);
        }
    }
}

#[tokio::test]
async fn a_nul_character_becomes_the_replacement_character() {
    for test in things().await {
        let id = words(&test.db, "\0before\0after\0").await;
        let read: String = row(&test.db, id).await.get("words").unwrap();
        assert_eq!(read, "\u{fffd}before\u{fffd}after\u{fffd}", "{}", test.name);
    }
}

#[tokio::test]
async fn times_are_cut_to_milliseconds_and_come_back_equal() {
    let exact = Utc
        .with_ymd_and_hms(2026, 11, 23, 7, 1, 20)
        .single()
        .unwrap();
    let nanoseconds = |n: i64| exact + chrono::Duration::nanoseconds(n);
    for test in things().await {
        for (bound, stored) in [
            (exact, exact),
            (nanoseconds(999_999), exact),
            (nanoseconds(806_999_999), nanoseconds(806_000_000)),
            (nanoseconds(999_999_999), nanoseconds(999_000_000)),
        ] {
            let sql = r#"INSERT INTO "Things" ("at") VALUES (?)"#;
            let id = insert(&test.db, sql, args![bound]).await;
            let read: DateTime<Utc> = row(&test.db, id).await.get("at").unwrap();
            assert_eq!(read, stored, "{}: {bound}", test.name);
            // Equal also as an argument: a compare-and-set on a time read before must find its row.
            for time in [bound, read] {
                let sql = r#"UPDATE "Things" SET "whole" = 1 WHERE "id" = ? AND "at" = ?"#;
                let changed = test.db.exec(sql, args![id, time]).await.unwrap();
                assert_eq!(changed, 1, "{}: {time}", test.name);
            }
        }
    }
}

/// A token that expires in 2040 was stored on MariaDB as one that never does.
#[tokio::test]
async fn times_before_1970_and_after_2038_are_kept_and_all_are_ordered_as_times() {
    let text = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let times = [
        text("1969-12-31T23:59:59.999Z"),
        text("2000-02-29T00:00:00Z"),
        text("2026-03-29T01:30:00+02:00"),
        text("2026-03-29T00:00:00.001Z"),
        text("2026-10-25T02:30:00Z"),
        text("2038-01-19T03:14:08Z"),
        text("2199-01-01T00:00:00Z"),
        text("9999-12-31T23:59:59.999Z"),
    ];
    for test in things().await {
        for time in times.iter().rev() {
            let sql = r#"INSERT INTO "Things" ("at") VALUES (?)"#;
            insert(&test.db, sql, args![*time]).await;
        }
        let sql = r#"SELECT "at" FROM "Things" WHERE "at" < ? ORDER BY "at""#;
        let rows = test.db.all(sql, args![times[7]]).await.unwrap();
        let read: Vec<DateTime<Utc>> = rows.iter().map(|row| row.get("at").unwrap()).collect();
        assert_eq!(read, times[..7], "{}", test.name);
    }
}

#[tokio::test]
async fn a_time_that_the_database_wrote_is_read_as_utc() {
    for test in things().await {
        let before = Utc::now() - chrono::Duration::seconds(1);
        let sql = match test.db.dialect() {
            Dialect::Sqlite => r#"INSERT INTO "Things" ("at") VALUES (datetime('now'))"#,
            _ => r#"INSERT INTO "Things" ("at") VALUES (NOW())"#,
        };
        let id = insert(&test.db, sql, args![]).await;
        let read: DateTime<Utc> = row(&test.db, id).await.get("at").unwrap();
        let after = Utc::now() + chrono::Duration::seconds(1);
        assert!(before <= read && read <= after, "{}: {read}", test.name);
    }
}

/// Leases end by this clock, so it must be the real time, in milliseconds, and go on inside a transaction.
#[tokio::test]
async fn now_ms_is_the_real_time_and_goes_on_inside_a_transaction() {
    const SQL: &str = r#"SELECT NOW_MS() AS "now""#;
    for test in things().await {
        let mut tx = test.db.write().await.unwrap();
        let mut last = 0;
        for _ in 0..3 {
            // The servers run on this machine, so their clock is ours; PostgreSQL rounds to the nearest.
            let before = Utc::now().timestamp_millis();
            let now: i64 = tx.one(SQL, args![]).await.unwrap().get("now").unwrap();
            let after = Utc::now().timestamp_millis() + 1;
            assert!(
                before <= now && now <= after,
                "{}: {before} {now} {after}",
                test.name
            );
            assert!(now > last, "{}: the clock stands still", test.name);
            last = now;
            while Utc::now().timestamp_millis() < after + 2 {
                tokio::task::yield_now().await;
            }
        }
        let sql = r#"UPDATE "Things" SET "big" = NOW_MS() + ? WHERE "id" = ?"#;
        let id = tx
            .insert(r#"INSERT INTO "Things" ("big") VALUES (?)"#, args![0i64])
            .await
            .unwrap();
        tx.exec(sql, args![30_000i64, id]).await.unwrap();
        tx.commit().await.unwrap();
        let until: i64 = row(&test.db, id).await.get("big").unwrap();
        let left = until - Utc::now().timestamp_millis();
        assert!((20_000..=30_001).contains(&left), "{}: {left}", test.name);
    }
}
