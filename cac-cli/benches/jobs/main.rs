//! What the job engine can do, on each database, each figure beside a bare limit that was measured in the same run:
//! `.ci/servers --durable cargo bench -p cac-cli --bench jobs`, or parts of it on some of them: `… --bench jobs -- rate shell mariadb`.
//!
//! Prints a table in Markdown. Everything is asked of loopback addresses only, and ends by itself.
#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a measurement that failed reports"
)]

mod bare;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/lab.rs"]
mod lab;
mod latency;
mod memory;
mod output;
mod peer;
mod place;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/programs/portal.rs"]
mod portal;
mod rate;
mod shell;
mod stream;

use std::time::Duration;

/// The parts, in the order of the table.
const PARTS: [&str; 8] = [
    "latency", "rate", "peer", "shell", "output", "stream", "viewers", "memory",
];

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` hands this word on; then nothing is to be measured.
    if words.iter().any(|word| word == "--test") {
        return;
    }
    if words.first().is_some_and(|word| word == latency::MODE) {
        return latency::runner(&words[1]).await;
    }
    println!(
        "| What | Database | cac | Bare limit or peer, same run | cac / bare |\n|---|---|---|---|---|"
    );
    for part in place::asked(PARTS) {
        match part {
            "latency" => latency::measure().await,
            "rate" => rate::measure().await,
            "peer" => peer::measure().await,
            "shell" => shell::measure().await,
            "output" => output::measure().await,
            "stream" => stream::measure().await,
            "viewers" => stream::viewers().await,
            _ => memory::measure().await,
        }
    }
}

/// One line of the table.
fn row(what: &str, database: &str, ours: &str, bare: &str, ratio: &str) {
    println!("| {what} | {database} | {ours} | {bare} | {ratio} |");
}

/// A line about rates, of which more is better.
fn rates(what: &str, database: &str, ours: f64, bare: f64, bare_is: &str) {
    let (a, b) = (format!("{ours:.0}/s"), format!("{bare:.0}/s ({bare_is})"));
    row(
        what,
        database,
        &a,
        &b,
        &format!("{:.0} %", 100.0 * ours / bare),
    );
}

/// The time below which that share of them is.
fn at(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a short list"
    )]
    let index = ((times.len() - 1) as f64 * share).round() as usize;
    times[index]
}

/// p50 and p99.
fn percentiles(times: &mut [Duration]) -> String {
    format!("p50 {}, p99 {}", ms(at(times, 0.5)), ms(at(times, 0.99)))
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// By the clock that all processes of this machine share.
fn nanoseconds() -> u128 {
    std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_nanos()
}

/// The time from such a moment, as it was printed, to now.
fn since(printed: &str) -> Duration {
    let then: u128 = printed.trim().parse().unwrap();
    Duration::from_nanos(u64::try_from(nanoseconds().saturating_sub(then)).unwrap())
}

/// The one in the middle.
fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}
