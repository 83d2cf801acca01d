//! The main job without HTTP: a core, a runner and a simulated Proxmox VE on the wire, on all three databases.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod address;
mod clone;
mod cluster;
mod create;
mod delete;
mod deletion_requests;
mod faults;
mod former;
mod identity;
mod import;
mod lab;
mod life;
mod limits;
mod lockout;
mod many;
mod node;
mod people;
mod pitfalls;
mod preflight;
mod reconcile;
mod rights_lost;
mod sign_in;
mod strangers;
mod whole_changes;
