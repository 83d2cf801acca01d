//! An address that two containers show, as both owners and the admins see it: API, page, mail.

use cac_core::args;
use cac_core::testing::until;
use reqwest::StatusCode;

use crate::browse::{has, page};
use crate::lab::{HTML, Lab, expect};
use crate::maildir::{MailServer, free_port};

#[tokio::test]
async fn both_owners_and_the_admins_are_told_of_an_address_that_two_show() {
    let server = MailServer::start(free_port());
    let lab = Lab::with(&[
        ("SMTP_URL", &format!("smtp://127.0.0.1:{}", server.port)),
        ("MAIL_FROM", "Portal <portal@example.org>"),
        ("MAIL_ADMIN", "root@example.org"),
    ])
    .await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let now = chrono::Utc::now();
    let known = r#"INSERT INTO "AccountRequests" ("name", "email", "username", "reason", "status", "createdAt", "updatedAt")
                   VALUES ('Bob', 'bob@example.org', 'bob', '', 'done', ?, ?)"#;
    lab.core.db.exec(known, args![now, now]).await.unwrap();
    let (thief, job) = lab.create(&alice, "thief").await;
    assert_eq!(lab.ended(job).await, "success");
    let (victim, job) = lab.create(&bob, "victim").await;
    assert_eq!(lab.ended(job).await, "success");
    let find = async |id: i64, who: &str| {
        expect(
            lab.get(&format!("/containers/{id}"), who)
                .send()
                .await
                .unwrap(),
            200,
        )
        .await
    };
    let (mine, theirs) = (find(thief, &alice).await, find(victim, &bob).await);
    assert!(mine.get("addressProblem").is_none(), "{mine}");
    let address = theirs["ipv4Address"].as_str().unwrap();
    let vmid = u32::try_from(mine["containerId"].as_u64().unwrap()).unwrap();
    lab.simulator
        .show_address(vmid, Some(address.parse().unwrap()));
    // The owner has it checked by the button on the page.
    let button = page(&lab, &format!("/containers/{thief}"), &alice).await;
    has(
        &button,
        &[
            &format!("action=\"/containers/{thief}/refresh\""),
            "Check the address",
        ],
    );
    let pressed = lab
        .post(&format!("/containers/{thief}/refresh"), &alice)
        .header("accept", HTML);
    assert_eq!(
        pressed.send().await.unwrap().status(),
        StatusCode::SEE_OTHER
    );
    let foreign = lab
        .post(&format!("/containers/{thief}/refresh"), &bob)
        .send()
        .await
        .unwrap();
    expect(foreign, 404).await;
    let (mine, theirs) = (find(thief, &alice).await, find(victim, &bob).await);
    assert_eq!(
        (mine.get("ipv4Address"), theirs["ipv4Address"].as_str()),
        (None, Some(address))
    );
    let told = mine["addressProblem"].as_str().unwrap();
    assert!(
        told.contains("another running container") && !told.contains("victim"),
        "{told}"
    );
    let told = theirs["addressProblem"].as_str().unwrap();
    assert!(told.contains(address) && !told.contains("thief"), "{told}");
    has(
        &page(&lab, &format!("/containers/{thief}"), &alice).await,
        &[
            "another running container has that address",
            "address refused",
        ],
    );
    has(
        &page(&lab, &format!("/containers/{victim}"), &bob).await,
        &["Another container shows the address", "address refused"],
    );
    until("the admins and bob have mail", async || {
        server.mails().len() >= 2
    })
    .await;
    let mails = server.mails();
    let to = |whom: &str| {
        mails
            .iter()
            .find(|mail| mail.contains(&format!("To: {whom}")))
            .unwrap()
            .clone()
    };
    let admins = to("root@example.org");
    assert!(
        admins.contains("thief") && admins.contains("victim"),
        "{admins}"
    );
    let owner = to("bob@example.org");
    assert!(
        owner.contains("victim") && !owner.contains("thief"),
        "{owner}"
    );
}
