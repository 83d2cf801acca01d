//! What a real Proxmox VE 8.4.21 answered to a thousand calls, asked again of the simulator in the same order. Each
//! answer must have the same status, the same words, and a body of the same shape. Exchanges that the simulator does
//! not take part in are printed with the reason.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod compare;
mod exchange;
mod player;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use player::{Outcome, Player};

/// How many exchanges of each group agree at least; raise a number when it has become more.
const FLOORS: [(&str, u32); 16] = [
    ("access", 58),
    ("access, refused", 40),
    ("cluster", 20),
    ("configuration", 42),
    ("configuration, refused", 28),
    ("containers, other", 96),
    ("create", 43),
    ("create, refused", 72),
    ("destroy", 41),
    ("login", 29),
    ("nodes", 16),
    ("pools", 10),
    ("power", 42),
    ("storage", 13),
    ("tasks", 305),
    ("transport", 27),
];

/// Differences shown for each group.
const SHOWN: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulator_answers_as_proxmox_did() {
    let mut player = Player::start().await;
    let mut agreeing: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut differences: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut outside: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for exchange in exchange::all() {
        let group = exchange.group();
        match player.play(&exchange).await {
            Outcome::Outside(reason) => outside.entry(reason).or_default().push(exchange.file),
            Outcome::Same => {
                let count = agreeing.entry(group).or_default();
                *count = (count.0 + 1, count.1 + 1);
            }
            Outcome::Different(what) => {
                agreeing.entry(group).or_default().1 += 1;
                let text = format!("{}: {what}", exchange.file);
                differences.entry(group).or_default().push(text);
            }
        }
    }
    player.end().await;
    let mut told = String::new();
    for (reason, files) in &outside {
        let (count, names) = (files.len(), files.join(" "));
        let _ = writeln!(told, "outside, {reason}: {count} ({names})");
    }
    for (group, list) in &differences {
        for text in list.iter().take(SHOWN) {
            let _ = writeln!(told, "{group}: {text}");
        }
    }
    for (group, (same, all)) in &agreeing {
        let _ = writeln!(told, "{group}: {same} of {all} agree");
    }
    // Past the harness, which shows what a test prints only when it fails.
    std::io::stderr().write_all(told.as_bytes()).unwrap();
    let fallen: Vec<String> = FLOORS
        .iter()
        .map(|(group, floor)| (group, floor, agreeing.get(group).map_or(0, |count| count.0)))
        .filter(|(_, floor, same)| same < *floor)
        .map(|(group, floor, same)| format!("{group}: {same} agree, {floor} did before"))
        .collect();
    assert!(fallen.is_empty(), "{fallen:?} {differences:#?}");
}
