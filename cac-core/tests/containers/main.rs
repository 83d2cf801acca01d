//! Containers in the books, on the three databases: registering them, and their services. What needs Proxmox VE is in
//! `provisioning`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod lab;
mod list;
mod names;
mod port_map;
mod quotas;
mod registration;
mod services;
