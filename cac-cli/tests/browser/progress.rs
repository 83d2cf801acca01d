//! The progress page: the log as it comes, and what its reader does with it.

use std::fmt::Write as _;
use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::browser::Browser;
use crate::desk::Desk;
use crate::portal::{self, Portal};

/// An admin looks at her job that runs this command; the portal is at this address for her.
async fn watch_at(desk: &Desk, url: &str, command: &str) -> Browser {
    let portal = Portal::new(&*desk.url);
    let admin = portal.login("admin", "admin-demo").await.unwrap();
    let request = portal.request(Method::POST, "/jobs");
    let request = request
        .header("cookie", &admin)
        .json(&json!({"command": command}));
    let job = portal::json(request.send().await.unwrap(), 201).await;
    let browser = Browser::new(url).await;
    browser.sign_in("admin").await;
    browser.goto(&format!("/status/{}", job["id"])).await;
    browser
}

async fn watch(desk: &Desk, command: &str) -> Browser {
    watch_at(desk, &desk.url, command).await
}

/// Passes connections on to the portal until they are cut; new ones are passed on again.
async fn relay(desk: &Desk, cut: Arc<Notify>) -> String {
    let portal = desk.url.strip_prefix("http://").unwrap().to_owned();
    let ip = portal.split(':').next().unwrap();
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let (portal, cut) = (portal.clone(), Arc::clone(&cut));
            tokio::spawn(async move {
                let mut far = TcpStream::connect(portal).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.notified() => {}
                }
            });
        }
    });
    url
}

/// The numbers to this one, each on a line.
fn counted(to: u32) -> String {
    (1..=to).fold(String::new(), |mut text, n| {
        writeln!(text, "line {n}").unwrap();
        text
    })
}

const LOG: &str = "document.getElementById('log').textContent";

async fn complete(browser: &Browser, to: u32) {
    let last = format!("{LOG}.includes('line {to}\\n')");
    browser
        .until("the last line", async || {
            (browser.evaluate(&last).await == true).then_some(())
        })
        .await;
    assert_eq!(browser.evaluate(LOG).await, counted(to));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_whole_after_a_reload_and_a_broken_connection() {
    let desk = Desk::new();
    let command = "for n in $(seq 300); do echo line $n; sleep 0.03; done";
    let cut = Arc::new(Notify::new());
    let url = relay(&desk, Arc::clone(&cut)).await;
    let browser = watch_at(&desk, &url, command).await;
    browser.sees("line 20\n").await;
    browser.goto(&browser.path().await).await;
    browser.sees("line 60\n").await;
    browser.evaluate("globalThis.stayed = true; 0").await;
    cut.notify_waiters();
    browser.sees("The connection broke off").await;
    browser.sees("success").await;
    complete(&browser, 300).await;
    assert_eq!(browser.evaluate("globalThis.stayed").await, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_follows_its_end_unless_somebody_reads() {
    let desk = Desk::new();
    let command = "for n in $(seq 300); do echo line $n; sleep 0.02; done";
    let browser = watch(&desk, command).await;
    browser.sees("line 100\n").await;
    let at_end = "(() => { const log = document.getElementById('log'); return log.scrollTop > 0 && \
                  log.scrollHeight - log.scrollTop - log.clientHeight < 40; })()";
    let ends = async || {
        browser
            .until("the end", async || {
                (browser.evaluate(at_end).await == true).then_some(())
            })
            .await;
    };
    ends().await;
    browser
        .evaluate("document.getElementById('log').scrollTop = 0; 0")
        .await;
    browser.sees("Follow the end").await;
    browser.sees("line 160\n").await;
    let top = browser
        .evaluate("document.getElementById('log').scrollTop")
        .await;
    assert_eq!(top, 0);
    browser.click("Follow the end").await;
    browser.sees("success").await;
    ends().await;
    // And still when the window becomes narrow.
    browser.size(320).await;
    ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_writes_is_text_with_colours_and_no_more() {
    let desk = Desk::new();
    let command = r#"printf '\033[1;31mred\033[0m \033]0;title\007<img src=/x onerror="document.title = 1"><b>b</b>\033[2J\033[5;5Hend\n'"#;
    let browser = watch(&desk, command).await;
    browser.sees("success").await;
    browser
        .until("the end", async || {
            let log = browser.evaluate(LOG).await;
            log.as_str()
                .is_some_and(|log| log.contains("end"))
                .then_some(())
        })
        .await;
    let text = r#"red <img src=/x onerror="document.title = 1"><b>b</b>end"#;
    let log = browser.evaluate(LOG).await;
    assert!(log.as_str().unwrap().starts_with(text), "{log}");
    let made =
        "[...document.querySelectorAll('#log *')].map((e) => `${e.localName}.${e.className}`)";
    let made = browser.evaluate(made).await;
    assert_eq!(made, json!(["div.", "span.a1 f1"]));
    assert!(browser.complaints(0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_and_run_again() {
    let desk = Desk::new();
    let browser = watch(&desk, "echo begun; sleep 60").await;
    browser.sees("begun").await;
    browser.click("Cancel").await;
    browser.sees("cancelled").await;
    let first = browser.path().await;
    browser.click("Run again").await;
    browser
        .until("another job", async || {
            let path = browser.path().await;
            (path.starts_with("/status/") && path != first).then_some(())
        })
        .await;
    browser.sees("begun").await;
    browser.click("Cancel").await;
    browser.sees("cancelled").await;
    assert!(browser.complaints(0).await.is_empty());
}
