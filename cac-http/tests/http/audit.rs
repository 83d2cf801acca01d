//! The audit log: every change, and every try.

use cac_core::args;
use serde_json::{Value, json};

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
            ("alice", "session", "token_create", "/tokens", 201),
            ("alice", "token", "container_create", "/containers", 202),
            ("alice", "session", "node_create", "/nodes", 403),
            ("alice", "session", "container_delete", one.as_str(), 200),
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
        (&format!("target={one}"), 1),
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
    assert_eq!(reader.headers().unwrap().len(), 11);
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), 2500);
    assert_eq!(&rows[0][2], "'=cmd|' /C calc'!A0");
    assert_eq!(&rows[2499][9], "two\nlines, \"quoted\"");
    let ids: std::collections::BTreeSet<&str> = rows.iter().map(|row| &row[0]).collect();
    assert_eq!(ids.len(), 2500);
}

/// What cannot be stored does not undo what was done.
#[tokio::test]
async fn a_log_that_is_away_fails_nobody() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    lab.core
        .db
        .exec(r#"DROP TABLE "AuditEntries""#, args![])
        .await
        .unwrap();
    let token = lab.token(&alice, &["jobs"]).await;
    assert!(token.starts_with("cac_"));
}
