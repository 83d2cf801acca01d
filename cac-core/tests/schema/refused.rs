//! Databases that are not touched: foreign ones, half-migrated ones, newer ones, and the original's at a mere start.

use cac_core::{schema, testing};

use crate::common::{DUMP, columns, counts, original};

#[tokio::test]
async fn a_mere_start_on_the_originals_database_is_refused() {
    let database = original().await;
    let (shape, rows) = (columns(&database.db).await, counts(&database.db).await);
    let refused = schema::start(&database.db).await.unwrap_err().to_string();
    assert!(
        refused.contains("stop the original first, then run `cac migrate up`"),
        "{refused}"
    );
    assert_eq!(
        (columns(&database.db).await, counts(&database.db).await),
        (shape, rows)
    );
}

#[tokio::test]
async fn a_half_migrated_original_is_refused_untouched_and_each_difference_named() {
    for (change, found) in [
        (
            "DELETE FROM `SequelizeMeta` WHERE `name` = '20251117120000-create-jobs.js'",
            "SequelizeMeta lacks 20251117120000-create-jobs.js",
        ),
        (
            "INSERT INTO `SequelizeMeta` VALUES ('20990101000000-later.js')",
            "SequelizeMeta has the unknown 20990101000000-later.js",
        ),
        (
            "ALTER TABLE `Nodes` DROP COLUMN `secret`",
            "Nodes.secret is missing",
        ),
        (
            "ALTER TABLE `Jobs` ADD COLUMN `mine` int",
            "Jobs.mine is not the original's",
        ),
        (
            "ALTER TABLE `Jobs` MODIFY `command` text",
            "Jobs.command is text instead of varchar(2000)",
        ),
        (
            "CREATE TABLE `Mine` (`id` int)",
            "the table Mine is not the original's",
        ),
    ] {
        let database = original().await;
        database.script(change).await;
        let (shape, rows) = (columns(&database.db).await, counts(&database.db).await);
        for refused in [
            schema::up(&database.db).await.unwrap_err(),
            schema::start(&database.db).await.unwrap_err(),
            schema::down(&database.db).await.unwrap_err(),
        ] {
            let refused = refused.to_string();
            assert!(
                refused.contains(found) && refused.contains("Nothing was changed"),
                "{change}: {refused}"
            );
        }
        assert_eq!(
            (columns(&database.db).await, counts(&database.db).await),
            (shape, rows),
            "{change}"
        );
    }
}

#[tokio::test]
async fn a_foreign_database_is_refused_untouched() {
    for database in testing::empty_databases().await {
        database
            .script("CREATE TABLE wordpress_posts (id int)")
            .await;
        for refused in [
            schema::up(&database.db).await.unwrap_err(),
            schema::start(&database.db).await.unwrap_err(),
            schema::status(&database.db).await.unwrap_err(),
        ] {
            let refused = refused.to_string();
            assert!(
                refused.contains("wordpress_posts") && refused.contains("empty database"),
                "{refused}"
            );
        }
        assert_eq!(columns(&database.db).await.len(), 1, "{}", database.name);
    }
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    for database in testing::databases().await {
        let sql = r#"INSERT INTO "Migrations" ("number", "direction", "statement", "name", "startedAt", "appliedAt")
                     VALUES (9999, 'up', 1, 'from_the_future', ?, ?)"#;
        let now = chrono::Utc::now();
        database
            .db
            .exec(sql, cac_core::args![now, now])
            .await
            .unwrap();
        for refused in [
            schema::up(&database.db).await.unwrap_err(),
            schema::start(&database.db).await.unwrap_err(),
            schema::down(&database.db).await.unwrap_err(),
        ] {
            let refused = refused.to_string();
            assert!(
                refused.contains("newer release") && refused.contains("from_the_future"),
                "{refused}"
            );
        }
    }
}

/// The dump without its rows is the original just installed: it is adopted, too.
#[tokio::test]
async fn an_original_without_rows_is_adopted() {
    let database = testing::mariadb().await;
    let bare: Vec<&str> = DUMP
        .split("INSERT INTO `")
        .enumerate()
        .map(|(number, part)| {
            if number == 0 || part.starts_with("SequelizeMeta") {
                return part;
            }
            part.split_once(";\n").map_or("", |(_, rest)| rest)
        })
        .collect();
    let bare = bare.join("").replace(
        "SequelizeMeta` VALUES",
        "INSERT INTO `SequelizeMeta` VALUES",
    );
    database.script(&bare).await;
    assert_eq!(counts(&database.db).await["Containers"], 0);
    let adoption = schema::up(&database.db).await.unwrap().adoption.unwrap();
    assert_eq!((adoption.jobs_pending, adoption.labelled.len()), (0, 0));
}
