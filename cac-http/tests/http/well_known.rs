//! Headers of every answer, and the files that browsers fetch by themselves.

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;

use crate::lab::{HTML, Lab, expect};

const SECURE: (&str, &str) = ("CAC_PUBLIC_URL", "https://portal.example.org/");

async fn headers(lab: &Lab, path: &str, session: &str) -> HeaderMap {
    let request = lab.get(path, session).header("accept", HTML);
    request.send().await.unwrap().headers().clone()
}

/// M4 of the attack: none of these was sent.
#[tokio::test]
async fn every_answer_has_its_security_headers() {
    let lab = Lab::idle(&[SECURE]).await;
    for path in [
        "/login",
        "/healthz",
        "/nothing",
        "/favicon.ico",
        "/docs",
        "/jobs",
    ] {
        let headers = headers(&lab, path, "").await;
        for (name, value) in [
            ("strict-transport-security", "max-age=31536000"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
        ] {
            assert_eq!(headers[name], value, "{path}: {name}");
        }
        let policy = headers["permissions-policy"].to_str().unwrap();
        assert!(
            policy.contains("camera=()") && policy.contains("usb=()"),
            "{policy}"
        );
    }
    let docs = headers(&lab, "/docs", "").await;
    let policy = docs["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'none'"), "{policy}");
    // nginx shows this page under containers' names, whose other ports may speak plain HTTP.
    let away = headers(&lab, "/unavailable?name=web.example.org", "").await;
    assert!(!away.contains_key("strict-transport-security"), "{away:?}");
    let plain = Lab::idle(&[]).await;
    let login = headers(&plain, "/login", "").await;
    assert!(
        !login.contains_key("strict-transport-security"),
        "{login:?}"
    );
}

/// F10 of the field reports: icons were 404 and used up the budget of everybody behind one address.
#[tokio::test]
async fn files_that_browsers_fetch_by_themselves_are_there_and_cost_nothing() {
    let lab = Lab::idle(&[("RATE_LIMIT", "3"), ("SECURITY_CONTACT", "none")]).await;
    for (path, kind, begins) in [
        ("/favicon.ico", "image/x-icon", &b"\0\0\x01\0"[..]),
        ("/icon.svg", "image/svg+xml", b"<svg "),
        ("/icon-192.png", "image/png", b"\x89PNG"),
        ("/apple-touch-icon.png", "image/png", b"\x89PNG"),
        ("/apple-touch-icon-precomposed.png", "image/png", b"\x89PNG"),
        ("/apple-touch-icon-120x120.png", "image/png", b"\x89PNG"),
        ("/robots.txt", "text/plain; charset=utf-8", b"User-agent: *"),
        ("/manifest.json", "application/manifest+json", b"{\"name\""),
        (
            "/.well-known/change-password",
            "text/html; charset=utf-8",
            b"<!doctype html>",
        ),
    ] {
        let answer = lab.get(path, "").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], kind, "{path}");
        assert!(!answer.headers().contains_key("ratelimit-limit"), "{path}");
        assert!(answer.bytes().await.unwrap().starts_with(begins), "{path}");
    }
    for path in [
        "/.well-known/appspecific/com.chrome.devtools.json",
        "/.well-known/security.txt",
    ] {
        let answer = lab.get(path, "").send().await.unwrap();
        assert!(!answer.headers().contains_key("ratelimit-limit"), "{path}");
        expect(answer, 404).await;
    }
    // What the page names is there.
    let page = lab
        .get("/login", "")
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert_eq!(page.headers()["ratelimit-remaining"], "2");
    let csp = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(csp.contains("manifest-src 'self'"), "{csp}");
    let page = page.text().await.unwrap();
    for link in [
        "/favicon.ico",
        "/icon.svg",
        "/apple-touch-icon.png",
        "/manifest.json",
    ] {
        assert!(page.contains(&format!("href=\"{link}\"")), "{link}: {page}");
    }
}

#[tokio::test]
async fn security_txt_says_whom_to_tell_and_until_when_that_holds() {
    let mail = [
        SECURE,
        ("SMTP_URL", "smtp://127.0.0.1:9"),
        ("MAIL_FROM", "portal@example.org"),
        ("MAIL_ADMIN", "Ops <ops@example.org>, more@example.org"),
        ("CHANGE_PASSWORD_URL", "https://pve.example.org:8006/"),
    ];
    let lab = Lab::idle(&mail).await;
    let text = lab
        .get("/.well-known/security.txt", "")
        .send()
        .await
        .unwrap();
    let text = text.error_for_status().unwrap().text().await.unwrap();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
    };
    assert_eq!(field("Contact: "), "mailto:ops@example.org");
    assert_eq!(
        field("Canonical: "),
        "https://portal.example.org/.well-known/security.txt"
    );
    let until: DateTime<Utc> = field("Expires: ").parse().unwrap();
    let days = (until - Utc::now()).num_days();
    assert!((30..365).contains(&days), "{days}");
    let there = lab
        .get("/.well-known/change-password", "")
        .send()
        .await
        .unwrap();
    assert_eq!(there.status(), 303);
    assert_eq!(there.headers()["location"], "https://pve.example.org:8006/");
    let contact = ("SECURITY_CONTACT", "https://example.org/security");
    let lab = Lab::idle(&[mail[1], mail[2], mail[3], contact]).await;
    let text = lab
        .get("/.well-known/security.txt", "")
        .send()
        .await
        .unwrap();
    let text = text.text().await.unwrap();
    assert!(
        text.starts_with("Contact: https://example.org/security\n"),
        "{text}"
    );
}

/// With `no-referrer` browsers send a form with `Origin: null`; only the path of a one-time link, which is a secret, may do that.
#[tokio::test]
async fn pages_of_one_time_links_pass_nothing_on_and_their_forms_work() {
    let lab = Lab::idle(&[SECURE]).await;
    for path in ["/account/unknown", "/register/confirm/unknown"] {
        let headers = headers(&lab, path, "").await;
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
    }
    let send = async |path: &str, origin: &str, site: Option<&str>| {
        let mut request = lab
            .post(path, "")
            .header("origin", origin)
            .body("password=long-enough");
        request = request.header("content-type", "application/x-www-form-urlencoded");
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        request.send().await.unwrap().status().as_u16()
    };
    for site in [None, Some("same-origin")] {
        assert_eq!(
            send("/account/unknown", "null", site).await,
            404,
            "{site:?}"
        );
        for path in ["/register", "/login", "/containers", "/accounts"] {
            assert_eq!(send(path, "null", site).await, 403, "{path} {site:?}");
        }
    }
    for site in ["cross-site", "same-site", "none"] {
        assert_eq!(
            send("/account/unknown", "null", Some(site)).await,
            403,
            "{site}"
        );
    }
    assert_eq!(
        send("/account/unknown", "https://evil.example", None).await,
        403
    );
}

/// A revoked session kept its user's wide budget for a quarter of an hour.
#[tokio::test]
async fn a_revoked_session_has_no_budget_of_its_own() {
    let lab = Lab::idle(&[("RATE_LIMIT", "50"), ("RATE_LIMIT_USER", "1000")]).await;
    let alice = lab.login("alice").await;
    let limit = async |status: u16| {
        let answer = lab.get("/containers", &alice).send().await.unwrap();
        assert_eq!(answer.status(), status);
        answer.headers()["ratelimit-limit"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    limit(200).await;
    assert_eq!(limit(200).await, "1000");
    expect(lab.post("/logout", &alice).send().await.unwrap(), 200).await;
    limit(401).await;
    assert_eq!(limit(401).await, "50");
}
