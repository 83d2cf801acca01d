//! Create-a-Container as a library: everything the product knows, without HTTP and without a command line.
//!
//! One noun per file (type, rules, SQL); a rule lives once, here, because API, pages, CLI and jobs share it.
//!
//! - [`db`] the one door to SQLite, MariaDB and PostgreSQL; `schema` migrations and adoption
//! - [`error`] one error without HTTP; every edge maps it once
//! - [`pve`] the Proxmox VE client
//! - The other files are parts that are not wired in yet.

#[allow(
    dead_code,
    unused_imports,
    reason = "the migrations that use the rest follow"
)]
pub mod db;
pub mod error;
pub mod pve;

pub use error::{Error, Result};
