//! Local administration by the command line: the schema and the nodes, on each database.

use std::path::Path;

use cac_core::testing::{self, TestDb};

use crate::lab::{bad, good, simulator};

fn url(database: &TestDb) -> [(&'static str, &str); 1] {
    [("DATABASE_URL", &database.url)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_goes_up_and_its_last_change_down() {
    for database in testing::empty_databases().await {
        let vars = url(&database);
        let status = || good("cac", &["migrate", "status"], &vars);
        let titles = testing::migrations();
        let pending = |titles: &[String]| -> String {
            let lines = titles.iter().map(|title| format!("{title}: pending\n"));
            lines.collect()
        };
        assert_eq!(status(), pending(&titles));
        let up = good("cac", &["migrate", "up"], &vars);
        let migrated = titles.iter().map(|title| format!("Migrated: {title}\n"));
        assert_eq!(up, migrated.collect::<String>());
        assert!(
            status().lines().all(|line| line.contains(": applied ")),
            "{}",
            status()
        );
        let up = good("cac", &["migrate", "up"], &vars);
        assert_eq!(up, "Nothing to migrate: the database is up to date.\n");
        for title in titles[1..].iter().rev() {
            assert_eq!(
                good("cac", &["migrate", "down"], &vars),
                format!("Undone: {title}\n")
            );
        }
        assert!(status().ends_with(&pending(&titles[1..])), "{}", status());
        let said = bad("cac", &["migrate", "down"], &vars, 1);
        assert!(said.contains("0001_original cannot be undone"), "{said}");
        good("cac", &["migrate", "up"], &vars);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_database_is_adopted_only_by_migrate_up() {
    let database = testing::mariadb().await;
    let dump = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../cac-core/tests/fixtures/legacy/opensource_containers.sql");
    database
        .script(&std::fs::read_to_string(dump).unwrap())
        .await;
    let vars = url(&database);
    for program in ["cac-http", "cac-runner"] {
        let vars = [vars[0], ("SESSION_SECRET", "a secret for tests only")];
        let said = bad(program, &[], &vars, 1);
        assert!(
            said.contains("stop the original first, then run `cac migrate up`"),
            "{program}: {said}"
        );
    }
    let output = crate::lab::run("cac", &["migrate", "up"], &vars);
    let (out, err) = (
        crate::lab::text(&output.stdout),
        crate::lab::text(&output.stderr),
    );
    assert!(output.status.success(), "{err}");
    assert!(
        err.contains("Stop the original and its job runner first"),
        "{err}"
    );
    assert!(
        out.contains("The original's database was adopted."),
        "{out}"
    );
    assert!(out.contains("old pending jobs that will run: "), "{out}");
    assert!(good("cac", &["node", "--local", "list"], &vars).contains("intern-phxdc-pve1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_added_listed_and_tested() {
    let (simulator, proxmox) = simulator(&[]);
    let told = |field: &str| proxmox[field].as_str().unwrap().to_owned();
    let secret = simulator_secret(&told("tokenSecret"));
    for database in testing::empty_databases().await {
        let vars = url(&database);
        let (api, pin) = (told("url"), told("fingerprint"));
        let add = |name: &str, more: &[&str]| {
            let mut words = vec![
                "node",
                "--local",
                "add",
                name,
                "--api-url",
                &api,
                "--token-id",
                "cac@pve!demo",
                "--secret-file",
                secret.path().to_str().unwrap(),
            ];
            words.extend(more);
            crate::lab::run("cac", &words, &vars)
        };
        assert!(
            add("pve1", &["--tls", &pin, "--ai-container", "PHOENIX"])
                .status
                .success()
        );
        assert!(add("elsewhere", &["--tls", &pin]).status.success());
        let again = add("pve1", &[]);
        assert_eq!(again.status.code(), Some(5));
        let said = crate::lab::text(&again.stderr);
        assert_eq!(said, "cac: There is already a node named `pve1`.\n");
        let wrong = add("pve2", &["--tls", "perhaps"]);
        assert!(crate::lab::text(&wrong.stderr).contains("fingerprint"));

        let list = good("cac", &["node", "--local", "list"], &vars);
        assert!(
            list.starts_with("ID") && list.contains("PHOENIX") && list.contains("pinned"),
            "{list}"
        );
        let json = good("cac", &["node", "--local", "list", "--json"], &vars);
        assert!(!json.contains(&told("tokenSecret")) && !list.contains(&told("tokenSecret")));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json)
                .unwrap()
                .as_array()
                .unwrap()
                .len(),
            2
        );

        let tested = good("cac", &["node", "--local", "test", "pve1"], &vars);
        assert!(
            tested.contains("Proxmox VE 8.4") && tested.contains("vztmpl/debian-12"),
            "{tested}"
        );
        let output = crate::lab::run("cac", &["node", "--local", "test", "elsewhere"], &vars);
        assert_eq!(output.status.code(), Some(1));
        assert!(crate::lab::text(&output.stdout).contains("knows no node `elsewhere`, only pve1"));
        let said = bad("cac", &["node", "--local", "test", "nowhere"], &vars, 4);
        assert!(
            said.contains("no node named `nowhere`, only pve1, elsewhere"),
            "{said}"
        );
    }
    simulator.stop();
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

/// A database without the key reveals no secret.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_encrypted_rotated_and_exported() {
    let (simulator, proxmox) = simulator(&[]);
    let told = |field: &str| proxmox[field].as_str().unwrap().to_owned();
    let (secret, api, pin) = (told("tokenSecret"), told("url"), told("fingerprint"));
    let secret_file = simulator_secret(&secret);
    for database in testing::empty_databases().await {
        // With SQLite a key is made in a file; a server's database has none until it is told.
        let sqlite = database.name == "sqlite";
        let bare = url(&database);
        add_node(&api, &pin, &secret_file, &bare);
        let stored = async || {
            let sql = r#"SELECT "secret", "secretSealed" FROM "Nodes""#;
            let row = database.db.one(sql, vec![]).await.unwrap();
            let (plain, sealed): (Option<String>, Option<String>) =
                (row.get("secret").unwrap(), row.get("secretSealed").unwrap());
            assert!(!sealed.as_deref().unwrap_or_default().contains(&secret));
            (plain, sealed)
        };
        let (plain, sealed) = stored().await;
        assert_eq!((plain.is_none(), sealed.is_some()), (sqlite, sqlite));
        let key = good("cac", &["secret", "new"], &[]).trim().to_owned();
        assert_eq!(key.len(), 64);
        let key = if sqlite {
            let file =
                Path::new(database.url.trim_start_matches("sqlite:")).with_file_name("secret-key");
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
            std::fs::read_to_string(file).unwrap()
        } else {
            let said = bad("cac", &["secret", "encrypt"], &bare, 1);
            assert!(said.contains("cac secret new"), "{said}");
            key
        };
        let with = |key: &str| {
            let mut vars: Vec<(&str, String)> = vec![("DATABASE_URL", database.url.clone())];
            vars.push(("CAC_SECRET_KEY", key.to_owned()));
            vars
        };
        let cac = |words: &[&str], vars: &[(&str, String)], fails: bool| {
            let vars: Vec<(&str, &str)> = vars.iter().map(|(n, v)| (*n, v.as_str())).collect();
            if fails {
                bad("cac", words, &vars, 1)
            } else {
                good("cac", words, &vars)
            }
        };
        let vars = with(&key);
        let encrypted = cac(&["secret", "encrypt"], &vars, false);
        assert_eq!(
            encrypted,
            format!("{} secrets were encrypted.\n", u8::from(!sqlite))
        );
        let (plain, sealed) = stored().await;
        assert!(plain.is_none() && sealed.is_some());
        assert!(cac(&["node", "--local", "test", "pve1"], &vars, false).contains("Proxmox VE 8.4"));
        if !sqlite {
            let said = bad("cac", &["node", "--local", "test", "pve1"], &bare, 1);
            assert!(said.contains("this program needs CAC_SECRET_KEY"), "{said}");
        }
        let other = good("cac", &["secret", "new"], &[]).trim().to_owned();
        for words in [
            &["node", "--local", "list"][..],
            &["secret", "export", "--in-plain-text"],
        ] {
            let said = cac(words, &with(&other), true);
            assert!(said.contains("not the key of this database"), "{said}");
        }
        let file = simulator_secret(&other);
        let rotate = [
            "secret",
            "rotate",
            "--key-file",
            file.path().to_str().unwrap(),
        ];
        assert!(cac(&rotate, &vars, false).starts_with("1 secrets have the new key"));
        assert_ne!(stored().await.1, sealed);
        assert!(
            cac(&["node", "--local", "list"], &vars, true).contains("not the key of this database")
        );
        let vars = with(&other);
        assert!(cac(&["node", "--local", "test", "pve1"], &vars, false).contains("Proxmox VE 8.4"));
        bad("cac", &["secret", "export"], &bare, 2);
        cac(&["secret", "export", "--in-plain-text"], &vars, false);
        assert_eq!(stored().await, (Some(secret.clone()), None));
    }
    simulator.stop();
}

/// Adds `pve1` of a simulator.
fn add_node(api: &str, pin: &str, secret: &tempfile::NamedTempFile, vars: &[(&str, &str)]) {
    let file = secret.path().to_str().unwrap();
    let words = [
        "node",
        "--local",
        "add",
        "pve1",
        "--api-url",
        api,
        "--token-id",
        "cac@pve!demo",
        "--tls",
        pin,
    ];
    good(
        "cac",
        &[&words[..], &["--secret-file", file]].concat(),
        vars,
    );
}

fn simulator_secret(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{text}\n")).unwrap();
    file
}

#[test]
fn words_that_are_not_understood_exit_with_2() {
    for words in [
        &["migrate", "sideways"][..],
        &["node"],
        &["node", "add"],
        &["dance"],
        &[],
    ] {
        bad("cac", words, &[], 2);
    }
    for program in ["cac-http", "cac-runner"] {
        assert!(bad(program, &["--dance"], &[], 2).contains("usage: "));
        assert!(good(program, &["--version"], &[]).starts_with(program));
    }
}

#[test]
fn a_check_tells_every_problem_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let vars = [
        ("CAC_DATA_DIR", data.to_str().unwrap()),
        ("NODE_ENV", "production"),
        ("SHELL_JOBS", "maybe"),
    ];
    let said = bad("cac-http", &["--check"], &vars, 1);
    for name in ["DATABASE_URL", "CAC_PUBLIC_URL", "CAC_DOMAIN", "SHELL_JOBS"] {
        assert!(
            said.lines()
                .any(|line| line.starts_with(&format!("cac-http: {name} "))),
            "{name}: {said}"
        );
    }
    assert!(!data.exists());
    let five = [
        ("NODE_ENV", "production"),
        ("MYSQL_HOST", "127.0.0.1"),
        ("MYSQL_PORT", "1"),
        ("MYSQL_USER", "container_manager"),
        ("MYSQL_PASSWORD", "secure_password_here"),
        ("MYSQL_DATABASE", "opensource_containers"),
    ];
    assert_eq!(
        good("cac-runner", &["--check"], &five),
        "The configuration is good.\n"
    );
    // A database that is away is one sentence, without the password.
    let said = bad("cac-runner", &[], &five, 1);
    assert!(
        said.contains("127.0.0.1:1") && !said.contains("secure_password_here"),
        "{said}"
    );
}
