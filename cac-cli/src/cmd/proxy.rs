//! `cac proxy`: the reverse proxies, and the loop that keeps one of them on the newest configuration.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cac_core::nginx::{Found, Installed, ProxyError, StreamModule, etag, find_nginx};
use cac_core::program;
use cac_core::routes::TakenPorts;
use clap::{Args, Subcommand};
use progenitor_client::ClientInfo as _;
use reqwest::StatusCode;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Common, environment, shown};
use crate::api::types;
use crate::portal::{Portal, Told as _, segment};
use crate::print::{self, Exit, Failure};

/// How long the portal holds an unchanged answer back, in seconds.
const WAIT: u64 = 45;
/// From a failure to the next try: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A proxy that lives says so.
const SAY: Duration = Duration::from_secs(300);
/// Whether a port is free again that another program has.
const LOOK: u64 = 5;
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
    /// back where nginx does not take it over, and reports what is live. A portal that is away changes nothing. A service whose port
    /// another program of this machine has is left out until it is free, and hinders no other. Needs a token with the scopes nginx:read
    /// and nginx:report.
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
                    ]
                });
                print::table(["PROXY", "LIVE SINCE", "REPORTED", "REFUSED BECAUSE"], rows)?;
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
        let nginx = Installed {
            found,
            file: self.file,
            reload: self.reload,
            patience: Duration::from_secs(15),
        };
        let _lock = nginx.lock()?;
        let mut puller = Puller {
            etag: nginx.current().map(|text| etag(&text)),
            portal,
            nginx,
            name,
            settled: false,
            told: None,
            taken: BTreeSet::new(),
        };
        if self.once {
            while !puller.settled {
                let fetched = puller.fetch(0).await?;
                puller.take(fetched).await?;
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
struct Told {
    etag: String,
    refused: Option<String>,
    /// When it is to be told again.
    again: Instant,
}

struct Puller {
    portal: Portal,
    nginx: Installed,
    name: String,
    /// Of the newest file that was looked at, good or not.
    etag: Option<String>,
    /// Whether nginx surely runs on the file in place, or refused it.
    settled: bool,
    told: Option<Told>,
    /// Where other programs listen.
    taken: BTreeSet<SocketAddr>,
}

impl Puller {
    async fn follow(&mut self, interval: Duration, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            self.look_for_freed();
            let wait = match self.settled {
                false => 0,
                true if self.taken.is_empty() => WAIT,
                true => LOOK,
            };
            let Some(fetched) = stop.run_until_cancelled(self.fetch(wait)).await else {
                return;
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
            if stop.run_until_cancelled(sleep_until(next)).await.is_none() {
                return;
            }
        }
    }

    /// The newest file, if it is another one than what was looked at.
    async fn fetch(&self, wait: u64) -> Result<Option<String>, Failure> {
        let (major, minor, patch) = self.nginx.found.version;
        let stream = match self.nginx.found.stream_module {
            StreamModule::Builtin => "builtin",
            StreamModule::Dynamic(_) => "dynamic",
            StreamModule::Missing => "none",
        };
        let taken: TakenPorts = self.taken.iter().map(SocketAddr::port).collect();
        let url = format!(
            "{}/nginx.conf?wait={wait}&nginx={major}.{minor}.{patch}&http3={}&stream={stream}&taken={taken}",
            self.portal.url, self.nginx.found.http3
        );
        let mut request = self.portal.client.client().get(url);
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let answer = request.send().await?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => Ok(None),
            StatusCode::OK => {
                let told = answer.headers().get(ETAG).cloned();
                let text: String = answer.text().await?;
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
                Err(format!("The portal answers {status}. {detail}")
                    .trim()
                    .into())
            }
        }
    }

    /// Puts the file in place, and tells the portal what became of it.
    async fn take(&mut self, fetched: Option<String>) -> Result<(), Failure> {
        let text = match (fetched, self.settled) {
            (Some(text), _) => text,
            // What is in place may not be what nginx runs on.
            (None, false) => self.nginx.current().unwrap_or_default(),
            (None, true) => {
                self.say_again().await;
                return Ok(());
            }
        };
        let etag = etag(&text);
        self.etag = Some(etag.clone());
        let refused = match self.nginx.apply(&text).await {
            Ok(()) => {
                tracing::info!(etag, "nginx is up to date");
                None
            }
            Err(ProxyError::PortTaken { address })
                if self.taken.len() < TakenPorts::MOST && self.taken.insert(address) =>
            {
                tracing::warn!(%address, "another program listens there: the file is taken without what would");
                self.fetch_anew();
                return Ok(());
            }
            Err(error) => {
                tracing::error!(etag, %error, "nginx stays on its old configuration");
                Some(error)
            }
        };
        self.settled = refused.as_ref().is_none_or(|error| !error.may_pass());
        let again = !self.settled;
        if again {
            // So that it is fetched again.
            self.etag = None;
        }
        let words = refused.map(|error| match error {
            ProxyError::Refused { words } => words,
            other => other.to_string(),
        });
        self.say(etag, words.clone()).await;
        match words {
            Some(words) if again => Err(words.into()),
            _ => Ok(()),
        }
    }

    /// Has the whole file looked at again.
    fn fetch_anew(&mut self) {
        self.etag = None;
        self.settled = false;
    }

    fn look_for_freed(&mut self) {
        let before = self.taken.len();
        self.taken.retain(is_taken);
        if self.taken.len() < before {
            self.fetch_anew();
        }
    }

    async fn say(&mut self, etag: String, refused: Option<String>) {
        self.told = Some(Told {
            etag: etag.clone(),
            refused: refused.clone(),
            again: Instant::now() + if refused.is_some() { AGAIN } else { SAY },
        });
        let body = types::RevisionReport {
            revision: etag,
            refused,
        };
        let request = self.portal.client.proxy_report().name(&self.name);
        if let Err(failure) = request.body(body).send().await.told() {
            // Said again with the next look.
            if let Some(told) = &mut self.told {
                told.again = Instant::now();
            }
            tracing::warn!(%failure, "the portal was not told what is live");
        }
    }

    async fn say_again(&mut self) {
        match &self.told {
            Some(told) if told.again > Instant::now() => {}
            Some(Told {
                refused: Some(_), ..
            }) => self.etag = None,
            Some(told) => self.say(told.etag.clone(), None).await,
            None => {}
        }
    }
}

/// Whether somebody has this port, of either kind.
fn is_taken(at: &SocketAddr) -> bool {
    let tcp = TcpListener::bind(at).err();
    let udp = UdpSocket::bind(at).err();
    let errors = [tcp, udp].into_iter().flatten();
    errors
        .map(|error| error.kind())
        .any(|kind| kind == ErrorKind::AddrInUse)
}
