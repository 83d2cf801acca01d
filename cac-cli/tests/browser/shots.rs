//! Pictures for people to look at: `.ci/browser/shots FOLDER`.

use std::path::PathBuf;

use serde_json::json;

use crate::browser::Browser;
use crate::desk::Desk;
use crate::pages::{PAGES, Stage, Who};
use crate::portal::Portal;

fn folder() -> PathBuf {
    let folder = std::env::var_os("CAC_SHOTS").expect("CAC_SHOTS says which folder");
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// As on a telephone, where they take no room.
async fn hide_scrollbars(browser: &Browser) {
    let asked = json!({"hidden": true});
    browser
        .devtools("Emulation.setScrollbarsHidden", asked)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes pictures for people, by .ci/browser/shots"]
async fn shots() {
    let folder = folder();
    let stage = Stage::new().await;
    let browser = stage.browser().await;
    hide_scrollbars(&browser).await;
    for who in [Who::Nobody, Who::Alice, Who::Admin] {
        stage.enter(&browser, who).await;
        for page in PAGES.iter().filter(|page| page.who == who) {
            stage.open(&browser, page).await;
            for width in [390, 1280] {
                browser.size(width).await;
                for theme in ["light", "dark"] {
                    browser.theme(theme).await;
                    let name = format!("{}-{width}-{theme}.png", page.name);
                    std::fs::write(folder.join(name), browser.picture(true).await).unwrap();
                }
            }
        }
    }
}

/// Those of the README: a list, a container being made, and the page of one on a telephone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes pictures for people, by .ci/browser/shots"]
async fn readme() {
    let folder = folder();
    let desk = Desk::start(&["--slow"], &[]);
    let portal = Portal::new(&*desk.url);
    let alice = portal.login("alice", "alice-demo").await.unwrap();
    for name in ["wiki", "shop", "notes"] {
        let (_, job) = portal.create(&alice, name).await;
        portal.follow(&alice, job).await;
    }
    let browser = Browser::new(&desk.url).await;
    hide_scrollbars(&browser).await;
    browser.sign_in("alice").await;
    let save = async |name: &str, window: (u32, u32), theme: &str| {
        browser.window(window.0, window.1).await;
        browser.theme(theme).await;
        let file = folder.join(format!("readme-{name}.png"));
        std::fs::write(file, browser.picture(false).await).unwrap();
    };
    save("containers", (1120, 450), "light").await;
    browser.click("wiki").await;
    browser.arrives("/containers/").await;
    save("container", (390, 720), "light").await;
    browser.goto("/containers/new").await;
    browser.fill("Name", "hello").await;
    browser.fill("Operating system", "debian").await;
    browser.fill("Web port", "8080").await;
    browser.click("Create").await;
    browser.sees("[5/7]").await;
    save("progress", (1120, 770), "dark").await;
}
