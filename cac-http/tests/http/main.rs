//! The web server as clients see it: a real server, a real runner, a simulated Proxmox VE on the wire. One file for each URL.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod account;
mod account_flood;
mod address;
mod admin_pages;
mod audit;
mod browse;
mod compat;
mod container_pages;
mod containers;
mod contract;
mod jobs;
mod lab;
mod life;
mod limit;
mod load;
mod login;
mod mail;
mod maildir;
mod nginx;
mod nginx_attack;
mod origin;
mod own_pages;
mod pages;
mod people;
mod reauthentication;
mod registration;
mod rights;
mod spec;
mod stop;
mod streams;
mod token;
mod well_known;
