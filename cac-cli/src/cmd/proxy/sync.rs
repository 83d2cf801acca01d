//! `cac proxy sync`: the loop that keeps one nginx on the portal's newest file. What it fetches it gives to [`ProxyNginx`], which verifies
//! it, and tells the portal what became of it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cac_core::nginx::{
    ApplyFailure, ApplyResult, FailureReason, NginxStatus, ProxyNginx, SignedFile, SignedStatement,
    etag, statement,
};
use cac_core::program;
use cac_core::proxy::REPEAT;
use chrono::{DateTime, Utc};
use clap::Args;
use progenitor_client::ClientInfo as _;
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap, IF_NONE_MATCH};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::is_soon;
use super::machine::Machine;
use crate::api::types;
use crate::cmd::environment;
use crate::portal::{Portal, Told as _, ended, unreachable};
use crate::print::{self, Exit, Failure};

/// How long the portal holds an unchanged answer back, in seconds.
const WAIT: u64 = 45;
/// From a failure to the next try: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often it is said that the token expires soon.
const DAY: Duration = Duration::from_secs(86_400);
/// What nginx refused may be good later: the file includes others.
const AGAIN: Duration = Duration::from_secs(60);
/// One of several `cac-http` may be behind the others for as long; its older file is not reported before.
const BEHIND: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct Sync {
    #[command(flatten)]
    machine: Machine,
    /// Let the `cac proxy apply` that listens there put files in place, so that this needs no rights
    #[arg(long, value_name = "SOCKET", env = "CAC_PROXY_HELPER")]
    helper: Option<PathBuf>,
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

impl Sync {
    pub(super) async fn run(self, portal: Portal) -> Result<ExitCode, Failure> {
        program::log(&environment()?, "info")?;
        let trust = self.machine.trust();
        let (name, keys) = (trust.name(), trust.keys()?);
        let mut nginx = match self.helper {
            Some(socket) => ProxyNginx::Helper(socket),
            None => ProxyNginx::Own(Box::new(self.machine.open()?)),
        };
        let mut first = nginx.refresh().await;
        // The helper may be starting, too.
        while let (Err(error), false) = (&first, self.once) {
            tracing::warn!(%error, "the helper (cac proxy apply) does not answer yet");
            tokio::time::sleep(FIRST_PAUSE).await;
            first = nginx.refresh().await;
        }
        let status = first.map_err(|error| helper_away(&error))?;
        let mut puller = Puller {
            // Without a key even a file that is in force has to be told as one that cannot be verified.
            etag: status.in_force.clone().filter(|_| !keys.is_empty()),
            status,
            portal,
            nginx,
            name,
            keys,
            told: None,
            behind_since: None,
            warned: None,
        };
        if self.once {
            return puller.once().await;
        }
        let stop = program::stop_on_signals()?;
        // A file that is being put in place is put in place before this ends.
        puller.follow(self.interval, &stop).await;
        Ok(ExitCode::SUCCESS)
    }
}

fn helper_away(error: &io::Error) -> Failure {
    let text = format!(
        "The helper that puts files in place (cac proxy apply) does not answer: {error}. Start cac-proxy-apply."
    );
    Exit::try_again(&text)
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
    nginx: ProxyNginx,
    /// How it stood here when the last file was dealt with.
    status: NginxStatus,
    name: String,
    keys: Vec<cac_core::nginx::PinnedKey>,
    /// Of the newest file, where nothing is left to be done with it, good or not.
    etag: Option<String>,
    told: Option<Told>,
    /// Since when the portal's file is older than what was applied here.
    behind_since: Option<Instant>,
    /// When it was last said that the token expires soon.
    warned: Option<Instant>,
}

impl Puller {
    async fn once(&mut self) -> Result<ExitCode, Failure> {
        loop {
            let fetched = self.fetch().await?;
            match self.take(fetched).await {
                Err(_)
                    if self
                        .behind_since
                        .is_some_and(|since| since.elapsed() < BEHIND) =>
                {
                    tokio::time::sleep(FIRST_PAUSE).await;
                    continue;
                }
                taken => taken?,
            }
            if self.etag.is_some() {
                break;
            }
        }
        match self.told.take() {
            Some(Told {
                refused: Some(reason),
                ..
            }) => Err(reason.into()),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    async fn follow(&mut self, interval: Duration, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let fetched = tokio::select! {
                () = stop.cancelled() => return,
                fetched = self.fetch() => Some(fetched),
                () = self.nginx.changes(&self.status.footing) => None,
            };
            let begun = Instant::now();
            let done = match fetched {
                None => match self.look_anew().await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                Some(Ok(fetched)) => self.take(fetched).await,
                Some(Err(error)) => Err(error),
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
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next) => false,
                () = self.nginx.changes(&self.status.footing) => true,
            };
            if changed && let Err(error) = self.look_anew().await {
                tracing::warn!(%error, "tried again in {} s", pause.as_secs());
                sleep_until(next).await;
            }
        }
    }

    /// Somebody else did something here.
    async fn look_anew(&mut self) -> Result<(), Failure> {
        self.etag = None;
        let status = self.nginx.refresh().await;
        self.status = status.map_err(|error| helper_away(&error))?;
        Ok(())
    }

    /// The newest file, if it is another one than what was dealt with.
    async fn fetch(&self) -> Result<Option<SignedFile>, Failure> {
        let status = &self.status;
        let (major, minor, patch) = status.version;
        let wait = match (&self.etag, &self.told) {
            (Some(_), Some(told)) if !told.is_due() => {
                let left = told.again.saturating_duration_since(Instant::now());
                (left.as_secs() + 1).min(WAIT)
            }
            _ => 0,
        };
        let url = format!(
            "{}/nginx.conf?wait={wait}&nginx={major}.{minor}.{patch}&http3={}&stream={}&taken={}",
            self.portal.url, status.http3, status.stream, status.taken
        );
        let mut request = self.portal.client.client().get(url);
        request = request.query(&[("proxy", &self.name)]);
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let answer = request.send().await.map_err(|error| unreachable(&error))?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => Ok(None),
            StatusCode::OK => {
                let told = answer.headers().get(ETAG).cloned();
                let signed = signed(answer.headers());
                let text = answer.text().await.map_err(|error| unreachable(&error))?;
                // Whatever is between may have cut it off.
                if told.is_none_or(|told| told != etag(&text)) {
                    return Err("The portal's file did not arrive whole.".into());
                }
                Ok(Some(SignedFile { text, signed }))
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

    /// Has the file put in place, and tells the portal what became of it.
    async fn take(&mut self, fetched: Option<SignedFile>) -> Result<(), Failure> {
        let Some(file) = fetched else {
            return self.say_again().await;
        };
        let etag = etag(&file.text);
        // What could be taken without any change is asked for again.
        self.etag = None;
        let failure = match self.apply(file).await? {
            ApplyResult::Unfit => return Ok(()),
            ApplyResult::Live => {
                self.behind_since = None;
                tracing::info!(etag, "nginx is up to date");
                self.etag = Some(etag.clone());
                return self.say(Told::live(etag)).await;
            }
            ApplyResult::Failed(failure) => failure,
        };
        if failure.reason == FailureReason::Older {
            let since = *self.behind_since.get_or_insert_with(Instant::now);
            if since.elapsed() < BEHIND {
                return Err(failure.message.into());
            }
        } else {
            self.behind_since = None;
        }
        self.refused(etag, failure).await
    }

    async fn apply(&mut self, file: SignedFile) -> Result<ApplyResult, Failure> {
        // Who has the files verifies again; what is bad already does not come so far.
        let said = statement::verify(&self.keys, &self.name, &file.text, file.signed.as_ref());
        if let Err(error) = said {
            return Ok(ApplyResult::Failed(error.into()));
        }
        let applied = self.nginx.apply(file).await;
        let applied = applied.map_err(|error| helper_away(&error))?;
        let status = self.nginx.status().await;
        self.status = status.map_err(|error| helper_away(&error))?;
        Ok(applied)
    }

    async fn refused(&mut self, etag: String, failure: ApplyFailure) -> Result<(), Failure> {
        let untrusted = matches!(
            failure.reason,
            FailureReason::Unverified | FailureReason::Older
        );
        let absent = failure.reason == FailureReason::Absent;
        let down = absent || !self.status.footing.serves();
        match down {
            true => tracing::error!(etag, error = failure.message, "nginx does not serve"),
            false => {
                tracing::error!(
                    etag,
                    error = failure.message,
                    "nginx stays on its old configuration"
                );
            }
        }
        let dealt_with = failure.reason != FailureReason::MayPass;
        if dealt_with {
            self.etag = Some(etag.clone());
        }
        let words = match down {
            _ if untrusted => failure.message,
            true if !absent => {
                let why = failure.message;
                format!("nginx does not run, and would not start: {why}")
            }
            _ => failure.words,
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
        let taken = self.status.taken.split(',').filter(|port| !port.is_empty());
        let body = types::RevisionReport {
            revision: told.etag.clone(),
            refused: told.refused.clone(),
            down: told.down,
            live: told.refused.as_ref().and_then(|_| self.status.good.clone()),
            taken: taken.map(ToOwned::to_owned).collect(),
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

/// What came with the file, if it did.
fn signed(headers: &HeaderMap) -> Option<SignedStatement> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    Some(SignedStatement {
        statement: text("cac-statement")?,
        signature: text("cac-signature")?,
    })
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
