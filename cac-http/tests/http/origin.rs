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
