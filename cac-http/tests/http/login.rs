//! `/login` and `/logout`.

use cac_core::args;
use cac_simulator::{Action, Fault};
use serde_json::json;

use crate::lab::{HTML, Lab, cookie, expect};

#[tokio::test]
async fn the_seeds_answer_and_a_session_of_its_own() {
    let lab = Lab::idle(&[]).await;
    let body = json!({"username": "alice", "password": "alice-demo"});
    let answer = lab.post("/login", "").json(&body).send().await.unwrap();
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=86400"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(set.starts_with("cac=") && !set.contains("Secure"), "{set}");
    let first = cookie(&answer);
    assert_eq!(
        expect(answer, 200).await,
        json!({"success": true, "redirect": "/"})
    );
    // A form does as well; the id changes and the old one is worthless.
    let form = [("username", "alice@pve"), ("password", "alice-demo")];
    let answer = lab
        .post("/login?redirect=/jobs", &first)
        .form(&form)
        .send()
        .await
        .unwrap();
    let second = cookie(&answer);
    assert_eq!(answer.headers()["location"], "/jobs");
    assert_eq!(expect(answer, 303).await["redirect"], "/jobs");
    let asked = lab.post("/login", "").header("accept", "application/json");
    expect(asked.form(&form).send().await.unwrap(), 200).await;
    assert_ne!(first, second);
    expect(lab.get("/containers", &first).send().await.unwrap(), 401).await;
    expect(lab.get("/containers", &second).send().await.unwrap(), 200).await;
    let answer = lab.post("/logout", &second).send().await.unwrap();
    assert!(
        answer.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    assert_eq!(expect(answer, 200).await["success"], true);
    expect(lab.get("/containers", &second).send().await.unwrap(), 401).await;
}

#[tokio::test]
async fn under_tls_the_cookie_is_bound_to_the_host() {
    let lab = Lab::idle(&[("CAC_PUBLIC_URL", "https://portal.example.org")]).await;
    let body = json!({"username": "alice", "password": "alice-demo"});
    let answer = lab.post("/login", "").json(&body).send().await.unwrap();
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(
        set.starts_with("__Host-cac=") && set.contains("; Secure") && !set.contains("Domain"),
        "{set}"
    );
}

#[tokio::test]
async fn three_troubles_three_answers() {
    let lab = Lab::idle(&[]).await;
    let login = async |name: &str, password: &str| {
        let body = json!({"username": name, "password": password});
        lab.post("/login", "").json(&body).send().await.unwrap()
    };
    let wrong = expect(login("alice", "guess").await, 401).await;
    assert_eq!(wrong["detail"], "User name or password is wrong.");
    assert!(wrong["requestId"].is_string());
    for name in ["", "a b", "x:y@pve", "alice@"] {
        let malformed = expect(login(name, "alice-demo").await, 400).await;
        assert!(malformed["errors"]["username"].is_string(), "{malformed}");
    }
    assert!(expect(login("alice", "").await, 400).await["errors"]["password"].is_string());
    // Away in three ways: an error of its own, no answer in time, no connection.
    lab.simulator.faults().once(
        "POST",
        "/access/ticket",
        Action::Status {
            code: 596,
            reason: "Broken pipe".to_owned(),
        },
    );
    let away = login("alice", "alice-demo").await;
    assert!(away.headers().contains_key("retry-after"));
    let away = expect(away, 503).await;
    assert!(
        away["detail"]
            .as_str()
            .unwrap()
            .contains("cannot be reached"),
        "{away}"
    );
    lab.simulator.faults().add(Fault {
        method: Some("POST".to_owned()),
        path: "/access/ticket".to_owned(),
        count: 0,
        action: Action::DropBefore,
    });
    expect(login("alice", "alice-demo").await, 503).await;
    lab.core
        .db
        .exec(
            r#"UPDATE "Nodes" SET "apiUrl" = ?"#,
            args!["https://127.0.0.1:1"],
        )
        .await
        .unwrap();
    expect(login("alice", "alice-demo").await, 503).await;
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_answered() {
    let lab = Lab::idle(&[]).await;
    lab.simulator.set_totp("alice@pve", Some("123456"));
    let body = json!({"username": "alice", "password": "alice-demo"});
    let asked = expect(
        lab.post("/login", "").json(&body).send().await.unwrap(),
        401,
    )
    .await;
    assert!(
        asked["kinds"].as_array().unwrap().contains(&json!("totp")),
        "{asked}"
    );
    for (code, status) in [("", 400), ("000000", 401), ("123456", 200)] {
        let body = json!({"username": "alice", "challenge": asked["challenge"], "code": code});
        expect(
            lab.post("/login", "").json(&body).send().await.unwrap(),
            status,
        )
        .await;
    }
    // The same by plain forms.
    let form = [
        ("username", "alice"),
        ("password", "alice-demo"),
        ("redirect", "/jobs"),
    ];
    let page = lab
        .post("/login", "")
        .header("accept", HTML)
        .form(&form)
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 401);
    let page = page.text().await.unwrap();
    assert!(
        page.contains("name=\"code\"") && page.contains("value=\"&#x2f;jobs\""),
        "{page}"
    );
    let (_, rest) = page.split_once("name=\"challenge\" value=\"").unwrap();
    let challenge = rest
        .split_once('"')
        .unwrap()
        .0
        .replace("&#x2f;", "/")
        .replace("&#x27;", "'")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    let form = [
        ("username", "alice"),
        ("challenge", &challenge),
        ("code", "123456"),
        ("redirect", "/jobs"),
    ];
    let there = lab
        .post("/login", "")
        .header("accept", HTML)
        .form(&form)
        .send()
        .await
        .unwrap();
    assert_eq!(there.status(), 303, "{}", there.text().await.unwrap());
}

/// S9 of the original: an open redirect after login.
#[tokio::test]
async fn redirects_stay_on_this_site() {
    let lab = Lab::idle(&[]).await;
    for (asked, goes) in [
        ("/status/5?x=1", "/status/5?x=1"),
        ("https://evil.example", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/%09/evil.example", "/%09/evil.example"),
        ("/\t/evil.example", "/"),
        ("/.//evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ] {
        let body = json!({"username": "alice", "password": "alice-demo", "redirect": asked});
        let answer = expect(
            lab.post("/login", "").json(&body).send().await.unwrap(),
            200,
        )
        .await;
        assert_eq!(answer["redirect"], goes, "{asked}");
    }
}

/// A Proxmox VE that takes the connection and says nothing is away, too; the client's own limit is 30 s.
#[tokio::test]
async fn a_silent_proxmox_is_away() {
    let lab = Lab::idle(&[]).await;
    let silence = Action::Latency { ms: 120_000 };
    lab.simulator
        .faults()
        .once("POST", "/access/ticket", silence);
    let body = json!({"username": "alice", "password": "alice-demo"});
    let away = expect(
        lab.post("/login", "").json(&body).send().await.unwrap(),
        503,
    )
    .await;
    assert!(
        away["detail"]
            .as_str()
            .unwrap()
            .contains("cannot be reached"),
        "{away}"
    );
}
