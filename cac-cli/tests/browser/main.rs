//! The pages as people have them: a headless Chromium against `cac demo`, with script and without, by mouse and by keyboard, and what
//! axe-core says of each page.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod accessible;
mod admin;
mod axe;
mod browser;
#[path = "../programs/desk.rs"]
#[allow(dead_code, reason = "shared with `programs`, which uses all of it")]
mod desk;
mod driver;
#[path = "../programs/fill.rs"]
mod fill;
#[path = "../programs/lab.rs"]
#[allow(dead_code, reason = "shared with `programs`, which uses all of it")]
mod lab;
mod main_job;
mod pages;
#[path = "../programs/portal.rs"]
#[allow(dead_code, reason = "shared with `programs`, which uses all of it")]
mod portal;
mod progress;
mod shots;
