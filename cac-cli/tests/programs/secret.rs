//! Secrets stay where they belong: not in a log of any level, not in an answer, not in the arguments or the environment of a child.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lab::{Running, command, own_address, simulator, text};
use crate::portal::{Portal, json as read};

/// Everything that the programs are told, and what they make of it, appears nowhere while all of it is used.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_the_place_where_it_belongs() {
    let (simulator, proxmox) = simulator(&[]);
    let told = |field: &str| proxmox[field].as_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let address = own_address();
    let database = format!("sqlite:{}", dir.path().join("cac.db").display());
    let listen = format!("{address}:3000");
    let url = format!("http://{listen}/");
    let key = text(
        &command("cac", &["secret", "new"], &[])
            .output()
            .unwrap()
            .stdout,
    )
    .trim()
    .to_owned();
    let (api, pin, token_id, token) = (
        told("url"),
        told("fingerprint"),
        told("tokenId"),
        told("tokenSecret"),
    );
    let mail = "smtp://mailer:the-mail-password@127.0.0.1:9";
    let vars = [
        ("DATABASE_URL", database.as_str()),
        ("CAC_DATA_DIR", dir.path().to_str().unwrap()),
        ("CAC_LISTEN", &listen),
        ("CAC_PUBLIC_URL", &url),
        ("CAC_SECRET_KEY", &key),
        ("SESSION_SECRET", "the-session-secret-of-this-test"),
        ("SMTP_URL", mail),
        ("MAIL_FROM", "portal@example.org"),
        ("MAIL_ADMIN", "admin@example.org"),
        ("PROXMOX_URL", &api),
        ("PROXMOX_TLS", &pin),
        ("PROXMOX_TOKEN_ID", &token_id),
        ("PROXMOX_TOKEN_SECRET", &token),
        ("CONTAINER_NETWORKS", "127.0.0.0/8"),
        ("CONTAINER_SSH_PORT", "2022"),
        ("CAC_LOG", "trace"),
    ];
    let secret = dir.path().join("secret");
    std::fs::write(&secret, &token).unwrap();
    let words = [
        "node",
        "--local",
        "add",
        "pve1",
        "--api-url",
        &api,
        "--token-id",
        &token_id,
        "--tls",
        &pin,
        "--secret-file",
        secret.to_str().unwrap(),
    ];
    let added = command("cac", &words, &vars).output().unwrap();
    assert!(added.status.success(), "{}", text(&added.stderr));
    let http = Running::start("cac-http", &[], &vars);
    let runner = Running::start("cac-runner", &[], &vars);
    let portal = Portal::new(&*url);
    crate::lab::until("the portal answers", async || {
        let request = portal.request(Method::GET, "/healthz");
        request
            .send()
            .await
            .ok()
            .filter(|answer| answer.status() == 200)
    })
    .await;
    assert_eq!(
        portal
            .login("alice", "not-the-password-of-alice")
            .await
            .unwrap_err(),
        401
    );
    let alice = portal.login("alice", "alice-demo").await.unwrap();
    let admin = portal.login("admin", "admin-demo").await.unwrap();
    let post = async |path: &str, body: Value| {
        let request = portal.request(Method::POST, path).header("cookie", &admin);
        read(request.json(&body).send().await.unwrap(), 201).await
    };
    let made = post("/tokens", json!({"name": "t", "scopes": ["admin"]})).await;
    let bearer = made["token"].as_str().unwrap().to_owned();
    let asked = portal.request(Method::GET, "/nodes").bearer_auth(&bearer);
    let nodes = asked.send().await.unwrap().text().await.unwrap();
    let (_, job) = portal.create(&alice, "quiet").await;
    let made = portal.follow(&alice, job).await;
    // The whole of a shell command's world, and that of the runner's children as others see it.
    let look = "env; tr '\\0' '\\n' </proc/self/environ; tr '\\0' ' ' </proc/self/cmdline; tr '\\0' ' ' </proc/$PPID/cmdline";
    let shell = post("/jobs", json!({"command": look})).await["id"]
        .as_i64()
        .unwrap();
    let world = portal.follow(&admin, shell).await;
    assert!(world.contains("PATH="), "{world}");
    let register = json!({"name": "B", "email": "b@example.org", "username": "bob", "reason": "r"});
    read(
        portal
            .request(Method::POST, "/register")
            .json(&register)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    let request = portal
        .request(Method::POST, "/account-requests/1/approve")
        .header("cookie", &admin);
    // Nobody has followed the link to confirm the address: the mail server is away.
    read(request.send().await.unwrap(), 409).await;
    for path in [
        "/audit",
        "/audit.csv",
        "/nodes/1",
        "/tokens",
        "/sessions",
        "/metrics",
    ] {
        let shown = portal.get(path, &admin).await.text().await.unwrap();
        assert!(
            !shown.contains(&bearer) && !shown.contains(&token),
            "{path}: {shown}"
        );
    }
    for program in [&http, &runner] {
        program.signal(Signal::TERM);
    }
    let (mut http, mut runner) = (http, runner);
    assert!(http.ended().success() && runner.ended().success());
    let logs = format!(
        "{}{}{}{}{}",
        http.out(),
        http.err(),
        runner.out(),
        runner.err(),
        text(&added.stderr)
    );
    assert!(logs.len() > 100_000, "{} bytes of log", logs.len());
    let session = |cookie: &str| cookie.split_once('=').unwrap().1.to_owned();
    let secrets = vec![
        ("the node's token", token.clone()),
        ("the key", key.clone()),
        (
            "the session secret",
            "the-session-secret-of-this-test".to_owned(),
        ),
        ("the mail password", "the-mail-password".to_owned()),
        ("a password", "alice-demo".to_owned()),
        ("a wrong password", "not-the-password-of-alice".to_owned()),
        ("a session", session(&alice)),
        ("an admin's session", session(&admin)),
        ("an API token", bearer.clone()),
    ];
    for (what, secret) in &secrets {
        assert!(
            !logs.contains(secret),
            "a log shows {what}: {:?}",
            logs.lines().find(|line| line.contains(secret))
        );
        for (place, text) in [
            ("the environment or arguments of a child", &world),
            ("a job's output", &made),
            ("the list of nodes", &nodes),
        ] {
            assert!(!text.contains(secret), "{place} shows {what}");
        }
    }
    simulator.stop();
}
