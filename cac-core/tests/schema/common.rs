//! The original's dump, and what a schema looks like from outside.

use std::collections::BTreeMap;

use cac_core::args;
use cac_core::db::{Db, Dialect};
use cac_core::testing::{self, TestDb};

/// The original's MariaDB database as its migrations leave it, with made-up rows.
pub(crate) const DUMP: &str = include_str!("../fixtures/legacy/opensource_containers.sql");

/// Somebody is signed in and a job runs when the original is stopped.
const BUSY: &str = "INSERT INTO `Sessions` VALUES ('sid-1', NOW(), '{\"password\":\"plain\"}', NOW(), NOW()), ('sid-2', NULL, NULL, NOW(), NOW()); \
    INSERT INTO `Jobs` VALUES (13, 'sleep 600', 'running', '2025-11-28 10:00:00', '2025-11-28 10:00:00', 'alice');";

/// A MariaDB database of the original that nobody adopted.
pub(crate) async fn original() -> TestDb {
    let database = testing::mariadb().await;
    database.script(DUMP).await;
    database.script(BUSY).await;
    database
}

/// Tables with their columns, in order.
pub(crate) async fn columns(db: &Db) -> BTreeMap<String, Vec<String>> {
    let sql = match db.dialect() {
        Dialect::Sqlite => {
            r#"SELECT m."name" AS "owner", p."name" AS "item" FROM sqlite_master m JOIN pragma_table_info(m."name") p
               WHERE m."type" = 'table' AND m."name" NOT LIKE 'sqlite%' ORDER BY 1, 2"#
        }
        Dialect::MariaDb => {
            r#"SELECT TABLE_NAME AS "owner", COLUMN_NAME AS "item" FROM information_schema.COLUMNS
               WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1, 2"#
        }
        Dialect::Postgres => {
            r#"SELECT table_name AS "owner", column_name AS "item" FROM information_schema.columns
               WHERE table_schema = current_schema() ORDER BY 1, 2"#
        }
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in db.all(sql, args![]).await.unwrap() {
        let owner: String = row.get("owner").unwrap();
        tables
            .entry(owner)
            .or_default()
            .push(row.get("item").unwrap());
    }
    for list in tables.values_mut() {
        list.sort();
    }
    tables
}

/// Everything that a database tells of columns, keys and references, a line each.
pub(crate) async fn details(db: &Db) -> Vec<String> {
    let queries: &[&'static str] = match db.dialect() {
        Dialect::Sqlite => &[
            r#"SELECT "sql" AS "line" FROM sqlite_master WHERE "sql" IS NOT NULL AND "name" NOT LIKE 'sqlite%' ORDER BY "name""#,
        ],
        Dialect::MariaDb => &[
            r#"SELECT CONCAT_WS(' ', TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COALESCE(COLUMN_DEFAULT, '-'),
                COALESCE(COLLATION_NAME, '-'), EXTRA) AS "line"
            FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT IN ('SequelizeMeta', 'Migrations')
            ORDER BY 1"#,
            r#"SELECT CONCAT_WS(' ', TABLE_NAME, INDEX_NAME, NON_UNIQUE, SEQ_IN_INDEX, COLUMN_NAME) AS "line"
            FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT IN ('SequelizeMeta', 'Migrations')
            ORDER BY 1"#,
            r#"SELECT CONCAT_WS(' ', TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME, UPDATE_RULE, DELETE_RULE) AS "line"
            FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE() ORDER BY 1"#,
        ],
        Dialect::Postgres => &[
            r#"SELECT CONCAT_WS(' ', table_name, column_name, data_type, character_maximum_length, is_nullable, column_default,
                identity_generation) AS "line"
            FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1"#,
            r#"SELECT REPLACE(indexdef, current_schema() || '.', '') AS "line" FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1"#,
            r#"SELECT CONCAT_WS(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) AS "line" FROM pg_constraint
            WHERE connamespace = current_schema()::regnamespace ORDER BY 1"#,
        ],
    };
    let mut lines = Vec::new();
    for sql in queries {
        for row in db.all(sql, args![]).await.unwrap() {
            lines.push(row.get::<String>("line").unwrap());
        }
    }
    lines
}

const COUNTS: [(&str, &str); 7] = [
    ("Containers", r#"SELECT COUNT(*) AS "n" FROM "Containers""#),
    ("Services", r#"SELECT COUNT(*) AS "n" FROM "Services""#),
    ("Nodes", r#"SELECT COUNT(*) AS "n" FROM "Nodes""#),
    ("Jobs", r#"SELECT COUNT(*) AS "n" FROM "Jobs""#),
    (
        "JobStatuses",
        r#"SELECT COUNT(*) AS "n" FROM "JobStatuses""#,
    ),
    ("Sessions", r#"SELECT COUNT(*) AS "n" FROM "Sessions""#),
    (
        "SequelizeMeta",
        r#"SELECT COUNT(*) AS "n" FROM "SequelizeMeta""#,
    ),
];

/// How many rows each table of the original has.
pub(crate) async fn counts(db: &Db) -> BTreeMap<&'static str, i64> {
    let mut counts = BTreeMap::new();
    for (table, sql) in COUNTS {
        if let Ok(row) = db.one(sql, args![]).await {
            counts.insert(table, row.get("n").unwrap());
        }
    }
    counts
}

/// One text out of the first row.
pub(crate) async fn text(db: &Db, sql: &'static str) -> Option<String> {
    let row = db.opt(sql, args![]).await.unwrap()?;
    row.get::<Option<String>>("text").unwrap()
}
