//! `/nginx.conf`.

use std::time::{Duration, Instant};

use cac_core::container::{self, NewContainer};
use cac_core::nginx::{PinnedKey, SignedStatement, statement};
use cac_core::testing::until;
use cac_core::{Actor, args, proxy_key};

use serde_json::{Value, json};

use crate::lab::{Lab, expect};

#[tokio::test]
async fn a_whole_file_with_a_strong_tag() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let before = lab.get("/nginx.conf", "").send().await.unwrap();
    assert_eq!(before.status(), 200);
    assert!(
        before.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    let tag = before.headers()["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let same = lab
        .get("/nginx.conf", "")
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            same.status().as_u16(),
            same.headers()["etag"].to_str().unwrap()
        ),
        (304, tag.as_str())
    );
    // Held back until something changes.
    let waiting = lab
        .get("/nginx.conf?wait=60", "")
        .header("if-none-match", &tag)
        .send();
    let (_, job) = lab.create(&alice, "web").await;
    let changed = waiting.await.unwrap();
    assert_eq!(changed.status(), 200);
    assert_ne!(changed.headers()["etag"].to_str().unwrap(), tag);
    assert!(changed.text().await.unwrap().contains("web.cac.localhost"));
    assert_eq!(lab.ended(job).await, "success");
    let asked = Instant::now();
    let now = lab.get("/nginx.conf", "").send().await.unwrap();
    let tag = now.headers()["etag"].to_str().unwrap().to_owned();
    let same = lab
        .get("/nginx.conf?wait=1", "")
        .header("if-none-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(same.status(), 304);
    assert!(asked.elapsed() >= Duration::from_secs(1));
    expect(
        lab.get("/nginx.conf?wait=soon", "").send().await.unwrap(),
        400,
    )
    .await;
}

/// What a puller verifies; whoever asks without a name gets the plain file as ever, and `cac doctor` knows of it.
#[tokio::test]
async fn who_names_itself_is_sent_a_signature_about_these_bytes() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    expect(lab.get("/proxy-key", &alice).send().await.unwrap(), 403).await;
    let key = expect(lab.get("/proxy-key", &admin).send().await.unwrap(), 200).await;
    let key: PinnedKey = key["key"].as_str().unwrap().parse().unwrap();
    let signed = lab
        .get("/nginx.conf?proxy=edge-1", "")
        .send()
        .await
        .unwrap();
    assert_eq!(signed.status(), 200);
    let header = |name: &str| signed.headers()[name].to_str().unwrap().to_owned();
    let (tag, said) = (
        header("etag"),
        SignedStatement {
            statement: header("cac-statement"),
            signature: header("cac-signature"),
        },
    );
    let text = signed.text().await.unwrap();
    let verified = statement::verify(&[key], "edge-1", &text, Some(&said)).unwrap();
    assert_eq!(verified.installation, lab.core.installation);
    let same = lab.get("/nginx.conf?proxy=edge-1", "");
    let same = same.header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(same.status(), 304);
    let readers = async || {
        let now = lab.core.clock.now();
        let readers = proxy_key::unsigned_readers(&lab.core.db, now).await;
        readers.unwrap().len()
    };
    assert_eq!(readers().await, 0);
    let plain = lab.get("/nginx.conf", "").send().await.unwrap();
    assert!(!plain.headers().contains_key("cac-signature"));
    assert_eq!(plain.text().await.unwrap(), text);
    assert_eq!(readers().await, 1);
    for bad in ["", "a%0Ab", "a/b", &"a".repeat(65)] {
        let path = format!("/nginx.conf?proxy={bad}");
        expect(lab.get(&path, "").send().await.unwrap(), 400).await;
    }
}

/// S11 of the original: a map of the network for everyone.
#[tokio::test]
async fn only_local_machines_and_admins_read_it() {
    let lab = Lab::idle(&[
        ("NGINX_CONF_ALLOW", "127.0.0.0/8"),
        ("TRUSTED_PROXIES", "127.9.9.9"),
    ])
    .await;
    assert_eq!(
        lab.get("/nginx.conf", "").send().await.unwrap().status(),
        200
    );
    for header in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        expect(
            lab.get("/nginx.conf", "")
                .header(header, "127.0.0.1")
                .send()
                .await
                .unwrap(),
            401,
        )
        .await;
    }
    let proxied = Lab::idle(&[]).await;
    let from = async |address: &str| {
        proxied
            .get("/nginx.conf", "")
            .header("x-forwarded-for", address)
            .send()
            .await
            .unwrap()
    };
    expect(from("198.51.100.7").await, 401).await;
    expect(from("127.0.0.1, 198.51.100.7").await, 401).await;
    assert_eq!(from("127.0.0.1").await.status(), 200);
    let closed = Lab::idle(&[("NGINX_CONF_ALLOW", "198.51.100.0/24")]).await;
    expect(closed.get("/nginx.conf", "").send().await.unwrap(), 401).await;
    let (alice, admin) = (closed.login("alice").await, closed.login("admin").await);
    expect(closed.get("/nginx.conf", &alice).send().await.unwrap(), 403).await;
    assert_eq!(
        closed
            .get("/nginx.conf", &admin)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

/// What another process wrote is seen without a wake-up in this one.
#[tokio::test]
async fn a_wait_sees_what_another_process_changed() {
    let lab = Lab::idle(&[]).await;
    let new = NewContainer {
        hostname: "quiet".to_owned(),
        os_release: "debian".to_owned(),
        http_port: Some(8080),
        ..NewContainer::default()
    };
    let made = container::create(&lab.core, &Actor::new("alice", false), &new, None)
        .await
        .unwrap();
    let before = lab.get("/nginx.conf", "").send().await.unwrap();
    let tag = before.headers()["etag"].to_str().unwrap().to_owned();
    let waiting = lab
        .get("/nginx.conf?wait=60", "")
        .header("if-none-match", tag)
        .send();
    let write = async {
        let sql = r#"UPDATE "Containers" SET "ipv4Address" = '127.77.0.1' WHERE "id" = ?"#;
        lab.core.db.exec(sql, args![made.id]).await.unwrap();
    };
    let (changed, ()) = tokio::join!(waiting, write);
    assert!(
        changed
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("127.77.0.1:8080")
    );
}

/// A puller tells which revision is live, or why one is not; the newest one that is live stays known.
#[tokio::test]
async fn a_puller_reports_which_revision_is_live() {
    let lab = Lab::idle(&[("METRICS_ALLOW", "127.0.0.1")]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let reporter = lab.token(&admin, &["nginx:report", "nginx:read"]).await;
    let file = lab.get("/nginx.conf", &reporter).send().await.unwrap();
    let etag = file.headers()["etag"].to_str().unwrap().to_owned();
    let report = async |name: &str, body: Value, status| {
        let path = format!("/proxies/{name}/revision");
        let answer = lab.post(&path, &reporter).json(&body).send().await;
        expect(answer.unwrap(), status).await
    };
    let live = report("edge-1", json!({"revision": etag}), 200).await;
    assert_eq!(live["revision"], etag);
    assert!(
        live["liveSince"].is_string() && live["refused"].is_null(),
        "{live}"
    );
    let words = "nginx: [emerg] invalid port in \u{1b}[31m/etc/nginx/nginx.conf:7\0";
    let refused = json!({"revision": "\"other\"", "refused": words});
    let after = report("edge-1", refused, 200).await;
    assert_eq!(
        (&after["revision"], &after["liveSince"]),
        (&live["revision"], &live["liveSince"])
    );
    assert_eq!(after["refused"], "\"other\"");
    assert!(
        after["reason"]
            .as_str()
            .unwrap()
            .starts_with("nginx: [emerg]")
    );
    let again = report("edge-1", json!({"revision": etag}), 200).await;
    assert_eq!(again["liveSince"], live["liveSince"]);
    assert!(again["reason"].is_null(), "{again}");
    report("edge-2", json!({"revision": "\"older\""}), 200).await;
    let down = json!({"revision": etag, "down": true, "taken": ["9001/udp", "9000/tcp"]});
    let down = report("edge-2", down, 200).await;
    assert!(
        down["revision"].is_null() && down["liveSince"].is_null(),
        "{down}"
    );
    assert_eq!(down["reason"], "nginx does not run there: start it.");
    assert_eq!(down["taken"], json!(["9000/tcp", "9001/udp"]));
    for (name, body, field) in [
        ("a%20b", json!({"revision": etag}), "name"),
        ("edge-1", json!({}), "revision"),
        ("edge-1", json!({"revision": "a\nb"}), "revision"),
        (
            "edge-1",
            json!({"revision": etag, "taken": ["9000"]}),
            "taken",
        ),
    ] {
        let told = report(name, body, 400).await;
        assert!(told["errors"][field].is_string(), "{told}");
    }
    let list = expect(lab.get("/proxies", &admin).send().await.unwrap(), 200).await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    let metrics = lab.get("/metrics", "").send().await.unwrap();
    assert_eq!(metrics.status(), 200);
    let metrics = metrics.text().await.unwrap();
    for line in [
        "cac_proxy_is_current{name=\"edge-1\"} 1",
        "cac_proxy_is_current{name=\"edge-2\"} 0",
        "cac_jobs{of=\"pending\"} 0",
        "cac_nodes 3",
        "cac_http_requests_total{operation=\"proxy_report\",status=\"400\"} 4",
        "cac_http_request_duration_seconds_count{operation=\"login_create\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // Reports that are kept are no changes of somebody's; forgetting one is.
    let forgotten = lab.delete("/proxies/edge-2", &admin).send().await.unwrap();
    assert_eq!(forgotten.status(), 204);
    let audit = expect(lab.get("/audit", &admin).send().await.unwrap(), 200).await;
    let actions: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["action"].as_str().unwrap(), e["status"].as_u64().unwrap()))
        .collect();
    assert!(actions.contains(&("proxy_delete", 204)), "{actions:?}");
    let reports = actions
        .iter()
        .filter(|(action, _)| *action == "proxy_report");
    assert!(reports.clone().count() == 4 && reports.clone().all(|(_, status)| *status == 400));
    let stranger = lab
        .get("/metrics", &alice)
        .header("x-forwarded-for", "198.51.100.1");
    expect(stranger.send().await.unwrap(), 403).await;
}

#[tokio::test]
async fn a_puller_says_for_which_nginx_the_file_is() {
    let lab = Lab::idle(&[]).await;
    let asked = Lab::idle(&[("NGINX_HTTP3", "on"), ("NGINX_VERSION", "1.26")]).await;
    let from = async |lab: &Lab, query: &str| {
        let request = lab.get(&format!("/nginx.conf?{query}"), "");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{query}");
        let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
        (tag, answer.text().await.unwrap())
    };
    let get = async |query: &str| from(&lab, query).await;
    let (debian, old) = get("nginx=1.22.1").await;
    assert!(old.contains(" ssl http2 default_server;") && !old.contains("http2 on;"));
    assert_eq!(get("nginx=1.18.0").await.0, debian);
    let (_, new) = get("nginx=1.26.3&stream=builtin").await;
    assert!(new.contains("http2 on;") && !new.contains("quic") && !new.contains("load_module"));
    // HTTP/3 only where somebody asked for it, and where nginx has it.
    let quic = " quic reuseport default_server;";
    assert!(!get("nginx=1.26.3&http3=true").await.1.contains(quic));
    for (query, expected) in [
        ("", true),
        ("nginx=1.26.3", true),
        ("nginx=1.26.3&http3=true", true),
        ("nginx=1.26.3&http3=false", false),
        ("nginx=1.22.1&http3=true", false),
    ] {
        let (_, text) = from(&asked, query).await;
        assert_eq!(text.contains(quic), expected, "{query}");
    }
    for query in [
        "nginx=latest",
        "nginx=1",
        "nginx=1.22;x",
        "stream=/etc/passwd",
        "http3=maybe",
        "taken=ssh",
        "taken=70000",
    ] {
        let answer = lab
            .get(&format!("/nginx.conf?{query}"), "")
            .send()
            .await
            .unwrap();
        expect(answer, 400).await;
    }
}

#[tokio::test]
async fn a_container_that_does_not_answer_says_why() {
    let lab = Lab::with(&[("RATE_LIMIT", "20")]).await;
    let alice = lab.login("alice").await;
    let (id, job) = lab.create(&alice, "web").await;
    assert_eq!(lab.ended(job).await, "success");
    let page = async |name: &str, status: u16| {
        let answer = lab
            .get(&format!("/unavailable?name={name}"), "")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{name}");
        assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
        answer.text().await.unwrap()
    };
    // It is looked at every few seconds, whoever asks.
    let says = async |title: &str| {
        until(title, async || {
            let page = page("web.cac.localhost", 503).await;
            page.contains(&format!("<h1>{title}</h1>"))
        })
        .await;
    };
    let sql = r#"UPDATE "Containers" SET "state" = ? WHERE "id" = ?"#;
    lab.core
        .db
        .exec(sql, args![Some("changing"), id])
        .await
        .unwrap();
    says("Starting").await;
    lab.core
        .db
        .exec(sql, args![None::<String>, id])
        .await
        .unwrap();
    let stop = lab
        .post(&format!("/containers/{id}/stop"), &alice)
        .send()
        .await
        .unwrap();
    assert!(stop.status().is_success());
    // Its address is known again as soon as somebody writes it.
    let sql = r#"UPDATE "Containers" SET "ipv4Address" = '127.77.9.9' WHERE "id" = ?"#;
    lab.core.db.exec(sql, args![id]).await.unwrap();
    lab.core.wake.routes();
    until("its name is known again", async || {
        let path = "/unavailable?name=web.cac.localhost";
        lab.get(path, "").send().await.unwrap().status() == 503
    })
    .await;
    says("Stopped").await;
    // Everyone who wants to see a container that is down comes from the proxy's address.
    for _ in 0..30 {
        page("web.cac.localhost", 503).await;
    }
    for name in ["none.cac.localhost", "%3Cscript%3E", ""] {
        let page = page(name, 404).await;
        assert!(
            page.contains("<h1>Not found</h1>") && !page.contains("<script>"),
            "{page}"
        );
    }
}
