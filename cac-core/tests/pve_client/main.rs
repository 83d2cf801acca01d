//! The Proxmox VE client against servers on 127.0.0.1 that speak TLS and do exactly what a test says, good or bad, and
//! against every recorded exchange of a real Proxmox VE 8.4 that one of its calls could have made.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod failures;
mod lxc;
mod recorded;
mod server;
mod session;
mod task;
mod trust;
