//! Migrations and the adoption of the original's database, on each of the three databases. Not here: values in and rows out
//! (`tests/db`).
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod adoption;
mod common;
mod fresh;
mod interrupted;
mod refused;
mod snippets;
