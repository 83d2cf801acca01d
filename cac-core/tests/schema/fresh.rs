//! Fresh databases: the same tables by the same names, once, also when many programs start at the same time.

use std::path::Path;

use cac_core::Actor;
use cac_core::db::{Db, Row};
use cac_core::schema::{self, MigrationState};
use cac_core::{args, testing};

use crate::common::{columns, counts, details, original};

#[tokio::test]
async fn all_three_databases_have_the_same_tables_and_columns() {
    let mut shapes = Vec::new();
    for database in testing::empty_databases().await {
        let report = schema::up(&database.db).await.unwrap();
        assert_eq!(report.applied, testing::migrations(), "{}", database.name);
        assert_eq!(report.adoption, None);
        shapes.push(columns(&database.db).await);
    }
    assert_eq!(shapes[0], shapes[1]);
    assert_eq!(shapes[1], shapes[2]);
    for table in [
        "Containers",
        "Services",
        "Nodes",
        "Jobs",
        "JobStatuses",
        "Sessions",
        "Settings",
        "Migrations",
    ] {
        assert!(shapes[0].contains_key(table), "{table}");
    }
}

/// The schema only grows: whoever reads or writes it by hand finds everything where it was.
#[tokio::test]
async fn the_schema_is_as_it_was_written_down() {
    for database in testing::databases().await {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema");
        let file = folder.join(format!("{}.txt", database.name));
        let lines = details(&database.db).await.join("\n") + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &lines).unwrap();
        }
        let golden = std::fs::read_to_string(&file).expect("UPDATE_GOLDEN=1 makes it");
        assert!(
            lines == golden,
            "{}: look at the change, then run with UPDATE_GOLDEN=1",
            database.name
        );
    }
}

#[tokio::test]
async fn a_fresh_mariadb_and_an_adopted_one_are_the_same() {
    let fresh = testing::mariadb().await;
    schema::up(&fresh.db).await.unwrap();
    let adopted = original().await;
    schema::up(&adopted.db).await.unwrap();
    assert_eq!(details(&fresh.db).await, details(&adopted.db).await);
}

#[tokio::test]
async fn status_tells_where_each_change_stands() {
    for database in testing::empty_databases().await {
        let states = async || -> Vec<MigrationState> {
            let all = schema::status(&database.db).await.unwrap();
            all.into_iter().map(|status| status.state).collect()
        };
        let applied = async || {
            let states = states().await.into_iter();
            let applied = states.map(|state| matches!(state, MigrationState::Applied(_)));
            applied.collect::<Vec<_>>()
        };
        let titles = testing::migrations();
        let (last, count) = (titles.last().unwrap(), titles.len());
        assert_eq!(states().await, vec![MigrationState::Pending; count]);
        assert!(
            columns(&database.db).await.is_empty(),
            "status changes nothing"
        );
        schema::up(&database.db).await.unwrap();
        assert_eq!(applied().await, vec![true; count]);
        let again = schema::up(&database.db).await.unwrap();
        assert!(
            again.applied.is_empty() && again.to_string().contains("up to date"),
            "{again}"
        );
        assert_eq!(schema::down(&database.db).await.unwrap(), *last);
        assert_eq!(states().await[count - 1], MigrationState::Pending);
        assert_eq!(applied().await[..count - 1], vec![true; count - 1]);
    }
}

/// A4: `cac migrate down` dropped the nodes' encrypted secrets without a word.
#[tokio::test]
async fn undoing_refuses_to_lose_what_somebody_would_miss() {
    for database in testing::databases().await {
        let db = &database.db;
        let now = chrono::Utc::now();
        let sql = r#"INSERT INTO "Nodes" ("name", "secretSealed", "createdAt", "updatedAt") VALUES ('pve1', 'v1:x', ?, ?)"#;
        db.exec(sql, args![now, now]).await.unwrap();
        let sql = r#"INSERT INTO "AuditEntries" ("via", "action", "target", "status", "createdAt") VALUES ('local', 'a', 'b', 200, ?)"#;
        db.exec(sql, args![now]).await.unwrap();
        let sealed = testing::migrations();
        let sealed = sealed.iter().position(|title| title.ends_with("_sealed"));
        for _ in sealed.unwrap() + 1..testing::migrations().len() {
            schema::down(db).await.unwrap();
        }
        let before = columns(db).await;
        for _ in 0..2 {
            let refused = schema::down(db).await.unwrap_err().to_string();
            assert!(
                refused.contains("1 encrypted secrets of nodes")
                    && refused.contains("First run `cac secret export --in-plain-text`"),
                "{refused}"
            );
            assert_eq!(columns(db).await, before, "{}", database.name);
        }
        // Saved first, it is no loss.
        db.exec(r#"UPDATE "Nodes" SET "secret" = 'x'"#, args![])
            .await
            .unwrap();
        schema::down(db).await.unwrap();
        schema::down(db).await.unwrap();
        let refused = schema::down(db).await.unwrap_err().to_string();
        assert!(refused.contains("1 entries of the audit log"), "{refused}");
        let undone = schema::down_discarding(db).await.unwrap();
        assert!(undone.ends_with("_audit"), "{undone}");
    }
}

/// Puts in what one migration after the other would lose, from the newest to that of the changes in audit entries.
#[tokio::test]
async fn undoing_names_what_each_newer_migration_would_lose() {
    for database in testing::databases().await {
        let db = &database.db;
        fill(db).await;
        let now = chrono::Utc::now();
        for (migration, sql, args, words) in [
            (
                "people",
                r#"INSERT INTO "UserStates" ("username", "state", "missingSince") VALUES ('gone', 'missing', ?)"#,
                args![now],
                "that 1 users were deleted in Proxmox VE",
            ),
            ("addresses", "", args![], ""),
            (
                "identity",
                r#"UPDATE "Containers" SET "unverifiedSince" = ?, "identityMismatchAt" = ?"#,
                args![now, now],
                "that 1 containers are unverified",
            ),
            (
                "identity",
                r#"INSERT INTO "Quotas" ("username", "ports", "createdAt", "updatedAt") VALUES ('alice', 4, ?, ?)"#,
                args![now, now],
                "limits on ports and services of 1 users",
            ),
            (
                "proofs",
                r#"INSERT INTO "AccountRequests" ("name", "email", "username", "reason", "status", "createdAt", "updatedAt")
                    VALUES ('Ann', 'ann@example.org', 'ann', '', 'unconfirmed', ?, ?)"#,
                args![now, now],
                "whether the e-mail addresses of 1 account requests are confirmed",
            ),
            (
                "deletion_requests",
                r#"UPDATE "Containers" SET "deletionRequestedAt" = ?, "deletionError" = 'why'"#,
                args![now],
                "who wants 1 containers deleted",
            ),
            (
                "audit_changes",
                r#"INSERT INTO "AuditEntries" ("via", "action", "target", "status", "changes", "createdAt") VALUES ('local', 'a', 'b', 200, '[]', ?)"#,
                args![now],
                "what 1 entries of the audit log say of fields",
            ),
        ] {
            let title = newest(db).await;
            // The same one may lose several things.
            if !title.ends_with(migration) {
                let undone = schema::down_discarding(db).await.unwrap();
                assert_eq!(undone, title);
            }
            let title = newest(db).await;
            assert!(title.ends_with(migration), "{migration}: {title}");
            if sql.is_empty() {
                continue;
            }
            db.exec(sql, args).await.unwrap();
            let refused = schema::down(db).await.unwrap_err().to_string();
            assert!(refused.contains(words), "{}: {refused}", database.name);
            assert_eq!(newest(db).await, title);
        }
    }
}

/// The newest migration that is applied.
async fn newest(db: &Db) -> String {
    let all = schema::status(db).await.unwrap().into_iter();
    let mut applied = all.filter(|status| matches!(status.state, MigrationState::Applied(_)));
    let newest = applied.next_back().unwrap();
    format!("{:04}_{}", newest.number, newest.name)
}

/// Commands with local rights leave entries, together with what they did, for as long as there is a log.
#[tokio::test]
async fn changes_of_the_schema_are_in_the_audit_log() {
    for database in testing::empty_databases().await {
        let (db, name) = (&database.db, database.name);
        let mut actor = Actor::local();
        actor.origin.note = Some("by ann".to_owned());
        let entries = async || -> Vec<(String, String, String)> {
            let sql =
                r#"SELECT "via", "action", "target", "detail" FROM "AuditEntries" ORDER BY "id""#;
            let rows = db.all(sql, args![]).await.unwrap();
            let text = |row: &Row, name: &str| row.get::<String>(name).unwrap();
            let entry = |row: &Row| {
                assert_eq!(text(row, "via"), "local");
                (
                    text(row, "action"),
                    text(row, "target"),
                    text(row, "detail"),
                )
            };
            rows.iter().map(entry).collect()
        };
        schema::up_by(db, &actor).await.unwrap();
        assert_eq!(entries().await, [], "{name}: it is new");
        let sql = r#"INSERT INTO "UserStates" ("username", "state") VALUES ('gone', 'missing')"#;
        db.exec(sql, args![]).await.unwrap();
        let holds = schema::down_by(db, &actor, false).await.unwrap();
        schema::down_by(db, &actor, false).await.unwrap_err();
        assert_eq!(entries().await.len(), 1, "{name}: nothing was done");
        let people = schema::down_by(db, &actor, true).await.unwrap();
        let addresses = schema::down_by(db, &actor, false).await.unwrap();
        schema::up_by(db, &actor).await.unwrap();
        let entry = |action: &str, title: &str, detail: &str| {
            (
                action.to_owned(),
                format!("/migrations/{title}"),
                detail.to_owned(),
            )
        };
        let lost = "lost: that 1 users were deleted in Proxmox VE and wait for a decision, and their API tokens; by ann";
        assert_eq!(
            entries().await,
            [
                entry("migration_undo", &holds, "by ann"),
                entry("migration_undo", &people, lost),
                entry("migration_undo", &addresses, "by ann"),
                entry("migration_apply", &addresses, "by ann"),
                entry("migration_apply", &people, "by ann"),
                entry("migration_apply", &holds, "by ann"),
            ],
            "{name}"
        );
        // A program's own start is nobody's command.
        schema::down(db).await.unwrap();
        schema::start(db).await.unwrap();
        assert_eq!(entries().await.len(), 6, "{name}");
        // Entries about undoing are no reason against undoing.
        for title in testing::migrations()[1..].iter().rev() {
            assert_eq!(
                schema::down_by(db, &actor, false).await.unwrap(),
                *title,
                "{name}"
            );
        }
    }
    let adopted = original().await;
    schema::up_by(&adopted.db, &Actor::local()).await.unwrap();
    let sql = r#"SELECT "action" FROM "AuditEntries""#;
    let rows = adopted.db.all(sql, args![]).await.unwrap();
    let actions: Vec<String> = rows.iter().map(|row| row.get("action").unwrap()).collect();
    assert_eq!(actions, ["database_adopt"]);
}

#[tokio::test]
async fn undoing_keeps_every_row_and_no_table_of_the_original_is_dropped() {
    for database in testing::databases().await {
        let db = &database.db;
        fill(db).await;
        let before = counts(db).await;
        for title in testing::migrations()[1..].iter().rev() {
            assert_eq!(schema::down_discarding(db).await.unwrap(), *title);
            assert_eq!(counts(db).await, before, "{}", database.name);
        }
        assert!(!columns(db).await.contains_key("Settings"));
        let refused = schema::down(db).await.unwrap_err().to_string();
        assert!(
            refused.contains("0001_original cannot be undone"),
            "{refused}"
        );
        assert_eq!(counts(db).await, before);
        schema::up(db).await.unwrap();
        assert_eq!(counts(db).await, before);
    }
}

async fn fill(db: &Db) {
    let now = chrono::Utc::now();
    for (sql, args) in [
        (
            r#"INSERT INTO "Nodes" ("name", "createdAt", "updatedAt") VALUES ('pve1', ?, ?)"#,
            args![now, now],
        ),
        (
            r#"INSERT INTO "Containers" ("hostname", "username", "containerId", "macAddress", "ipv4Address", "createdAt", "updatedAt")
               VALUES ('web', 'alice', 101, 'BC:24:11:00:00:01', '127.15.5.3', ?, ?)"#,
            args![now, now],
        ),
        (
            r#"INSERT INTO "Services" ("containerId", "type", "internalPort", "externalHostname", "createdAt", "updatedAt")
               SELECT "id", 'http', 80, 'web', ?, ? FROM "Containers""#,
            args![now, now],
        ),
        (
            r#"INSERT INTO "Jobs" ("command", "createdAt", "updatedAt") VALUES ('true', ?, ?)"#,
            args![now, now],
        ),
        (
            r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") SELECT "id", 'x', ?, ? FROM "Jobs""#,
            args![now, now],
        ),
        (
            r#"INSERT INTO "Sessions" ("session_id", "createdAt", "updatedAt") VALUES ('s', ?, ?)"#,
            args![now, now],
        ),
    ] {
        assert_eq!(db.exec(sql, args).await.unwrap(), 1, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_programs_that_start_at_once_are_safe() {
    for database in testing::empty_databases().await {
        let starts = (0..10).map(|_| {
            let url = database.url.clone();
            tokio::spawn(async move {
                let db = Db::connect(&url).await.unwrap();
                let started = schema::start(&db).await;
                db.close().await;
                started
            })
        });
        for start in starts.collect::<Vec<_>>() {
            start
                .await
                .unwrap()
                .unwrap_or_else(|error| panic!("{}: {error}", database.name));
        }
        let again = schema::up(&database.db).await.unwrap();
        assert!(again.applied.is_empty(), "{}", database.name);
    }
}

/// A VMID, a MAC and an address are unknown until the container is made; the same VMID may stand on two nodes.
#[tokio::test]
async fn keys_are_those_of_the_contract() {
    for database in testing::databases().await {
        let db = &database.db;
        let now = chrono::Utc::now();
        for name in ["pve1", "pve2"] {
            let sql = r#"INSERT INTO "Nodes" ("name", "createdAt", "updatedAt") VALUES (?, ?, ?)"#;
            db.exec(sql, args![name, now, now]).await.unwrap();
        }
        let container = async |hostname: &str, node: Option<i64>, vmid: Option<i64>| {
            let sql = r#"INSERT INTO "Containers" ("hostname", "username", "nodeId", "containerId", "createdAt", "updatedAt")
                         VALUES (?, 'alice', ?, ?, ?, ?)"#;
            db.exec(sql, args![hostname, node, vmid, now, now]).await
        };
        container("a", None, None).await.unwrap();
        container("b", None, None).await.unwrap();
        container("c", Some(1), Some(101)).await.unwrap();
        container("d", Some(2), Some(101)).await.unwrap();
        assert!(matches!(
            container("e", Some(1), Some(101)).await,
            Err(cac_core::db::Error::Unique(_))
        ));
        assert!(matches!(
            container("a", None, None).await,
            Err(cac_core::db::Error::Unique(_))
        ));
        let service = async |kind: &str, port: Option<i64>, name: Option<&str>| {
            let sql = r#"INSERT INTO "Services" ("containerId", "type", "internalPort", "externalPort", "externalHostname", "createdAt", "updatedAt")
                         VALUES (1, ?, 80, ?, ?, ?, ?)"#;
            db.exec(sql, args![kind, port, name, now, now]).await
        };
        service("tcp", Some(2222), None).await.unwrap();
        service("udp", Some(2222), None).await.unwrap();
        service("http", None, Some("a")).await.unwrap();
        for (kind, port, name) in [("tcp", Some(2222), None), ("http", None, Some("a"))] {
            let refused = service(kind, port, name).await;
            assert!(
                matches!(refused, Err(cac_core::db::Error::Unique(_))),
                "{}: {kind}",
                database.name
            );
        }
        assert!(service("sctp", None, None).await.is_err());
    }
}
