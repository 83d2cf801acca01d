//! A simulated Proxmox VE 8.4 cluster that answers on the wire over HTTPS, with containers that come alive on
//! addresses of the loopback network. It makes no containers and is no mock inside a program: clients dial it.
//!
//! ```no_run
//! # async fn demo() -> Result<(), cac_simulator::Error> {
//! let simulator = cac_simulator::Simulator::start(cac_simulator::Config::default()).await?;
//! simulator.add_user("alice@pve", "alice-demo", &["students"]);
//! println!("{} {}", simulator.url(), simulator.fingerprint());
//! simulator.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! A guest serves SSH's greeting on `Config::ssh_port` and what its description names, one service a line:
//! `http PORT` a web page, `tcp PORT` and `udp PORT` an echo; without an `http` line the page is at port 80.

mod answer;
mod api;
mod auth;
mod certificate;
mod config;
mod container;
mod contract;
mod core;
mod faults;
mod format;
mod guest;
mod params;
mod permission;
mod rights;
mod server;
mod simulator;
mod store;
mod task;
mod world;

pub use config::{Config, Delay, Error};
pub use faults::{Action, Fault, Faults, Moment};
pub use simulator::{ContainerView, Simulator};
pub use world::GuestInterface;
