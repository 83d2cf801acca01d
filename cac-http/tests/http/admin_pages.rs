//! The admin's pages, by plain forms as a browser without script sends them: nodes, import, reconciliation, requests, quotas.

use serde_json::json;

use crate::browse::{has, location, page, submit};
use crate::lab::{HTML, Lab, expect};

#[tokio::test]
async fn they_are_for_admins() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    for path in [
        "/nodes",
        "/nodes/new",
        "/nodes/1",
        "/nodes/1/importable",
        "/reconciliation",
        "/account-requests",
        "/quotas",
        "/users",
    ] {
        let ask = |session: &str| lab.get(path, session).header("accept", HTML).send();
        let answer = ask("").await.unwrap();
        assert_eq!(answer.status(), 303, "{path}");
        let answer = ask(&alice).await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
        assert!(
            answer
                .text()
                .await
                .unwrap()
                .contains("This is not yours to do")
        );
    }
}

#[tokio::test]
async fn a_node_is_added_tested_changed_and_removed() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    has(
        &page(&lab, "/nodes/new", &admin).await,
        &["name=\"tlsFingerprint\"", "Add the node"],
    );
    let bad = [
        ("name", "pve<9>"),
        ("apiUrl", "no address"),
        ("secret", "hush-hush"),
    ];
    let refused = submit(&lab, "/nodes", &admin, &bad).await;
    assert_eq!(refused.status(), 400);
    let refused = refused.text().await.unwrap();
    has(
        &refused,
        &[
            "value=\"no address\"",
            "pve&lt;9&gt;",
            "id=\"apiUrl-problem\"",
        ],
    );
    assert!(
        !refused.contains("hush-hush"),
        "a secret is never sent back"
    );

    let url = lab.simulator.url();
    let good = [
        ("name", "pve9"),
        ("apiUrl", url.as_str()),
        ("tokenId", "cac@pve!web"),
        ("secret", "not-the-one"),
        ("tlsVerify", "false"),
        ("enabled", "false"),
        ("tlsFingerprint", ""),
        ("storage", ""),
    ];
    let added = submit(&lab, "/nodes", &admin, &good).await;
    let (status, place) = location(&added);
    assert_eq!(status, 303);
    let place = place.to_owned();
    has(
        &page(&lab, "/nodes", &admin).await,
        &["pve9", "not checked", ">disabled<"],
    );
    has(
        &page(&lab, &place, &admin).await,
        &["One is stored and is not shown.", "value=\"pve9\""],
    );
    let tested = submit(&lab, &format!("{place}/test"), &admin, &[]).await;
    assert_eq!(tested.status(), 200);
    has(
        &tested.text().await.unwrap(),
        &["The test found what will not work", "class=\"failed\""],
    );

    let change = [
        ("_method", "PUT"),
        ("name", "pve9"),
        ("secret", ""),
        ("aiContainer", "lab"),
        ("enabled", "false"),
    ];
    assert_eq!(
        location(&submit(&lab, &place, &admin, &change).await),
        (303, place.as_str())
    );
    let node = expect(lab.get(&place, &admin).send().await.unwrap(), 200).await;
    assert_eq!(
        (&node["aiContainer"], &node["hasSecret"]),
        (&json!("lab"), &json!(true)),
        "{node}"
    );
    let gone = submit(
        &lab,
        &place,
        &admin,
        &[("_method", "DELETE"), ("_confirm", "pve9")],
    )
    .await;
    assert_eq!(location(&gone), (303, "/nodes"));
    assert!(!page(&lab, "/nodes", &admin).await.contains("pve9"));
}

#[tokio::test]
async fn a_node_that_is_needed_stays_and_the_page_says_why() {
    let lab = Lab::new().await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let (_, job) = lab.create(&alice, "hers").await;
    assert_eq!(lab.ended(job).await, "success");
    let refused = submit(&lab, "/nodes/1", &admin, &[("_method", "DELETE")]).await;
    assert_eq!(refused.status(), 409);
    has(
        &refused.text().await.unwrap(),
        &["role=\"alert\"", "Remove"],
    );
    has(
        &page(&lab, "/reconciliation", &admin).await,
        &["Nothing differs."],
    );
    has(
        &page(&lab, "/nodes/1/importable", &admin).await,
        &["The portal knows every container of this node."],
    );
}

#[tokio::test]
async fn a_request_is_looked_at_approved_and_declined() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    has(
        &page(&lab, "/account-requests", &admin).await,
        &["There is no such request."],
    );
    for name in ["carol", "dave"] {
        let email = format!("{name}@example.org");
        let asked = [
            ("name", "C <b>"),
            ("email", email.as_str()),
            ("username", name),
            ("reason", "thesis & tests"),
        ];
        assert_eq!(submit(&lab, "/register", "", &asked).await.status(), 200);
    }
    let list = page(&lab, "/account-requests?status=pending", &admin).await;
    has(&list, &["C &lt;b&gt;", "carol@example.org", "2 in all"]);
    has(
        &page(&lab, "/account-requests/1", &admin).await,
        &["thesis &amp; tests", "Approve", "Decline"],
    );
    // No mail can be sent here: the link is shown once.
    let approved = submit(&lab, "/account-requests/1/approve", &admin, &[]).await;
    assert_eq!(approved.status(), 200);
    has(
        &approved.text().await.unwrap().replace("&#x2f;", "/"),
        &["hand this link over", "/account/"],
    );
    let refused = submit(
        &lab,
        "/account-requests/2/decline",
        &admin,
        &[("answer", " ")],
    )
    .await;
    assert_eq!(refused.status(), 400);
    has(&refused.text().await.unwrap(), &["id=\"answer-problem\""]);
    let declined = submit(
        &lab,
        "/account-requests/2/decline",
        &admin,
        &[("answer", "no room")],
    )
    .await;
    assert_eq!(location(&declined), (303, "/account-requests/2"));
    has(
        &page(&lab, "/account-requests/2", &admin).await,
        &[">declined<", "no room", "by admin"],
    );
}

#[tokio::test]
async fn limits_are_set_for_one_user() {
    let lab = Lab::idle(&[]).await;
    let admin = lab.login("admin").await;
    has(
        &page(&lab, "/quotas", &admin).await,
        &["Nobody has a container"],
    );
    has(
        &page(&lab, "/quotas?user=bob", &admin).await,
        &["0, no limit", "action=\"/quotas/bob\""],
    );
    let refused = submit(
        &lab,
        "/quotas/bob",
        &admin,
        &[("_method", "PUT"), ("cores", "-1")],
    )
    .await;
    assert_eq!(refused.status(), 400);
    has(
        &refused.text().await.unwrap(),
        &[
            "Give a whole number from 0",
            "action=\"&#x2f;quotas".replace("&#x2f;", "/").as_str(),
        ],
    );
    let set = [
        ("_method", "PUT"),
        ("containers", "3"),
        ("cores", ""),
        ("memory", "4096"),
        ("disk", ""),
    ];
    assert_eq!(
        location(&submit(&lab, "/quotas/bob", &admin, &set).await),
        (303, "/quotas")
    );
    has(
        &page(&lab, "/quotas", &admin).await,
        &["0 of 3 (own)", "0 of 4096 (own)", "0, no limit"],
    );
    let bob = lab.login("bob").await;
    has(
        &page(&lab, "/containers/new", &bob).await,
        &["0 of 3 containers used", "<meter"],
    );
}
