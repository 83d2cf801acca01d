//! `cac proxy`: the reverse proxies, and the loop that keeps one of them on the newest configuration.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cac_core::nginx::{
    Became, Footing, Found, Installed, ProxyError, StreamModule, etag, find_nginx,
};
use cac_core::program;
use cac_core::proxy::REPEAT;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use progenitor_client::ClientInfo as _;
use reqwest::StatusCode;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Common, environment, shown, time};
use crate::api::types;
use crate::portal::{Portal, Told as _, ended, segment, unreachable};
use crate::print::{self, Exit, Failure};

/// How long the portal holds an unchanged answer back, in seconds.
const WAIT: u64 = 45;
/// From a failure to the next try: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long before its end a token is warned of, and how often.
const SOON: TimeDelta = TimeDelta::days(30);
const DAY: Duration = Duration::from_secs(86_400);
/// What nginx refused may be good later: the file includes others.
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Proxy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep the nginx of this machine on the portal's configuration, until Ctrl-C
    ///
    /// Waits at the portal for changes, checks each file with `nginx -t` before it is put in place, has nginx read it, puts the old one
    /// back where nginx does not take it over, and reports what is live. A portal that is away changes nothing, and an nginx that does
    /// not run finds the newest file when it starts. A service whose port another program of this machine has is left out until it is
    /// free, and hinders no other. Needs a token with the scopes nginx:read and nginx:report.
    Sync(Box<Sync>),
    /// List the reverse proxies that reported, for admins
    List,
    /// Forget one until it reports again, for admins
    Forget {
        /// As `cac proxy list` names it
        name: String,
    },
}

#[derive(Args)]
struct Sync {
    /// The file that nginx reads
    #[arg(long, value_name = "FILE", default_value = "/etc/nginx/nginx.conf")]
    file: PathBuf,
    /// The nginx program; left out, the one that is installed
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// A shell command that has nginx read its file; left out, its process is signalled
    #[arg(long, value_name = "COMMAND")]
    reload: Option<String>,
    /// The name under which this proxy reports; left out, the machine's
    #[arg(long)]
    name: Option<String>,
    /// At least so many seconds between two reloads
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Look once, for timers
    #[arg(long)]
    once: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    let good = seconds.filter(|seconds| (0.0..=3600.0).contains(seconds));
    good.map(Duration::from_secs_f64)
        .ok_or_else(|| "give seconds from 0 to 3600, such as 0.5".to_owned())
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
        let portal = Portal::open(common)?;
        match self.command {
            Command::Sync(sync) => return sync.run(portal).await,
            Command::List => {
                let proxies = portal.client.proxy_list().send().await.told()?;
                if common.json {
                    print::json(&proxies)?;
                    return Ok(ExitCode::SUCCESS);
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
                print::table(titles, rows)?;
            }
            Command::Forget { name } => {
                let name = segment("a reverse proxy", &name)?;
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

impl Sync {
    async fn run(self, portal: Portal) -> Result<ExitCode, Failure> {
        program::log(&environment()?, "info")?;
        let found = match &self.nginx {
            Some(binary) => Found::ask(binary),
            None => find_nginx(),
        };
        let found = found.ok_or_else(|| {
            Exit::usage("No nginx answers here: install it (Debian: nginx and libnginx-mod-stream) or say where it is with --nginx.")
        })?;
        let name = match self.name {
            Some(name) => name,
            None => rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        };
        let mut nginx = Installed::open(found, &self.file, self.reload)?;
        nginx.look_for_freed();
        let mut puller = Puller {
            etag: nginx.in_force().map(ToOwned::to_owned),
            footing: nginx.footing(),
            portal,
            nginx,
            name,
            told: None,
            warned: None,
        };
        if self.once {
            loop {
                let fetched = puller.fetch().await?;
                puller.take(fetched).await?;
                if puller.etag.is_some() {
                    break;
                }
            }
            return match puller.told {
                Some(Told {
                    refused: Some(reason),
                    ..
                }) => Err(reason.into()),
                _ => Ok(ExitCode::SUCCESS),
            };
        }
        let stop = program::stop_on_signals()?;
        // A file that is being put in place is put in place before this ends.
        puller.follow(self.interval, &stop).await;
        Ok(ExitCode::SUCCESS)
    }
}

/// What the portal was told last.
#[derive(Clone)]
struct Told {
    etag: String,
    refused: Option<String>,
    down: bool,
    /// When it is to be told again.
    again: Instant,
    /// Whether it has arrived.
    known: bool,
}

struct Puller {
    portal: Portal,
    nginx: Installed,
    name: String,
    /// Of the newest file, where nothing is left to be done with it, good or not.
    etag: Option<String>,
    /// How it stood here when that was so.
    footing: Footing,
    told: Option<Told>,
    /// When it was last said that the token expires soon.
    warned: Option<Instant>,
}

impl Puller {
    async fn follow(&mut self, interval: Duration, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let fetched = tokio::select! {
                () = stop.cancelled() => return,
                fetched = self.fetch() => fetched,
                () = self.nginx.changes(&self.footing) => {
                    self.look_anew();
                    continue;
                }
            };
            let begun = Instant::now();
            let done = match fetched {
                Ok(fetched) => self.take(fetched).await,
                Err(error) => Err(error),
            };
            let next = match done {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    // Changes that come meanwhile are taken together.
                    begun + interval
                }
                Err(error) => {
                    tracing::warn!(%error, "tried again in {} s", pause.as_secs());
                    let next = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    next
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next) => {}
                () = self.nginx.changes(&self.footing) => self.look_anew(),
            }
        }
    }

    /// Somebody else did something here.
    fn look_anew(&mut self) {
        self.nginx.ask_again();
        self.nginx.look_for_freed();
        self.footing = self.nginx.footing();
        self.etag = None;
    }

    /// The newest file, if it is another one than what was dealt with.
    async fn fetch(&self) -> Result<Option<String>, Failure> {
        let found = &self.nginx.found;
        let (major, minor, patch) = found.version;
        let stream = match found.stream_module {
            StreamModule::Builtin => "builtin",
            StreamModule::Dynamic(_) => "dynamic",
            StreamModule::Missing => "none",
        };
        let wait = match (&self.etag, &self.told) {
            (Some(_), Some(told)) if !told.is_due() => {
                let left = told.again.saturating_duration_since(Instant::now());
                (left.as_secs() + 1).min(WAIT)
            }
            _ => 0,
        };
        let url = format!(
            "{}/nginx.conf?wait={wait}&nginx={major}.{minor}.{patch}&http3={}&stream={stream}&taken={}",
            self.portal.url,
            found.http3,
            self.nginx.taken()
        );
        let mut request = self.portal.client.client().get(url);
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let answer = request.send().await.map_err(|error| unreachable(&error))?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => Ok(None),
            StatusCode::OK => {
                let told = answer.headers().get(ETAG).cloned();
                let text = answer.text().await.map_err(|error| unreachable(&error))?;
                // Whatever is between may have cut it off.
                if told.is_none_or(|told| told != etag(&text)) {
                    return Err("The portal's file did not arrive whole.".into());
                }
                Ok(Some(text))
            }
            status => {
                let said = answer.text().await.unwrap_or_default();
                let problem: Option<types::Problem> = serde_json::from_str(&said).ok();
                let detail = problem.map_or(String::new(), |problem| problem.detail);
                let words = format!("The portal answers {status}. {detail}");
                Err(ended(status.as_u16(), words.trim(), None))
            }
        }
    }

    /// Puts the file in place, and tells the portal what became of it.
    async fn take(&mut self, fetched: Option<String>) -> Result<(), Failure> {
        let Some(text) = fetched else {
            return self.say_again().await;
        };
        let etag = etag(&text);
        // What could be taken without any change is asked for again.
        self.etag = None;
        let became = self.nginx.apply(&text).await;
        self.footing = self.nginx.footing();
        let error = match became {
            Ok(Became::Unfit) => return Ok(()),
            Ok(Became::Live) => {
                tracing::info!(etag, "nginx is up to date");
                self.etag = Some(etag.clone());
                return self.say(Told::live(etag)).await;
            }
            Err(error) => error,
        };
        let absent = error.is_absence();
        let down = absent || !self.footing.serves();
        match down {
            true => tracing::error!(etag, %error, "nginx does not serve"),
            false => tracing::error!(etag, %error, "nginx stays on its old configuration"),
        }
        let dealt_with = absent || !error.may_pass();
        if dealt_with {
            self.etag = Some(etag.clone());
        }
        let words = match error {
            ProxyError::Refused { words } if !down => words,
            other if down && !absent => format!("nginx does not run, and would not start: {other}"),
            other => other.to_string(),
        };
        let told = Told {
            refused: Some(words.clone()),
            down,
            again: Instant::now() + AGAIN,
            ..Told::live(etag)
        };
        self.say(told).await?;
        match dealt_with {
            true => Ok(()),
            false => Err(words.into()),
        }
    }

    async fn say(&mut self, mut told: Told) -> Result<(), Failure> {
        let body = types::RevisionReport {
            revision: told.etag.clone(),
            refused: told.refused.clone(),
            down: told.down,
            live: told.refused.as_ref().and_then(|_| self.nginx.good()),
            taken: self.nginx.taken().texts().collect(),
        };
        let request = self.portal.client.proxy_report().name(&self.name);
        let said = request.body(body).send().await.told();
        told.known = said.is_ok();
        self.told = Some(told);
        if let Ok(proxy) = &said {
            self.warn_of_end(proxy.token_expires);
        }
        said.map(drop).map_err(|failure| {
            let words = format!("The portal was not told what is live here. {failure}");
            Exit::with(print::status(&*failure), &words)
        })
    }

    /// Says once a day that the token this proxy lives by is near its end.
    fn warn_of_end(&mut self, expires: Option<DateTime<Utc>>) {
        let Some(expires) = expires.filter(is_soon) else {
            return;
        };
        let now = Instant::now();
        if self.warned.is_none_or(|warned| now - warned >= DAY) {
            self.warned = Some(now);
            tracing::warn!(%expires, "the API token of this proxy expires soon; create a new one and put it in its place");
        }
    }

    async fn say_again(&mut self) -> Result<(), Failure> {
        let Some(etag) = &self.etag else {
            return Ok(());
        };
        match &self.told {
            Some(told) if !told.is_due() => Ok(()),
            Some(told) if !told.known => self.say(told.clone()).await,
            Some(told) if told.refused.is_some() => {
                // It may be good now.
                self.etag = None;
                Ok(())
            }
            _ => self.say(Told::live(etag.clone())).await,
        }
    }
}

impl Told {
    fn live(etag: String) -> Self {
        Self {
            etag,
            refused: None,
            down: false,
            again: Instant::now() + REPEAT,
            known: false,
        }
    }

    fn is_due(&self) -> bool {
        !self.known || self.again <= Instant::now()
    }
}
