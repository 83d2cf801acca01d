//! What a browser has of the pages: bytes and requests of a long list, the time of the server for it, how a long log scrolls, and the time
//! from a print in a job to the pixel: `cargo bench -p cac-cli --bench pages`.
//!
//! Prints a table in Markdown. A headless Chromium against `cac demo`, both on this machine.
#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a measurement that failed reports"
)]

#[path = "../../tests/browser/browser.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod browser;
#[path = "../../tests/programs/desk.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod desk;
#[path = "../../tests/browser/driver.rs"]
mod driver;
#[path = "../../tests/programs/fill.rs"]
mod fill;
#[path = "../../tests/programs/lab.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod lab;
#[path = "../../tests/programs/portal.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod portal;

use std::process::Command;
use std::time::{Duration, Instant};

use browser::Browser;
use cac_core::db::Db;
use desk::Desk;
use portal::Portal;
use reqwest::Method;
use serde_json::{Value, json};

const CONTAINERS: i64 = 500;
/// All of them on one page; by default a page has fewer.
const LIST: &str = "/containers?limit=500";
const REQUESTS: usize = 300;
const LINES: usize = 100_000;
const MOMENTS: usize = 200;

#[tokio::main]
async fn main() {
    // `cargo test --benches` hands this word on; then nothing is to be measured.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/packages");
    let mut install = Command::new(packages);
    install.args(["chromium", "chromium-driver"]);
    assert!(install.status().unwrap().success());
    println!("| What | Measured |");
    println!("|---|---|");
    list().await;
    log().await;
    pixels().await;
}

/// In milliseconds: the middle, the 99th of 100, and the longest.
fn told(mut all: Vec<f64>) -> String {
    all.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| all[(all.len() - 1) * share / 100];
    format!("{:.1} / {:.1} / {:.1} ms", at(50), at(99), at(100))
}

async fn list() {
    let desk = Desk::new();
    let file = desk.data.path().join("cac.db");
    let db = Db::connect(&format!("sqlite:{}", file.display()))
        .await
        .unwrap();
    fill::containers(&db, 0..CONTAINERS, |_| "alice").await;
    let browser = Browser::new(&desk.url).await;
    browser.sign_in("alice").await;
    browser
        .devtools("Network.clearBrowserCache", json!({}))
        .await;
    browser.goto(LIST).await;
    let script = "(() => { const [page] = performance.getEntriesByType('navigation'); const more = performance.getEntriesByType('resource'); \
                  return [page.transferSize, page.encodedBodySize, page.decodedBodySize, more.length, \
                  more.reduce((all, one) => all + one.transferSize, 0), more.filter((one) => one.renderBlockingStatus === 'blocking').length, \
                  document.querySelectorAll('tbody tr').length]; })()";
    let measured = floats(&browser.evaluate(script).await);
    let [page, body, whole, more, bytes, blocking, rows] = measured[..] else {
        panic!("{measured:?}");
    };
    println!(
        "| list of {CONTAINERS} containers on one page ({rows} rows): bytes over the wire, before compression | {page} ({body} of them body), {whole} |"
    );
    println!(
        "| requests that follow, of which keep it from being seen; their bytes | {more}, {blocking}; {bytes} |"
    );
    let portal = Portal::new(&*desk.url);
    let session = portal.login("alice", "alice-demo").await.unwrap();
    let time = async |path: &str| {
        let mut all = Vec::new();
        for _ in 0..REQUESTS {
            let asked = Instant::now();
            let request = portal.request(Method::GET, path);
            let request = request
                .header("cookie", &session)
                .header("accept", "text/html")
                .header("accept-encoding", "gzip");
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
            all.push(asked.elapsed().as_secs_f64() * 1000.0);
        }
        told(all)
    };
    println!(
        "| the server's time for it: p50 / p99 / longest of {REQUESTS} requests | {} |",
        time(LIST).await
    );
    println!(
        "| the same for the first page as it is by default (100 rows) | {} |",
        time("/containers").await
    );
    println!(
        "| the same for `/healthz`, which does next to nothing | {} |",
        time("/healthz").await
    );
}

fn floats(value: &Value) -> Vec<f64> {
    let all = value.as_array().unwrap().iter();
    all.map(|one| one.as_f64().unwrap()).collect()
}

/// A demo with a job of an admin that waits for the demo's runner, and a browser of hers.
async fn job(command: &str) -> (Desk, Browser, Portal, String, i64) {
    let desk = Desk::new();
    let browser = Browser::new(&desk.url).await;
    browser.sign_in("admin").await;
    let portal = Portal::new(&*desk.url);
    let session = portal.login("admin", "admin-demo").await.unwrap();
    let request = portal.request(Method::POST, "/jobs");
    let request = request
        .header("cookie", &session)
        .json(&json!({"command": command}));
    let job = portal::json(request.send().await.unwrap(), 201).await;
    let id = job["id"].as_i64().unwrap();
    (desk, browser, portal, session, id)
}

async fn log() {
    let command = format!(
        "seq {LINES} | sed 's/.*/& \\x1b[32msomething\\x1b[0m happened, and this line of a long log says what it was and where/'"
    );
    let (_desk, browser, portal, session, id) = job(&command).await;
    portal.follow(&session, id).await;
    // Tasks of 50 ms and more are told to such an observer (W3C Long Tasks).
    let watch = "globalThis.tasks = []; new PerformanceObserver((list) => { for (const one of list.getEntries()) tasks.push(one.duration); })\
                 .observe({ type: 'longtask', buffered: true });";
    browser
        .devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({"source": watch}),
        )
        .await;
    // One that is long for certain, so that none would not mean that none is told.
    let long = "new Promise((done) => setTimeout(() => { const end = performance.now() + 100; while (performance.now() < end); \
                setTimeout(() => done(tasks.length), 300); }))";
    browser.goto("/jobs").await;
    assert_eq!(browser.evaluate(long).await, 1);
    let began = Instant::now();
    browser.goto(&format!("/status/{id}")).await;
    let whole = format!(
        "ended && !pending.length && log.lastElementChild.textContent.includes('{LINES} something')"
    );
    while browser.evaluate(&whole).await != true {
        assert!(began.elapsed() < Duration::from_secs(120), "never there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let there = began.elapsed().as_secs_f64();
    let longest = "tasks.reduce((all, one) => Math.max(all, one), 0)";
    let loading = browser.evaluate(longest).await;
    println!("| a log of {LINES} lines: until all of it is in the page | {there:.1} s |");
    println!("| … longest task of the main thread meanwhile (0: none of 50 ms) | {loading} ms |");
    // From the top to the end a window at a time, then here and there.
    let scroll = "(async () => { tasks.length = 0; const frames = []; let last = performance.now(); \
        const frame = () => new Promise((done) => requestAnimationFrame((now) => { frames.push(now - last); last = now; done(); })); \
        log.scrollTop = 0; await frame(); await frame(); frames.length = 0; \
        const window = log.clientHeight; let steps = 0; \
        while (log.scrollTop + window < log.scrollHeight - 1 && steps < 6000) { log.scrollTop += window; steps += 1; await frame(); } \
        for (let i = 0; i < 200; i += 1) { log.scrollTop = log.scrollHeight * ((i * 0.618) % 1); await frame(); } \
        await new Promise((done) => setTimeout(done, 200)); \
        return [steps, tasks, frames]; })()";
    let mut told_all = browser.evaluate(scroll).await;
    let tasks = floats(&told_all[1]);
    let longest = tasks.into_iter().fold(0.0, f64::max);
    let frames = told_all[2].take();
    println!(
        "| … scrolled through in {} windows and 200 jumps: longest task (0: none of 50 ms) | {longest:.0} ms |",
        told_all[0]
    );
    println!(
        "| … from frame to frame meanwhile, p50 / p99 / longest | {} |",
        told(floats(&frames))
    );
}

async fn pixels() {
    let command = format!("sleep 3; for i in $(seq {MOMENTS}); do date +%s%N; sleep 0.05; done");
    let (_desk, browser, portal, session, id) = job(&command).await;
    browser.goto(&format!("/status/{id}")).await;
    // What a frame shows is there when the task that follows it runs.
    let watch = "globalThis.times = []; (() => { const seen = new Set(); \
        new MutationObserver(() => requestAnimationFrame(() => { const { port1, port2 } = new MessageChannel(); \
        port1.onmessage = () => { const now = performance.timeOrigin + performance.now(); \
        for (const [line] of log.textContent.matchAll(/^\\d{19}$/gm)) if (!seen.has(line)) { seen.add(line); times.push(now - Number(line) / 1e6); } }; \
        port2.postMessage(0); })).observe(log, { childList: true, subtree: true, characterData: true }); })(); 0";
    browser.evaluate(watch).await;
    portal.follow(&session, id).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let times = floats(&browser.evaluate("times").await);
    assert_eq!(times.len(), MOMENTS);
    println!(
        "| from a print in a job to the pixel, p50 / p99 / longest of {MOMENTS} | {} |",
        told(times)
    );
}
