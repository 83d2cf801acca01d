//! Many connections, streams and questions of one client: others go on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cac_core::args;
use cac_core::testing::until;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::jobs::shell;
use crate::lab::{Lab, PATIENCE, expect};

/// Loopback is a trusted proxy by default, and those are not counted.
const COUNTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.9/32");

/// A connection from another address of this machine, after these bytes were sent on it.
async fn open(lab: &Lab, sent: &str) -> TcpStream {
    let address: SocketAddr = lab.url.trim_start_matches("http://").parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut client = socket.connect(address).await.unwrap();
    // A connection that is refused may be closed already.
    let _ = client.write_all(sent.as_bytes()).await;
    client
}

/// Whether the other side closes within this time; what it sends before is left out.
async fn closes(client: &mut TcpStream, patience: Duration) -> bool {
    let mut bytes = [0; 4096];
    let read = async { while matches!(client.read(&mut bytes).await, Ok(1..)) {} };
    tokio::time::timeout(patience, read).await.is_ok()
}

/// H5 of the attack: 300 connections with half a head, and nobody else was served; 200 of 200 were open after 93 s.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_are_few_and_closed_and_others_go_on() {
    let lab = Lab::idle(&[COUNTED]).await;
    let alice = lab.login("alice").await;
    let job = shell(&lab, Some("alice"), "true").await;
    let mut stream = lab
        .get(&format!("/jobs/{job}/stream"), &alice)
        .send()
        .await
        .unwrap();
    stream.chunk().await.unwrap().expect("an event");
    let began = Instant::now();
    let mut half = Vec::new();
    for _ in 0..300 {
        half.push(open(&lab, "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-").await);
    }
    let asked = Instant::now();
    expect(lab.get("/healthz", "").send().await.unwrap(), 200).await;
    expect(lab.get("/containers", &alice).send().await.unwrap(), 200).await;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    let mut refused = 0;
    for client in half.iter_mut().rev().take(60) {
        refused += usize::from(closes(client, Duration::from_millis(20)).await);
    }
    assert_eq!(refused, 300 - 256);
    for client in &mut half {
        assert!(closes(client, PATIENCE).await);
    }
    let seconds = began.elapsed().as_secs();
    assert!((9..30).contains(&seconds), "{seconds} s");
    // What is at work is not idle: its heartbeat comes.
    let beat = tokio::time::timeout(PATIENCE, stream.chunk()).await;
    assert!(beat.expect("a heartbeat").unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_request_are_closed() {
    let lab = Lab::idle(&[COUNTED]).await;
    let mut all = Vec::new();
    for sent in [
        "",
        "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        all.push((sent, open(&lab, sent).await));
    }
    for (sent, client) in &mut all {
        assert!(closes(client, PATIENCE).await, "{sent:?}");
    }
}

/// H5 of the attack: 3,400 streams of one user, all answered.
#[tokio::test]
async fn one_user_follows_only_so_many_jobs_at_once() {
    let lab = Lab::idle(&[("STREAMS_PER_USER", "3")]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let token = lab.token(&alice, &["jobs"]).await;
    let job = shell(&lab, Some("alice"), "true").await;
    let bobs = shell(&lab, Some("bob"), "true").await;
    let path = format!("/jobs/{job}/stream");
    let mut streams = Vec::new();
    for who in [&alice, &token, &alice] {
        let stream = lab.get(&path, who).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    for path in [&path, &format!("/api/stream/{job}")] {
        for who in [&alice, &token] {
            let refused = lab.get(path, who).send().await.unwrap();
            assert!(refused.headers().contains_key("retry-after"));
            let problem = expect(refused, 429).await;
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains("follow 3 jobs") && detail.contains("Close a page"),
                "{detail}"
            );
        }
    }
    let other = lab
        .get(&format!("/jobs/{bobs}/stream"), &bob)
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 200);
    streams.pop();
    until("a stream that ended makes room", async || {
        lab.get(&path, &alice).send().await.unwrap().status() == 200
    })
    .await;
}

/// Streams are not counted as requests, since they come again by themselves; begun without end they were a flood that nothing bounded.
#[tokio::test]
async fn streams_cannot_be_begun_without_end() {
    let lab = Lab::idle(&[("RATE_LIMIT_USER", "6")]).await;
    let alice = lab.login("alice").await;
    expect(lab.get("/containers", &alice).send().await.unwrap(), 200).await;
    let mut last = 0;
    for _ in 0..10 {
        let answer = lab.get("/jobs/77/stream", &alice).send().await.unwrap();
        last = answer.status().as_u16();
    }
    assert_eq!(last, 429);
    // Pages still have their own.
    expect(lab.get("/containers", &alice).send().await.unwrap(), 200).await;
}

#[tokio::test]
async fn one_proxy_has_only_so_many_answers_held_back() {
    let lab = Lab::idle(&[("WAITS_PER_PROXY", "2"), ("NGINX_CONF_ALLOW", "127.0.0.9")]).await;
    let admin = lab.login("admin").await;
    let one = lab.token(&admin, &["nginx:read"]).await;
    let two = lab.token(&admin, &["nginx:read"]).await;
    let first = lab.get("/nginx.conf", &one).send().await.unwrap();
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let ask = |token: &str, wait: u64| {
        let request = lab.get(&format!("/nginx.conf?wait={wait}"), token);
        request.header("if-none-match", &tag).send()
    };
    // Three at once, and beside them one that does not wait, and one of another proxy.
    let asked = join_all([
        ask(&one, 2),
        ask(&one, 2),
        ask(&one, 2),
        ask(&one, 0),
        ask(&two, 2),
    ]);
    let mut answers: Vec<_> = asked.await.into_iter().map(Result::unwrap).collect();
    for answer in answers.drain(3..) {
        assert_eq!(answer.status(), 304);
    }
    answers.sort_by_key(reqwest::Response::status);
    let refused = answers.pop().unwrap();
    assert!(
        answers.iter().all(|answer| answer.status() == 304),
        "{answers:?}"
    );
    let problem = expect(refused, 429).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("2 requests that wait") && detail.contains("without `wait`"),
        "{detail}"
    );
    // Those are over.
    assert_eq!(ask(&one, 1).await.unwrap().status(), 304);
}

/// M9 of the attack: each `/readyz` read and decrypted the secret of every node.
#[tokio::test]
async fn readiness_reads_nothing() {
    let lab = Lab::idle(&[]).await;
    let away = r#"ALTER TABLE "Nodes" RENAME TO "Away""#;
    lab.core.db.exec(away, args![]).await.unwrap();
    for _ in 0..20 {
        expect(lab.get("/readyz", "").send().await.unwrap(), 200).await;
    }
}

/// M9 of the attack: each `/unavailable` asked the database, and Proxmox VE every two seconds, and told the port within the container.
#[tokio::test]
async fn why_a_container_is_away_is_asked_seldom_and_tells_no_port() {
    let lab = Lab::with(&[]).await;
    let alice = lab.login("alice").await;
    let (_, job) = lab.create(&alice, "web").await;
    assert_eq!(lab.ended(job).await, "success");
    let ask = |name: &str| lab.get(&format!("/unavailable?name={name}"), "").send();
    until("it is published", async || {
        ask("web.cac.localhost").await.unwrap().status() == 503
    })
    .await;
    // Whoever asked the database now would get a 500.
    let away = r#"ALTER TABLE "Services" RENAME TO "Away""#;
    let asked = Instant::now();
    assert_eq!(ask("web.cac.localhost").await.unwrap().status(), 503);
    lab.core.db.exec(away, args![]).await.unwrap();
    let mut answers = Vec::new();
    while asked.elapsed() < Duration::from_millis(1500) {
        assert_eq!(ask("none.cac.localhost").await.unwrap().status(), 404);
        answers.push(ask("web.cac.localhost").await.unwrap());
    }
    for answer in answers {
        assert_eq!(answer.status(), 503);
        let page = answer.text().await.unwrap();
        assert!(!page.contains("8080"), "{page}");
    }
}
