//! The portal's API as a client: generated from `openapi/client.json` whenever this is built, so that it cannot differ from the contract.
#![allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    dead_code,
    reason = "generated code"
)]

progenitor::generate_api!(spec = "../openapi/client.json", interface = Builder);
