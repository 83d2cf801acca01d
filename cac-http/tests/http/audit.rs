//! The audit log: every change, and every try.

use std::time::Duration;

use cac_core::args;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::lab::{Lab, expect};

async fn log(lab: &Lab, admin: &str, query: &str) -> Vec<Value> {
    let answer = lab.get(&format!("/audit?{query}"), admin).send().await;
    let rows = expect(answer.unwrap(), 200).await;
    rows.as_array().unwrap().clone()
}

fn told(row: &Value) -> (&str, &str, &str, &str, u64) {
    let text = |name: &str| row[name].as_str().unwrap_or("-");
    (
        text("username"),
        text("via"),
        text("action"),
        text("target"),
        row["status"].as_u64().unwrap(),
    )
}

#[tokio::test]
async fn every_change_is_kept_with_who_and_from_where() {
    let lab = Lab::new().await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let wrong = json!({"username": "alice", "password": "guess"});
    expect(
        lab.post("/login", "").json(&wrong).send().await.unwrap(),
        401,
    )
    .await;
    let strange = json!({"username": "my password: x", "password": "guess"});
    expect(
        lab.post("/login", "").json(&strange).send().await.unwrap(),
        400,
    )
    .await;
    let token = lab.token(&alice, &["containers:write"]).await;
    let (id, job) = lab.create(&token, "kept").await;
    assert_eq!(lab.ended(job).await, "success");
    let one = format!("/containers/{id}");
    // Reading is not kept, nor what nobody in particular tries.
    expect(lab.get(&one, &alice).send().await.unwrap(), 200).await;
    expect(
        lab.post(&format!("{one}/stop"), "").send().await.unwrap(),
        401,
    )
    .await;
    expect(
        lab.post("/nodes", &alice)
            .json(&json!({}))
            .send()
            .await
            .unwrap(),
        403,
    )
    .await;
    // A form that means another method.
    let form = lab.post(&one, &alice).form(&[("_method", "DELETE")]);
    assert_eq!(form.send().await.unwrap().status(), 200);

    let rows = log(&lab, &admin, "").await;
    let shown: Vec<_> = rows.iter().map(told).collect();
    assert_eq!(
        shown,
        [
            ("alice", "session", "login_create", "/login", 200),
            ("admin", "session", "login_create", "/login", 200),
            ("alice", "nothing", "login_create", "/login", 401),
            ("-", "nothing", "login_create", "/login", 400),
            ("alice", "session", "token_create", "/tokens/1", 201),
            ("alice", "token", "container_create", one.as_str(), 202),
            ("alice", "session", "node_create", "/nodes", 403),
            ("alice", "session", "container_delete", one.as_str(), 202),
        ]
    );
    assert!(
        rows[5]["tokenId"].is_i64() && rows[5]["address"] == "127.0.0.1",
        "{}",
        rows[5]
    );
    assert!(
        rows[5]["detail"]
            .as_str()
            .unwrap()
            .ends_with(&format!("/status/{job}")),
        "{}",
        rows[5]
    );
    assert_eq!(rows[6]["detail"], "Only admins may do this.");
    let all = serde_json::to_string(&rows).unwrap();
    assert!(
        !all.contains("guess") && !all.contains(&token[12..]) && !all.contains("my password"),
        "{all}"
    );

    // Filters; a part of a name is none.
    for (query, count) in [
        ("username=alice", 6),
        ("username=ali", 0),
        ("action=login_create", 4),
        ("target=/containers", 2),
        (&format!("target={one}"), 2),
        ("target=/containers/%25", 0),
        ("since=2001-01-01T00:00:00Z&until=2002-01-01T00:00:00Z", 0),
        ("since=2001-01-01T00:00:00Z", 8),
        ("limit=3&offset=6", 2),
    ] {
        assert_eq!(log(&lab, &admin, query).await.len(), count, "{query}");
    }
    let newest = log(&lab, &admin, "newest=true&limit=1").await;
    assert_eq!(newest[0]["action"], "container_delete");
    for path in ["/audit", "/audit.csv"] {
        expect(lab.get(path, &alice).send().await.unwrap(), 403).await;
    }
    // Nothing changes or removes an entry.
    for method in ["DELETE", "PUT", "POST"] {
        let tried = lab.ask(method.parse().unwrap(), "/audit", &admin).send();
        assert_eq!(tried.await.unwrap().status(), 405);
    }
}

#[tokio::test]
async fn an_export_is_whole_and_no_formula() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    let entry = cac_core::audit::NewEntry {
        username: Some("=cmd|' /C calc'!A0".to_owned()),
        via: cac_core::audit::Via::Local,
        token: None,
        address: None,
        action: "node_create".to_owned(),
        target: "/nodes/1".to_owned(),
        status: 200,
        detail: Some("two\nlines, \"quoted\"".to_owned()),
        request: None,
    };
    for _ in 0..2500 {
        cac_core::audit::record(&lab.core, &entry).await;
    }
    let answer = lab
        .get("/audit.csv?action=node_create", &admin)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "text/csv");
    let text = answer.text().await.unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.headers().unwrap().len(), 12);
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), 2500);
    assert_eq!(&rows[0][2], "'=cmd|' /C calc'!A0");
    assert_eq!(&rows[2499][9], "two\nlines, \"quoted\"");
    let ids: std::collections::BTreeSet<&str> = rows.iter().map(|row| &row[0]).collect();
    assert_eq!(ids.len(), 2500);
}

/// At 15a011d such a change was made, and nothing but a line in the program's log told of it.
#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    lab.core
        .db
        .exec(r#"DROP TABLE "AuditEntries""#, args![])
        .await
        .unwrap();
    let body = json!({"name": "unseen", "scopes": ["jobs"]});
    let answer = lab.post("/tokens", &alice).json(&body).send().await;
    expect(answer.unwrap(), 503).await;
    let sql = r#"SELECT "id" FROM "Tokens""#;
    assert!(lab.core.db.all(sql, args![]).await.unwrap().is_empty());
}

/// Sends a request and resets the connection after a while, as a client does that is killed or does not want to be seen.
async fn ask_and_reset(lab: &Lab, path: &str, session: &str, after: Duration) {
    let address = lab.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {session}\r\nAccept: application/json\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(after).await;
    // With a linger of zero, closing sends RST instead of FIN.
    stream.set_zero_linger().unwrap();
}

/// At 15a011d the entry was written after the handler, in the connection's own future: a reset dropped it, and the change went on.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_reset_at_any_moment_leaves_every_change_with_its_entry() {
    const RESETS: usize = 500;
    const LANES: usize = 10;
    let limits = [("RATE_LIMIT_USER", "100000")];
    let delay = cac_simulator::Delay {
        shutdown: Duration::from_millis(300),
        start: Duration::from_millis(300),
        ..cac_simulator::Delay::none()
    };
    let lab = Lab::slow(&limits, delay).await;
    let admin = lab.login("admin").await;
    let mut containers = Vec::new();
    for lane in 0..LANES {
        let (id, job) = lab.create(&admin, &format!("lane{lane}")).await;
        containers.push((id, job));
    }
    for (_, job) in &containers {
        assert_eq!(lab.ended(*job).await, "success");
    }
    let lanes = containers.iter().zip(0..).map(|(&(id, _), lane)| {
        let (lab, admin) = (&lab, &admin);
        async move {
            for turn in (lane..RESETS).step_by(LANES) {
                let what = if (turn / LANES).is_multiple_of(2) {
                    "stop"
                } else {
                    "start"
                };
                let path = format!("/containers/{id}/{what}");
                ask_and_reset(lab, &path, admin, Duration::from_millis(turn as u64)).await;
                lab.settled(id).await;
            }
        }
    });
    futures_util::future::join_all(lanes).await;

    // The last requests go on without their connections.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for (id, _) in &containers {
        lab.settled(*id).await;
    }
    let sql = r#"SELECT "id" FROM "Jobs" WHERE "kind" = 'container_change' ORDER BY "id""#;
    let jobs = lab.core.db.all(sql, args![]).await.unwrap();
    let jobs: Vec<i64> = jobs.iter().map(|row| row.get("id").unwrap()).collect();
    let rows = log(&lab, &admin, "limit=1000").await;
    let entries = rows.iter().filter(|row| row["status"] == 202);
    let details: Vec<&str> = entries.filter_map(|row| row["detail"].as_str()).collect();
    for job in &jobs {
        let place = format!("/status/{job}");
        let found = details.iter().filter(|detail| **detail == place).count();
        assert_eq!(found, 1, "job {job} of {} has {found} entries", jobs.len());
    }
    assert_eq!(
        details.len(),
        jobs.len() + LANES,
        "an entry without its change"
    );
    // Most resets come after the request was read; the very first ones may cut it off.
    assert!(jobs.len() > RESETS / 2, "{}", jobs.len());
}

/// A change that changed nothing was written down, and a session that a sign-in ended was not.
#[tokio::test]
async fn an_entry_is_about_something_that_changed() {
    let lab = Lab::new().await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let (id, job) = lab.create(&alice, "calm").await;
    assert_eq!(lab.ended(job).await, "success");
    let path = format!("/containers/{id}");
    let target = format!("target={path}&limit=100");
    let before = log(&lab, &admin, &target).await.len();
    for body in [json!({}), json!({"protected": false})] {
        let changed = lab.ask(Method::PUT, &path, &alice).json(&body).send().await;
        expect(changed.unwrap(), 200).await;
    }
    let kept = lab.post(&format!("{path}/keep"), &alice).send().await;
    expect(kept.unwrap(), 200).await;
    assert_eq!(log(&lab, &admin, &target).await.len(), before);
    let again = json!({"username": "alice", "password": "alice-demo"});
    let again = lab.post("/login", &alice).json(&again).send().await;
    expect(again.unwrap(), 200).await;
    let ended = log(&lab, &admin, "action=session_delete").await;
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(ended[0]["username"], "alice");
}
