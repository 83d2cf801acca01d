//! A private nginx at work: traffic of every kind through it, changes while it serves, and its end.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod change;
mod lab;
mod life;
mod reload;
mod secrets;
mod traffic;
