//! Every statement of the seed document, word for word, on MariaDB: a fresh database and an adopted one.

use std::collections::BTreeMap;

use cac_core::config::{Config, Program, Vars};
use cac_core::testing::TestDb;
use cac_core::{Actor, Core, args, job, schema, testing};
use sqlx::{ConnectOptions as _, Executor as _, Row as _};

use crate::common::{original, text};

const INSERT: &str = r#"INSERT INTO Jobs (command, status, createdAt, updatedAt)
VALUES ('echo "Hello" && sleep 5 && echo "World"', 'pending', NOW(), NOW());"#;
const INSPECT: &str = "SELECT id, status, updatedAt FROM Jobs ORDER BY id DESC LIMIT 10;";
const OUTPUT: &str =
    "SELECT id, output, createdAt FROM JobStatuses WHERE jobId = 1 ORDER BY id ASC;";
/// As the shell hands it to `mysql -e`.
const LONG: &str = "INSERT INTO Jobs (command, status, createdAt, updatedAt) VALUES ('for i in $(seq 1 300); do echo \"line $i\"; sleep 1; done', 'pending', NOW(), NOW()); SELECT LAST_INSERT_ID();";
/// With the documented columns alone.
const CONTAINER: &str = "INSERT INTO Containers (hostname, username, osRelease, containerId, macAddress, ipv4Address, aiContainer, createdAt, updatedAt)
VALUES ('by-hand', 'alice', 'debian', 4711, 'BC:24:11:FF:FF:01', '127.15.5.250', 'N', NOW(), NOW());
INSERT INTO Services (containerId, type, internalPort, externalPort, tls, externalHostname, createdAt, updatedAt)
VALUES (LAST_INSERT_ID(), 'http', 80, NULL, FALSE, 'by-hand', NOW(), NOW());";

async fn databases() -> [TestDb; 2] {
    let both = [testing::mariadb().await, original().await];
    for database in &both {
        schema::up(&database.db).await.unwrap();
    }
    both
}

#[tokio::test]
async fn the_seeds_statements_work_and_a_row_by_hand_is_a_full_citizen() {
    for database in databases().await {
        let url = url::Url::parse(&database.url).unwrap();
        let mut client = sqlx::mysql::MySqlConnectOptions::from_url(&url)
            .unwrap()
            .connect()
            .await
            .unwrap();
        client.execute(sqlx::raw_sql(INSERT)).await.unwrap();
        let newest = client.fetch_all(sqlx::raw_sql(INSPECT)).await.unwrap();
        assert!((1..=10).contains(&newest.len()));
        assert_eq!(
            newest[0].try_get_unchecked::<String, _>("status").unwrap(),
            "pending"
        );
        client.fetch_all(sqlx::raw_sql(OUTPUT)).await.unwrap();
        let told = client.fetch_all(sqlx::raw_sql(LONG)).await.unwrap();
        let id = i64::try_from(told[0].try_get_unchecked::<u64, _>(0).unwrap()).unwrap();
        client.execute(sqlx::raw_sql(CONTAINER)).await.unwrap();

        // Whose name is NULL is for admins only; the command is the one that was written.
        let core = core(&database).await;
        let job = job::find(&core, &Actor::new("admin", true), id)
            .await
            .unwrap();
        assert_eq!(
            job.command,
            r#"for i in $(seq 1 300); do echo "line $i"; sleep 1; done"#
        );
        assert_eq!((job.kind, job.created_by), (None, None));
        assert!(
            job::find(&core, &Actor::new("alice", false), id)
                .await
                .is_err()
        );
        let sql = r#"SELECT "state" AS "text" FROM "Containers" WHERE "hostname" = 'by-hand'"#;
        assert_eq!(text(&database.db, sql).await, None);
        let rendered = cac_core::routes::render(&core).await.unwrap();
        assert!(
            rendered
                .text
                .contains("by-hand.cac.localhost 127.15.5.250:80;"),
            "{}",
            rendered.text
        );
        let filter = cac_core::container::Filter {
            limit: 1000,
            ..Default::default()
        };
        let alice = Actor::new("alice", false);
        let (mine, _) = cac_core::container::list(&core, &alice, &filter)
            .await
            .unwrap();
        assert!(mine.iter().any(|container| container.hostname == "by-hand"));
    }
}

/// Times never decide whether a job may run: `NOW()` can be local time, here a day ahead.
#[tokio::test]
async fn a_job_from_tomorrow_runs_today() {
    for database in databases().await {
        let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt") VALUES ('true', 'pending', ?, ?)"#;
        let tomorrow = chrono::Utc::now() + chrono::Duration::days(1);
        database
            .db
            .exec(sql, args![tomorrow, tomorrow])
            .await
            .unwrap();
        let row = database
            .db
            .one(r#"SELECT MAX("id") AS "id" FROM "Jobs""#, args![])
            .await
            .unwrap();
        let core = core(&database).await;
        let stop = tokio_util::sync::CancellationToken::new();
        let runner = tokio::spawn(job::runner::run(core.clone(), stop.clone()));
        let patience = std::time::Duration::from_secs(60);
        let job = job::wait(&core, row.get("id").unwrap(), patience)
            .await
            .unwrap();
        assert_eq!(job.status, job::Status::Success);
        stop.cancel();
        runner.await.unwrap();
    }
}

async fn core(database: &TestDb) -> Core {
    let mut vars = Vars(BTreeMap::new());
    for (name, value) in [
        ("DATABASE_URL", database.url.as_str()),
        ("SESSION_SECRET", "a secret for tests only"),
        ("CONTAINER_NETWORKS", "127.0.0.0/8"),
        ("JOB_RUNNER_POLL_MS", "50"),
    ] {
        vars.set(name, value);
    }
    Core::start(Config::load(&vars, Program::Http).unwrap())
        .await
        .unwrap()
}
