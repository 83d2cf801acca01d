//! Budgets of requests: strangers by address, users by name, and nothing is asked of the database for those who have none left.

use cac_core::testing::until;
use cac_core::{Actor, args, session};
use reqwest::StatusCode;

use crate::lab::{HTML, Lab, expect};

/// J15 of the original: every request, also one over the limit, first had its session looked up in the database.
#[tokio::test]
async fn a_flood_of_made_up_sessions_is_refused_without_the_database() {
    let lab = Lab::idle(&[("RATE_LIMIT", "20")]).await;
    let alice = lab.login("alice").await;
    let get = |session: &str| lab.get("/containers", session).send();
    for n in 0..30 {
        let answer = get(&format!("cac=made-up-{n}")).await.unwrap().status();
        let expected = if n < 19 { 401 } else { 429 };
        assert_eq!(answer.as_u16(), expected, "request {n}");
    }
    // Whoever asked the database now would get a 500.
    let away = r#"ALTER TABLE "Sessions" RENAME TO "Away""#;
    lab.core.db.exec(away, args![]).await.unwrap();
    for n in 0..50 {
        let answer = get(&format!("cac=another-{n}")).await.unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::TOO_MANY_REQUESTS,
            "request {n}"
        );
    }
    let back = r#"ALTER TABLE "Away" RENAME TO "Sessions""#;
    lab.core.db.exec(back, args![]).await.unwrap();
    // Others at the same address who are signed in go on, also those whom this process has not seen yet.
    assert_eq!(get(&alice).await.unwrap().status(), 200);
    let bob = session::create(
        &lab.core,
        &Actor::new("bob", false),
        &session::Client::default(),
    )
    .await
    .unwrap();
    let bob = format!("cac={bob}");
    until("somebody new is let in", async || {
        get(&bob).await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test]
async fn the_answer_says_how_much_is_left_and_when_to_go_on() {
    let lab = Lab::idle(&[
        ("RATE_LIMIT", "3"),
        ("RATE_LIMIT_USER", "4"),
        ("RATE_LIMIT_MINUTES", "1"),
    ])
    .await;
    let header = |answer: &reqwest::Response, name: &str| -> u64 {
        answer.headers()[name].to_str().unwrap().parse().unwrap()
    };
    let alice = lab.login("alice").await;
    let second = lab
        .get("/login", "")
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert_eq!(header(&second, "ratelimit-limit"), 3);
    assert_eq!(header(&second, "ratelimit-remaining"), 1);
    assert!((30..=40).contains(&header(&second, "ratelimit-reset")));
    lab.get("/login", "").send().await.unwrap();
    let fourth = lab.get("/jobs", "").send().await.unwrap();
    assert!((1..=21).contains(&header(&fourth, "retry-after")));
    let problem = expect(fourth, 429).await;
    assert!(
        problem["detail"].as_str().unwrap().contains("go on in"),
        "{problem}"
    );
    // A browser is told on a page.
    let page = lab
        .get("/login", "")
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 429);
    assert!(page.text().await.unwrap().contains("too many requests"));
    for path in ["/healthz", "/readyz", "/nginx.conf", "/assets/cac.css"] {
        let answer = lab.get(path, "").send().await.unwrap();
        assert!(
            answer.status() != 429 && !answer.headers().contains_key("ratelimit-limit"),
            "{path}"
        );
    }
    // A user has an own budget, wherever they are.
    for n in 0..5 {
        let answer = lab.get("/containers", &alice).send().await.unwrap();
        let expected = if n < 4 { 200 } else { 429 };
        assert_eq!(answer.status().as_u16(), expected, "request {n}");
        assert_eq!(header(&answer, "ratelimit-limit"), 4);
    }
}

/// A stranger could ask for metrics as often as they liked, each time with another token for the database to look up.
#[tokio::test]
async fn only_allowed_scrapes_are_not_counted() {
    let lab = Lab::idle(&[("RATE_LIMIT", "3"), ("METRICS_ALLOW", "127.0.0.1")]).await;
    for _ in 0..5 {
        let scrape = lab.get("/metrics", "").send().await.unwrap();
        assert_eq!(scrape.status(), 200);
    }
    let mut last = 0;
    for _ in 0..5 {
        let request = lab
            .get("/metrics", "cac_wrong")
            .header("x-forwarded-for", "198.51.100.7");
        last = request.send().await.unwrap().status().as_u16();
    }
    assert_eq!(last, 429);
}
