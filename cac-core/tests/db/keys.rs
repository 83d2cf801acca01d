//! Keys: generated ids, and conflicts that are typed alike.

use cac_core::args;
use cac_core::db::{Db, Error};
use cac_core::testing;
use chrono::Utc;

use crate::common::{count, insert, things, words};

const NODE: &str = r#"INSERT INTO "Nodes" ("name", "createdAt", "updatedAt") VALUES (?, ?, ?)"#;
const CONTAINER: &str = r#"INSERT INTO "Containers" ("hostname", "username", "nodeId", "containerId", "createdAt", "updatedAt")
    VALUES (?, ?, ?, ?, ?, ?)"#;
const SERVICE: &str = r#"INSERT INTO "Services" ("containerId", "type", "internalPort", "externalPort", "externalHostname", "createdAt",
    "updatedAt") VALUES (?, ?, ?, ?, ?, ?, ?)"#;

async fn node(db: &Db, name: &str) -> i64 {
    insert(db, NODE, args![name, Utc::now(), Utc::now()]).await
}

async fn container(db: &Db, hostname: &str, node: i64, vmid: i64) -> Result<i64, Error> {
    let mut tx = db.write().await.unwrap();
    let now = Utc::now();
    let id = tx
        .insert(CONTAINER, args![hostname, "alice", node, vmid, now, now])
        .await?;
    tx.commit().await.unwrap();
    Ok(id)
}

async fn service(
    db: &Db,
    container: i64,
    kind: &str,
    port: Option<i64>,
    name: Option<&str>,
) -> Result<i64, Error> {
    let mut tx = db.write().await.unwrap();
    let now = Utc::now();
    let args = args![container, kind, 80i64, port, name, now, now];
    let id = tx.insert(SERVICE, args).await?;
    tx.commit().await.unwrap();
    Ok(id)
}

#[tokio::test]
async fn insert_returns_the_id_of_its_row() {
    for test in things().await {
        let mut ids = Vec::new();
        for n in 0..5 {
            let id = words(&test.db, &format!("row {n}")).await;
            let sql = r#"SELECT "words" FROM "Things" WHERE "id" = ?"#;
            let row = test.db.one(sql, args![id]).await.unwrap();
            assert_eq!(row.get::<String>("words").unwrap(), format!("row {n}"));
            ids.push(id);
        }
        assert!(
            ids.is_sorted_by(|a, b| a < b) && ids[0] > 0,
            "{}: {ids:?}",
            test.name
        );
    }
}

/// Markers in Proxmox VE carry row ids: an id that came back would make an old container somebody else's.
#[tokio::test]
async fn ids_are_never_reused() {
    for test in testing::databases().await {
        let first = node(&test.db, "a").await;
        let last = node(&test.db, "b").await;
        let sql = r#"DELETE FROM "Nodes" WHERE "id" = ?"#;
        assert_eq!(test.db.exec(sql, args![last]).await.unwrap(), 1);
        let next = node(&test.db, "c").await;
        assert!(
            next > last && last > first,
            "{}: {first} {last} {next}",
            test.name
        );
        let sql = r#"DELETE FROM "Nodes""#;
        assert_eq!(test.db.exec(sql, args![]).await.unwrap(), 2);
        assert!(node(&test.db, "d").await > next, "{}", test.name);
        for (table, wanted) in [("Containers", true), ("Jobs", true)] {
            let id = reused(&test.db, table).await;
            assert_eq!(id.0 < id.1, wanted, "{}: {table} gave {id:?}", test.name);
        }
    }
}

/// The ids of a row that was deleted and of the one after it.
async fn reused(db: &Db, table: &str) -> (i64, i64) {
    let now = Utc::now();
    let (new, delete): (&'static str, &'static str) = match table {
        "Containers" => (
            r#"INSERT INTO "Containers" ("hostname", "username", "createdAt", "updatedAt") VALUES ('x', 'x', ?, ?)"#,
            r#"DELETE FROM "Containers" WHERE "id" = ?"#,
        ),
        _ => (
            r#"INSERT INTO "Jobs" ("command", "createdAt", "updatedAt") VALUES ('x', ?, ?)"#,
            r#"DELETE FROM "Jobs" WHERE "id" = ?"#,
        ),
    };
    let deleted = insert(db, new, args![now, now]).await;
    db.exec(delete, args![deleted]).await.unwrap();
    (deleted, insert(db, new, args![now, now]).await)
}

#[tokio::test]
async fn a_taken_key_is_a_unique_violation_everywhere() {
    for test in testing::databases().await {
        let (db, name) = (&test.db, test.name);
        let (one, two) = (node(db, "pve1").await, node(db, "pve2").await);
        let mut tx = db.write().await.unwrap();
        let again = tx.insert(NODE, args!["pve1", Utc::now(), Utc::now()]).await;
        assert!(matches!(again, Err(Error::Unique(_))), "{name}: {again:?}");
        drop(tx);
        let web = container(db, "web", one, 101).await.unwrap();
        let elsewhere = container(db, "web2", two, 101).await;
        assert!(
            elsewhere.is_ok(),
            "{name}: the same VMID on another node: {elsewhere:?}"
        );
        service(db, web, "tcp", Some(2222), None).await.unwrap();
        service(db, web, "udp", Some(2222), None).await.unwrap();
        service(db, web, "http", None, Some("web")).await.unwrap();
        service(db, web, "http", None, None).await.unwrap();
        for (what, outcome) in [
            ("hostname", container(db, "web", two, 102).await),
            ("VMID of a node", container(db, "web3", one, 101).await),
            ("port", service(db, web, "tcp", Some(2222), None).await),
            (
                "public name",
                service(db, web, "http", None, Some("web")).await,
            ),
        ] {
            assert!(
                matches!(outcome, Err(Error::Unique(_))),
                "{name}: {what}: {outcome:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_missing_or_needed_row_is_a_foreign_key_violation_everywhere() {
    for test in testing::databases().await {
        let (db, name) = (&test.db, test.name);
        let pve = node(db, "pve1").await;
        let web = container(db, "web", pve, 101).await.unwrap();
        service(db, web, "tcp", Some(2222), None).await.unwrap();
        let orphan = service(db, web + 1, "tcp", Some(2223), None).await;
        assert!(
            matches!(orphan, Err(Error::ForeignKey(_))),
            "{name}: {orphan:?}"
        );
        let needed = db
            .exec(r#"DELETE FROM "Nodes" WHERE "id" = ?"#, args![pve])
            .await;
        assert!(
            matches!(needed, Err(Error::ForeignKey(_))),
            "{name}: {needed:?}"
        );
        // Services go with their container.
        db.exec(r#"DELETE FROM "Containers" WHERE "id" = ?"#, args![web])
            .await
            .unwrap();
        let sql = r#"SELECT COUNT(*) AS "n" FROM "Services""#;
        let left: i64 = db.one(sql, args![]).await.unwrap().get("n").unwrap();
        assert_eq!(left, 0, "{name}");
    }
}

#[tokio::test]
async fn other_refusals_are_no_conflicts() {
    for test in testing::databases().await {
        let pve = node(&test.db, "pve1").await;
        let web = container(&test.db, "web", pve, 101).await.unwrap();
        let kind = service(&test.db, web, "sctp", Some(1), None).await;
        assert!(
            matches!(kind, Err(Error::Other(_))),
            "{}: {kind:?}",
            test.name
        );
        let mut tx = test.db.write().await.unwrap();
        let none = tx
            .insert(NODE, args![None::<&str>, Utc::now(), Utc::now()])
            .await;
        assert!(
            matches!(none, Err(Error::Other(_))),
            "{}: {none:?}",
            test.name
        );
        assert!(!tx.busy(), "{}", test.name);
    }
}

/// Proxmox VE tells `Alice` from `alice`; the default collation of MariaDB does not.
#[tokio::test]
async fn user_names_compare_byte_by_byte() {
    for test in testing::databases().await {
        let now = Utc::now();
        for (n, user) in ["alice", "Alice", "älice", "alice@pam"]
            .into_iter()
            .enumerate()
        {
            let hostname = format!("web{n}");
            let sql = r#"INSERT INTO "Containers" ("hostname", "username", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
            insert(&test.db, sql, args![hostname, user, now, now]).await;
            let sql = r#"INSERT INTO "Jobs" ("command", "createdBy", "createdAt", "updatedAt") VALUES ('true', ?, ?, ?)"#;
            insert(&test.db, sql, args![user, now, now]).await;
            let sql = r#"INSERT INTO "Sessions" ("session_id", "username", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
            test.db
                .exec(sql, args![user, user, now, now])
                .await
                .unwrap();
            let sql = r#"INSERT INTO "IdempotencyKeys" ("username", "idempotencyKey", "requestHash", "createdAt", "updatedAt")
                VALUES (?, 'key', 'hash', ?, ?)"#;
            insert(&test.db, sql, args![user, now, now]).await;
            let sql = r#"INSERT INTO "LoginFailures" ("name") VALUES (?)"#;
            insert(&test.db, sql, args![user]).await;
        }
        for sql in [
            r#"SELECT "username" AS "who" FROM "Containers" WHERE "username" = ?"#,
            r#"SELECT "createdBy" AS "who" FROM "Jobs" WHERE "createdBy" = ?"#,
            r#"SELECT "username" AS "who" FROM "Sessions" WHERE "username" = ?"#,
            r#"SELECT "session_id" AS "who" FROM "Sessions" WHERE "session_id" = ?"#,
            r#"SELECT "username" AS "who" FROM "IdempotencyKeys" WHERE "username" = ?"#,
            r#"SELECT "name" AS "who" FROM "LoginFailures" WHERE "name" = ?"#,
        ] {
            let rows = test.db.all(sql, args!["Alice"]).await.unwrap();
            let found: Vec<String> = rows.iter().map(|row| row.get("who").unwrap()).collect();
            assert_eq!(found, ["Alice"], "{}: {sql}", test.name);
        }
    }
}

#[tokio::test]
async fn an_id_that_was_rolled_back_names_no_other_row() {
    for test in things().await {
        let mut tx = test.db.write().await.unwrap();
        let sql = r#"INSERT INTO "Things" ("words") VALUES ('gone')"#;
        tx.insert(sql, args![]).await.unwrap();
        tx.rollback().await;
        let id = words(&test.db, "stays").await;
        assert_eq!(count(&test.db).await, 1, "{}", test.name);
        let sql = r#"SELECT "words" FROM "Things" WHERE "id" = ?"#;
        let row = test.db.one(sql, args![id]).await.unwrap();
        assert_eq!(
            row.get::<String>("words").unwrap(),
            "stays",
            "{}",
            test.name
        );
    }
}
