//! What needs the password again: a session of hours ago did it all without.

use cac_core::args;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::browse::{has, location, submit};
use crate::lab::{HTML, Lab, expect};

const KIND: &str = "urn:cac:reauthentication-required";

/// As if all had signed in long ago.
async fn make_stale(lab: &Lab) {
    let sql = r#"UPDATE "Sessions" SET "provedAt" = '2001-01-01 00:00:00'"#;
    lab.core.db.exec(sql, args![]).await.unwrap();
}

async fn send(lab: &Lab, who: &str, (method, path, body): (Method, &str, &Value)) -> Response {
    let request = lab.ask(method, path, who).json(body);
    request.send().await.unwrap()
}

async fn reauthenticate(lab: &Lab, who: &str, body: Value, status: u16) -> Value {
    let answer = send(lab, who, (Method::POST, "/reauthenticate", &body)).await;
    expect(answer, status).await
}

/// Text of HTML as it is meant.
fn plain(html: &str) -> String {
    let pairs = [
        ("&#x2f;", "/"),
        ("&#x27;", "'"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ];
    let unescaped = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
    pairs.iter().fold(html.to_owned(), unescaped)
}

/// The value of a hidden field.
fn field(page: &str, name: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("name=\"{name}\" value=\""))
        .unwrap_or_else(|| panic!("no {name} in {page}"));
    plain(rest.split_once('"').unwrap().0)
}

#[tokio::test]
async fn an_old_session_is_asked_for_the_password_before_it_does_what_that_protects() {
    let lab = Lab::new().await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let (id, creation) = lab.create(&alice, "hers").await;
    assert_eq!(lab.ended(creation).await, "success");
    let (own, job) = lab.create(&admin, "own").await;
    assert_eq!(lab.ended(job).await, "success");
    let asked = json!({"name": "C", "email": "c@example.org", "username": "carol", "reason": "r"});
    expect(
        lab.post("/register", "").json(&asked).send().await.unwrap(),
        200,
    )
    .await;
    let token = lab.token(&admin, &["admin"]).await;
    make_stale(&lab).await;
    let url = lab.simulator.url();
    let (hers, mine) = (format!("/containers/{id}"), format!("/containers/{own}"));
    let forget = format!("{hers}?forget=true");
    let scope = |name: &str| json!({"name": "t", "scopes": [name]});
    let node = json!({"name": "pve9", "apiUrl": url, "tokenId": "a@pve!b", "secret": "hush"});
    let needs: Vec<(Method, &str, Value)> = vec![
        (Method::POST, "/tokens", scope("admin")),
        (Method::POST, "/tokens", scope("containers:register")),
        (Method::POST, "/tokens", scope("nginx:read")),
        (Method::POST, "/tokens", scope("nginx:report")),
        (Method::POST, "/nodes", node),
        (
            Method::PUT,
            "/nodes/1",
            json!({"apiUrl": "https://127.0.0.1:9"}),
        ),
        (Method::PUT, "/nodes/1", json!({"tokenId": "other@pve!web"})),
        (Method::PUT, "/nodes/1", json!({"secret": "hush"})),
        (
            Method::PUT,
            "/nodes/1",
            json!({"tlsVerify": false, "tlsFingerprint": ""}),
        ),
        (Method::POST, "/account-requests/1/approve", json!({})),
        (Method::PUT, &hers, json!({"username": "admin"})),
        (Method::DELETE, &hers, json!({})),
        (Method::DELETE, &forget, json!({})),
    ];
    for (method, path, body) in &needs {
        let answer = send(&lab, &admin, (method.clone(), path, body)).await;
        let refused = expect(answer, 403).await;
        assert_eq!(refused["type"], KIND, "{method} {path}: {refused}");
        // A program that holds a token is not asked: whatever else is said, it is not this.
        if *path != "/nodes/1" && *path != hers && *path != forget {
            let answer = send(&lab, &token, (method.clone(), path, body)).await;
            assert!(answer.status().is_success(), "{method} {path} by a token");
        }
    }
    // The same by a detour: what is an own container by then is deleted without the password, and a command does anything.
    let registration = json!({"hostname": "x", "ipv4Address": "127.1.0.9", "username": "admin", "osRelease": "debian",
        "containerId": 556, "macAddress": "BC:24:11:00:05:56", "httpPort": 80});
    let roll_back = format!("{hers}/snapshots/x/rollback");
    let (snapshot, cancel) = (
        format!("{hers}/snapshots/x"),
        format!("/jobs/{creation}/cancel"),
    );
    for (method, path, body) in [
        (Method::POST, "/containers", registration),
        (
            Method::POST,
            "/nodes/1/import",
            json!({"vmid": 556, "username": "admin"}),
        ),
        (Method::PUT, "/users/alice", json!({"person": "new"})),
        (Method::DELETE, "/nodes/1", json!({})),
        (Method::POST, "/jobs", json!({"command": "true"})),
        (Method::POST, &roll_back, json!({})),
        (Method::DELETE, &snapshot, json!({})),
        (Method::POST, &cancel, json!({})),
    ] {
        let answer = send(&lab, &admin, (method.clone(), path, &body)).await;
        let refused = expect(answer, 403).await;
        assert_eq!(refused["type"], KIND, "{method} {path}: {refused}");
    }
    // Everything else goes on as before.
    for (method, path, body) in [
        (Method::GET, "/containers?all=true", json!({})),
        (Method::POST, "/tokens", scope("containers:read")),
        (
            Method::PUT,
            "/nodes/1",
            json!({"aiContainer": "lab", "apiUrl": url}),
        ),
        (Method::PUT, &hers, json!({"protected": false})),
        (Method::DELETE, &mine, json!({})),
    ] {
        let answer = send(&lab, &admin, (method.clone(), path, &body)).await;
        assert!(
            answer.status().is_success(),
            "{method} {path}: {}",
            answer.status()
        );
    }
    // An ordinary user's own containers neither.
    let none = send(&lab, &alice, (Method::DELETE, &mine, &json!({}))).await;
    assert_eq!(none.status(), 404);
    let wrong = reauthenticate(&lab, &admin, json!({"password": "guess"}), 400).await;
    assert!(wrong["errors"]["password"].is_string(), "{wrong}");
    let right = reauthenticate(&lab, &admin, json!({"password": "admin-demo"}), 200).await;
    assert!(right["until"].is_string(), "{right}");
    let deleted = lab.delete(&hers, &admin).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    let kept = expect(lab.get("/audit", &admin).send().await.unwrap(), 200).await;
    assert!(!kept.to_string().contains("admin-demo"), "{kept}");
    assert!(
        kept.to_string().contains("session_reauthenticate"),
        "{kept}"
    );
    reauthenticate(&lab, &token, json!({"password": "admin-demo"}), 403).await;
    reauthenticate(&lab, "", json!({"password": "admin-demo"}), 401).await;
}

#[tokio::test]
async fn a_form_is_not_lost_while_the_password_is_asked_for() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    make_stale(&lab).await;
    let url = lab.simulator.url();
    let form = [
        ("_method", "PUT"),
        ("name", "pve1"),
        ("apiUrl", url.as_str()),
        ("secret", "another-secret"),
        ("aiContainer", "kept"),
    ];
    let page = submit(&lab, "/nodes/1", &admin, &form).await;
    assert_eq!(page.status(), 403);
    let page = page.text().await.unwrap();
    has(
        &page,
        &[
            "<h1>Confirm your password</h1>",
            "action=\"/reauthenticate\"",
        ],
    );
    assert!(
        !page.contains("another-secret"),
        "a secret is never sent back"
    );
    let (to, kept) = (field(&page, "_to"), field(&page, "_form"));
    assert_eq!(to, "/nodes/1");
    let wrong = [
        ("_to", to.as_str()),
        ("_form", &kept),
        ("password", "guess"),
    ];
    let page = submit(&lab, "/reauthenticate", &admin, &wrong).await;
    assert_eq!(page.status(), 400);
    let page = page.text().await.unwrap();
    has(&plain(&page), &["id=\"password-problem\"", &kept]);
    let right = [
        ("_to", to.as_str()),
        ("_form", &kept),
        ("password", "admin-demo"),
    ];
    let on = submit(&lab, "/reauthenticate", &admin, &right).await;
    // 307: the browser sends the same fields to that place.
    assert_eq!(location(&on), (307, "/nodes/1"));
    // Neither for another person, nor for another place.
    let other = submit(&lab, "/nodes/1", &alice, &right).await;
    assert_eq!(other.status(), 400);
    let elsewhere = submit(&lab, "/nodes/2", &admin, &right).await;
    assert_eq!(elsewhere.status(), 400);
    let done = submit(&lab, "/nodes/1", &admin, &right).await;
    assert_eq!(location(&done), (303, "/nodes/1"));
    let node = expect(lab.get("/nodes/1", &admin).send().await.unwrap(), 200).await;
    assert_eq!(node["aiContainer"], "kept", "{node}");
    // Nowhere but on this site.
    let away = [
        ("_to", "https://evil.example/"),
        ("_form", "x"),
        ("password", "admin-demo"),
    ];
    let away = submit(&lab, "/reauthenticate", &admin, &away).await;
    assert_eq!(location(&away), (307, "/"));
    make_stale(&lab).await;
    // What a form has in its query and in its own words goes along.
    let page = submit(
        &lab,
        "/tokens",
        &admin,
        &[("name", "t"), ("scopes", "admin"), ("scopes", "jobs")],
    )
    .await;
    let page = page.text().await.unwrap();
    let again = [
        ("_form", field(&page, "_form")),
        ("password", "admin-demo".to_owned()),
    ];
    let fields = again
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    submit(&lab, "/reauthenticate", &admin, &fields).await;
    let made = submit(&lab, "/tokens", &admin, &fields).await;
    assert_eq!(made.status(), 201);
    let list = expect(lab.get("/tokens", &admin).send().await.unwrap(), 200).await;
    assert_eq!(list[0]["scopes"], json!(["jobs", "admin"]), "{list}");
}

#[tokio::test]
async fn a_second_factor_is_asked_for_again_too() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    lab.simulator.set_totp("admin@pve", Some("123456"));
    make_stale(&lab).await;
    let asked = reauthenticate(&lab, &admin, json!({"password": "admin-demo"}), 403).await;
    assert_eq!(asked["type"], KIND, "{asked}");
    let wish = json!({"name": "t", "scopes": ["admin"]});
    expect(
        send(&lab, &admin, (Method::POST, "/tokens", &wish)).await,
        403,
    )
    .await;
    let code = |code: &str| json!({"challenge": asked["challenge"], "code": code});
    let wrong = reauthenticate(&lab, &admin, code("000000"), 400).await;
    assert!(wrong["errors"]["code"].is_string(), "{wrong}");
    reauthenticate(&lab, &admin, code("123456"), 200).await;
    expect(
        send(&lab, &admin, (Method::POST, "/tokens", &wish)).await,
        201,
    )
    .await;
    // The same by plain forms.
    make_stale(&lab).await;
    let form = [("name", "t"), ("scopes", "admin")];
    let page = submit(&lab, "/tokens", &admin, &form)
        .await
        .text()
        .await
        .unwrap();
    let kept = field(&page, "_form");
    let first = [
        ("_to", "/tokens"),
        ("_form", kept.as_str()),
        ("password", "admin-demo"),
    ];
    let page = submit(&lab, "/reauthenticate", &admin, &first).await;
    let page = page.text().await.unwrap();
    has(&plain(&page), &["name=\"code\"", &kept]);
    let challenge = field(&page, "challenge");
    let second = [
        ("_to", "/tokens"),
        ("_form", kept.as_str()),
        ("challenge", challenge.as_str()),
        ("code", "123456"),
    ];
    let on = submit(&lab, "/reauthenticate", &admin, &second).await;
    assert_eq!(location(&on), (307, "/tokens"));
}

/// "Sign out everywhere" left every token in force.
#[tokio::test]
async fn signing_out_everywhere_can_revoke_the_tokens_too() {
    let lab = Lab::idle(&[]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let hers = lab.token(&alice, &["containers:read"]).await;
    let his = lab.token(&bob, &["containers:read"]).await;
    let page = lab.get("/sessions", &alice).header("accept", HTML);
    let page = page.send().await.unwrap().text().await.unwrap();
    has(
        &page.replace("&#x2f;", "/"),
        &["formaction=\"/sessions?tokens=true\""],
    );
    let works = async |token: &str| {
        let answer = lab.get("/containers", token).send().await.unwrap();
        answer.status().as_u16()
    };
    let stay = lab.delete("/sessions", &alice).send().await.unwrap();
    assert_eq!(stay.status(), 204);
    assert_eq!(works(&hers).await, 200);
    let alice = lab.login("alice").await;
    let form = [("_method", "DELETE")];
    let gone = submit(&lab, "/sessions?tokens=true", &alice, &form).await;
    assert_eq!(location(&gone), (303, "/login"));
    assert_eq!((works(&hers).await, works(&his).await), (401, 200));
    assert_eq!(works(&alice).await, 401);
}
