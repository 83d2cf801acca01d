//! API tokens and sessions.

use chrono::{Duration, Utc};
use serde_json::{Value, json};

use cac_core::{args, user};

use crate::lab::{Lab, PATIENCE, expect};

async fn status(lab: &Lab, method: &str, path: &str, who: &str) -> u16 {
    let request = lab.ask(method.parse().unwrap(), path, who).json(&json!({}));
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_token_may_what_its_scopes_say_and_never_more_than_its_owner() {
    let lab = Lab::new().await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let (id, job) = lab.create(&alice, "mine").await;
    assert_eq!(lab.ended(job).await, "success");
    let (one, stop, job) = (
        format!("/containers/{id}"),
        format!("/containers/{id}/stop"),
        format!("/jobs/{job}"),
    );
    let read = lab.token(&alice, &["containers:read"]).await;
    let write = lab.token(&alice, &["containers:write"]).await;
    let jobs = lab.token(&alice, &["jobs"]).await;
    let all = lab.token(&alice, &["admin"]).await;
    let theirs = lab.token(&admin, &["containers:read", "jobs"]).await;
    let everything = lab.token(&admin, &["admin"]).await;
    for (who, method, path, expected) in [
        (&read, "GET", "/containers", 200),
        (&read, "GET", one.as_str(), 200),
        (&read, "GET", "/templates", 200),
        (&read, "GET", "/quota", 200),
        (&read, "POST", stop.as_str(), 403),
        (&read, "POST", "/containers?init=true", 403),
        (&read, "GET", job.as_str(), 403),
        (&read, "GET", "/tokens", 403),
        (&write, "GET", one.as_str(), 200),
        (&write, "POST", "/containers?init=true", 400),
        (&write, "POST", "/containers", 403),
        (&write, "POST", stop.as_str(), 200),
        (&jobs, "GET", job.as_str(), 200),
        (&jobs, "GET", one.as_str(), 403),
        // What an ordinary user may not do, no scope gives.
        (&jobs, "POST", "/jobs", 403),
        (&all, "GET", "/tokens", 200),
        (&all, "GET", "/nodes", 403),
        (&all, "GET", "/containers?all=true", 403),
        (&all, "GET", "/nginx.conf", 403),
        // An admin's token is an admin only with the scope for that.
        (&theirs, "GET", one.as_str(), 404),
        (&theirs, "GET", "/containers?all=true", 403),
        (&theirs, "POST", "/jobs", 403),
        (&everything, "GET", one.as_str(), 200),
        (&everything, "GET", "/containers?all=true", 200),
        (&everything, "GET", "/nodes", 200),
        (&everything, "POST", "/jobs", 400),
    ] {
        assert_eq!(
            status(&lab, method, path, who).await,
            expected,
            "{method} {path}"
        );
    }
    // A token gives no scope that it has not itself, and only admins' have those of the proxy.
    let more = json!({"name": "more", "scopes": ["nginx:read"]});
    let refused = lab.post("/tokens", &all).json(&more).send().await.unwrap();
    let refused = expect(refused, 400).await;
    assert!(refused["errors"]["scopes"].is_string(), "{refused}");
    let proxy = lab.token(&admin, &["nginx:read"]).await;
    assert_eq!(status(&lab, "GET", "/nginx.conf", &proxy).await, 200);
    assert_eq!(status(&lab, "GET", "/containers", &proxy).await, 403);
}

#[tokio::test]
async fn a_token_is_shown_once_and_ends_in_every_way() {
    let lab = Lab::idle(&[]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let soon = Utc::now() + Duration::seconds(3600);
    let body = json!({"name": "ci", "scopes": ["containers:read", "jobs"], "expires": soon});
    let made = expect(
        lab.post("/tokens", &alice)
            .json(&body)
            .send()
            .await
            .unwrap(),
        201,
    )
    .await;
    let (id, text) = (
        made["id"].as_i64().unwrap(),
        made["token"].as_str().unwrap(),
    );
    assert!(text.starts_with("cac_") && text.len() == 68, "{text}");
    assert_eq!(made["beginning"], text[..12]);
    let list = expect(lab.get("/tokens", &alice).send().await.unwrap(), 200).await;
    assert!(!list.to_string().contains(&text[12..]), "{list}");
    assert_eq!(list[0]["scopes"], json!(["containers:read", "jobs"]));
    assert!(list[0].get("lastUsedAt").is_none(), "{list}");
    assert_eq!(status(&lab, "GET", "/containers", text).await, 200);
    let list = expect(lab.get("/tokens", &alice).send().await.unwrap(), 200).await;
    assert!(list[0]["lastUsedAt"].is_string(), "{list}");
    let rows = lab
        .core
        .db
        .all(r#"SELECT * FROM "Tokens""#, args![])
        .await
        .unwrap();
    let stored: String = rows[0].get("hash").unwrap();
    assert!(!text.contains(&stored) && stored.len() == 64);
    // Nobody else's business.
    assert_eq!(
        status(&lab, "DELETE", &format!("/tokens/{id}"), &bob).await,
        404
    );
    let set = async |sql: &str, value: Value| {
        let sql = match (sql, value) {
            ("expired", _) => r#"UPDATE "Tokens" SET "expires" = '2001-01-01 00:00:00'"#,
            ("expires never", _) => r#"UPDATE "Tokens" SET "expires" = NULL"#,
            _ => r#"UPDATE "Tokens" SET "adminCheckedAt" = '2001-01-01 00:00:00'"#,
        };
        lab.core.db.exec(sql, args![]).await.unwrap();
    };
    set("expired", Value::Null).await;
    let refused = lab.get("/containers", text).send().await.unwrap();
    assert!(
        refused
            .headers()
            .get_all("www-authenticate")
            .iter()
            .any(|v| v.to_str().unwrap().starts_with("Bearer"))
    );
    let refused = expect(refused, 401).await;
    assert!(
        refused["detail"].as_str().unwrap().contains("POST /tokens"),
        "{refused}"
    );
    set("expires never", Value::Null).await;
    assert_eq!(status(&lab, "GET", "/containers", text).await, 200);
    // A wrong token is refused also where nobody has to be anybody, and a good session beside it does not count.
    let both = lab.get("/containers", &alice).bearer_auth("cac_0000");
    expect(both.send().await.unwrap(), 401).await;
    // Its owner is disabled, and comes back.
    let enable = async |enabled: bool| {
        lab.simulator.set_enabled("alice@pve", enabled);
        set("stale", Value::Null).await;
        user::look_up(&lab.core).await.unwrap();
    };
    enable(false).await;
    assert_eq!(status(&lab, "GET", "/containers", text).await, 401);
    enable(true).await;
    assert_eq!(status(&lab, "GET", "/containers", text).await, 200);
    // The owner has to sign in anew for it.
    let alice = lab.login("alice").await;
    assert_eq!(
        status(&lab, "DELETE", &format!("/tokens/{id}"), &alice).await,
        204
    );
    assert_eq!(status(&lab, "GET", "/containers", text).await, 401);
}

#[tokio::test]
async fn bad_wishes_are_told_by_field() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let past = Utc::now() - Duration::seconds(1);
    let wish = json!({"name": " ", "scopes": ["everything"], "expires": past});
    let refused = lab
        .post("/tokens", &alice)
        .json(&wish)
        .send()
        .await
        .unwrap();
    let refused = expect(refused, 400).await;
    for field in ["name", "scopes", "expires"] {
        assert!(refused["errors"][field].is_string(), "{refused}");
    }
    let none = lab
        .post("/tokens", &alice)
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    let none = expect(none, 400).await;
    assert!(
        none["errors"]["scopes"]
            .as_str()
            .unwrap()
            .contains("containers:read"),
        "{none}"
    );
}

#[tokio::test]
async fn an_admins_token_registers_for_anybody() {
    let lab = Lab::idle(&[("REGISTRATION_ALLOW", "198.51.100.0/24")]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let (mine, theirs) = (
        lab.token(&alice, &["containers:write"]).await,
        lab.token(&admin, &["containers:register"]).await,
    );
    lab.foreign("pve1", 503, "made3", "BC:24:11:00:00:03").await;
    let wish = |number: u8, owner: &str| {
        json!({"hostname": format!("made{number}"), "ipv4Address": format!("127.9.9.{number}"), "username": owner,
               "osRelease": "debian", "containerId": 500 + u32::from(number), "httpPort": 8080, "aiContainer": "N",
               "macAddress": format!("BC:24:11:00:00:0{number}"), "node": "pve1"})
    };
    for (who, body, expected) in [
        (&mine, wish(1, "alice"), 403),
        (&mine, wish(2, "bob"), 403),
        (&theirs, wish(3, "bob"), 200),
    ] {
        let answer = lab
            .post("/containers", who)
            .json(&body)
            .send()
            .await
            .unwrap();
        let answer = expect(answer, expected).await;
        assert_eq!(answer["success"] == true, expected == 200, "{answer}");
    }
    // A session of somebody ordinary registers nothing, as before.
    let refused = lab.post("/containers", &alice).json(&wish(4, "alice"));
    expect(refused.send().await.unwrap(), 403).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let (_, job) = lab.create(&alice, "waits").await;
    let token = lab.token(&alice, &["jobs"]).await;
    let mut stream = lab
        .get(&format!("/jobs/{job}/stream"), &token)
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);
    assert!(stream.chunk().await.unwrap().is_some());
    lab.core
        .db
        .exec(r#"DELETE FROM "Tokens""#, args![])
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, stream.text())
        .await
        .expect("the stream goes on")
        .unwrap();
}

/// A token has a budget of its own, beside its owner's.
#[tokio::test]
async fn requests_of_a_token_are_counted_for_it_alone() {
    let lab = Lab::idle(&[("RATE_LIMIT", "30"), ("RATE_LIMIT_USER", "5")]).await;
    let alice = lab.login("alice").await;
    let token = lab.token(&alice, &["containers:read"]).await;
    // The first one, before the token is known, counts for the address.
    for _ in 0..6 {
        assert_eq!(status(&lab, "GET", "/quota", &token).await, 200);
    }
    let limited = lab.get("/quota", &token).send().await.unwrap();
    assert_eq!(limited.status(), 429);
    assert_eq!(limited.headers()["ratelimit-limit"], "5");
    assert_eq!(status(&lab, "GET", "/quota", &alice).await, 200);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_one_by_one_or_all() {
    let lab = Lab::idle(&[]).await;
    let (first, second, bob) = (
        lab.login("alice").await,
        lab.login("alice").await,
        lab.login("bob").await,
    );
    let list = expect(lab.get("/sessions", &first).send().await.unwrap(), 200).await;
    let rows = list.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(!list.to_string().contains(&first[4..]), "{list}");
    let other = rows.iter().find(|row| row["current"] == false).unwrap();
    let path = format!("/sessions/{}", other["id"].as_str().unwrap());
    assert_eq!(status(&lab, "DELETE", &path, &bob).await, 404);
    assert_eq!(status(&lab, "DELETE", "/sessions/%25", &first).await, 404);
    assert_eq!(status(&lab, "DELETE", &path, &first).await, 204);
    assert_eq!(status(&lab, "GET", "/containers", &second).await, 401);
    let third = lab.login("alice").await;
    let ended = lab.delete("/sessions", &first).send().await.unwrap();
    assert_eq!(ended.status(), 204);
    assert!(
        ended.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    for (session, expected) in [(&first, 401), (&third, 401), (&bob, 200)] {
        assert_eq!(status(&lab, "GET", "/containers", session).await, expected);
    }
}

/// Read as a form reads it, an empty time was none, and the token never ended.
#[tokio::test]
async fn an_empty_time_in_json_is_no_token_without_an_end() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    for empty in ["", "  "] {
        let body = json!({"name": "ci", "scopes": ["jobs"], "expires": empty});
        let answer = lab.post("/tokens", &alice).json(&body).send().await;
        let refused = expect(answer.unwrap(), 400).await;
        assert!(refused["errors"]["expires"].is_string(), "{refused}");
    }
    // A browser sends every field of its form.
    let form = [("name", "ci"), ("scopes", "jobs"), ("expires", "")];
    let made = lab.post("/tokens", &alice).form(&form).send().await;
    expect(made.unwrap(), 201).await;
}

/// `cac logout` could not delete a token that was only for jobs.
#[tokio::test]
async fn a_token_may_end_itself_and_no_other() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let (own, other) = (
        lab.token(&alice, &["jobs"]).await,
        lab.token(&alice, &["jobs"]).await,
    );
    let list = expect(lab.get("/tokens", &alice).send().await.unwrap(), 200).await;
    let id = |text: &str| {
        let all = list.as_array().unwrap().iter();
        let mut mine = all.filter(|row| text.starts_with(row["beginning"].as_str().unwrap()));
        mine.next().unwrap()["id"].clone()
    };
    let delete = async |id: &Value| {
        let path = format!("/tokens/{id}");
        lab.delete(&path, &own)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(delete(&id(&other)).await, 403);
    assert_eq!(delete(&id(&own)).await, 204);
    assert_eq!(delete(&id(&own)).await, 401);
}

/// A token ended without a word, and with it everything that lived by it.
#[tokio::test]
async fn a_token_says_when_it_ends_and_so_does_the_proxy_that_lives_by_it() {
    let lab = Lab::idle(&[("TOKEN_MAX_DAYS", "100")]).await;
    let admin = lab.login("admin").await;
    let create = async |body: Value, status: u16| {
        let answer = lab.post("/tokens", &admin).json(&body).send().await;
        expect(answer.unwrap(), status).await
    };
    let now = Utc::now();
    let body = json!({"name": "web1", "scopes": ["nginx:read", "nginx:report"]});
    let made = create(body.clone(), 201).await;
    let ends = |row: &Value| {
        let text = row.as_str().unwrap();
        (chrono::DateTime::parse_from_rfc3339(text).unwrap().to_utc() - now).num_days()
    };
    assert!((99..=100).contains(&ends(&made["expires"])), "{made}");
    assert_eq!(made["expiresSoon"], false, "{made}");
    let mut long = body;
    long["expires"] = json!(now + Duration::days(101));
    let refused = create(long, 400).await;
    assert!(
        refused["errors"]["expires"]
            .as_str()
            .unwrap()
            .contains("at most 100 days"),
        "{refused}"
    );
    let text = made["token"].as_str().unwrap();
    let report = json!({"revision": "\"r\""});
    let kept = lab
        .post("/proxies/web1/revision", text)
        .json(&report)
        .send();
    let kept = expect(kept.await.unwrap(), 200).await;
    assert!((99..=100).contains(&ends(&kept["tokenExpires"])), "{kept}");
    let list = expect(lab.get("/proxies", &admin).send().await.unwrap(), 200).await;
    assert_eq!(list[0]["tokenExpires"], kept["tokenExpires"], "{list}");
}
