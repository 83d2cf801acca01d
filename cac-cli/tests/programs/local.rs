//! Local administration by the command line: the schema and the nodes, on each database.

use std::path::Path;

use cac_core::args;
use cac_core::pve::{Auth, NewLxc, Pve, Secret, Target, Tls};
use cac_core::testing::{self, TestDb};

use crate::lab::{bad, good, simulator};

pub(crate) fn url(database: &TestDb) -> [(&'static str, &str); 1] {
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
        let said = bad("cac", &["migrate", "down"], &vars, 5);
        assert!(said.contains("0001_original cannot be undone"), "{said}");
        good("cac", &["migrate", "up"], &vars);
    }
}

/// Names of before today's rules stay, and an upgrade says which they are.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_names_what_nobody_would_be_given_today() {
    for database in testing::databases().await {
        let vars = url(&database);
        let now = chrono::Utc::now();
        for name in ["wpad", "web"] {
            let sql = r#"INSERT INTO "Containers" ("hostname", "username", "createdAt", "updatedAt") VALUES (?, 'alice', ?, ?)"#;
            let args = args![name, now, now];
            database.db.exec(sql, args).await.unwrap();
        }
        for words in [
            &["migrate", "up"][..],
            &["migrate", "up", "--json"],
            &["migrate", "up", "--dry-run"],
        ] {
            let done = crate::lab::run("cac", words, &vars);
            let said = crate::lab::text(&done.stderr);
            assert!(done.status.success(), "{said}");
            let (wpad, web) = (said.matches("`wpad` of container"), said.matches("`web`"));
            assert_eq!((wpad.count(), web.count()), (1, 0), "{words:?}: {said}");
        }
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
    // What would be done is said, and nothing is done: not by a question that nobody can answer, either.
    let plan = good("cac", &["migrate", "up", "--dry-run"], &vars);
    assert!(
        plan.contains("pending shell commands that will run when cac-runner starts: 2\n    job "),
        "{plan}"
    );
    let said = bad("cac", &["migrate", "up"], &vars, 2);
    assert!(
        said.contains("Nothing was changed. Say --yes") && said.contains("    job "),
        "{said}"
    );
    assert!(cac_core::schema::is_original(&database.db).await.unwrap());
    let output = crate::lab::run("cac", &["migrate", "up", "--yes"], &vars);
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
            let said = bad("cac", &["secret", "encrypt"], &bare, 2);
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
                bad("cac", words, &vars, 5)
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
pub(crate) fn add_node(
    api: &str,
    pin: &str,
    secret: &tempfile::NamedTempFile,
    vars: &[(&str, &str)],
) {
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

pub(crate) fn simulator_secret(text: &str) -> tempfile::NamedTempFile {
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

/// What is done past every portal is in the audit log all the same, and `cac audit` shows it; the port map of the original is imported by it.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_map_is_imported_and_the_audit_log_says_so() {
    let (simulator, proxmox) = simulator(&[]);
    let told = |field: &str| proxmox[field].as_str().unwrap().to_owned();
    let secret = simulator_secret(&told("tokenSecret"));
    let pve = Pve::new(Target {
        api_url: told("url"),
        tls: Tls::Off,
        auth: Auth::Token {
            id: told("tokenId"),
            secret: Secret::new(told("tokenSecret")),
        },
    })
    .unwrap();
    let shop = NewLxc {
        vmid: 4001,
        hostname: "shop".to_owned(),
        ostemplate: "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst".to_owned(),
        storage: "local".to_owned(),
        disk_gib: 4,
        cores: 1,
        memory_mib: 256,
        swap_mib: 0,
        bridge: "vmbr0".to_owned(),
        description: String::new(),
        tags: Vec::new(),
        ssh_public_keys: None,
        onboot: false,
        pool: None,
    };
    let upid = pve.lxc_create("pve1", &shop).await.unwrap();
    let made = pve.task_wait(&upid, testing::PATIENCE, |_| ()).await;
    assert!(made.unwrap().is_success());
    let mac = pve.lxc_config("pve1", 4001).await.unwrap();
    let mac = mac.mac().unwrap().to_owned();
    let map = tempfile::NamedTempFile::new().unwrap();
    let entries = serde_json::json!({
        "shop": {"ip": "127.9.0.1", "user": "alice", "os_release": "debian", "ctid": 4001, "mac": mac,
                 "ports": {"ssh": 2344, "http": 8080}},
        "odd_name": {"ip": "127.9.0.2", "user": "alice", "os_release": "debian", "ctid": 4002, "mac": "BC:24:11:00:40:02"},
    });
    std::fs::write(map.path(), entries.to_string()).unwrap();
    let file = map.path().to_str().unwrap();
    for database in testing::empty_databases().await {
        let vars = [
            url(&database)[0],
            ("CONTAINER_NETWORKS", "127.0.0.0/8"),
            ("CAC_SECRET_KEY", KEY),
        ];
        add_node(&told("url"), &told("fingerprint"), &secret, &vars);
        let import = |more: &[&str]| {
            let words = [&["import", file, "--json"][..], more].concat();
            let output = crate::lab::run("cac", &words, &vars);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{}",
                crate::lab::text(&output.stderr)
            );
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
        };
        let dry = import(&["--dry-run"]);
        assert_eq!(
            (&dry[1]["outcome"], &dry[1]["id"]),
            (&"imported".into(), &serde_json::Value::Null)
        );
        let done = import(&[]);
        assert_eq!(done[0]["outcome"], "refused");
        assert_eq!(done[1]["services"][1], "tcp 2344 → 22");
        assert_eq!(import(&[])[1]["outcome"], "known");
        let shown = good("cac", &["audit"], &vars);
        assert!(
            shown.contains("node_create") && shown.contains("container_import"),
            "{shown}"
        );
        let log = good("cac", &["audit", "--json", "--limit", "1"], &vars);
        let log: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(log[0]["via"], "local");
        assert_eq!(log[0]["target"], format!("/containers/{}", done[1]["id"]));
        assert_eq!(log.as_array().unwrap().len(), 1);
        let none = good(
            "cac",
            &["audit", "--action", "secret_export", "--json"],
            &vars,
        );
        assert_eq!(none, "[]\n");
        good("cac", &["secret", "export", "--in-plain-text"], &vars);
        let one = good("cac", &["audit", "--action", "secret_export"], &vars);
        assert_eq!(one.lines().count(), 2, "{one}");
    }
    simulator.stop();
}

/// 64 hexadecimal digits.
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[tokio::test(flavor = "multi_thread")]
async fn failed_sign_ins_are_listed_and_forgotten() {
    for database in testing::databases().await {
        let vars = url(&database);
        for name in [
            "user alice",
            "device alice 0123456789abcdef",
            "user bob",
            "address 192.0.2.1",
        ] {
            let sql =
                r#"INSERT INTO "LoginFailures" ("name", "failures", "lastAt") VALUES (?, 9, ?)"#;
            let given = args![name, chrono::Utc::now()];
            database.db.exec(sql, given).await.unwrap();
        }
        let list = || good("cac", &["login-failures", "list"], &vars);
        let clear = |name: &[&str]| {
            let words = [&["login-failures", "clear"], name].concat();
            good("cac", &words, &vars)
        };
        assert_eq!(list().lines().count(), 5, "{}", list());
        assert!(clear(&["alice"]).contains("2 counts"));
        let left = list();
        assert!(
            !left.contains("alice") && left.contains("user bob"),
            "{left}"
        );
        assert!(clear(&[]).contains("2 counts"));
        assert!(clear(&[]).contains("no failed sign-ins"));
        let audit = good("cac", &["audit"], &vars);
        assert!(
            audit.contains("login_failures_clear") && audit.contains("/login-failures/alice"),
            "{audit}"
        );
    }
}

/// For when no admin can sign in, since the only one's account was missing and exists again.
#[tokio::test(flavor = "multi_thread")]
async fn whose_a_name_is_can_be_decided_past_the_portal() {
    for database in testing::databases().await {
        let vars = url(&database);
        let sql = r#"INSERT INTO "UserStates" ("username", "state", "missingSince") VALUES ('root', 'returned', ?)"#;
        let given = args![chrono::Utc::now()];
        database.db.exec(sql, given).await.unwrap();
        let words = ["user", "update", "root", "--person", "same", "--local"];
        let said = good("cac", &words, &vars);
        assert!(said.contains("root is active now."), "{said}");
        let audit = good("cac", &["audit"], &vars);
        assert!(
            audit.contains("user_update") && audit.contains("/users/root"),
            "{audit}"
        );
    }
}
