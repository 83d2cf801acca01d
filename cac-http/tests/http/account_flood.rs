//! Account requests of those who want to do harm: too many of them, and what an anonymous person may read.

use serde_json::json;

use crate::account::{carol, post};
use crate::browse;
use crate::lab::{Lab, expect};

/// The group was missing, and a person who was nobody yet read Proxmox VE's own words.
#[tokio::test]
async fn what_proxmox_says_of_a_new_account_is_for_admins_alone() {
    let lab = Lab::with(&[("PROXMOX_USER_GROUP", "no-such-group")]).await;
    let admin = lab.login("admin").await;
    post(&lab, "", "/register", carol(), 200).await;
    let approved = post(&lab, &admin, "/account-requests/1/approve", json!({}), 200).await;
    let link = approved["link"]
        .as_str()
        .unwrap()
        .strip_prefix(lab.url.as_str())
        .unwrap();
    let password = json!({"password": "carols own password"});
    let refused = post(&lab, "", link, password.clone(), 500).await;
    let detail = refused["detail"].as_str().unwrap();
    assert!(
        !detail.contains("Proxmox") && !detail.contains("no-such-group"),
        "{detail}"
    );
    assert!(detail.contains("Your link still works"), "{detail}");
    lab.simulator.add_group("no-such-group");
    post(&lab, "", link, password, 201).await;
}

/// The account was made, its person read that it could not be, and no entry said that it was.
#[tokio::test]
async fn an_account_whose_answer_was_lost_is_there_and_written_down() {
    let lab = Lab::new().await;
    let admin = lab.login("admin").await;
    post(&lab, "", "/register", carol(), 200).await;
    let approved = post(&lab, &admin, "/account-requests/1/approve", json!({}), 200).await;
    let link = approved["link"].as_str().unwrap();
    let link = link.strip_prefix(lab.url.as_str()).unwrap();
    lab.simulator.faults().add(cac_simulator::Fault {
        method: Some("POST".to_owned()),
        path: "/access/users".to_owned(),
        count: 1,
        action: cac_simulator::Action::DropAfter,
    });
    let password = json!({"password": "carols own password"});
    post(&lab, "", link, password, 201).await;
    let log = lab.get("/audit?action=account_create", &admin).send().await;
    let log = expect(log.unwrap(), 200).await;
    assert_eq!(log.as_array().unwrap().len(), 1, "{log}");
    let credentials = json!({"username": "carol", "password": "carols own password"});
    post(&lab, "", "/login", credentials, 200).await;
}

/// Requests of a flood are declined together, and nobody is mailed.
#[tokio::test]
async fn many_requests_are_declined_at_once() {
    let lab = Lab::with(&[("REGISTER_LIMIT", "3")]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let ask = async |number: u8, from: &str, status: u16| {
        let mut body = carol();
        body["username"] = json!(format!("carol{number}"));
        let request = lab.post("/register", "").header("x-forwarded-for", from);
        let answer = request.json(&body).send().await.unwrap();
        let after = answer.headers().contains_key("retry-after");
        assert_eq!(after, status == 429);
        expect(answer, status).await
    };
    for number in 0..3 {
        ask(number, "198.51.100.7", 200).await;
    }
    ask(3, "198.51.100.7", 429).await;
    ask(3, "198.51.100.8", 200).await;
    ask(4, "203.0.113.7", 200).await;
    let path = "/account-requests/decline";
    post(
        &lab,
        &alice,
        path,
        json!({"ids": [1], "withoutMail": true}),
        403,
    )
    .await;
    let none = post(&lab, &admin, path, json!({"ids": [1]}), 400).await;
    assert!(none["errors"]["answer"].is_string(), "{none}");
    let bad = post(
        &lab,
        &admin,
        path,
        json!({"ids": ["x"], "withoutMail": true}),
        400,
    )
    .await;
    assert!(bad["errors"]["ids"].is_string(), "{bad}");
    let body = json!({"ids": [5, 99], "network": "198.51.100.0/24", "withoutMail": true});
    let done = post(&lab, &admin, path, body, 200).await;
    assert_eq!(done, json!({"declined": [1, 2, 3, 4, 5], "skipped": [99]}));
    for (number, from) in [(5, "192.0.2.7"), (6, "192.0.2.8")] {
        ask(number, from, 200).await;
    }
    // The same by the page.
    let page = browse::page(&lab, "/account-requests?status=pending", &admin).await;
    browse::has(
        &page,
        &[
            "action=\"/account-requests/decline\"",
            "value=\"6\"",
            "192.0.2.0/24",
        ],
    );
    let form = [("ids", "6"), ("answer", "")];
    let refused = browse::submit(&lab, path, &admin, &form).await;
    assert_eq!(refused.status(), 400);
    browse::has(
        &refused.text().await.unwrap(),
        &["id=\"answer-problem\"", "value=\"6\"", " checked"],
    );
    let form = [("ids", "6"), ("ids", "7"), ("withoutMail", "true")];
    let done = browse::submit(&lab, path, &admin, &form).await;
    assert_eq!(
        browse::location(&done),
        (303, "/account-requests?status=pending")
    );
    let left = expect(
        lab.get("/account-requests?status=pending", &admin)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(left, json!([]));
}
