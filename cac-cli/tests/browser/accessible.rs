//! Every page in both themes, at widths from a small telephone to a large screen: nothing shuts people out, nothing is wider than the
//! window, and the browser complains of nothing.

use crate::axe;
use crate::pages::{PAGES, Stage, Who};

const WIDTHS: [u32; 5] = [320, 390, 768, 1280, 1920];

/// All that is wrong is told at once.
async fn look(theme: &str) {
    let stage = Stage::new().await;
    let browser = stage.browser().await;
    browser.theme(theme).await;
    let mut wrong = Vec::new();
    for who in [Who::Nobody, Who::Alice, Who::Admin] {
        stage.enter(&browser, who).await;
        for page in PAGES.iter().filter(|page| page.who == who) {
            browser.log().await;
            stage.open(&browser, page).await;
            axe::load(&browser).await;
            let mut say = |width: u32, text: &str| {
                wrong.push(format!("{} ({who:?}, {theme}, {width}): {text}", page.name));
            };
            for width in WIDTHS {
                browser.size(width).await;
                let wide = "(() => { const e = document.documentElement; const w = e.clientWidth; if (e.scrollWidth <= w) return ''; \
                            const out = [...document.body.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > w + 1); \
                            return `${e.scrollWidth} wide, as in ${out.slice(0, 3).map((e) => e.outerHTML.slice(0, 80)).join(' and ')}`; })()";
                let wide = browser.evaluate(wide).await;
                if wide != "" {
                    say(width, &format!("scrolls sideways: {wide}"));
                }
                if [390, 1280].contains(&width) {
                    for text in axe::violations(&browser).await {
                        say(width, &text);
                    }
                }
            }
            for text in browser.complaints(page.status).await {
                say(0, &text);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_in_the_light() {
    look("light").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_in_the_dark() {
    look("dark").await;
}
