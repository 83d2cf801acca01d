//! Pictures of every page, for people to look at: `.ci/browser/shots FOLDER`.

use std::path::PathBuf;

use serde_json::json;

use crate::pages::{PAGES, Stage, Who};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes pictures for people, by .ci/browser/shots"]
async fn shots() {
    let folder = std::env::var_os("CAC_SHOTS").expect("CAC_SHOTS says which folder");
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let stage = Stage::new().await;
    let browser = stage.browser().await;
    // As on a telephone, where they take no room.
    browser
        .devtools("Emulation.setScrollbarsHidden", json!({"hidden": true}))
        .await;
    for who in [Who::Nobody, Who::Alice, Who::Admin] {
        stage.enter(&browser, who).await;
        for page in PAGES.iter().filter(|page| page.who == who) {
            stage.open(&browser, page).await;
            for width in [390, 1280] {
                browser.size(width).await;
                for theme in ["light", "dark"] {
                    browser.theme(theme).await;
                    let name = format!("{}-{width}-{theme}.png", page.name);
                    std::fs::write(folder.join(name), browser.picture().await).unwrap();
                }
            }
        }
    }
}
