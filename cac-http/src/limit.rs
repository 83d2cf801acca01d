//! How many requests one address, or one signed-in user, may send. Budgets are this process's own and kept in memory; nothing
//! asks the database before the budget was asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cac_core::credential::{self, Credential};
use cac_core::login_failure::neighbours;
use cac_core::session::Client;
use cac_core::{Core, sign_in_origin};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use poem::Request;
use poem::http::header::{HeaderName, HeaderValue};
use poem::http::{HeaderMap, StatusCode};

use crate::auth;
use crate::error::ApiError;
use crate::origin::{self, Source};
use crate::slots::{Slot, Slots};
use crate::well_known;

/// Sessions and tokens that are looked up for an address whose budget is used up: at once, then one a second.
const LOOK_UPS: u32 = 5;
/// For how long a good session or token is known to be one; the handlers look it up themselves each time.
const KNOWN: Duration = Duration::from_secs(900);
/// When whoever holds too much open may try again, in seconds.
const RETRY: u64 = 10;
/// Requests between two tidyings.
const MANY: u32 = 4096;
/// Good ones that are remembered.
const REMEMBERED: usize = 100_000;

type Budgets<K> =
    RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

pub(crate) struct Limits {
    /// Requests without a good session or token, by address.
    strangers: Budget<IpAddr>,
    /// Requests with one, by user or token.
    users: Budget<String>,
    /// Streams begun, by user or token. They count apart, since they come again by themselves, but not without end.
    streams_begun: Budget<String>,
    /// Streams open, by user.
    streams: Arc<Slots<String>>,
    /// Answers held back until something changes, by whoever waits for them.
    waits: Arc<Slots<String>>,
    look_ups: Budget<IpAddr>,
    /// Sign-ins from devices that were signed in from before, where the address's budget is used up.
    devices: Budget<String>,
    /// Whose budget each credential that was good lately counts on.
    known: Mutex<HashMap<Credential, (String, Instant)>>,
}

/// What a request left of its budget.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    limit: u32,
    remaining: u32,
    /// Until the whole budget is there again.
    reset: Duration,
}

impl Left {
    /// The headers of the IETF draft that the original sent, too: `RateLimit-Limit`, `-Remaining`, `-Reset` (seconds).
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let seconds = self.reset.as_secs_f64().ceil();
        for (name, value) in [
            ("ratelimit-limit", f64::from(self.limit)),
            ("ratelimit-remaining", f64::from(self.remaining)),
            ("ratelimit-reset", seconds),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

struct Budget<K: Hash + Eq + Clone> {
    all: Budgets<K>,
    limit: u32,
    /// Until one more request is there.
    each: Duration,
    asked: AtomicU32,
}

impl<K: Hash + Eq + Clone> Budget<K> {
    fn new(limit: u32, window: Duration) -> Self {
        let limit = NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
        let each = (window / limit.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(each).unwrap_or(Quota::per_second(limit));
        Self {
            all: RateLimiter::keyed(quota.allow_burst(limit)).with_middleware(),
            limit: limit.get(),
            each,
            asked: AtomicU32::new(0),
        }
    }

    /// Takes one request from the budget, or says how long to wait for it.
    fn take(&self, key: &K) -> (Left, Option<Duration>) {
        if self.asked.fetch_add(1, Ordering::Relaxed) % MANY == MANY - 1 {
            self.all.retain_recent();
            self.all.shrink_to_fit();
        }
        let (remaining, wait) = match self.all.check_key(key) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(DefaultClock::default().now()))),
        };
        let left = Left {
            limit: self.limit,
            remaining,
            reset: self.each * (self.limit - remaining.min(self.limit)),
        };
        (left, wait)
    }
}

/// Whether a request is of those that nobody counts: files, health, allowed pulls and scrapes.
async fn free(core: &Core, request: &Request, source: Source) -> bool {
    let path = request.uri().path();
    let allowed = match path {
        "/nginx.conf" => &core.config.nginx_conf_allow,
        "/metrics" => &core.config.metrics_allow,
        "/healthz" | "/readyz" | "/unavailable" => return true,
        _ => return path.starts_with("/assets/") || well_known::is_one(path),
    };
    // What cannot be told is counted.
    origin::is_machine(core, source, allowed)
        .await
        .unwrap_or(false)
}

impl Limits {
    pub(crate) fn new(core: &Core) -> Self {
        let limits = &core.config.rate_limits;
        Self {
            strangers: Budget::new(limits.strangers, limits.window),
            users: Budget::new(limits.users, limits.window),
            streams_begun: Budget::new(limits.users, limits.window),
            streams: Slots::new(core.config.open_limits.streams),
            waits: Slots::new(core.config.open_limits.waits),
            look_ups: Budget::new(LOOK_UPS, Duration::from_secs(LOOK_UPS.into())),
            devices: Budget::new(limits.strangers, limits.window),
            known: Mutex::default(),
        }
    }

    /// Takes a request from the budget of its user, else from that of its address. Absent for those that nobody counts.
    pub(crate) async fn take(
        &self,
        core: &Core,
        request: &Request,
        source: Source,
    ) -> Result<Option<Left>, (Left, ApiError)> {
        if free(core, request, source).await {
            return Ok(None);
        }
        let credential = auth::credential_of(&core.config, request);
        if let Some(user) = credential.as_ref().and_then(|one| self.user_of(one)) {
            let path = request.uri().path();
            if path.starts_with("/api/stream/") || path.ends_with("/stream") {
                return counted(self.streams_begun.take(&user), true).map(|_| None);
            }
            return counted(self.users.take(&user), true).map(Some);
        }
        // Without an address (a socket of this machine) all are one.
        let address = neighbours(source.ip.unwrap_or(IpAddr::from([0; 4])));
        let (left, wait) = self.strangers.take(&address);
        if wait.is_some()
            && let Some(credential) = credential
            && self.look_ups.take(&address).1.is_none()
            && let Ok(Some(known)) = Box::pin(credential::find(core, &credential)).await
        {
            let budget = auth::budget(&known);
            self.good(credential, budget.clone());
            return counted(self.users.take(&budget), true).map(Some);
        }
        if wait.is_some() && request.uri().path() == "/login" {
            return self
                .take_of_device(core, request, (left, wait))
                .await
                .map(Some);
        }
        counted((left, wait), false).map(Some)
    }

    /// A place for one more stream of this user; it is free again when it is dropped.
    pub(crate) fn open_stream(&self, user: &str) -> Result<Slot<String>, ApiError> {
        self.streams.take(user.to_owned()).ok_or_else(|| {
            too_many_open(format!(
                "You follow {} jobs at once, the most one user may. Close a page or a program that follows a job, then try again.",
                self.streams.most()
            ))
        })
    }

    /// A place for one more answer that `waiter` has held back.
    pub(crate) fn open_wait(&self, waiter: String) -> Result<Slot<String>, ApiError> {
        self.waits.take(waiter).ok_or_else(|| {
            too_many_open(format!(
                "You have {} requests that wait for a change, the most one proxy or user may. End one of them, or ask without `wait`.",
                self.waits.most()
            ))
        })
    }

    /// A sign-in from an address whose budget is used up, perhaps by a guesser in the same network: a device with an earlier
    /// successful sign-in has a budget of its own. A made-up cookie is found out without the database.
    async fn take_of_device(
        &self,
        core: &Core,
        request: &Request,
        of_address: (Left, Option<Duration>),
    ) -> Result<Left, (Left, ApiError)> {
        let client = Client {
            device: auth::device(&core.config, request.headers()),
            ..Client::default()
        };
        if let Some(name) = sign_in_origin::device_name(core, &client) {
            let (left, wait) = self.devices.take(&name);
            if wait.is_none()
                && let Ok(true) = sign_in_origin::is_device(core, &client).await
            {
                return Ok(left);
            }
        }
        counted(of_address, false)
    }

    /// This credential was found to be good.
    pub(crate) fn good(&self, credential: Credential, budget: String) {
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, seen)| seen.elapsed() < KNOWN);
        }
        if known.len() < REMEMBERED {
            known.insert(credential, (budget, Instant::now()));
        }
    }

    /// This credential is good no more: it was revoked, or ended.
    pub(crate) fn bad(&self, credential: &Credential) {
        self.known().remove(credential);
    }

    fn user_of(&self, credential: &Credential) -> Option<String> {
        let known = self.known();
        let (user, seen) = known.get(credential)?;
        (seen.elapsed() < KNOWN).then(|| user.clone())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Credential, (String, Instant)>> {
        self.known
            .lock()
            .expect("nothing panics while it holds them")
    }
}

fn too_many_open(text: String) -> ApiError {
    let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, text);
    error.0.retry_after = Some(RETRY);
    error
}

fn counted((left, wait): (Left, Option<Duration>), user: bool) -> Result<Left, (Left, ApiError)> {
    let Some(wait) = wait else {
        return Ok(left);
    };
    let seconds = wait.as_secs() + 1;
    let who = if user {
        "You have sent"
    } else {
        "Your address has sent, without being signed in,"
    };
    let text = format!("{who} too many requests; go on in {seconds} s.");
    let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, text);
    error.0.retry_after = Some(seconds);
    Err((left, error))
}
