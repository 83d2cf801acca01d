//! The simulator from outside: a container's life, faults, what a restart keeps.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod common;
mod faults;
mod keeping;
mod life;
