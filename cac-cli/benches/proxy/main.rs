//! The reverse proxy: from a service to its name, from services to the file, and how many reloads changes cost:
//! `cargo bench -p cac-cli --bench proxy`. How often an unchanged file is asked for in a second is `--bench http`.
//!
//! Prints a table in Markdown. An nginx and `cac proxy sync` as in production, on loopback addresses.
#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a measurement that failed reports"
)]

#[path = "../../tests/programs/fill.rs"]
mod fill;
#[path = "../../tests/programs/front.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod front;
#[path = "../../tests/programs/lab.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod lab;
#[path = "../../tests/programs/portal.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod portal;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cac_core::nginx::{HttpOptions, HttpService, Protocol, Settings, StreamService, render};
use front::Front;
use reqwest::Method;
use serde_json::json;

/// Measured one after the other.
const SERVICES: usize = 40;
/// Rows that are there before: two services each.
const CONTAINERS: i64 = 500;
const CHANGES: u32 = 200;
const RENDERS: usize = 30;

#[tokio::main]
async fn main() {
    // `cargo test --benches` hands this word on; then nothing is to be measured.
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    println!("| What | Measured |");
    println!("|---|---|");
    rendering();
    names().await;
}

/// In milliseconds.
fn told(mut all: Vec<f64>) -> String {
    all.sort_unstable_by(f64::total_cmp);
    let at = |share: usize| all[(all.len() - 1) * share / 100];
    format!("{:.1} / {:.1} / {:.1} ms", at(50), at(95), at(100))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn rendering() {
    let path = |text: &str| text.parse().unwrap();
    let settings = Settings::debian(path("/tls/certificate.pem"), path("/tls/key.pem"));
    let upstream =
        |n: u16| SocketAddr::from(([127, 60, n.to_be_bytes()[0], n.to_be_bytes()[1]], 8080));
    let web = |n: u16| HttpService {
        name: format!("service-{n}.cac.example.org").parse().unwrap(),
        upstream: upstream(n),
        options: HttpOptions::default(),
    };
    let ssh = |n: u16| StreamService {
        protocol: Protocol::Tcp,
        port: 20_000 + n,
        upstream: upstream(n),
        tls: false,
    };
    for (what, mut http, streams) in [
        (
            "10,000 web services",
            (0..10_000).map(web).collect::<Vec<_>>(),
            Vec::new(),
        ),
        (
            "5,000 web and 5,000 tcp services",
            (0..5_000).map(web).collect(),
            (0..5_000).map(ssh).collect::<Vec<_>>(),
        ),
    ] {
        let mut times = Vec::new();
        let mut bytes = 0;
        for n in 0..RENDERS {
            // One is another one each time.
            http[n].upstream.set_port(9000 + u16::try_from(n).unwrap());
            let begun = Instant::now();
            bytes = render(&settings, &http, &streams).text.len();
            times.push(millis(begun));
        }
        println!(
            "| {what} in memory → {bytes} bytes with their tag, the first time | {:.1} ms |",
            times[0]
        );
        println!(
            "| … with one changed, p50 / p95 / longest of {} | {} |",
            RENDERS - 1,
            told(times.split_off(1))
        );
    }
}

async fn names() {
    let label = |n: usize| format!("bench{n}");
    let names: Vec<String> = (0..SERVICES).map(label).collect();
    let front = Front::new(&names).await;
    let db = front.db().await;
    fill::containers(&db, 0..CONTAINERS, |_| "admin").await;
    let mut container = front.add("first").await;
    let _sync = front.sync(&[]);
    front.stands(container, "live").await;
    let mut times = Vec::new();
    for (n, name) in names.iter().enumerate() {
        // After a quiet time, and shortly after another change.
        tokio::time::sleep(Duration::from_millis(300 + 700 * (n as u64 % 3))).await;
        let row = front.portal.container(&front.admin, container).await;
        let port = row["services"][0]["internalPort"].clone();
        let begun = Instant::now();
        let path = format!("/containers/{container}/services");
        let request = front.portal.request(Method::POST, &path);
        let asked = json!({"type": "http", "internalPort": port, "externalHostname": name});
        let request = request.header("cookie", &front.admin).json(&asked);
        portal::json(request.send().await.unwrap(), 201).await;
        front
            .browser
            .until(&format!("{name}.proxy.test"), 200)
            .await;
        times.push(millis(begun));
    }
    println!(
        "| service created → its name answers through nginx, {} services, p50 / p95 / longest of {SERVICES} | {} |",
        2 * CONTAINERS + 1,
        told(times)
    );
    let before = _sync.err().matches("nginx is up to date").count();
    let begun = Instant::now();
    let mut last = Instant::now();
    for n in 0..CHANGES {
        container = front.add(&format!("burst{n}")).await;
        let due = begun + Duration::from_secs(10) * n / CHANGES;
        tokio::time::sleep_until(due.into()).await;
        last = Instant::now();
    }
    front.stands(container, "live").await;
    let reloads = _sync.err().matches("nginx is up to date").count() - before;
    println!(
        "| {CHANGES} changes in {:.1} s: reloads; all of them live after the last one | {reloads}; {:.1} s |",
        (last - begun).as_secs_f64(),
        last.elapsed().as_secs_f64()
    );
}
