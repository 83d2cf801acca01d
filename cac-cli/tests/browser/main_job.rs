//! The main job: somebody signs in, asks for a container, watches it being made, reaches its page and deletes it; with a mouse, with a
//! keyboard alone, and without script.

use serde_json::json;

use crate::browser::{Browser, ENTER};
use crate::desk::Desk;

/// From its progress page to its own, once it is there.
async fn to_the_container(browser: &Browser, name: &str) {
    browser.click("The container").await;
    browser.arrives("/containers/").await;
    browser.sees(name).await;
    browser.sees("running").await;
}

/// To the end of its deletion.
async fn delete(browser: &Browser, name: &str) {
    browser.fill("Type its name", name).await;
    browser.click(&format!("Delete {name}")).await;
    gone(browser, name).await;
}

/// Wherever its deletion leads: in the end the list has nothing.
async fn gone(browser: &Browser, name: &str) {
    browser
        .until("an empty list", async || {
            browser.goto("/containers").await;
            let text = browser.text().await;
            (text.contains("There is no container yet") && !text.contains(name)).then_some(())
        })
        .await;
}

/// What a form asks about while it is filled in may well be refused.
async fn quiet(browser: &Browser) {
    let mut log = browser.complaints(0).await;
    log.retain(|text| !text.contains("dryRun=true"));
    assert!(log.is_empty(), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_mouse() {
    let desk = Desk::start(&["--no-nginx", "--slow"], &[]);
    let browser = Browser::new(&desk.url).await;
    browser.goto("/containers").await;
    browser.arrives("/login").await;
    browser.fill("User name", "alice").await;
    browser.fill("Password", "alice-demo").await;
    browser.click("Sign in").await;
    browser.arrives("/containers").await;
    browser.sees("There is no container yet").await;
    browser.click("New container").await;
    browser.fill("Name", "api").await;
    browser.sees("api is reserved").await;
    browser.fill("Name", "by-mouse").await;
    browser.sees("by-mouse is free").await;
    browser.sees("by-mouse.cac.localhost").await;
    browser.fill("Operating system", "debian").await;
    browser.fill("Web port", "8080").await;
    browser.click("Create").await;
    browser.arrives("/status/").await;
    browser.evaluate("globalThis.stayed = true; 0").await;
    assert!(!browser.text().await.contains("success"));
    browser.sees("success").await;
    browser.sees("by-mouse is ready").await;
    assert_eq!(
        browser.evaluate("globalThis.stayed").await,
        true,
        "the page was loaded again"
    );
    to_the_container(&browser, "by-mouse").await;
    delete(&browser, "by-mouse").await;
    quiet(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_keyboard_alone() {
    let desk = Desk::new();
    let browser = Browser::new(&desk.url).await;
    let enter = ENTER.to_string();
    browser.goto("/login").await;
    browser.tab_to("User name").await;
    browser.press("alice").await;
    browser.tab_to("Password").await;
    browser.press("alice-demo").await;
    browser.press(&enter).await;
    browser.arrives("/containers").await;
    browser.tab_to("New container").await;
    browser.press(&enter).await;
    browser.arrives("/containers/new").await;
    browser.tab_to("Name").await;
    browser.press("by-keys").await;
    browser.tab_to("Operating system").await;
    browser.press("debian").await;
    let system = browser.value("Operating system").await;
    assert!(system.starts_with("debian"), "{system}");
    browser.tab_to("Web port").await;
    browser.press("8080").await;
    browser.tab_to("Create").await;
    browser.press(&enter).await;
    browser.arrives("/status/").await;
    browser.sees("success").await;
    browser.tab_to("The container").await;
    browser.press(&enter).await;
    browser.arrives("/containers/").await;
    browser.tab_to("Type its name").await;
    browser.press("by-keys").await;
    browser.tab_to("Delete by-keys").await;
    browser.press(&enter).await;
    gone(&browser, "by-keys").await;
    quiet(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_second_factor_and_back_to_where_it_was() {
    let desk = Desk::new();
    let browser = Browser::new(&desk.url).await;
    browser.goto("/tokens").await;
    browser.arrives("/login").await;
    browser.fill("User name", "carol").await;
    browser.fill("Password", "carol-demo").await;
    browser.click("Sign in").await;
    browser.sees("second factor").await;
    browser.fill("Code", "000000").await;
    browser.click("Sign in").await;
    browser.sees("The code is wrong or too old").await;
    browser.fill("Code", "123456").await;
    browser.click("Sign in").await;
    browser.arrives("/tokens").await;
    browser.sees("There is no token yet").await;
    let complaints = browser.complaints(401).await;
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_skips_to_the_content() {
    let desk = Desk::new();
    let browser = Browser::new(&desk.url).await;
    browser.sign_in("alice").await;
    browser.goto("/jobs").await;
    browser.tab_to("Skip to the content").await;
    browser.press(&ENTER.to_string()).await;
    let inside = "document.activeElement.closest('main') !== null";
    assert_eq!(browser.evaluate(inside).await, json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_script() {
    let desk = Desk::start(&["--no-nginx", "--slow"], &[]);
    let browser = Browser::new(&desk.url).await;
    browser.script(false).await;
    browser.sign_in("alice").await;
    browser.sees("There is no container yet").await;
    browser.click("New container").await;
    browser.fill("Name", "plain").await;
    browser.fill("Operating system", "debian").await;
    browser.fill("Web port", "8080").await;
    browser.click("Create").await;
    browser.arrives("/status/").await;
    browser.evaluate("globalThis.stayed = true; 0").await;
    browser.sees("success").await;
    browser.sees("plain is ready").await;
    let stayed = browser.evaluate("globalThis.stayed === true").await;
    assert_eq!(stayed, false, "without script only a new page can say so");
    to_the_container(&browser, "plain").await;
    delete(&browser, "plain").await;
    browser.click("Sign out").await;
    browser.arrives("/login").await;
    browser.click("Ask for one").await;
    browser.arrives("/register").await;
    for (label, text) in [
        ("Your name", "Carol Singer"),
        ("E-mail", "carol@example.org"),
        ("User name", "carol"),
        ("What", "To sing."),
    ] {
        browser.fill(label, text).await;
    }
    browser.click("Ask for it").await;
    browser
        .until("to be told that it arrived", async || {
            let told = "document.querySelector('main [role=status]') !== null";
            (browser.evaluate(told).await == true).then_some(())
        })
        .await;
    quiet(&browser).await;
}
