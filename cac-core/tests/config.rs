//! The configuration: what each program demands, and what it says about what is wrong.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt as _;

use cac_core::config::{Config, Program, Vars};
use cac_core::db::Db;
use cac_core::nginx::Flavour;
use cac_core::schema;

/// Loads a configuration whose files are made in a directory that is removed again, unless `vars` name another.
fn load(program: Program, vars: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let scratch = tempfile::tempdir().unwrap();
    let mut all = Vars::default();
    // The default is `data` in the working directory, which is this crate: its secrets were committed three times.
    all.set("CAC_DATA_DIR", scratch.path().to_str().unwrap());
    for (name, value) in vars {
        all.set(name, *value);
    }
    Config::load(&all, program).map_err(|problems| problems.0)
}

const FIVE: [(&str, &str); 5] = [
    ("MYSQL_HOST", "127.0.0.1"),
    ("MYSQL_PORT", "3307"),
    ("MYSQL_USER", "container_manager"),
    ("MYSQL_PASSWORD", "p@ss/w:rd?"),
    ("MYSQL_DATABASE", "opensource_containers"),
];

#[test]
fn the_runner_and_local_commands_start_with_the_five_mysql_variables_alone() {
    for program in [Program::Runner, Program::Local] {
        for environment in ["development", "production"] {
            let mut vars = FIVE.to_vec();
            vars.push(("NODE_ENV", environment));
            let config = load(program, &vars).unwrap();
            let url = "mariadb://container%5Fmanager:p%40ss%2Fw%3Ard%3F@127.0.0.1:3307/opensource%5Fcontainers";
            assert_eq!(config.database_url.expose(), url);
        }
    }
}

#[test]
fn a_number_of_connections_that_a_process_cannot_work_with_is_refused() {
    for (given, fits) in [("4", true), ("3", false), ("many", false)] {
        let loaded = load(Program::Http, &[("DATABASE_CONNECTIONS", given)]);
        match loaded {
            Ok(config) => assert!(fits && config.database_connections == 4, "{given}"),
            Err(problems) => assert!(
                !fits && problems[0].starts_with("DATABASE_CONNECTIONS"),
                "{problems:?}"
            ),
        }
    }
}

#[test]
fn production_demands_what_must_not_be_guessed() {
    let problems = load(Program::Http, &[("NODE_ENV", "production")]).unwrap_err();
    for name in ["DATABASE_URL", "CAC_PUBLIC_URL", "CAC_DOMAIN"] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(name)),
            "{name}: {problems:?}"
        );
    }
    let mut vars = FIVE.to_vec();
    vars.extend([
        ("NODE_ENV", "production"),
        ("CAC_PUBLIC_URL", "https://portal.example.org"),
        ("CAC_DOMAIN", "apps.example.org"),
    ]);
    let problems = load(Program::Http, &vars).unwrap_err();
    assert!(
        problems.len() == 2
            && problems[0].starts_with("SESSION_SECRET")
            && problems[1].starts_with("CAC_SECRET_KEY"),
        "{problems:?}"
    );
    vars.push(("SESSION_SECRET", "0123456789abcdef0123456789abcdef"));
    vars.push(("CAC_SECRET_KEY", "too short"));
    assert!(load(Program::Http, &vars).unwrap_err()[0].contains("64 hexadecimal digits"));
    vars.pop();
    let key = "0123456789abcdef".repeat(4);
    vars.push(("CAC_SECRET_KEY", &key));
    let config = load(Program::Http, &vars).unwrap();
    assert!(
        config.nginx_conf_allow.is_empty()
            && config.registration_allow.is_empty()
            && config.metrics_allow.is_empty()
    );
    assert!(config.secure());
}

#[test]
fn every_problem_is_told_at_once_with_what_to_do() {
    let problems = load(
        Program::Runner,
        &[
            ("DATABASE_URL", "oracle:x"),
            ("CAC_LISTEN", "here"),
            ("JOB_RUNNER_POLL_MS", "soon"),
            ("SHELL_JOBS", "maybe"),
            ("TRUSTED_PROXIES", "127.0.0.1, nonsense"),
            ("SSH_PORTS", "9-1"),
            ("PROXMOX_URL", "http://127.0.0.1"),
            ("PROXMOX_TLS", "perhaps"),
            ("NODE_ENV", "prod"),
        ],
    )
    .unwrap_err();
    assert_eq!(problems.len(), 9, "{problems:#?}");
    assert!(
        problems.iter().all(|problem| problem.contains("must be")),
        "{problems:#?}"
    );
}

#[test]
fn what_nginx_could_not_read_is_told_at_the_start() {
    let bad = [
        ("NGINX_PID", "/run/a b;c"),
        ("NGINX_CERTIFICATE", "/etc/ssl/{x}.crt"),
        ("NGINX_CERTIFICATE_KEY", "/etc/ssl/$x.key"),
        ("NGINX_ERROR_LOG", "stderr"),
        ("NGINX_ACCESS_LOG", "/a;b"),
        ("NGINX_TEMP_DIR", "/a\\b"),
        ("NGINX_INCLUDE", "/etc/nginx/*.conf;"),
        ("NGINX_USER", "www data"),
        ("NGINX_VERSION", "newest"),
        ("NGINX_HTTP3", "yes"),
        ("NGINX_STREAM_MODULE", "/a'b"),
        ("NGINX_PORTAL", "portal"),
    ];
    let problems = load(Program::Http, &bad).unwrap_err();
    for (name, _) in bad {
        let told = problems.iter().filter(|problem| problem.contains(name));
        assert!(told.count() >= 1, "{name} is not told: {problems:#?}");
    }
    assert_eq!(problems.len(), bad.len(), "{problems:#?}");
}

#[test]
fn proxies_on_other_machines_are_told_where_the_portal_is() {
    let portal = |vars: &[(&str, &str)]| {
        let url = [("CAC_PUBLIC_URL", "https://portal.example.org")];
        let config = load(Program::Http, &[&url, vars].concat()).unwrap();
        config.nginx.portal.unwrap().1.to_string()
    };
    assert_eq!(portal(&[]), "127.0.0.1:3000");
    let everywhere = ("CAC_LISTEN", "0.0.0.0:4000");
    assert_eq!(portal(&[everywhere]), "127.0.0.1:4000");
    let told = ("NGINX_PORTAL", "192.0.2.7:4000");
    assert_eq!(portal(&[everywhere, told]), "192.0.2.7:4000");
}

#[test]
fn every_old_release_of_nginx_has_the_old_flavour() {
    let flavour = |version| {
        let config = load(Program::Http, &[("NGINX_VERSION", version)]).unwrap();
        config.nginx.flavour
    };
    for old in ["1.18", "1.18.0", "1.22", "1.25.0"] {
        assert_eq!(flavour(old), Flavour::Debian1_22, "{old}");
    }
    for new in ["1.25", "1.25.1", "1.26.3", "2.0"] {
        assert_eq!(flavour(new), Flavour::V1_25, "{new}");
    }
}

#[test]
fn without_a_database_development_uses_sqlite_and_keeps_its_secret() {
    let dir = std::env::temp_dir().join(format!("cac-config-{}", std::process::id()));
    let vars = [("CAC_DATA_DIR", dir.to_str().unwrap())];
    let first = load(Program::Http, &vars).unwrap();
    let second = load(Program::Http, &vars).unwrap();
    assert_eq!(
        first.database_url.expose(),
        format!("sqlite:{}", dir.join("cac.db").display())
    );
    assert_eq!(
        first.session_secret.expose(),
        second.session_secret.expose()
    );
    assert!(first.session_secret.expose().len() >= 64);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dir.join("session-secret"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Programs share one file of variables; the web server, which is not root, was refused for the runner's account.
#[test]
fn only_the_runner_asks_for_its_account() {
    let vars = [
        ("SESSION_SECRET", "0123456789abcdef"),
        ("JOB_RUNNER_USER", "nobody-of-this-name"),
    ];
    for program in [Program::Http, Program::Local] {
        assert_eq!(load(program, &vars).unwrap().runner.user, None);
    }
    let problems = load(Program::Runner, &vars).unwrap_err();
    assert!(
        problems.len() == 1 && problems[0].starts_with("JOB_RUNNER_USER"),
        "{problems:?}"
    );
}

/// The packages' runner without shell jobs has no right to change its user, and did not start.
#[test]
fn a_runner_that_starts_no_programs_needs_no_account_for_them() {
    let vars = [
        ("JOB_RUNNER_USER", "nobody-of-this-name"),
        ("SHELL_JOBS", "off"),
    ];
    assert_eq!(load(Program::Runner, &vars).unwrap().runner.user, None);
    let dir = tempfile::tempdir().unwrap();
    let tasks = dir.path().join("tasks.toml");
    std::fs::write(&tasks, "[tasks.date]\nargv = [\"/bin/date\"]\n").unwrap();
    let with_tasks = [&vars[..], &[("JOB_TASKS_FILE", tasks.to_str().unwrap())]].concat();
    let problems = load(Program::Runner, &with_tasks).unwrap_err();
    assert!(problems[0].starts_with("JOB_RUNNER_USER"), "{problems:?}");
}

/// `Debug` of the configuration showed the database's password, that of the variables everything.
#[test]
fn debug_shows_no_secret() {
    let key = "0123456789abcdef".repeat(4);
    let vars = [
        (
            "DATABASE_URL",
            "mariadb://cac:hunter2-database@127.0.0.1/cac",
        ),
        ("SESSION_SECRET", "hunter2-session-secret"),
        ("CAC_SECRET_KEY", &key),
        ("PROXMOX_URL", "https://127.0.0.1:8006"),
        ("PROXMOX_TOKEN_ID", "cac@pve!web"),
        ("PROXMOX_TOKEN_SECRET", "hunter2-token"),
        ("SMTP_URL", "smtp://cac:hunter2-mail@127.0.0.1"),
        ("MAIL_FROM", "portal@example.org"),
    ];
    let config = load(Program::Http, &vars).unwrap();
    let mut all = Vars::default();
    for (name, value) in vars {
        all.set(name, value);
    }
    let shown = format!("{config:?} {all:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains(&key),
        "{shown}"
    );
    assert!(shown.contains("SMTP_URL"), "{shown}");
}

/// Portal and runner are two users in the packages and share a database file and its key, whatever their umask is.
#[tokio::test]
async fn a_directory_of_a_group_shares_its_database_and_key_with_it() {
    for (directory, database, key) in [(0o2770, 0o660, 0o640), (0o755, 0o600, 0o600)] {
        let dir = tempfile::tempdir().unwrap();
        let permissions = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.path(), permissions(directory)).unwrap();
        let vars = [("CAC_DATA_DIR", dir.path().to_str().unwrap())];
        let config = load(Program::Http, &vars).unwrap();
        let db = Db::connect(config.database_url.expose()).await.unwrap();
        schema::up(&db).await.unwrap();
        let mode = |name: &str| {
            let found = std::fs::metadata(dir.path().join(name)).unwrap();
            found.permissions().mode() & 0o7777
        };
        for name in ["cac.db", "cac.db-wal", "cac.db-shm"] {
            assert_eq!(mode(name), database, "{name}");
        }
        for name in ["secret-key", "session-secret"] {
            assert_eq!(mode(name), key, "{name}");
        }
        db.close().await;
    }
}

/// It once left `session-secret` in the working directory.
#[test]
fn a_refused_configuration_leaves_no_file_behind() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("data");
    let vars = [
        ("CAC_DATA_DIR", inside.to_str().unwrap()),
        ("TRUSTED_PROXIES", "nonsense"),
    ];
    load(Program::Http, &vars).unwrap_err();
    assert!(!inside.exists());
}

#[test]
fn port_sets_the_port_of_the_listen_address() {
    let config = load(
        Program::Runner,
        &[("CAC_LISTEN", "127.0.0.1:3000"), ("PORT", "8080")],
    )
    .unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.public_url.as_str(), "http://localhost:8080/");
    for (listen, url) in [
        ("127.0.0.2:8080", "http://127.0.0.2:8080/"),
        ("0.0.0.0:8080", "http://localhost:8080/"),
        ("[::1]:8080", "http://localhost:8080/"),
    ] {
        let config = load(Program::Runner, &[("CAC_LISTEN", listen)]).unwrap();
        assert_eq!(config.public_url.as_str(), url, "{listen}");
    }
}

#[test]
fn the_readme_lists_every_variable() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let readme = file("../README.md");
    let name = |text: &str| {
        text.len() > 3
            && text
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let mut known = std::collections::BTreeSet::from(["CAC_LOG".to_owned()]);
    let folder = std::fs::read_dir(root.join("src/config")).unwrap();
    let code: String = folder
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for part in code.split('"').filter(|part| name(part)) {
        assert!(
            readme.contains(&format!("`{part}`")),
            "{part} is not in the README"
        );
        known.insert(part.to_owned());
    }
    let table = readme.split_once("## Configuration").unwrap().1;
    let table = table.split_once("## Map").unwrap().0;
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    for row in rows.map(|row| row.split('|').next().unwrap()) {
        for listed in row.split('`').filter(|part| name(part)) {
            assert!(
                known.contains(listed),
                "{listed} is in the README and means nothing"
            );
        }
    }
}
