//! `cac doctor`: what an installation stands on, and what to do.

use cac_core::testing;

use crate::lab::{good, simulator};
use crate::local::{add_node, simulator_secret};

/// A diagnosis in a folder without settings once left a database and two secrets there.
#[test]
fn who_only_looks_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let left = || {
        let entries = std::fs::read_dir(dir.path()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let look = |words: &[&str], vars: &[(&str, &str)]| {
        let mut command = crate::lab::command("cac", words, vars);
        let output = command.current_dir(dir.path()).output().unwrap();
        let (out, err) = (
            crate::lab::text(&output.stdout),
            crate::lab::text(&output.stderr),
        );
        assert!(!err.contains("panicked"), "{err}");
        assert_eq!(left(), Vec::<String>::new(), "{words:?}: {out}{err}");
        out + &err
    };
    let listen = ("CAC_LISTEN", "127.0.0.1:0");
    for words in [
        &["doctor"][..],
        &["migrate", "status"],
        &["migrate", "up", "--dry-run"],
    ] {
        let out = look(words, &[listen]);
        assert!(
            out.contains("none yet") || out.contains("0002_cac"),
            "{words:?}: {out}"
        );
        look(words, &[listen, ("CAC_DATA_DIR", "elsewhere/deep")]);
        look(words, &[listen, ("DATABASE_URL", "sqlite:my.db")]);
    }
    // What shows or changes what is stored needs a database, and made one with two secrets where there was none.
    for words in [
        &["login-failures", "list"][..],
        &["login-failures", "clear"],
        &["login-node", "confirm"],
        &["proxy", "key", "show", "--local"],
        &["node", "list", "--local"],
        &["secret", "encrypt"],
        &["audit"],
    ] {
        let out = look(words, &[listen]);
        assert!(out.contains("There is no database"), "{words:?}: {out}");
    }
}

/// Nor into a database that no program was started on yet.
#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_writes_nothing_into_the_database() {
    for database in testing::databases().await {
        let vars = [
            ("DATABASE_URL", database.url.as_str()),
            ("CAC_LISTEN", "127.0.0.1:0"),
            ("SESSION_SECRET", "a secret for tests only"),
            ("CAC_SECRET_KEY", &"ab".repeat(32)),
        ];
        for words in [&["doctor"][..], &["migrate", "status"]] {
            let output = crate::lab::run("cac", words, &vars);
            let said = crate::lab::text(&output.stdout);
            assert!(!said.is_empty(), "{}", crate::lab::text(&output.stderr));
            let sql = r#"SELECT COUNT(*) AS "n" FROM "Settings""#;
            let rows = database.db.one(sql, cac_core::args![]).await.unwrap();
            assert_eq!(
                rows.get::<i64>("n").unwrap(),
                0,
                "{}: {said}",
                database.name
            );
        }
    }
}

/// Everything that an operator would look at one by one, at once; and what to do about each.
#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let (simulator, proxmox) = simulator(&[]);
    let told = |field: &str| proxmox[field].as_str().unwrap().to_owned();
    let (api, pin) = (told("url"), told("fingerprint"));
    let secret = simulator_secret(&told("tokenSecret"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let examine = |vars: &[(&str, &str)], status: i32| -> Vec<(String, String, String)> {
        let output = crate::lab::run("cac", &["doctor", "--json"], vars);
        let text = crate::lab::text(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{text}{}",
            crate::lab::text(&output.stderr)
        );
        let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let field = |one: &serde_json::Value, name: &str| one[name].as_str().unwrap().to_owned();
        found
            .iter()
            .map(|one| {
                (
                    field(one, "about"),
                    field(one, "state"),
                    field(one, "message"),
                )
            })
            .collect()
    };
    let has = |found: &[(String, String, String)], about: &str, state: &str, part: &str| {
        let hit = found
            .iter()
            .any(|one| one.0 == about && one.1 == state && one.2.contains(part));
        assert!(hit, "{about} {state} {part}: {found:#?}");
    };
    let dir = tempfile::tempdir().unwrap();
    let nowhere = format!("sqlite:{}", dir.path().join("none.db").display());
    let found = examine(&[("DATABASE_URL", &nowhere), ("CAC_LISTEN", &address)], 1);
    has(&found, "database", "bad", "run `cac migrate up`");
    assert!(!dir.path().join("none.db").exists());
    for database in testing::empty_databases().await {
        let session = "a secret for tests only";
        let mut vars: Vec<(&str, &str)> = vec![
            ("DATABASE_URL", &database.url),
            ("CAC_LISTEN", &address),
            ("SESSION_SECRET", session),
        ];
        has(
            &examine(&vars, 1),
            "database",
            "bad",
            "run `cac migrate up`",
        );
        good("cac", &["migrate", "up"], &vars);
        has(&examine(&vars, 1), "nodes", "bad", "`cac node add --local`");
        add_node(&api, &pin, &secret, &vars);
        let key = "0123456789abcdef".repeat(4);
        if database.name != "sqlite" {
            has(
                &examine(&vars, 1),
                "secrets",
                "bad",
                "run `cac secret encrypt`",
            );
            vars.push(("CAC_SECRET_KEY", &key));
            good("cac", &["secret", "encrypt"], &vars);
        }
        let found = examine(&vars, 0);
        for (about, state, part) in [
            ("configuration", "good", ""),
            ("database", "good", "migrations applied"),
            ("clock", "good", "within"),
            ("secrets", "good", "1 encrypted"),
            ("node pve1", "good", "Proxmox VE 8.4"),
            ("login", "good", ""),
            ("jobs", "good", ""),
            ("tokens", "good", "none expires soon"),
            ("mail", "note", "SMTP_URL is not set"),
            ("port", "note", "cac-http does not run here"),
        ] {
            has(&found, about, state, part);
        }
        let text = good("cac", &["doctor"], &vars);
        assert!(
            text.contains("good  node pve1: ") && text.contains("note  mail: "),
            "{text}"
        );
        // One thing after another goes wrong.
        let blocker = std::net::TcpListener::bind(&address).unwrap();
        let refuser = blocker.try_clone().unwrap();
        std::thread::spawn(move || drop(refuser.accept()));
        has(&examine(&vars, 1), "port", "bad", "another program has");
        drop(blocker);
        let mut wrong = vars.clone();
        wrong.extend([
            ("SMTP_URL", "smtp://127.0.0.1:1"),
            ("MAIL_FROM", "a@example.org"),
            ("SSH_PORTS", "9-1"),
        ]);
        let found = examine(&wrong, 1);
        has(&found, "configuration", "bad", "SSH_PORTS");
        let mut wrong = vars.clone();
        wrong.extend([
            ("SMTP_URL", "smtp://127.0.0.1:1"),
            ("MAIL_FROM", "a@example.org"),
        ]);
        has(&examine(&wrong, 1), "mail", "bad", "SMTP_URL's host");
        let old = chrono::Utc::now() - chrono::Duration::minutes(5);
        let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt") VALUES ('true', 'pending', ?, ?)"#;
        database
            .db
            .exec(sql, cac_core::args![old, old])
            .await
            .unwrap();
        has(&examine(&vars, 1), "jobs", "bad", "is cac-runner running");
        database
            .db
            .exec(r#"DELETE FROM "Jobs""#, vec![])
            .await
            .unwrap();
        let (soon, then) = (
            chrono::Utc::now() + chrono::Duration::days(29),
            chrono::Utc::now() - chrono::Duration::days(300),
        );
        let sql = r#"INSERT INTO "Tokens" ("username", "name", "hash", "beginning", "scopes", "expires", "adminCheckedAt", "createdAt", "updatedAt")
                     VALUES ('alice', 'ci', 'a hash', 'cac_12345678', 'jobs', ?, ?, ?, ?)"#;
        let given = cac_core::args![soon, then, then, then];
        database.db.exec(sql, given).await.unwrap();
        has(&examine(&vars, 0), "tokens", "note", "of alice expires on");
        let sql = r#"UPDATE "Nodes" SET "tlsFingerprint" = ?"#;
        let other = "AB:".repeat(31) + "CD";
        database.db.exec(sql, cac_core::args![other]).await.unwrap();
        has(
            &examine(&vars, 1),
            "node pve1",
            "bad",
            "The certificate has changed",
        );
    }
    simulator.stop();
}
