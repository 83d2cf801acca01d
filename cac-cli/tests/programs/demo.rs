//! `cac demo`: ready with one command, kept over a restart, gone after Ctrl-C, and one sentence where it cannot start.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cac_core::args;
use cac_core::db::Db;
use reqwest::Method;
use rustix::process::Signal;

use crate::lab::{Running, answers, bad, own_address, until};
use crate::portal::{Browser, Portal, greeting, ssh_port};

fn start(ip: Ipv4Addr, dir: &Path, more: &[&str]) -> Running {
    let listen = format!("{ip}:8080");
    let mut words = vec![
        "demo",
        "--listen",
        &listen,
        "--data-dir",
        dir.to_str().unwrap(),
    ];
    words.extend(more);
    let mut demo = Running::start("cac", &words, &[]);
    demo.until(|out| out.contains("Ctrl-C ends it.\n").then_some(()));
    demo
}

/// What is printed behind a word.
fn after<'a>(out: &'a str, word: &str) -> &'a str {
    let rest = out.split_once(word).unwrap().1;
    rest.split_whitespace().next().unwrap()
}

/// A puller that waits for a change.
fn pull(portal: &Portal) -> tokio::task::JoinHandle<()> {
    let portal = Portal::new(&*portal.url);
    tokio::spawn(async move {
        let etag = portal.get("/nginx.conf", "").await.headers()["etag"].clone();
        let request = portal.request(Method::GET, "/nginx.conf?wait=60");
        // It is cut off when the demo ends.
        let _ = request.header("if-none-match", etag).send().await;
    })
}

fn nginx_processes(dir: &Path) -> usize {
    let prefix = dir.canonicalize().unwrap().join("nginx");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == prefix))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_goes_on_where_it_was_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let ip = own_address();
    let mut demo = start(ip, dir.path(), &[]);
    let out = demo.out();
    let portal = Portal::new(after(&out, "Portal"));
    let certificate = PathBuf::from(after(&out, "--cacert"));
    let https = after(&out, "NAME.cac.localhost:")
        .trim_end_matches('/')
        .parse::<u16>()
        .unwrap();
    let name = "kept.cac.localhost".to_owned();
    let browser = Browser::new(
        std::slice::from_ref(&name),
        (ip, https).into(),
        &certificate,
    );
    let alice = portal.login("alice", "alice-demo").await.unwrap();
    let (id, job) = portal.create(&alice, "kept").await;
    let stream = portal.follow(&alice, job).await;
    assert!(
        stream.contains(&format!("Ready: https://{name}:{https}/")),
        "{stream}"
    );
    browser.until(&name, 200).await;
    let container = portal.container(&alice, id).await;
    assert!(
        greeting(ip.into(), ssh_port(&container))
            .await
            .unwrap()
            .starts_with("SSH-2.0-")
    );
    assert!(nginx_processes(dir.path()) > 0);

    // Ctrl-C while a puller waits, somebody is connected by ssh and a shell command runs.
    let held = TcpStream::connect((ip, ssh_port(&container))).unwrap();
    let puller = pull(&portal);
    let now = chrono::Utc::now();
    let database = Db::connect(&format!("sqlite:{}", dir.path().join("cac.db").display()))
        .await
        .unwrap();
    let sql = r#"INSERT INTO "Jobs" ("command", "status", "createdAt", "updatedAt") VALUES ('sleep 600', 'pending', ?, ?)"#;
    database.exec(sql, args![now, now]).await.unwrap();
    until("the command runs", async || {
        let sql = r#"SELECT "id" FROM "Jobs" WHERE "kind" IS NULL AND "status" = 'running'"#;
        database.opt(sql, args![]).await.unwrap().map(drop)
    })
    .await;
    database.close().await;
    let asked = Instant::now();
    demo.signal(Signal::INT);
    assert!(demo.ended().success(), "{}", demo.err());
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    puller.abort();
    drop(held);
    assert!(!answers((ip, 8080)) && !answers((ip, https)));
    assert_eq!(nginx_processes(dir.path()), 0);

    // The same data: the session, the container, its page, and the cluster that made it.
    let mut demo = start(ip, dir.path(), &[]);
    let before = container;
    let container = until("the container is seen again", async || {
        let container = portal.container(&alice, id).await;
        (container["status"] == "running").then_some(container)
    })
    .await;
    assert_eq!(container["ipv4Address"], before["ipv4Address"]);
    browser.until(&name, 200).await;
    let admin = portal.login("admin", "admin-demo").await.unwrap();
    assert_eq!(
        portal
            .delete(&format!("/containers/{id}"), &admin)
            .await
            .status(),
        200
    );
    browser.until(&name, 404).await;
    demo.signal(Signal::TERM);
    assert!(demo.ended().success(), "{}", demo.err());
}

/// They met at [::1], and the second could not be started again once both had a container.
#[tokio::test(flavor = "multi_thread")]
async fn two_demos_do_not_meet() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ips = [own_address(), own_address()];
    for _ in 0..2 {
        let demos = [
            start(ips[0], dirs[0].path(), &[]),
            start(ips[1], dirs[1].path(), &[]),
        ];
        for (demo, ip) in demos.iter().zip(ips) {
            let portal = Portal::new(format!("http://{ip}:8080"));
            let alice = portal.login("alice", "alice-demo").await.unwrap();
            let name = format!("c{}", rand::random::<u32>());
            let (id, job) = portal.create(&alice, &name).await;
            portal.follow(&alice, job).await;
            let port = ssh_port(&portal.container(&alice, id).await);
            until("ssh answers", async || {
                greeting(ip.into(), port).await.map(drop)
            })
            .await;
            assert!(!demo.err().contains("taken"), "{}", demo.err());
        }
        demos.into_iter().for_each(Running::stop);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_demo_leaves_no_nginx() {
    let dir = tempfile::tempdir().unwrap();
    let demo = start(own_address(), dir.path(), &[]);
    assert!(nginx_processes(dir.path()) > 0);
    demo.signal(Signal::KILL);
    until("nginx is gone", async || {
        (nginx_processes(dir.path()) == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nginx_the_addresses_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let ip = own_address();
    let mut demo = start(ip, dir.path(), &["--no-nginx"]);
    let portal = Portal::new(format!("http://{ip}:8080"));
    let alice = portal.login("alice", "alice-demo").await.unwrap();
    let (id, job) = portal.create(&alice, "plain").await;
    let stream = portal.follow(&alice, job).await;
    let address = portal.container(&alice, id).await["ipv4Address"]
        .as_str()
        .unwrap()
        .to_owned();
    let direct = format!("http://{address}:8080/");
    assert!(stream.contains(&format!("Ready: {direct}")), "{stream}");
    demo.until(|out| {
        out.contains(&format!("plain.cac.localhost: {direct}\n"))
            .then_some(())
    });
    let page = Portal::new(direct).get("/", "").await;
    assert!(page.text().await.unwrap().contains("<h1>plain</h1>"));
    demo.stop();
}

/// Where others can reach it, nobody can guess the passwords.
#[tokio::test(flavor = "multi_thread")]
async fn on_other_addresses_passwords_are_random() {
    let dir = tempfile::tempdir().unwrap();
    let words = [
        "demo",
        "--no-nginx",
        "--listen",
        "0.0.0.0:0",
        "--data-dir",
        dir.path().to_str().unwrap(),
    ];
    let mut demo = Running::start("cac", &words, &[]);
    let out = demo.until(|out| out.contains("Ctrl-C ends it.\n").then(|| out.to_owned()));
    let port = after(&out, "http://localhost:")
        .trim_end_matches('/')
        .to_owned();
    let portal = Portal::new(format!("http://127.0.0.1:{port}"));
    assert_eq!(portal.login("alice", "alice-demo").await, Err(401));
    assert_eq!(portal.login("admin", "admin-demo").await, Err(401));
    portal.login("alice", after(&out, "alice /")).await.unwrap();
    demo.stop();
}

#[test]
fn a_demo_that_cannot_start_says_why_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let ip = own_address();
    let taken = TcpListener::bind((ip, 0)).unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let said = bad(
        "cac",
        &["demo", "--listen", &listen, "--data-dir", path],
        &[],
        1,
    );
    let port = taken.local_addr().unwrap().port();
    assert_eq!(
        said,
        format!(
            "cac: Port {port} of {ip} is taken by another program: stop that one or choose another port with --listen ADDRESS:PORT.\n"
        )
    );
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("demo");
    let said = bad(
        "cac",
        &["demo", "--data-dir", below.to_str().unwrap()],
        &[],
        1,
    );
    assert!(
        said.starts_with("cac: The folder ")
            && said.contains("--data-dir")
            && said.lines().count() == 1,
        "{said}"
    );
    let demo = start(ip, dir.path(), &["--no-nginx"]);
    let said = bad(
        "cac",
        &[
            "demo",
            "--listen",
            &format!("{ip}:8081"),
            "--data-dir",
            path,
        ],
        &[],
        1,
    );
    assert!(
        said.starts_with("cac: Another demo runs in ") && said.lines().count() == 1,
        "{said}"
    );
    demo.stop();
    let said = bad("cac", &["demo", "--listen", "nowhere"], &[], 2);
    assert!(said.contains("--listen"), "{said}");
}
