//! graphile-worker, the quickest engine in the field that works on PostgreSQL, beside ours on the same server.

use std::path::Path;
use std::process::Command;

use cac_core::testing;

use crate::rate::{FEWER, ours};

/// As its own documentation recommends, and ours.
const SLOTS: usize = 24;
/// Jobs that its batches and ours hold.
const BATCH: usize = 500;
const ROUNDS: usize = 3;
const RELEASE: &str = "graphile-worker@0.18.0";

pub(crate) async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/jobs/peer.mjs");
    std::fs::copy(script, dir.path().join("peer.mjs")).unwrap();
    let mut install = Command::new("npm");
    install
        .args(["install", "--silent", "--no-audit", "--no-fund", RELEASE])
        .current_dir(&dir);
    if !install.status().is_ok_and(|status| status.success()) {
        crate::row(
            RELEASE,
            "postgres",
            "",
            "not measured: npm cannot install it here",
            "",
        );
        return;
    }
    let mut rates = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        rates[0].push(peer(dir.path(), "plain").await);
        rates[1].push(ours("postgres", FEWER, SLOTS, true).await);
        rates[2].push(peer(dir.path(), "batched").await);
        rates[3].push(ours("postgres", FEWER, SLOTS, false).await);
        rates[4].push(ours("postgres", FEWER, BATCH, false).await);
    }
    let [plain, single, batched, few, many] = rates.map(crate::median);
    crate::rates(
        "no-op typed jobs, 24 at once, single completions",
        "postgres",
        single,
        plain,
        "graphile-worker, plain",
    );
    crate::rates(
        "no-op typed jobs, 24 at once",
        "postgres",
        few,
        batched,
        "graphile-worker, queue of 500, batched",
    );
    crate::rates(
        "no-op typed jobs, 500 at once",
        "postgres",
        many,
        batched,
        "graphile-worker, queue of 500, batched",
    );
}

/// Jobs per second of graphile-worker in a database of its own.
async fn peer(dir: &Path, mode: &str) -> f64 {
    let database = testing::postgres().await;
    let mut node = tokio::process::Command::new("node");
    node.args(["peer.mjs", mode, &SLOTS.to_string(), &BATCH.to_string()])
        .current_dir(dir)
        .env("DATABASE_URL", &database.url);
    let output = node.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = || format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines()
        .last()
        .and_then(|line| line.parse().ok())
        .unwrap_or_else(|| panic!("{}", told()))
}
