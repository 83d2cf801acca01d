//! An admin's day: nodes, everyone's containers and jobs, a request for an account, a token.

use crate::browser::Browser;
use crate::desk::Desk;
use crate::pages::request_account;
use crate::portal::Portal;

#[tokio::test(flavor = "multi_thread")]
async fn an_admins_day() {
    let desk = Desk::new();
    let portal = Portal::new(&*desk.url);
    let alice = portal.login("alice", "alice-demo").await.unwrap();
    let (_, job) = portal.create(&alice, "of-alice").await;
    portal.follow(&alice, job).await;
    request_account(&portal, "bob").await;

    let browser = Browser::new(&desk.url).await;
    browser.sign_in("admin").await;
    browser.click("Nodes").await;
    browser.arrives("/nodes").await;
    for node in ["pve1", "pve2", "pve3"] {
        browser.sees(node).await;
    }
    browser.click("pve1").await;
    browser.click("Test").await;
    browser.sees("Everything works").await;

    browser.click("Containers").await;
    browser.sees("There is no container yet").await;
    browser.click("Everyone’s").await;
    browser.click("of-alice").await;
    browser.sees("Give it away").await;
    browser.click("Jobs").await;
    browser.click(&format!("Job {job}")).await;
    browser.arrives(&format!("/status/{job}")).await;
    browser.sees("success").await;

    browser.click("Requests").await;
    browser.click("Bob Builder").await;
    browser.sees("pending").await;
    browser.click("Approve").await;
    browser.sees("approved").await;

    browser.click("Tokens").await;
    browser.fill("Name", "nightly").await;
    browser.tick("containers:read").await;
    browser.click("Make the token").await;
    browser.sees("it is shown only once").await;
    browser.click("Audit").await;
    browser.sees("token_create").await;
    let complaints = browser.complaints(0).await;
    assert!(complaints.is_empty(), "{complaints:?}");
}
