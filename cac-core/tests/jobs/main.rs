//! The job engine by itself: commands, typed jobs of the test's own kinds, named tasks, followers, wake-ups; on three databases.
//!
//! Tests that stand for a defect of the original name it (J1 to J16); those of containers are in `provisioning`, those of whole
//! programs in cac-cli.
#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a test reports that its set-up failed"
)]

mod background;
mod follow;
mod lab;
mod output;
mod relay;
mod shell;
mod task;
mod turn;
mod typed;
mod wake;
