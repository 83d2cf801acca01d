//! Host names, origins and the headers of every answer.

use serde_json::json;

use crate::lab::{HTML, Lab, expect};

#[tokio::test]
async fn requests_to_other_names_are_misdirected() {
    let lab = Lab::idle(&[
        ("CAC_PUBLIC_URL", "http://portal.example.org"),
        ("CAC_HOSTS", "other.example.org"),
    ])
    .await;
    for (host, status) in [
        ("portal.example.org", 200),
        ("PORTAL.example.org:3000", 200),
        ("other.example.org", 200),
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:3000", 200),
        ("evil.example", 421),
        ("web.cac.localhost", 421),
        ("portal.example.org.evil.example", 421),
        ("a b", 421),
    ] {
        let answer = lab
            .get("/healthz", "")
            .header("host", host)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
    // A trusted proxy says which name was asked for.
    let proxied = lab
        .get("/healthz", "")
        .header("x-forwarded-host", "evil.example")
        .send()
        .await
        .unwrap();
    expect(proxied, 421).await;
    let untrusting = Lab::idle(&[("TRUSTED_PROXIES", "127.9.9.9")]).await;
    let proxied = untrusting
        .get("/healthz", "")
        .header("x-forwarded-host", "evil.example")
        .send()
        .await
        .unwrap();
    expect(proxied, 200).await;
}

/// S6 of the original: any site could delete containers.
#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let port = lab.url.rsplit(':').next().unwrap();
    let ours = lab.url.clone();
    let body = json!({"username": "alice", "password": "alice-demo"});
    for (header, value, status) in [
        ("origin", "https://evil.example".to_owned(), 403),
        ("origin", "null".to_owned(), 403),
        ("origin", "http://127.0.0.1:1".to_owned(), 403),
        ("origin", format!("http://web.cac.localhost:{port}"), 403),
        ("referer", "https://evil.example/page".to_owned(), 403),
        ("sec-fetch-site", "cross-site".to_owned(), 403),
        ("sec-fetch-site", "same-site".to_owned(), 403),
        ("origin", ours.clone(), 200),
        ("referer", format!("{ours}/login"), 200),
        ("sec-fetch-site", "same-origin".to_owned(), 200),
        ("sec-fetch-site", "none".to_owned(), 200),
    ] {
        for session in [alice.as_str(), ""] {
            let answer = lab
                .post("/login", session)
                .header(header, &value)
                .json(&body)
                .send()
                .await
                .unwrap();
            expect(answer, status).await;
        }
        if status == 403 {
            expect(
                lab.delete("/containers/1", "")
                    .header(header, &value)
                    .send()
                    .await
                    .unwrap(),
                403,
            )
            .await;
        }
    }
    expect(
        lab.get("/healthz", "")
            .header("origin", "https://evil.example")
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
}

#[tokio::test]
async fn every_answer_carries_its_protection() {
    let lab = Lab::idle(&[]).await;
    for path in [
        "/healthz",
        "/readyz",
        "/nowhere",
        "/login",
        "/docs",
        "/openapi.json",
        "/containers",
    ] {
        for accept in [HTML, "*/*"] {
            let answer = lab
                .get(path, "")
                .header("accept", accept)
                .send()
                .await
                .unwrap();
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            let policy = header("content-security-policy");
            assert!(
                policy.contains("frame-ancestors 'none'"),
                "{path}: {policy}"
            );
            assert_eq!(
                policy.contains("unsafe-inline"),
                path == "/docs",
                "{path}: {policy}"
            );
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "same-origin");
            assert_eq!(header("x-request-id").len(), 16);
        }
    }
}

/// In a container root may relay what visitors of its published ports send (C1c), so its address is no allowed machine's, unless it is
/// listed singly.
#[tokio::test]
async fn a_containers_address_is_no_allowed_machine_unless_listed_singly() {
    const ADDRESS: &str = "127.9.7.7";
    for (allow, registers, reads) in [
        ("127.0.0.0/8", 401, 401),
        ("127.0.0.0/8,127.9.7.7", 200, 200),
        ("127.9.7.7/32", 200, 200),
    ] {
        let lab = Lab::idle(&[
            ("REGISTRATION_ALLOW", allow),
            ("NGINX_CONF_ALLOW", allow),
            ("METRICS_ALLOW", allow),
        ])
        .await;
        let now = chrono::Utc::now();
        let sql = r#"INSERT INTO "Containers" ("hostname", "username", "ipv4Address", "createdAt", "updatedAt") VALUES ('relay', 'alice', ?, ?, ?)"#;
        lab.core
            .db
            .exec(sql, cac_core::args![ADDRESS, now, now])
            .await
            .unwrap();
        let from = |address: &str| {
            let client = reqwest::Client::builder();
            let address: std::net::IpAddr = address.parse().unwrap();
            client.local_address(address).build().unwrap()
        };
        let client = from(ADDRESS);
        for path in ["/nginx.conf", "/metrics"] {
            let answer = client
                .get(format!("{}{path}", lab.url))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), reads, "{allow} {path}");
        }
        let body = json!({"hostname": "tool", "ipv4Address": "127.9.1.1", "username": "alice", "osRelease": "debian",
                          "containerId": 4711, "macAddress": "BC:24:11:00:09:01", "httpPort": 8080, "node": "pve1"});
        let register = |client: &reqwest::Client| {
            client
                .post(format!("{}/containers", lab.url))
                .json(&body)
                .send()
        };
        let answer = register(&client).await.unwrap();
        assert_eq!(
            answer.status() == 401,
            registers == 401,
            "{allow}: {}",
            answer.status()
        );
        // Behind a trusted proxy it is no other.
        let behind = lab
            .get("/nginx.conf", "")
            .header("x-forwarded-for", ADDRESS)
            .send()
            .await
            .unwrap();
        assert_eq!(behind.status(), reads, "{allow}");
        // A machine beside it is what it was.
        let beside = from("127.9.7.8")
            .get(format!("{}/nginx.conf", lab.url))
            .send()
            .await
            .unwrap();
        assert_eq!(
            beside.status(),
            if allow.contains("/8") { 200 } else { 401 },
            "{allow}"
        );
    }
}

/// C1b: whoever registers leads a public name to the portal itself, or to the API of a node.
#[tokio::test]
async fn neither_the_portal_nor_a_node_can_be_registered() {
    let lab = Lab::idle(&[]).await;
    let port = |url: &str| url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    for port in [port(&lab.url), port(&lab.simulator.url())] {
        let body = json!({"hostname": "ssrf", "ipv4Address": "127.0.0.1", "username": "alice", "osRelease": "debian",
                          "containerId": 4711, "macAddress": "BC:24:11:00:09:01", "httpPort": port, "node": "pve1"});
        let answer = lab
            .post("/containers", "")
            .json(&body)
            .send()
            .await
            .unwrap();
        let refused = expect(answer, 400).await;
        let told = refused["errors"]["ipv4Address"].as_str().unwrap();
        assert!(told.contains("belongs to this installation"), "{told}");
    }
}
