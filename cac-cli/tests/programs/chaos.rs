//! Runners that are killed again and again while they work: nothing is lost, no shell command runs twice, each job ends once.
//!
//! The README has the command of the long form.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cac_core::db::Dialect;
use cac_core::testing::TestDb;
use cac_core::{args, testing};
use rustix::process::Signal;

use crate::lab::Running;

/// Jobs of the short form.
const JOBS: usize = 900;
const RUNNERS: usize = 4;
/// Between two kills, in the short and in the long form.
const PAUSES: [Duration; 2] = [Duration::from_millis(700), Duration::from_secs(2)];
/// The whole must have ended after this.
const LIMIT: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn killed_runners_lose_nothing_and_do_nothing_twice_on_sqlite() {
    chaos(testing::databases().await.swap_remove(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_runners_lose_nothing_and_do_nothing_twice_on_mariadb() {
    chaos(testing::databases().await.swap_remove(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_runners_lose_nothing_and_do_nothing_twice_on_postgres() {
    chaos(testing::databases().await.swap_remove(2)).await;
}

async fn chaos(database: TestDb) {
    let asked = std::env::var("CAC_CHAOS_JOBS").ok();
    let pause = PAUSES[usize::from(asked.is_some())];
    let jobs = asked.map_or(JOBS, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let marks = dir.path().join("marks");
    std::fs::write(&marks, "").unwrap();
    let file = dir.path().join("tasks.toml");
    let text = "[tasks.nap]\nargv = [\"/bin/sleep\", \"0.02\"]\nrepeatable = true\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap().to_owned();
    count_ends(&database).await;
    let vars = [
        ("DATABASE_URL", database.url.as_str()),
        ("JOB_TASKS_FILE", file.as_str()),
        ("JOB_RUNNER_LEASE_SECONDS", "2"),
        ("JOB_RUNNER_POLL_MS", "200"),
    ];
    // Every other one a shell command, which leaves a mark each time that it runs.
    let command = |number: usize| format!("echo {number} >> {}; sleep 0.02", marks.display());
    let rows = |number: usize| {
        let now = chrono::Utc::now();
        let task = number.is_multiple_of(2);
        let payload = r#"{"task":"nap","parameters":{}}"#;
        args![
            if task {
                "# nap".to_owned()
            } else {
                command(number)
            },
            task.then_some("task"),
            task.then_some(payload),
            now,
            now
        ]
    };
    let sql = r#"INSERT INTO "Jobs" ("command", "kind", "payload", "createdAt", "updatedAt") VALUES (?, ?, ?, ?, ?)"#;
    let mut tx = database.db.write().await.unwrap();
    let all = (0..jobs).map(rows).collect();
    tx.insert_all(sql, all).await.unwrap();
    tx.commit().await.unwrap();

    let start = || Running::start("cac-runner", &[], &vars);
    let mut runners: Vec<Running> = (0..RUNNERS).map(|_| start()).collect();
    let (began, mut kills) = (Instant::now(), 0);
    while testing::open(&database.db).await > 0 {
        assert!(
            began.elapsed() < LIMIT,
            "{}: {} jobs are open",
            database.name,
            testing::open(&database.db).await
        );
        tokio::time::sleep(pause).await;
        runners[kills % RUNNERS].signal(Signal::KILL);
        runners[kills % RUNNERS] = start();
        kills += 1;
    }
    let took = began.elapsed();
    drop(runners);

    let ends = database
        .db
        .all(
            r#"SELECT "jobId", COUNT(*) AS "n" FROM "Ends" GROUP BY "jobId""#,
            args![],
        )
        .await
        .unwrap();
    assert_eq!(ends.len(), jobs, "{}: lost", database.name);
    for row in ends {
        let (id, n): (i64, i64) = (row.get("jobId").unwrap(), row.get("n").unwrap());
        assert_eq!(n, 1, "{}: job {id} ended {n} times", database.name);
    }
    let text = std::fs::read_to_string(&marks).unwrap();
    let mut runs: HashMap<&str, usize> = HashMap::new();
    for line in text.lines() {
        *runs.entry(line).or_default() += 1;
    }
    assert!(
        runs.values().all(|n| *n == 1),
        "{}: {runs:?}",
        database.name
    );
    let rows = database.db.all(r#"SELECT "kind", "status", "reason", COUNT(*) AS "n" FROM "Jobs" GROUP BY "kind", "status", "reason""#, args![]).await.unwrap();
    let mut failed = 0;
    for row in rows {
        let (kind, status): (Option<String>, String) =
            (row.get("kind").unwrap(), row.get("status").unwrap());
        if status == "success" {
            continue;
        }
        // Only a command that may not run twice may fail, and it says so.
        let reason: Option<String> = row.get("reason").unwrap();
        assert_eq!((kind, status.as_str()), (None, "failure"), "{reason:?}");
        assert!(reason.unwrap().contains("not run twice unasked"));
        failed += row.get::<i64>("n").unwrap();
    }
    assert!(kills > 2, "{}: only {kills} kills", database.name);
    println!(
        "{:<9} {jobs} jobs, {RUNNERS} runners, {kills} kills in {:.0} s: lost 0, ended twice 0, shell commands run twice 0, {failed} of them failed with their runner",
        database.name,
        took.as_secs_f64()
    );
}

/// The database itself counts how often each job ends.
async fn count_ends(database: &TestDb) {
    database
        .script(match database.db.dialect() {
            Dialect::Sqlite => {
                r#"CREATE TABLE "Ends" ("jobId" INTEGER);
                   CREATE TRIGGER "count_ends" AFTER UPDATE ON "Jobs" WHEN OLD."status" = 'running' AND NEW."status" IN ('success', 'failure', 'cancelled')
                   BEGIN INSERT INTO "Ends" VALUES (NEW."id"); END;"#
            }
            Dialect::MariaDb => {
                "CREATE TABLE `Ends` (`jobId` int);
                 CREATE TRIGGER `count_ends` AFTER UPDATE ON `Jobs` FOR EACH ROW
                 INSERT INTO `Ends` SELECT NEW.`id` FROM DUAL WHERE OLD.`status` = 'running' AND NEW.`status` IN ('success', 'failure', 'cancelled');"
            }
            Dialect::Postgres => {
                r#"CREATE TABLE "Ends" ("jobId" INTEGER);
                   CREATE FUNCTION count_ends() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN INSERT INTO "Ends" VALUES (NEW."id"); RETURN NULL; END';
                   CREATE TRIGGER count_ends AFTER UPDATE ON "Jobs" FOR EACH ROW
                   WHEN (OLD."status" = 'running' AND NEW."status" IN ('success', 'failure', 'cancelled')) EXECUTE FUNCTION count_ends();"#
            }
        })
        .await;
}
