//! What the portal serves in a second, with 64 connections, beside a bare handler of the same framework that was measured in the same run:
//! `.ci/servers --durable cargo bench -p cac-cli --bench http`, or `… --bench http -- sqlite`.
//!
//! Prints a table in Markdown. Requests go to loopback addresses only, by `wrk` (Debian), each for a few seconds.
#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a measurement that failed reports"
)]

mod bare;
mod crowd;
#[path = "../../tests/programs/fill.rs"]
mod fill;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/lab.rs"]
mod lab;
mod place;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/portal.rs"]
mod portal;
mod streams;

use std::process::Command;

use place::Place;

/// What is asked for, and what the bare handler of the same name does.
const CASES: [(&str, &str); 5] = [
    ("list of 50 containers", "list"),
    ("one container", "show"),
    ("`/nginx.conf`, 1,000 services, 304", "same"),
    ("`/nginx.conf`, 1,000 services, whole", "whole"),
    ("a job's page, 50 lines", "page"),
];
const SECONDS: &str = "5s";
/// Each is measured so often, ours and the bare one in turn; the middle one counts.
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` hands this word on; then nothing is to be measured.
    if words.iter().any(|word| word == "--test") {
        return;
    }
    if words.first().is_some_and(|word| word == bare::MODE) {
        return bare::serve(&words[1..]).await;
    }
    let many = rustix::process::Rlimit {
        current: Some(20_000),
        maximum: Some(20_000),
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, many);
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/packages");
    assert!(
        Command::new(packages)
            .arg("wrk")
            .status()
            .unwrap()
            .success()
    );
    println!("| What | Database | cac | p99 | Bare handler, same run | p99 | cac / bare |");
    println!("|---|---|---|---|---|---|---|");
    let named = |name: &&str| words.iter().any(|word| word == name);
    let mut databases: Vec<&str> = ["sqlite", "mariadb"].into_iter().filter(named).collect();
    if databases.is_empty() {
        databases = vec!["sqlite", "mariadb"];
    }
    for database in databases {
        let place = Place::new(database, streams::STREAMS).await;
        for (what, name) in CASES {
            let (mut ours, mut bare) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(place.load(&place.url, name));
                bare.push(place.load(&place.bare_url, name));
            }
            let (ours, bare) = (median(ours), median(bare));
            println!(
                "| {what} | {database} | {:.0}/s | {} | {:.0}/s | {} | {:.0} % |",
                ours.rate,
                ours.p99,
                bare.rate,
                bare.p99,
                100.0 * ours.rate / bare.rate
            );
        }
        println!(
            "| memory of `cac-http` after that | {database} | {} MB | | | | |",
            place.megabytes()
        );
        streams::measure(&place, database).await;
        drop(place);
        let place = Place::new(database, crowd::PER_USER).await;
        crowd::measure(&place, database).await;
    }
}

/// What `wrk` found.
struct Load {
    rate: f64,
    p99: String,
}

fn median(mut all: Vec<Load>) -> Load {
    all.sort_unstable_by(|a, b| a.rate.total_cmp(&b.rate));
    all.swap_remove(all.len() / 2)
}

impl Place {
    /// 64 connections for some seconds; every answer must be a good one.
    fn load(&self, url: &str, name: &str) -> Load {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t", "1", "-c", "64", "-d", SECONDS, "--latency"]);
        for header in self.headers(name) {
            wrk.args(["-H", &header]);
        }
        let output = wrk
            .arg(format!("{url}{}", self.path(name)))
            .output()
            .unwrap();
        let text = lab::text(&output.stdout);
        let after = |word: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(word));
            line.map(|rest| rest.trim().to_owned())
        };
        assert!(
            after("Non-2xx or 3xx responses:").is_none(),
            "{name}: {text}"
        );
        assert!(after("Socket errors:").is_none(), "{name}: {text}");
        Load {
            rate: after("Requests/sec:").unwrap().parse().unwrap(),
            p99: after("99%").unwrap(),
        }
    }
}
