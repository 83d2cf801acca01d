//! The one door to three databases: what `db` promises is tried on each of them. Not here: tables (`tests/schema`).
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod busy;
mod common;
mod keys;
mod lists;
mod locks;
mod render;
mod transactions;
mod values;
