//! Who may do what, tried on every operation of the specification. An operation that nobody has put into one of the lists here must refuse.

use cac_core::{args, user};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::lab::{Lab, expect};
use crate::spec::operations;

/// Of these nobody has to be signed in.
const OPEN: [&str; 14] = [
    "home_find",
    "login_page",
    "login_create",
    "login_delete",
    "health_find",
    "readiness_find",
    "account_request_page",
    "account_request_create",
    "account_page",
    "account_create",
    "account_confirm_page",
    "account_request_confirm",
    "mail_test",
    "unavailable_find",
];

/// Everyone who is signed in may do these: they are about one's own things, or about nobody's.
const OWN: [&str; 12] = [
    "container_create",
    "container_list",
    "container_page",
    "job_create",
    "job_list",
    "quota_own",
    "session_delete_all",
    "session_list",
    "session_reauthenticate",
    "template_list",
    "token_create",
    "token_list",
];

/// Things of alice's, as an operation's path names them.
struct Things {
    container: i64,
    service: i64,
    job: i64,
    token: i64,
    session: String,
}

impl Things {
    /// They are made by requests, as alice would.
    async fn make(lab: &Lab, alice: &str) -> Self {
        let (container, job) = lab.create(alice, "hers").await;
        let found = lab.get(&format!("/containers/{container}"), alice);
        let found = expect(found.send().await.unwrap(), 200).await;
        lab.token(alice, &["containers:read"]).await;
        let list = async |path: &str| expect(lab.get(path, alice).send().await.unwrap(), 200).await;
        Self {
            container,
            service: found["services"][0]["id"].as_i64().unwrap(),
            job,
            token: list("/tokens").await[0]["id"].as_i64().unwrap(),
            session: list("/sessions").await[0]["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        }
    }

    fn path(&self, pattern: &str) -> String {
        let id = match pattern.split('/').nth(1).unwrap() {
            "containers" => self.container.to_string(),
            "jobs" => self.job.to_string(),
            "tokens" => self.token.to_string(),
            "sessions" => self.session.clone(),
            _ => "1".to_owned(),
        };
        pattern
            .replace("{id}", &id)
            .replace("{sid}", &self.service.to_string())
            .replace("{jobId}", &self.job.to_string())
            .replace("{username}", "alice")
            .replace("{name}", "first")
    }
}

/// Sends an operation, with the specification's example as its body.
async fn send(
    lab: &Lab,
    (method, _, operation): &(Method, String, &Value),
    path: &str,
    credential: &str,
) -> Response {
    let request = lab.ask(method.clone(), path, credential);
    let media = &operation["requestBody"]["content"]["application/json"];
    let request = match &media["example"] {
        Value::Null => request,
        example => request.json(example),
    };
    request.send().await.unwrap()
}

/// Nobody, a session that was never one, one that was ended, a token that expired, one that was deleted, and both of a user
/// who was disabled in Proxmox VE.
#[tokio::test]
async fn nobody_does_anything_without_a_good_session_or_token() {
    let lab = Lab::idle(&[
        ("NGINX_CONF_ALLOW", "198.51.100.0/24"),
        ("REGISTRATION_ALLOW", "198.51.100.0/24"),
        ("METRICS_ALLOW", "198.51.100.0/24"),
    ])
    .await;
    let ended = lab.login("alice").await;
    expect(lab.post("/logout", &ended).send().await.unwrap(), 200).await;
    let admin = lab.login("admin").await;
    let everything = ["admin"];
    let (expired, deleted) = (
        lab.token(&admin, &everything).await,
        lab.token(&admin, &everything).await,
    );
    let sql = r#"UPDATE "Tokens" SET "expires" = '2001-01-01 00:00:00' WHERE "beginning" = ?"#;
    lab.core.db.exec(sql, args![&expired[..12]]).await.unwrap();
    let sql = r#"DELETE FROM "Tokens" WHERE "beginning" = ?"#;
    lab.core.db.exec(sql, args![&deleted[..12]]).await.unwrap();
    let disabled = (lab.login("bob").await, String::new());
    let disabled = (lab.token(&disabled.0, &everything).await, disabled.0);
    lab.simulator.set_enabled("bob@pve", false);
    let sql = r#"UPDATE "Tokens" SET "adminCheckedAt" = '2001-01-01 00:00:00'"#;
    lab.core.db.exec(sql, args![]).await.unwrap();
    let sql = r#"UPDATE "Sessions" SET "adminCheckedAt" = '2001-01-01 00:00:00'"#;
    lab.core.db.exec(sql, args![]).await.unwrap();
    user::look_up(&lab.core).await.unwrap();
    let spec: Value = serde_json::from_str(&cac_http::spec()).unwrap();
    let mut tried = 0;
    for one in operations(&spec) {
        let id = one.2["operationId"].as_str().unwrap();
        if OPEN.contains(&id) {
            continue;
        }
        assert!(
            one.2["security"].is_array(),
            "{id} says nothing about rights"
        );
        let path = one
            .1
            .replace("{id}", "1")
            .replace("{jobId}", "1")
            .replace("{sid}", "1");
        for credential in [
            "",
            "cac=",
            "cac=0000",
            "__Host-cac=1",
            &ended,
            &expired,
            &deleted,
            &disabled.0,
            &disabled.1,
        ] {
            let answer = send(&lab, &one, &path, credential).await;
            assert_eq!(
                answer.status(),
                StatusCode::UNAUTHORIZED,
                "{id} with {credential}"
            );
            expect(answer, 401).await;
        }
        tried += 1;
    }
    assert!(tried >= 50, "only {tried} operations");
}

/// What is alice's, bob neither sees nor changes, and what is an admin's nobody else does; each with a body that would work.
#[tokio::test]
async fn another_user_gets_nothing_that_is_not_theirs() {
    let lab = Lab::idle(&[
        ("NGINX_CONF_ALLOW", "198.51.100.0/24"),
        ("METRICS_ALLOW", "198.51.100.0/24"),
    ])
    .await;
    let alice = lab.login("alice").await;
    let things = Things::make(&lab, &alice).await;
    let bob = lab.login("bob").await;
    let token = lab.token(&bob, &["admin"]).await;
    let seen = async || {
        let mut all = Vec::new();
        for path in ["/containers", "/jobs", "/tokens", "/sessions", "/quota"] {
            all.push(
                lab.get(path, &alice)
                    .send()
                    .await
                    .unwrap()
                    .text()
                    .await
                    .unwrap(),
            );
        }
        all
    };
    let before = seen().await;
    let spec: Value = serde_json::from_str(&cac_http::spec()).unwrap();
    let mut tried = 0;
    for one in operations(&spec) {
        let id = one.2["operationId"].as_str().unwrap();
        if OPEN.contains(&id) || OWN.contains(&id) {
            continue;
        }
        for credential in [&bob, &token] {
            let answer = send(&lab, &one, &things.path(&one.1), credential).await;
            let status = answer.status().as_u16();
            assert!(
                matches!(status, 403 | 404),
                "{id}: {status} {}",
                answer.text().await.unwrap()
            );
        }
        tried += 1;
    }
    assert!(tried >= 38, "only {tried} operations");
    // Lists of one's own hold nothing of alice's, and nobody's list is had by asking for it.
    for path in ["/containers", "/jobs", "/tokens", "/sessions", "/quota"] {
        let text = lab
            .get(path, &bob)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(
            !text.contains("hers") && !text.contains("alice"),
            "{path}: {text}"
        );
    }
    for path in [
        "/containers?all=true",
        "/containers?user=alice",
        "/jobs?user=alice",
        "/tokens?all=true",
    ] {
        expect(lab.get(path, &bob).send().await.unwrap(), 403).await;
    }
    // A shell command and a registration are an admin's, too; the same requests are refused.
    for (path, body) in [
        ("/jobs", json!({"command": "true"})),
        ("/containers", json!({"hostname": "his"})),
    ] {
        expect(
            lab.post(path, &bob)
                .header("x-forwarded-for", "198.51.100.1")
                .json(&body)
                .send()
                .await
                .unwrap(),
            403,
        )
        .await;
    }
    assert_eq!(seen().await, before, "something of alice's has changed");
}

/// A token without the scope gets nothing, whatever the operation; one operation is for several scopes and looks itself.
#[tokio::test]
async fn a_token_without_the_scope_does_nothing() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    let token = lab.token(&admin, &["containers:register"]).await;
    let spec: Value = serde_json::from_str(&cac_http::spec()).unwrap();
    let mut tried = 0;
    for (method, path, operation) in operations(&spec) {
        if !operation["security"].is_array() || operation["operationId"] == "container_create" {
            continue;
        }
        let path = path.replace("{id}", "4711").replace("{jobId}", "1");
        let mut request = lab.ask(method.clone(), &path, &token);
        if operation["requestBody"].is_object() {
            request = request.json(&json!({}));
        }
        let refused = expect(request.send().await.unwrap(), 403).await;
        assert!(
            refused["detail"]
                .as_str()
                .unwrap()
                .contains("does not have the scope"),
            "{method} {path}: {refused}"
        );
        tried += 1;
    }
    assert!(tried >= 30, "only {tried} operations");
}
