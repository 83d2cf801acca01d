//! The built programs as people run them: processes, signals, standard output, a real nginx. The library only
//! makes databases and certificates for them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod chaos;
mod cli;
mod crash;
mod demo;
mod desk;
mod doctor;
mod door;
mod end_to_end;
mod front;
mod help;
mod lab;
mod local;
mod machine;
mod payload;
mod portal;
mod proxy;
mod readme;
mod runner;
mod secret;
mod signed;
mod trust;
mod visitors;
