//! Whom `cac` trusts with what: tokens that are kept, portals that lie, keys, and pipes that end.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::desk::Desk;
use crate::lab::{command, own_address, text};

#[test]
fn several_portals_and_a_file_that_nobody_else_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let desks = [Desk::new(), Desk::new()];
    let alice = desks[0].person("alice");
    let file = alice.home.path().join(".config/cac/contexts.json");
    let mode = |file: &Path| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let password = alice.file("password", "alice-demo");
    let password = password.to_str().unwrap();
    alice.good(&[
        "login",
        &desks[1].url,
        "-u",
        "alice",
        "--password-file",
        password,
        "--name",
        "second",
        "--scope",
        "containers:read",
    ]);
    assert_eq!(mode(&file), 0o600);
    alice.bad(
        3,
        &[
            "container",
            "create",
            "no",
            "--os",
            "debian",
            "--port",
            "8080",
        ],
    );
    let first = desks[0].url.trim_start_matches("http://").to_owned();
    alice.good(&[
        "container",
        "create",
        "yes",
        "--os",
        "debian",
        "--port",
        "8080",
        "--context",
        &first,
    ]);
    alice.good(&["context", "use", &first]);
    let all = alice.json(&["context", "list"]);
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert!(!all.to_string().contains("cac_"), "{all}");
    assert!(alice.good(&["container", "list"]).contains("yes"));
    alice.bad(3, &["context", "use", "third"]);
    // The token goes with the sign-out.
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let token = kept["contexts"][&first]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    alice.good(&["logout"]);
    let late = command(
        "cac",
        &["container", "list"],
        &[("CAC_URL", &desks[0].url), ("CAC_TOKEN", &token)],
    );
    assert_eq!({ late }.output().unwrap().status.code(), Some(3));
    assert!(
        alice
            .good(&["container", "list", "--context", "second"])
            .is_empty()
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(alice.bad(1, &["container", "list"]).contains("chmod 600"));
}

#[test]
fn logins_leave_nothing_behind() {
    let desk = Desk::new();
    let alice = desk.person("alice");
    let password = alice.file("password", "alice-demo");
    let password = password.to_str().unwrap();
    let login = [
        "login",
        &desk.url,
        "-u",
        "alice",
        "--password-file",
        password,
    ];
    let tokens = || alice.json(&["token", "list"]).as_array().unwrap().len();
    assert_eq!(tokens(), 1);
    // Again by the same name: the old token goes.
    alice.good(&login);
    assert_eq!(tokens(), 1);
    let limited = [&login[..], &["--name", "limited", "--scope", "jobs"]].concat();
    alice.good(&limited);
    alice.good(&["logout"]);
    let first = desk.url.trim_start_matches("http://").to_owned();
    alice.good(&["context", "use", &first]);
    assert_eq!(tokens(), 1);
    // Where nothing can be kept, nothing is made.
    let file = alice.home.path().join(".config/cac/contexts.json");
    let kept = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "{").unwrap();
    assert!(alice.bad(1, &login).contains("damaged"));
    std::fs::write(&file, &kept).unwrap();
    assert_eq!(tokens(), 1);
    // A link stays a link.
    let elsewhere = alice.home.path().join("elsewhere.json");
    std::fs::rename(&file, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    let token = alice.json(&["token", "create", "script", "--scope", "jobs"]);
    let token = alice.file("token", token["token"].as_str().unwrap());
    let token = token.to_str().unwrap();
    let logins: Vec<_> = (0..8)
        .map(|number| {
            let name = format!("n{number}");
            let words = ["login", &desk.url, "--token-file", token, "--name", &name];
            alice.command(&words).spawn().unwrap()
        })
        .collect();
    for mut login in logins {
        assert!(login.wait().unwrap().success());
    }
    assert_eq!(
        alice.json(&["context", "list"]).as_array().unwrap().len(),
        9
    );
    assert!(file.is_symlink() && elsewhere.is_file());
    for (words, status) in [
        (&["login", "http://joe:secret@127.0.0.1:1"][..], 2),
        (&["login", "127.0.0.1:1"], 2),
        (
            &["login", &desk.url, "--token-file", token, "--name", "a b"],
            2,
        ),
        (&["login", &desk.url, "--token-file", "/dev/zero"], 2),
        (
            &[
                "token",
                "create",
                "x",
                "--scope",
                "jobs",
                "--days",
                "4294967295",
            ],
            2,
        ),
        (&["quota", "show", ".."], 2),
        (&["container", "resize", "x"], 2),
    ] {
        let said = alice.bad(status, words);
        assert!(
            !said.contains("secret") && !said.contains("panicked"),
            "{said}"
        );
    }
}

fn server(kind: &'static str, status: &'static str, body: String) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind((own_address(), 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    url
}

#[test]
fn a_hostile_portal_gets_nothing_done() {
    let ask = |url: &str, words: &[&str]| {
        let vars = [("CAC_URL", url), ("CAC_TOKEN", "cac_none")];
        let output = command("cac", words, &vars).output().unwrap();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let container = |url: &str, ssh: &str| {
        serde_json::json!({
            "id": 1, "hostname": "a\u{1b}]0;t\u{7}\u{202e}", "username": "alice", "aiContainer": "N", "protected": false, "services": [],
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "url": url, "ssh": ssh,
        })
    };
    // A list for the name's look-up; then its first row is asked for alone, and the list is no container.
    for (address, ssh) in [
        ("javascript:alert(1)", "ssh -p 22 root@-oProxyCommand=touch"),
        ("file:///etc/passwd", "ssh -p 22 root@x;touch /tmp/hostile"),
        ("/etc/passwd", "ssh -oProxyCommand=touch root@h"),
        ("smb://evil/share", "ssh -p 99999 root@h"),
    ] {
        let url = server(
            "application/json",
            "200 OK",
            container(address, ssh).to_string(),
        );
        // The list is not one, so the look-up by name fails before anything is shown.
        for words in [
            &["container", "open", "1", "--print"][..],
            &["container", "ssh", "1", "--print"],
        ] {
            let (status, out, err) = ask(&url, words);
            assert!(status != 0 && out.is_empty(), "{words:?}: {out}{err}");
            assert!(!err.contains('\u{1b}'), "{err:?}");
        }
    }
    let secret = r#"{"id": 1, "token": "cac_TOPSECRET", "name": "x"}"#;
    let url = server("application/json", "201 Created", secret.to_owned());
    let (status, out, err) = ask(&url, &["token", "create", "x", "--scope", "jobs"]);
    assert!(status == 1 && !(out + &err).contains("TOPSECRET"), "{err}");
    for (answer, status) in [
        ("502 Bad Gateway", 6),
        ("503 Service Unavailable", 6),
        ("401 Unauthorized", 3),
        ("404 Not Found", 4),
        ("302 Found", 1),
    ] {
        let url = server("text/html", answer, "<h1>proxy</h1>".to_owned());
        let (got, _, err) = ask(&url, &["container", "list"]);
        assert_eq!(got, status, "{answer}: {err}");
    }
    let problem =
        serde_json::json!({"title": "x", "status": 403, "detail": "no\u{1b}[31m\u{202e}"});
    let url = server(
        "application/problem+json",
        "403 Forbidden",
        problem.to_string(),
    );
    let (status, _, err) = ask(&url, &["container", "list"]);
    assert!(
        status == 3 && !err.contains('\u{1b}') && !err.contains('\u{202e}'),
        "{err:?}"
    );
    for (vars, said) in [
        (&[("CAC_URL", "http://127.0.0.1:1")][..], "CAC_TOKEN"),
        (&[("CAC_TOKEN", "cac_none")], "CAC_URL"),
        (
            &[("CAC_URL", "nonsense"), ("CAC_TOKEN", "cac_none")],
            "CAC_URL",
        ),
        (
            &[
                ("CAC_URL", "http://h"),
                ("CAC_TOKEN", "t"),
                ("CAC_CONTEXT", "c"),
            ],
            "unset",
        ),
    ] {
        let output = command("cac", &["container", "list"], vars)
            .output()
            .unwrap();
        let err = text(&output.stderr);
        assert!(
            output.status.code() == Some(2) && err.contains(said),
            "{err}"
        );
    }
}

#[test]
fn a_private_key_stays_here() {
    let desk = Desk::new();
    let alice = desk.person("alice");
    let private =
        "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n-----END OPENSSH PRIVATE KEY-----\n";
    let key = alice.file("id", private);
    let words = [
        "container",
        "create",
        "k",
        "--os",
        "debian",
        "--port",
        "8080",
        "--ssh-key",
    ];
    let said = alice.bad(2, &[&words[..], &[key.to_str().unwrap()]].concat());
    assert!(said.contains("public key"), "{said}");
}
#[test]
fn a_name_of_digits_is_a_name() {
    let desk = Desk::new();
    let alice = desk.person("alice");
    let create = |name: &str| {
        let made = alice.json(&[
            "container",
            "create",
            name,
            "--os",
            "debian",
            "--port",
            "8080",
        ]);
        made["id"].as_i64().unwrap()
    };
    let first = create("first");
    let named = create(&first.to_string());
    assert_eq!(
        alice.json(&["container", "show", &first.to_string()])["id"],
        named
    );
    alice.good(&["container", "delete", &first.to_string(), "--yes"]);
    assert_eq!(alice.json(&["container", "show", "first"])["id"], first);
    assert_eq!(
        alice.json(&["container", "show", &first.to_string()])["hostname"],
        "first"
    );
    for odd in [format!("0{first}"), format!("+{first}")] {
        alice.bad(4, &["container", "show", &odd]);
    }
}

#[test]
fn closed_ends_of_pipes_are_no_failures() {
    let desk = Desk::new();
    let admin = desk.person("admin");
    let endless = admin.json(&[
        "job",
        "run",
        "--command",
        "while :; do echo again; sleep 0.05; done",
        "--detach",
    ]);
    let line = format!(
        "{} job logs -f {} | head -1",
        env!("CARGO_BIN_EXE_cac"),
        endless["id"]
    );
    let mut shell = Command::new("timeout");
    shell
        .args(["30", "bash", "-c", &line])
        .env("HOME", admin.home.path());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(text(&output.stdout), "again\n");
    admin.good(&["job", "cancel", &endless["id"].to_string()]);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = admin
        .command(&["container", "show", "nothing"])
        .stderr(full)
        .status();
    assert_eq!(status.unwrap().code(), Some(4));
}
