//! `cac-runner` as systemd runs it: rows by hand, and nothing of a command left when its job ends, whatever ends it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cac_core::db::Db;
use cac_core::testing::TestDb;
use cac_core::{args, testing};
use rustix::process::Signal;

use crate::lab::{Running, own_address, text, until};

/// The seed's own snippet, and its promise for SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_by_hand_runs_and_a_shutdown_cancels_what_runs() {
    for database in testing::databases().await {
        let runner = start(&database, &[]);
        let quick = insert(&database.db, r#"echo "Hello" && echo "World""#).await;
        assert_eq!(
            ended(&database.db, quick).await,
            ("success".to_owned(), None)
        );
        let long = insert(&database.db, "echo begun; sleep 600").await;
        output(&database.db, long, "begun").await;
        runner.stop();
        assert_eq!(ended(&database.db, long).await.0, "cancelled");
    }
}

/// J4 and J5 of the original: only the shell was signalled, and never killed. Here one process ignores TERM, one has left
/// the group, and one the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_whole_tree() {
    let database = testing::databases().await.swap_remove(0);
    let dir = tempfile::tempdir().unwrap();
    let runner = start(&database, &[]);
    let job = insert(&database.db, &tree(dir.path())).await;
    let pids = begun(dir.path()).await;
    assert!(pids.iter().all(|pid| alive(*pid)));
    let sql = r#"UPDATE "Jobs" SET "cancelRequested" = ? WHERE "id" = ?"#;
    database.db.exec(sql, args![true, job]).await.unwrap();
    assert_eq!(ended(&database.db, job).await.0, "cancelled");
    assert_eq!(pids.iter().filter(|pid| alive(**pid)).count(), 0);
    runner.stop();
}

/// Nobody is left to end it, and it ends nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runner_takes_the_whole_tree_with_it() {
    let database = testing::databases().await.swap_remove(0);
    let dir = tempfile::tempdir().unwrap();
    let runner = start(&database, &[("JOB_RUNNER_LEASE_SECONDS", "2")]);
    let job = insert(&database.db, &tree(dir.path())).await;
    let pids = begun(dir.path()).await;
    runner.signal(Signal::KILL);
    until("the tree is gone", async || {
        (!pids.iter().any(|pid| alive(*pid))).then_some(())
    })
    .await;
    // It is not run again by the next one.
    let next = start(&database, &[("JOB_RUNNER_LEASE_SECONDS", "2")]);
    let (status, reason) = ended(&database.db, job).await;
    assert_eq!(status, "failure");
    assert!(reason.unwrap().contains("not run twice unasked"));
    next.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ended_leaves_nothing_behind() {
    let database = testing::databases().await.swap_remove(0);
    let dir = tempfile::tempdir().unwrap();
    let runner = start(&database, &[]);
    let file = dir.path().join("pid-1");
    let command = format!("setsid sleep 600 & echo $! > {}", file.display());
    let job = insert(&database.db, &command).await;
    let asked = Instant::now();
    assert_eq!(ended(&database.db, job).await.0, "success");
    assert!(asked.elapsed() < Duration::from_secs(30));
    let pid = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(!alive(pid));
    runner.stop();
}

/// J12 of the original: death by a signal was "exited with code null".
#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_as_they_were() {
    let database = testing::databases().await.swap_remove(0);
    let runner = start(&database, &[("SHELL_JOB_LIMIT_SECONDS", "1")]);
    for (command, reason) in [
        ("exit 7", "The command exited with status 7."),
        ("kill -SEGV $$", "The command was ended by signal 11."),
        ("kill -PIPE $$", "The command was ended by signal 13."),
        (
            "sleep 600",
            "The command was ended after 1 s (SHELL_JOB_LIMIT_SECONDS).",
        ),
    ] {
        let job = insert(&database.db, command).await;
        let expected = ("failure".to_owned(), Some(reason.to_owned()));
        assert_eq!(ended(&database.db, job).await, expected, "{command}");
    }
    runner.stop();
}

/// S7 and J7 of the original: the child saw the database's password and the session's secret, in its environment or the
/// runner's.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_no_secret_of_the_runner() {
    let database = testing::databases().await.swap_remove(0);
    let root = rustix::process::geteuid().is_root();
    let secret = ("SESSION_SECRET", "nobody-may-see-this-value");
    let user = ("JOB_RUNNER_USER", "nobody");
    let vars = if root {
        vec![secret, user, ("JOB_RUNNER_CWD", "/")]
    } else {
        vec![secret]
    };
    let runner = start(&database, &vars);
    let command = "id -u; env; for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; done 2>/dev/null; echo looked";
    let job = insert(&database.db, command).await;
    assert_eq!(ended(&database.db, job).await.0, "success");
    let log = output(&database.db, job, "looked").await;
    assert!(!log.contains("nobody-may-see"), "{log}");
    assert!(!root || !log.starts_with("0\n"), "{log}");
    assert!(!runner.err().contains("shell jobs run as root"));
    runner.stop();
    if root {
        let runner = start(&database, &[]);
        until("it is announced", async || {
            runner
                .err()
                .contains("shell jobs run as root")
                .then_some(())
        })
        .await;
        runner.stop();
    }
}

/// The portal's environment and memory lay open to jobs of its own user, and so did those of `cac`; only the runner was closed.
#[tokio::test(flavor = "multi_thread")]
async fn no_program_shows_its_memory_to_others_of_its_user() {
    let database = testing::databases().await.swap_remove(0);
    let address = own_address().to_string() + ":3000";
    let vars = [
        ("DATABASE_URL", database.url.as_str()),
        ("SESSION_SECRET", "nobody-may-see-this-value"),
        ("CAC_LISTEN", &address),
    ];
    let simulator = ["cac", "simulator", "--json", "--listen", "127.0.0.1:0"];
    for (words, ready) in [
        (&["cac-runner"][..], "waiting for jobs"),
        (&["cac-http"], "listening on"),
        (&simulator, "tokenSecret"),
    ] {
        let path = Path::new(env!("CARGO_BIN_EXE_cac")).with_file_name(words[0]);
        let command = [&[path.to_str().unwrap()], &words[1..]].concat();
        let words = without_capabilities(&command);
        let program = Running::start(words[0], &words[1..], &vars);
        until(ready, async || {
            (program.out() + &program.err())
                .contains(ready)
                .then_some(())
        })
        .await;
        let process = format!("/proc/{}", program.pid().as_raw_pid());
        for file in ["environ", "mem", "maps"] {
            let file = format!("{process}/{file}");
            let look = without_capabilities(&["sh", "-c", "exec 3<\"$0\" && echo opened", &file]);
            let look = Command::new(look[0]).args(&look[1..]).output().unwrap();
            let said = text(&look.stdout) + &text(&look.stderr);
            assert!(said.contains("Permission denied"), "{command:?}: {said}");
        }
        let limits = std::fs::read_to_string(format!("{process}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let soft = core.unwrap().split_whitespace().nth(4);
        assert_eq!(soft, Some("0"), "{core:?}");
    }
}

/// A command as an ordinary user has it: root's capabilities would open everything, and protect it, too.
fn without_capabilities<'a>(command: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["/usr/bin/setpriv", "--inh-caps=-all"];
    if rustix::process::geteuid().is_root() {
        words.push("--bounding-set=-all");
    }
    words.push("--");
    words.extend(command);
    words
}

fn start(database: &TestDb, more: &[(&str, &str)]) -> Running {
    let mut vars = vec![
        ("DATABASE_URL", database.url.as_str()),
        ("JOB_RUNNER_POLL_MS", "50"),
    ];
    vars.extend(more);
    Running::start("cac-runner", &[], &vars)
}

/// A command with a process that ignores TERM, one in a group and one in a session of its own.
fn tree(dir: &Path) -> String {
    let file = |number: u8| dir.join(format!("pid-{number}")).display().to_string();
    format!(
        "(trap '' TERM; sh -c 'echo $PPID' > {0}; while :; do sleep 1; done) & \
         setsid sh -c 'echo $$ > {1}; sleep 600' & \
         setsid sh -c 'setsid sh -c \"echo \\$\\$ > {2}; sleep 600\" & exit' & sleep 600",
        file(1),
        file(2),
        file(3)
    )
}

async fn begun(dir: &Path) -> Vec<i32> {
    until("the tree has begun", async || {
        let pid = |number: u8| {
            let text = std::fs::read_to_string(dir.join(format!("pid-{number}"))).ok()?;
            text.trim().parse().ok()
        };
        [1, 2, 3].into_iter().map(pid).collect()
    })
    .await
}

fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn insert(db: &Db, command: &str) -> i64 {
    let now = chrono::Utc::now();
    let mut tx = db.write().await.unwrap();
    let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt") VALUES (?, 'pending', ?, ?)"#;
    let id = tx.insert(sql, args![command, now, now]).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// Status and reason of a job, as soon as it has ended.
async fn ended(db: &Db, job: i64) -> (String, Option<String>) {
    until("the job has ended", async || {
        let sql = r#"SELECT "status", "reason" FROM "Jobs" WHERE "id" = ?"#;
        let row = db.one(sql, args![job]).await.unwrap();
        let status: String = row.get("status").unwrap();
        let reason = row.get("reason").unwrap();
        (!matches!(status.as_str(), "pending" | "running")).then_some((status, reason))
    })
    .await
}

/// The output of a job, as soon as it contains a word.
async fn output(db: &Db, job: i64, word: &str) -> String {
    until(word, async || {
        let sql = r#"SELECT "output" FROM "JobStatuses" WHERE "jobId" = ? ORDER BY "id""#;
        let rows = db.all(sql, args![job]).await.unwrap();
        let all: String = rows
            .iter()
            .map(|row| row.get::<String>("output").unwrap())
            .collect();
        all.contains(word).then_some(all)
    })
    .await
}

/// J3 of the original, at every default: what a killed runner held is taken over, or failed where it must not run twice, in
/// 20 seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runners_jobs_are_settled_in_twenty_seconds_at_defaults() {
    let database = testing::databases().await.swap_remove(2);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tasks.toml");
    let text = r#"
        [tasks.slow]
        argv = ["/bin/sh", "-c", "test -e {mark} || {{ touch {mark}; exec sleep 600; }}"]
        repeatable = true
        [tasks.slow.parameters.mark]
    "#;
    std::fs::write(&file, text).unwrap();
    let vars = [
        ("DATABASE_URL", database.url.as_str()),
        ("JOB_TASKS_FILE", file.to_str().unwrap()),
    ];
    let first = Running::start("cac-runner", &[], &vars);
    let shell = insert(&database.db, "echo begun; sleep 600").await;
    let mark = dir.path().join("mark");
    let payload = format!(
        r#"{{"task":"slow","parameters":{{"mark":"{}"}}}}"#,
        mark.display()
    );
    let now = chrono::Utc::now();
    let mut tx = database.db.write().await.unwrap();
    let sql = r#"INSERT INTO "Jobs" ("command", "status", "kind", "payload", "createdAt", "updatedAt") VALUES ('# slow', 'pending', 'task', ?, ?, ?)"#;
    let task = tx.insert(sql, args![payload, now, now]).await.unwrap();
    tx.commit().await.unwrap();
    output(&database.db, shell, "begun").await;
    until("the task has begun", async || mark.exists().then_some(())).await;
    let second = Running::start("cac-runner", &[], &vars);
    first.signal(Signal::KILL);
    let killed = Instant::now();
    let (status, reason) = ended(&database.db, shell).await;
    assert_eq!(status, "failure");
    assert!(reason.unwrap().contains("not run twice unasked"));
    assert_eq!(
        ended(&database.db, task).await,
        ("success".to_owned(), None)
    );
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    second.stop();
}
