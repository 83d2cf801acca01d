//! The table of routes that scripts and operators rely on: one test for each row, with its negotiation, statuses and bodies. What a row
//! has beyond that is in the file of its noun.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::lab::{HTML, Lab, cookie, expect, wanted};

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers()[name].to_str().unwrap()
}

async fn page(lab: &Lab, path: &str, session: &str) -> String {
    let request = lab.get(path, session).header("accept", HTML);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    assert!(
        header(&answer, "content-type").starts_with("text/html"),
        "{path}"
    );
    answer.text().await.unwrap()
}

async fn get(lab: &Lab, path: &str, session: &str, status: u16) -> Value {
    expect(lab.get(path, session).send().await.unwrap(), status).await
}

async fn post(lab: &Lab, path: &str, session: &str, body: Value, status: u16) -> Value {
    let request = lab.post(path, session).json(&body);
    expect(request.send().await.unwrap(), status).await
}

async fn created(lab: &Lab, session: &str, hostname: &str) -> i64 {
    let (id, job) = lab.create(session, hostname).await;
    assert_eq!(lab.ended(job).await, "success");
    id
}

#[tokio::test]
async fn the_root_leads_to_the_containers() {
    let lab = Lab::idle(&[]).await;
    let answer = lab.get("/", "").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "location")),
        (303, "/containers")
    );
    // Without a login a browser goes to the login and back, everyone else is told.
    let request = lab.get("/containers", "").header("accept", HTML);
    let answer = request.send().await.unwrap();
    assert_eq!(header(&answer, "location"), "/login?redirect=%2Fcontainers");
    get(&lab, "/containers", "", 401).await;
}

#[tokio::test]
async fn login_and_logout() {
    let lab = Lab::idle(&[]).await;
    assert!(page(&lab, "/login", "").await.contains("<form"));
    let good = json!({"username": "alice", "password": "alice-demo"});
    let answer = lab.post("/login", "").json(&good).send().await.unwrap();
    let alice = cookie(&answer);
    assert_eq!(
        expect(answer, 200).await,
        json!({"success": true, "redirect": "/"})
    );
    let form = lab.post("/login", "").form(&good).header("accept", HTML);
    assert_eq!(form.send().await.unwrap().status(), 303);
    post(
        &lab,
        "/login",
        "",
        json!({"username": "alice", "password": "wrong"}),
        401,
    )
    .await;
    let malformed = json!({"username": "a/b", "password": "x"});
    post(&lab, "/login", "", malformed, 400).await;
    post(&lab, "/logout", &alice, json!({}), 200).await;
    get(&lab, "/containers", &alice, 401).await;
    let lab = Lab::idle(&[
        ("PROXMOX_URL", "https://127.0.0.1:9"),
        ("PROXMOX_TLS", "off"),
    ])
    .await;
    let away = post(&lab, "/login", "", good, 503).await;
    assert!(
        !away["detail"].as_str().unwrap().contains("credentials"),
        "{away}"
    );
}

#[tokio::test]
async fn the_list_of_containers() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    for name in ["one", "two"] {
        lab.create(&alice, name).await;
    }
    let answer = lab
        .get("/containers?limit=1&offset=1", &alice)
        .send()
        .await
        .unwrap();
    assert_eq!(header(&answer, "x-total-count"), "2");
    let list = expect(answer, 200).await;
    assert_eq!(
        (list.as_array().unwrap().len(), &list[0]["hostname"]),
        (1, &json!("two"))
    );
    assert_eq!(list[0]["services"][0]["type"], "http");
    assert_eq!(get(&lab, "/containers", &admin, 200).await, json!([]));
    for path in ["/containers?all=true", "/containers?user=alice"] {
        assert_eq!(
            get(&lab, path, &admin, 200).await.as_array().unwrap().len(),
            2
        );
        get(&lab, path, &lab.login("bob").await, 403).await;
    }
    assert!(page(&lab, "/containers", &alice).await.contains("two"));
    assert!(
        page(&lab, "/containers/new", &alice)
            .await
            .contains("osRelease")
    );
}

#[tokio::test]
async fn a_container_is_asked_for() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let answer = lab
        .post("/containers?init=true", &alice)
        .json(&wanted("query"));
    let answer = answer.header("idempotency-key", "k").send().await.unwrap();
    let location = header(&answer, "location").to_owned();
    let first = expect(answer, 202).await;
    assert!(first["success"] == true && location.ends_with(&format!("/status/{}", first["jobId"])));
    let again = lab
        .post("/containers?init=true", &alice)
        .json(&wanted("query"));
    let again = again.header("idempotency-key", "k").send().await.unwrap();
    assert_eq!(expect(again, 202).await["id"], first["id"]);
    let other = lab
        .post("/containers?init=true", &alice)
        .json(&wanted("other"));
    let other = other.header("idempotency-key", "k").send().await.unwrap();
    expect(other, 409).await;
    let mut body = wanted("body");
    body["init"] = json!(true);
    let form = lab
        .post("/containers", &alice)
        .form(&body)
        .header("accept", HTML);
    let form = form.send().await.unwrap();
    assert_eq!(form.status(), 303);
    assert!(header(&form, "location").starts_with("/status/"));
    post(&lab, "/containers?init=true", "", wanted("nobody"), 401).await;
    post(&lab, "/containers?init=true", &alice, wanted("query"), 409).await;
    let bad = json!({"hostname": "-", "httpPort": 1});
    let bad = post(&lab, "/containers?init=true", &alice, bad, 400).await;
    assert_eq!(bad["errors"].as_object().unwrap().len(), 3, "{bad}");
}

#[tokio::test]
async fn a_container_is_registered() {
    let lab = Lab::idle(&[]).await;
    lab.foreign("pve1", 4711, "tool", "BC:24:11:00:09:01").await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let tool = |hostname: &str| {
        json!({
            "hostname": hostname, "ipv4Address": "127.9.1.1", "username": "alice", "osRelease": "debian", "containerId": "4711",
            "macAddress": "BC:24:11:00:09:01", "aiContainer": "N", "httpPort": "8080", "additionalProtocols": "RDP,dns", "node": "pve1",
        })
    };
    // An allowed machine; the body as a form and as JSON.
    let form = lab.post("/containers", "").form(&tool("tool")).send().await;
    let first = expect(form.unwrap(), 200).await;
    assert!(first["success"] == true && first["message"].is_string());
    assert_eq!(first["containerId"], first["data"]["id"]);
    assert_eq!(first["data"]["services"].as_array().unwrap().len(), 4);
    let again = post(&lab, "/containers", "", tool("tool"), 200).await;
    assert_eq!(again["data"]["services"], first["data"]["services"]);
    let taken = post(&lab, "/containers", "", tool("other"), 409).await;
    assert!(
        taken["detail"].as_str().unwrap().contains("`tool`"),
        "{taken}"
    );
    // Others need the scope, which only admins have.
    let far = |request: reqwest::RequestBuilder| request.header("x-forwarded-for", "198.51.100.1");
    for (credential, status) in [
        ("", 401),
        (alice.as_str(), 403),
        (&lab.token(&alice, &["containers:write"]).await, 403),
        (&lab.token(&admin, &["containers:register"]).await, 200),
        (&lab.token(&admin, &["admin"]).await, 200),
    ] {
        let request = far(lab.post("/containers", credential)).json(&tool("tool"));
        expect(request.send().await.unwrap(), status).await;
    }
    let no_node = json!({"hostname": "x", "ipv4Address": "127.9.1.9", "username": "alice", "osRelease": "debian", "containerId": 4712,
                         "macAddress": "BC:24:11:00:09:02", "httpPort": 8080});
    let asked = post(&lab, "/containers", "", no_node, 400).await;
    assert!(
        asked["errors"]["node"]
            .as_str()
            .unwrap()
            .contains("pve1, pve2, pve3"),
        "{asked}"
    );
}

#[tokio::test]
async fn one_container_from_its_begin_to_its_end() {
    let lab = Lab::with(&[]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let id = created(&lab, &alice, "whole").await;
    let at = format!("/containers/{id}");
    let found = get(&lab, &at, &alice, 200).await;
    assert_eq!(
        (&found["status"], &found["services"][0]["type"]),
        (&json!("running"), &json!("http"))
    );
    assert!(page(&lab, &at, &alice).await.contains("whole"));
    get(&lab, &at, &bob, 404).await;
    let put = lab
        .ask(Method::PUT, &at, &alice)
        .json(&json!({"memory": 4096}));
    assert_eq!(
        expect(put.send().await.unwrap(), 200).await["container"]["memory"],
        4096
    );
    for (verb, status) in [
        ("stop", "stopped"),
        ("start", "running"),
        ("restart", "running"),
    ] {
        post(&lab, &format!("{at}/{verb}"), &alice, json!({}), 200).await;
        assert_eq!(
            get(&lab, &at, &alice, 200).await["status"],
            status,
            "{verb}"
        );
    }
    let services = format!("{at}/services");
    let added = post(&lab, &services, &alice, json!({"protocol": "rdp"}), 201).await;
    let one = format!("{services}/{}", added["id"]);
    let put = lab
        .ask(Method::PUT, &one, &alice)
        .json(&json!({"internalPort": 3390}));
    assert_eq!(
        expect(put.send().await.unwrap(), 200).await["externalPort"],
        added["externalPort"]
    );
    assert_eq!(lab.delete(&one, &alice).send().await.unwrap().status(), 204);

    expect(lab.delete(&at, &bob).send().await.unwrap(), 403).await;
    expect(
        lab.delete("/containers/4711", &bob).send().await.unwrap(),
        404,
    )
    .await;
    let deleted = expect(lab.delete(&at, &alice).send().await.unwrap(), 200).await;
    assert_eq!(
        deleted,
        json!({"success": true, "message": "Container deleted successfully"})
    );
    let second = created(&lab, &alice, "second").await;
    let form = lab
        .post(&format!("/containers/{second}"), &alice)
        .header("accept", HTML);
    let form = form.form(&[("_method", "DELETE")]).send().await.unwrap();
    assert_eq!(
        (form.status().as_u16(), header(&form, "location")),
        (303, "/containers")
    );
}

#[tokio::test]
async fn the_progress_as_a_page_and_as_the_originals_stream() {
    let lab = Lab::with(&[]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let (_, job) = lab.create(&alice, "seen").await;
    assert!(
        page(&lab, &format!("/status/{job}"), &alice)
            .await
            .contains("seen")
    );
    let answer = lab
        .get(&format!("/api/stream/{job}"), &alice)
        .send()
        .await
        .unwrap();
    assert!(header(&answer, "content-type").starts_with("text/event-stream"));
    let stream = answer.text().await.unwrap();
    let last = stream.trim_end().rsplit("\n\n").next().unwrap();
    assert_eq!(
        last,
        "event: close\ndata: Process finished with status: success"
    );
    let chunk = stream
        .lines()
        .find_map(|line| line.strip_prefix("data: \""))
        .unwrap();
    assert!(
        serde_json::from_str::<String>(&format!("\"{chunk}")).is_ok(),
        "{chunk}"
    );
    let id = stream
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap();
    let rest = lab
        .get(&format!("/api/stream/{job}"), &alice)
        .header("last-event-id", id);
    let rest = rest.send().await.unwrap().text().await.unwrap();
    assert!(rest.len() < stream.len() && !rest.contains(&format!("id: {id}\n")));
    for path in ["/status", "/api/stream"] {
        get(&lab, &format!("{path}/{job}"), &bob, 404).await;
    }
}

#[tokio::test]
async fn jobs() {
    let lab = Lab::with(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    post(&lab, "/jobs", &alice, json!({"command": "true"}), 403).await;
    let answer = lab
        .post("/jobs", &admin)
        .json(&json!({"command": "echo one; sleep 600"}));
    let answer = answer.send().await.unwrap();
    assert!(header(&answer, "location").contains("/jobs/"));
    let job = expect(answer, 201).await;
    // The runner may have begun already.
    let status = job["status"].as_str().unwrap();
    assert!(
        ["pending", "running"].contains(&status) && job["createdBy"] == "admin",
        "{job}"
    );
    let (id, at) = (job["id"].as_i64().unwrap(), format!("/jobs/{}", job["id"]));
    get(&lab, &at, &alice, 404).await;
    get(&lab, &format!("{at}/status"), &alice, 404).await;
    for bad in ["/jobs?limit=x", "/jobs?offset=-1"] {
        get(&lab, bad, &admin, 400).await;
    }
    assert_eq!(
        get(&lab, "/jobs?limit=5000", &admin, 200).await[0]["id"],
        id
    );
    let stream = lab
        .get(&format!("{at}/stream"), &admin)
        .send()
        .await
        .unwrap();
    let rows = loop {
        let rows = get(&lab, &format!("{at}/status?limit=1"), &admin, 200).await;
        if rows[0].is_object() {
            break rows;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(
        (&rows[0]["output"], &rows[0]["jobId"]),
        (&json!("one\n"), &json!(id))
    );
    let began = rows[0]["createdAt"].as_str().unwrap();
    let began = chrono::DateTime::parse_from_rfc3339(began).unwrap();
    assert_eq!(began.offset().local_minus_utc(), 0);
    post(&lab, &format!("{at}/cancel"), &admin, json!({}), 200).await;
    let events = stream.text().await.unwrap();
    for event in ["event: state", "event: output", "event: end"] {
        assert!(events.contains(event), "{events}");
    }
    assert_eq!(lab.ended(id).await, "cancelled");
}

#[tokio::test]
async fn the_configuration_of_nginx() {
    let lab = Lab::idle(&[]).await;
    let first = lab.get("/nginx.conf", "").send().await.unwrap();
    assert!(header(&first, "content-type").starts_with("text/plain"));
    let etag = header(&first, "etag").to_owned();
    assert!(etag.starts_with('"'), "{etag} is no strong one");
    let again = lab
        .get("/nginx.conf?wait=1", "")
        .header("if-none-match", &etag);
    assert_eq!(again.send().await.unwrap().status(), 304);
    let admin = lab.login("admin").await;
    let reporter = lab.token(&admin, &["nginx:report"]).await;
    post(
        &lab,
        "/proxies/edge/revision",
        &reporter,
        json!({"revision": etag}),
        200,
    )
    .await;
}

#[tokio::test]
async fn accounts_tokens_audit_and_nodes() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    assert!(page(&lab, "/register", "").await.contains("<form"));
    for body in [
        json!({"name": "B B", "email": "b@example.org", "username": "bob2", "reason": "r"}),
        json!({"firstName": "C", "lastName": "C", "email": "c@example.org", "username": "carol", "reason": "r", "conclusionDate": "2030"}),
    ] {
        let told = post(&lab, "/register", "", body, 200).await;
        assert!(told["success"] == true && told["message"].is_string());
    }
    assert_eq!(
        get(&lab, "/account-requests", &admin, 200)
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(get(&lab, "/nodes", &admin, 200).await[0]["hasSecret"], true);
    let node = json!({"name": "pve9", "apiUrl": "https://127.0.0.1:9", "tokenId": "a@pve!b", "secret": "not-shown"});
    let node = post(&lab, "/nodes", &admin, node, 201).await;
    assert!(!node.to_string().contains("not-shown"));
    let at = format!("/nodes/{}", node["id"]);
    let put = lab
        .ask(Method::PUT, &at, &admin)
        .json(&json!({"enabled": false}));
    assert_eq!(
        expect(put.send().await.unwrap(), 200).await["enabled"],
        false
    );
    assert!(
        !post(&lab, &format!("{at}/test"), &admin, json!({}), 200).await["problems"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(lab.delete(&at, &admin).send().await.unwrap().status(), 204);
    let token = lab.token(&alice, &["containers:read"]).await;
    assert_eq!(get(&lab, "/containers", &token, 200).await, json!([]));
    let log = get(&lab, "/audit?action=node_create", &admin, 200).await;
    assert_eq!(log.as_array().unwrap().len(), 1, "{log}");
    get(&lab, "/account-requests?status=odd", &admin, 400).await;
    for path in ["/nodes", "/account-requests", "/audit", "/tokens?all=true"] {
        get(&lab, path, &alice, 403).await;
    }
}

#[tokio::test]
async fn the_test_mail_is_for_development_alone() {
    let production = [
        ("NODE_ENV", "production"),
        ("CAC_DOMAIN", "cac.test"),
        (
            "CAC_SECRET_KEY",
            "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        ),
    ];
    let lab = Lab::idle(&production).await;
    get(&lab, "/send-test-email", &lab.login("admin").await, 404).await;
    let lab = Lab::idle(&[]).await;
    let request = lab
        .get("/send-test-email", "")
        .header("x-forwarded-for", "198.51.100.1");
    expect(request.send().await.unwrap(), 401).await;
}

#[tokio::test]
async fn the_specification_its_page_and_health() {
    let lab = Lab::idle(&[]).await;
    let spec = get(&lab, "/openapi.json", "", 200).await;
    assert_eq!(
        spec.to_string(),
        serde_json::from_str::<Value>(&cac_http::spec())
            .unwrap()
            .to_string()
    );
    let docs = page(&lab, "/docs", "").await;
    for foreign in ["src=\"http", "href=\"http", "@import", "//cdn"] {
        assert!(
            !docs.contains(foreign),
            "/docs asks another host: {foreign}"
        );
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(&lab, path, "", 200).await, json!({"status": "ok"}));
    }
    let metrics = lab.get("/metrics", "").send().await.unwrap();
    assert!(
        metrics
            .text()
            .await
            .unwrap()
            .contains("# TYPE cac_http_requests counter")
    );
}
