//! `cac proxy`: the reverse proxies, the loop that keeps one of them on the newest configuration, and the key by which it knows the portal.

use std::process::ExitCode;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;

use super::{Common, shown, time};
use crate::portal::{Portal, Told as _, segment};
use crate::print::{self, Failure};

mod key;
mod machine;
mod sync;

/// How long before its end a token is warned of.
const SOON: TimeDelta = TimeDelta::days(30);

#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Proxy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep the nginx of this machine on the portal's configuration, until Ctrl-C
    ///
    /// Waits at the portal for changes, verifies that the portal signed them for this proxy, checks each file with `nginx -t` before it is put in
    /// place, has nginx read it, puts the old one back where nginx does not take it over, and reports what is live. A portal that is away changes
    /// nothing, and an nginx that does not run finds the newest file when it starts. A service whose port another program of this machine has is
    /// left out until it is free, and hinders no other. Needs a token with the scopes nginx:read and nginx:report, and the portal's key
    /// (`cac proxy key show`).
    Sync(Box<sync::Sync>),
    /// Put verified files in place for a `cac proxy sync --helper` that may not, until Ctrl-C
    ///
    /// Runs as root beside a puller that does not. It verifies each file itself: signature, name, order, and that it says nothing that cac never
    /// writes. Whoever may enter the socket's folder may ask it.
    Apply(Box<machine::Apply>),
    /// List the reverse proxies that reported, for admins
    List,
    /// Forget one until it reports again, for admins
    Forget {
        /// As `cac proxy list` names it
        name: String,
    },
    /// The key that the portal signs files with
    Key(key::Key),
    /// Local: let the proxies take the files of a database that was restored from a backup
    ///
    /// Its revisions count from a lower number again, and proxies refuse what is older than what they have. Run this once after the backup was
    /// restored.
    Epoch,
}

/// Whether a token is to be replaced.
fn is_soon(expires: &DateTime<Utc>) -> bool {
    *expires - Utc::now() <= SOON
}

fn token_end(expires: Option<&DateTime<Utc>>) -> String {
    let end = time(expires);
    match expires.is_some_and(is_soon) {
        true => format!("{end} (soon)"),
        false => end,
    }
}

impl Proxy {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Sync(sync) => return sync.run(Portal::open(common)?).await,
            Command::Apply(apply) => return apply.run().await,
            Command::Key(key) => return key.run(common).await,
            Command::Epoch => return key::begin_epoch(common).await,
            Command::List => list(common).await?,
            Command::Forget { name } => {
                let name = segment("a reverse proxy", &name)?;
                let portal = Portal::open(common)?;
                portal
                    .client
                    .proxy_delete()
                    .name(name)
                    .send()
                    .await
                    .told()?;
                print::done("It is forgotten until it reports again.", common.json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(common: &Common) -> Result<(), Failure> {
    let portal = Portal::open(common)?;
    let proxies = portal.client.proxy_list().send().await.told()?;
    if common.json {
        return print::json(&proxies);
    }
    let rows = proxies.iter().map(|proxy| {
        [
            proxy.name.clone(),
            shown(proxy.live_since.as_ref()),
            shown(Some(&proxy.reported_at)),
            shown(proxy.reason.as_ref()),
            proxy.taken.join(", "),
            token_end(proxy.token_expires.as_ref()),
        ]
    });
    let titles = [
        "PROXY",
        "LIVE SINCE",
        "REPORTED",
        "REFUSED BECAUSE",
        "TAKEN PORTS",
        "TOKEN ENDS",
    ];
    print::table(titles, rows)
}
