//! `cac` as a client of a portal: the whole main job, an admin's day, and how commands end.

use std::process::Command;

use serde_json::Value;

use crate::desk::{Desk, Person};
use crate::lab::{command, text};

#[test]
fn the_main_job_by_words_alone() {
    let desk = Desk::new();
    let alice = desk.person("alice");
    assert!(alice.good(&["container", "list"]).is_empty());
    let dry = alice.json(&[
        "container",
        "create",
        "hello",
        "--os",
        "debian",
        "--port",
        "8080",
        "--dry-run",
    ]);
    assert!(dry["node"].as_str().unwrap().starts_with("pve"), "{dry}");
    // In a pipe: plain lines, and what came of it.
    let made = alice.good(&[
        "container",
        "create",
        "hello",
        "--os",
        "debian",
        "--port",
        "8080",
        "--service",
        "rdp",
    ]);
    for line in [
        "[1/7] choose a node\n",
        "[7/7] publish",
        "name         hello\n",
        "ssh          ssh -p ",
    ] {
        assert!(made.contains(line), "{line}: {made}");
    }
    assert!(!made.contains('\u{1b}'), "{made}");
    let hello = alice.json(&["container", "show", "hello"]);
    assert_eq!(hello["status"], "running");
    let id = hello["id"].to_string();
    assert_eq!(alice.json(&["container", "show", &id])["hostname"], "hello");
    let list = alice.good(&["container", "list"]);
    assert!(list.starts_with("ID ") && list.contains("hello"), "{list}");

    let added = alice.json(&["service", "add", "hello", "9000/tcp"]);
    let service = added["id"].to_string();
    assert_eq!(added["internalPort"], 9000);
    let web = alice.json(&[
        "service",
        "add",
        "hello",
        "3000/http",
        "--hostname",
        "hello2",
    ]);
    assert_eq!(
        (&web["type"], &web["externalHostname"]),
        (&"http".into(), &"hello2".into())
    );
    let changed = alice.json(&["service", "update", "hello", &service, "--port", "9001"]);
    assert_eq!(changed["internalPort"], 9001);
    alice.good(&["service", "remove", "hello", &service]);
    let services = alice.json(&["service", "list", "hello"]);
    assert_eq!(services.as_array().unwrap().len(), 4, "{services}");

    let sizes = alice.json(&[
        "container",
        "resize",
        "hello",
        "--memory",
        "4096",
        "--protected",
        "true",
    ]);
    assert_eq!(
        (&sizes["memory"], &sizes["protected"]),
        (&4096.into(), &true.into())
    );
    let said = alice.bad(5, &["container", "delete", "hello", "--yes"]);
    assert!(said.contains("protect"), "{said}");
    alice.good(&["container", "resize", "hello", "--protected", "false"]);
    assert_eq!(
        alice.json(&["container", "stop", "hello"])["status"],
        "stopped"
    );
    assert_eq!(
        alice.json(&["container", "start", "hello"])["status"],
        "running"
    );
    assert!(
        alice
            .good(&["container", "restart", "hello"])
            .contains("running")
    );
    // Nothing was requested, so nothing is withdrawn.
    let kept = alice.json(&["container", "keep", "hello"]);
    assert!(kept["deletionRequestedAt"].is_null(), "{kept}");

    alice.good(&[
        "container",
        "snapshot",
        "create",
        "hello",
        "first",
        "--description",
        "it works",
    ]);
    assert_eq!(
        alice.json(&["container", "snapshot", "list", "hello"])[0]["name"],
        "first"
    );
    alice.good(&[
        "container",
        "snapshot",
        "rollback",
        "hello",
        "first",
        "--yes",
    ]);
    alice.good(&["container", "snapshot", "delete", "hello", "first"]);
    assert_eq!(
        alice.json(&["container", "snapshot", "list", "hello"]),
        Value::Array(vec![])
    );

    let hello = alice.json(&["container", "show", "hello"]);
    let url = alice.good(&["container", "open", "hello", "--print"]);
    assert_eq!(url.trim(), hello["url"].as_str().unwrap());
    let ssh = alice.good(&["container", "ssh", "hello", "--print", "-l", "me"]);
    assert_eq!(
        ssh.trim(),
        hello["ssh"].as_str().unwrap().replace("root@", "me@")
    );

    let jobs = alice.json(&["job", "list"]);
    let first = jobs[0]["id"].to_string();
    assert_eq!(jobs[0]["kind"], "container_create");
    assert_eq!(alice.json(&["job", "show", &first])["status"], "success");
    let logs = alice.good(&["job", "logs", &first]);
    assert!(logs.contains("[2/7] reserve a VMID\n"), "{logs}");
    assert_eq!(alice.good(&["job", "logs", &first, "-f"]), logs);
    assert!(
        alice
            .good(&["job", "follow", &first])
            .contains("[2/7] reserve a VMID\n")
    );
    assert!(
        alice
            .good(&["container", "logs", "hello"])
            .starts_with("[1/2] ")
    );
    assert!(alice.good(&["job", "list", "--limit", "1"]).lines().count() == 2);

    let token = alice.json(&[
        "token",
        "create",
        "ci",
        "--scope",
        "containers:read,jobs",
        "--days",
        "7",
    ]);
    assert!(token["token"].as_str().unwrap().starts_with("cac_"));
    assert!(
        alice
            .good(&["token", "list"])
            .contains("containers:read,jobs")
    );
    // A script has the portal in its environment and nothing else.
    let script = |words: &[&str]| {
        let secret = token["token"].as_str().unwrap();
        command(
            "cac",
            words,
            &[("CAC_URL", &desk.url), ("CAC_TOKEN", secret)],
        )
        .output()
        .unwrap()
    };
    assert!(script(&["container", "list"]).status.success());
    let refused = script(&["container", "delete", "hello", "--yes"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("containers:write"));
    alice.good(&["token", "delete", &token["id"].to_string()]);
    assert_eq!(script(&["container", "list"]).status.code(), Some(3));

    assert!(alice.good(&["quota", "show"]).contains("alice"));
    let detached = alice.json(&[
        "container",
        "create",
        "later",
        "--os",
        "debian",
        "--port",
        "8080",
        "--detach",
    ]);
    alice.good(&["job", "follow", &detached["jobId"].to_string()]);
    for name in ["hello", "later"] {
        assert!(
            alice
                .good(&["container", "delete", name, "--yes"])
                .contains("is gone")
        );
    }
    assert_eq!(alice.json(&["container", "list"]), Value::Array(vec![]));
}

#[test]
fn a_terminal_shows_a_bar_with_steps() {
    let desk = Desk::new();
    let alice = desk.person("alice");
    let mut script = Command::new("script");
    let line = format!(
        "{} container create bar --os debian --port 8080",
        env!("CARGO_BIN_EXE_cac")
    );
    script.args(["-qec", &line, "/dev/null"]).env_clear();
    script.env("PATH", std::env::var_os("PATH").unwrap());
    script
        .env("HOME", alice.home.path())
        .env("TERM", "xterm")
        .env("COLUMNS", "120");
    let output = script.stdin(std::process::Stdio::null()).output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.contains("\u{1b}[") && shown.contains("/7"),
        "{shown:?}"
    );
    assert!(!shown.contains("[2/7]"), "{shown:?}");
    assert!(shown.contains("name         bar"), "{shown:?}");
}

#[test]
fn every_end_has_its_status_and_says_what_to_do() {
    let desk = Desk::new();
    let alice = desk.person("alice");
    let said = alice.bad(
        2,
        &["container", "create", "www", "--os", "", "--port", "7"],
    );
    for field in ["hostname:", "osRelease:", "httpPort:"] {
        assert!(said.contains(field), "{field}: {said}");
    }
    alice.bad(2, &["container", "create"]);
    assert!(
        alice
            .bad(4, &["container", "show", "nothing"])
            .contains("cac container list")
    );
    assert!(alice.bad(4, &["job", "show", "4711"]).contains("job"));
    alice.good(&[
        "container",
        "create",
        "one",
        "--os",
        "debian",
        "--port",
        "8080",
    ]);
    alice.bad(
        5,
        &[
            "container",
            "create",
            "one",
            "--os",
            "debian",
            "--port",
            "8080",
        ],
    );
    assert!(
        alice
            .bad(2, &["container", "delete", "one"])
            .contains("--yes")
    );
    alice.bad(3, &["node", "list"]);
    let stranger = Person {
        home: tempfile::tempdir().unwrap(),
    };
    assert!(
        stranger
            .bad(3, &["container", "list"])
            .contains("cac login")
    );
    let wrong = stranger.file("password", "wrong");
    let said = stranger.bad(
        3,
        &[
            "login",
            &desk.url,
            "-u",
            "alice",
            "--password-file",
            wrong.to_str().unwrap(),
        ],
    );
    assert!(!said.contains("Sign in: "), "{said}");
    let file = stranger.file("token", "cac_wrong");
    stranger.bad(
        3,
        &["login", &desk.url, "--token-file", file.to_str().unwrap()],
    );
    assert_eq!(stranger.json(&["context", "list"]), Value::Array(vec![]));
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let away = stranger.bad(
        6,
        &[
            "login",
            &format!("http://{free}"),
            "-u",
            "alice",
            "--password-file",
            wrong.to_str().unwrap(),
        ],
    );
    assert!(away.contains("cannot be reached"), "{away}");
    let failing = desk.person("admin");
    let said = failing.bad(1, &["job", "run", "--command", "echo before; exit 3"]);
    assert!(said.contains("failed"), "{said}");
    assert_eq!(
        failing.good(&["job", "run", "--command", "printf 'a\\n\\033[1mb'"]),
        "a\n\u{1b}[1mb"
    );
}

#[test]
fn an_admins_day() {
    let desk = Desk::new();
    let (alice, admin) = (desk.person("alice"), desk.person("admin"));
    alice.good(&[
        "container",
        "create",
        "hers",
        "--os",
        "debian",
        "--port",
        "8080",
    ]);
    let all = admin.json(&["container", "list", "--all"]);
    assert_eq!(all[0]["username"], "alice");
    assert_eq!(admin.json(&["container", "list", "--user", "alice"]), all);
    assert_eq!(
        admin.json(&["container", "show", "hers"])["hostname"],
        "hers"
    );

    let nodes = admin.json(&["node", "list"]);
    assert_eq!(nodes.as_array().unwrap().len(), 3);
    assert!(
        admin
            .good(&["node", "test", "pve1"])
            .contains("Containers can be made there.")
    );
    assert_eq!(
        admin.json(&["node", "update", "pve2", "--enabled", "false"])["enabled"],
        false
    );
    assert!(admin.good(&["node", "show", "pve2"]).contains(" no\n"));
    assert!(admin.good(&["node", "templates"]).contains("debian-12"));
    assert!(
        admin
            .good(&["node", "importable", "pve1"])
            .starts_with("VMID")
    );
    admin.good(&["node", "reconcile"]);
    let secret = admin.file("secret", "00000000-0000-0000-0000-000000000000");
    let added = admin.json(&[
        "node",
        "add",
        "pve9",
        "--api-url",
        "https://127.0.0.1:9",
        "--token-id",
        "cac@pve!web",
        "--secret-file",
        secret.to_str().unwrap(),
        "--disabled",
    ]);
    assert_eq!(
        (&added["enabled"], &added["hasSecret"]),
        (&false.into(), &true.into())
    );
    assert_eq!(admin.run(&["node", "test", "pve9"]).status.code(), Some(1));
    let moved = ["node", "update", "pve9", "--api-url", "https://127.0.0.2:9"];
    assert!(admin.bad(2, &moved).contains("secret again"));
    let again = ["--secret-file", secret.to_str().unwrap()];
    admin.good(&[&moved[..], &again].concat());
    admin.good(&["node", "delete", "pve9", "--yes"]);
    let holder = all[0]["nodeId"].as_i64().unwrap();
    let holder = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["id"] == holder)
        .unwrap();
    admin.bad(
        5,
        &["node", "delete", holder["name"].as_str().unwrap(), "--yes"],
    );

    let quota = admin.json(&["quota", "set", "alice", "--containers", "1"]);
    assert_eq!(quota["remaining"]["containers"], 0);
    assert!(admin.good(&["quota", "list"]).contains("1 of 1"));
    alice.bad(
        2,
        &[
            "container",
            "create",
            "second",
            "--os",
            "debian",
            "--port",
            "8080",
        ],
    );
    assert!(alice.good(&["quota", "show"]).contains("1 of 1"));
    assert!(admin.good(&["request", "list"]).starts_with("ID"));
    admin.bad(4, &["request", "show", "1"]);
    let flood = ["request", "decline", "--network", "192.0.2.0/24"];
    admin.bad(2, &flood);
    let declined = admin.good(&[&flood[..], &["--without-mail", "7"]].concat());
    assert!(
        declined.starts_with("Declined 0 requests; 1 "),
        "{declined}"
    );

    let slow = admin.json(&["job", "run", "--command", "sleep 600", "--detach"]);
    let slow = slow["id"].to_string();
    admin.good(&["job", "cancel", &slow]);
    assert!(
        admin
            .bad(1, &["job", "follow", &slow])
            .contains("was cancelled")
    );
    assert!(
        admin
            .good(&["container", "delete", "hers", "--yes"])
            .contains("is gone")
    );
    admin.bad(2, &["logout", "--tokens"]);
    let out = admin.run(&["logout", "--everywhere", "--tokens"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn shells_and_man_know_the_words() {
    let person = Person {
        home: tempfile::tempdir().unwrap(),
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            person.good(&["completions", shell]).contains("snapshot"),
            "{shell}"
        );
    }
    let bash = person.file("cac.bash", &person.good(&["completions", "bash"]));
    let asked = "source $0; COMP_WORDS=(cac container re); COMP_CWORD=2; _cac cac re container; echo ${COMPREPLY[*]}";
    let answer = Command::new("bash")
        .args(["-c", asked, bash.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(
        text(&answer.stdout),
        "restart resize refresh\n",
        "{}",
        text(&answer.stderr)
    );
    let dir = person.home.path().join("man1");
    person.good(&["man", dir.to_str().unwrap()]);
    let page = std::fs::read_to_string(dir.join("cac-container-create.1")).unwrap();
    assert!(
        page.contains(".TH") && page.contains("ssh public key"),
        "{page}"
    );
    let whole = std::fs::read_to_string(dir.join("cac.1")).unwrap();
    assert!(whole.contains("the portal cannot be reached"), "{whole}");
}
