//! `cac proxy key` and `cac proxy epoch`: what proxies verify the portal's files with.

use std::process::ExitCode;

use cac_core::nginx::PinnedKey;
use cac_core::{Actor, proxy_key};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::cmd::{Common, core, local};
use crate::portal::{Portal, Told as _};
use crate::print::{self, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print what a proxy pins as CAC_PROXY_KEY, for admins
    Show {
        /// Read it from this machine's database: no network is between
        #[arg(long)]
        local: bool,
    },
    /// Local: make the key that will follow, and print it: pin both on every proxy, then activate it
    New,
    /// Local: sign with the new key from now on; the old one is gone
    Activate,
}

impl Key {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Show { local: true } => {
                let keys = proxy_key::find(&core().await?, &Actor::local()).await?;
                let next = keys.next.map(|next| next.to_string());
                show(
                    &keys.current.to_string(),
                    &keys.current.fingerprint(),
                    next.as_deref(),
                    common,
                )?;
            }
            Command::Show { local: false } => {
                let portal = Portal::open(common)?;
                let found = portal.client.proxy_key_find().send().await.told()?;
                show(
                    &found.key,
                    &found.fingerprint,
                    found.next_key.as_deref(),
                    common,
                )?;
            }
            Command::New => {
                let core = core().await?;
                let key = proxy_key::create_next(&core, &local()).await?;
                print::note(
                    "Pin it beside the old one on every proxy (CAC_PROXY_KEY=OLD,NEW), then run `cac proxy key activate`.",
                );
                made(&key, common)?;
            }
            Command::Activate => {
                let core = core().await?;
                let key = proxy_key::activate_next(&core, &local()).await?;
                print::note("It signs from now on. The old key can go from CAC_PROXY_KEY.");
                made(&key, common)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn made(key: &PinnedKey, common: &Common) -> Result<(), Failure> {
    show(&key.to_string(), &key.fingerprint(), None, common)
}

/// The key alone on standard output, so that it can be piped into a file.
fn show(key: &str, fingerprint: &str, next: Option<&str>, common: &Common) -> Result<(), Failure> {
    if common.json {
        return print::json(&json!({"key": key, "fingerprint": fingerprint, "nextKey": next}));
    }
    print::note(&format!("Fingerprint: {fingerprint}"));
    print::data(&match next {
        Some(next) => format!("{key},{next}\n"),
        None => format!("{key}\n"),
    })
}

pub(super) async fn begin_epoch(common: &Common) -> Result<ExitCode, Failure> {
    let core = core().await?;
    let epoch = proxy_key::begin_epoch(&core, &local()).await?;
    match common.json {
        true => print::json(&json!({"epoch": epoch}))?,
        false => print::data("Every proxy takes the files of this database from now on.\n")?,
    }
    Ok(ExitCode::SUCCESS)
}
