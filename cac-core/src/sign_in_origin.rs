//! Where users have signed in from: devices, known by a secret in a cookie of their own, and networks. A device or network with an
//! earlier success of a user has a budget of failed sign-ins of its own (see `login_failure`), so that guessing from elsewhere
//! does not lock that user out. It proves nothing: the password is asked for all the same.
//!
//! Each secret belongs to one user. A browser that several people use holds several secrets, and a secret that somebody planted in
//! another person's browser is never made known for that person: an unknown device always gets a fresh one.

use std::net::IpAddr;

use chrono::{DateTime, Duration, Utc};

use crate::db::Tx;
use crate::login_failure::neighbours;
use crate::pve::Secret;
use crate::session::Client;
use crate::{Core, Result, args, secret, session, transaction};

/// How long a device or network stays known after its last successful sign-in. Browsers keep no cookie longer than 400 days (RFC 6265bis).
pub const LIFETIME: Duration = Duration::days(400);
/// Devices that came back, and networks, that are remembered of one user; the ones not used for longest are forgotten.
const PER_USER: u32 = 20;
/// Devices that have not come back yet. A script that keeps no cookies makes one with each sign-in, and must not push out a browser.
const FRESH_PER_USER: u32 = 200;
/// Secrets in one cookie: people who share a browser.
const PER_COOKIE: usize = 4;
/// Hexadecimal digits of a secret: half of them are random, the rest is a tag by which we know our own.
const DIGITS: usize = 64;

/// What a stored origin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Device,
    Network,
}

impl Kind {
    /// The stored word.
    fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Network => "network",
        }
    }
}

/// What is known about where an attempt to sign in comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignInOrigin {
    /// The hash of the device's secret.
    KnownDevice(String),
    KnownNetwork(IpAddr),
    Unknown,
}

/// The secrets of a device's cookie, in the order in which they were added; what this portal did not make is left out.
fn secrets<'a>(core: &Core, client: &'a Client) -> Vec<&'a str> {
    let cookie = client.device.as_ref().map_or("", Secret::expose);
    let good = |text: &&str| {
        text.len() == DIGITS
            && text.bytes().all(|byte| byte.is_ascii_hexdigit())
            && text[DIGITS / 2..] == tag(core, &text[..DIGITS / 2])
    };
    let mut all: Vec<&str> = cookie
        .split('.')
        .take(2 * PER_COOKIE)
        .filter(good)
        .collect();
    all.drain(..all.len().saturating_sub(PER_COOKIE));
    all
}

/// Tells our secrets from made-up ones without asking the database. Only a row of `SignInOrigins` makes one worth anything.
fn tag(core: &Core, random: &str) -> String {
    session::key(core, &format!("device tag {random}"))[..DIGITS / 2].to_owned()
}

fn new_secret(core: &Core) -> String {
    let random = &secret::random()[..DIGITS / 2];
    format!("{random}{}", tag(core, random))
}

/// What is stored of a secret.
fn hash(core: &Core, secret: &str) -> String {
    session::key(core, &format!("device {secret}"))
}

/// What is known of where this client signs in from, for this user. A device counts before a network. Where a realm ignores case the name
/// is stored as Proxmox VE spells it, most often in lower case.
pub(crate) async fn find(core: &Core, username: &str, client: &Client) -> Result<SignInOrigin> {
    let lower = username.to_lowercase();
    match find_spelt(core, username, client).await? {
        SignInOrigin::KnownDevice(device) => Ok(SignInOrigin::KnownDevice(device)),
        other if lower == username => Ok(other),
        other => match find_spelt(core, &lower, client).await? {
            SignInOrigin::Unknown => Ok(other),
            known => Ok(known),
        },
    }
}

async fn find_spelt(core: &Core, username: &str, client: &Client) -> Result<SignInOrigin> {
    let hashes = secrets(core, client).into_iter();
    let hashes = hashes.map(|text| hash(core, text));
    let mut values: Vec<String> = hashes.collect();
    let network = client.address.map(neighbours);
    values.extend(network.map(|network| network.to_string()));
    if values.is_empty() {
        return Ok(SignInOrigin::Unknown);
    }
    let sql = r#"SELECT "kind", "value" FROM "SignInOrigins" WHERE "username" = ? AND "value" IN ? AND "lastAt" > ?"#;
    let since = core.clock.now() - LIFETIME;
    let rows = core.db.all(sql, args![username, values, since]).await?;
    let mut origin = SignInOrigin::Unknown;
    for row in rows {
        if row.get::<String>("kind")? == Kind::Device.name() {
            return Ok(SignInOrigin::KnownDevice(row.get("value")?));
        }
        origin = network.map_or(SignInOrigin::Unknown, SignInOrigin::KnownNetwork);
    }
    Ok(origin)
}

/// Whether this user has signed in from this device before.
pub async fn is_known_device(core: &Core, username: &str, client: &Client) -> Result<bool> {
    let origin = find(core, username, client).await?;
    Ok(matches!(origin, SignInOrigin::KnownDevice(_)))
}

/// Whether this user has signed in from anywhere before.
pub(crate) async fn is_any_known(core: &Core, username: &str) -> Result<bool> {
    let sql = r#"SELECT "id" FROM "SignInOrigins" WHERE "username" = ? LIMIT 1"#;
    Ok(core.db.opt(sql, args![username]).await?.is_some())
}

/// A name for the device whose cookie this portal made, for counting its requests apart from its network's. Nothing is looked up:
/// the device may be forgotten since.
#[must_use]
pub fn device_name(core: &Core, client: &Client) -> Option<String> {
    let first = secrets(core, client).into_iter().next()?;
    Some(hash(core, first))
}

/// Whether any user has signed in from this device.
pub async fn is_device(core: &Core, client: &Client) -> Result<bool> {
    let hashes = secrets(core, client).into_iter();
    let hashes: Vec<String> = hashes.map(|text| hash(core, text)).collect();
    if hashes.is_empty() {
        return Ok(false);
    }
    let sql = r#"SELECT "id" FROM "SignInOrigins" WHERE "value" IN ? AND "kind" = 'device' AND "lastAt" > ? LIMIT 1"#;
    let since = core.clock.now() - LIFETIME;
    Ok(core.db.opt(sql, args![hashes, since]).await?.is_some())
}

/// Makes device and network known after a successful sign-in. The cookie that the device is to keep from now on; it is shown only here.
pub(crate) async fn remember(
    core: &Core,
    username: &str,
    client: &Client,
    origin: &SignInOrigin,
) -> Result<Secret> {
    let mut kept = secrets(core, client);
    let fresh = new_secret(core);
    let device = match origin {
        SignInOrigin::KnownDevice(hash) => hash.clone(),
        _ => {
            kept.push(&fresh);
            hash(core, &fresh)
        }
    };
    let network = client
        .address
        .map(|address| neighbours(address).to_string());
    let now = core.clock.now();
    transaction!(core.db, tx => {
        tx.lock("logins").await?;
        touch(tx, username, Kind::Device, &device, now).await?;
        if let Some(network) = &network {
            touch(tx, username, Kind::Network, network, now).await?;
        }
    })?;
    let first = kept.len().saturating_sub(PER_COOKIE);
    Ok(Secret::new(kept[first..].join(".")))
}

async fn touch(
    tx: &mut Tx,
    username: &str,
    kind: Kind,
    value: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    let kind = kind.name();
    let sql = r#"UPDATE "SignInOrigins" SET "lastAt" = ? WHERE "username" = ? AND "kind" = ? AND "value" = ?"#;
    if tx.exec(sql, args![now, username, kind, value]).await? == 0 {
        let sql = r#"INSERT INTO "SignInOrigins" ("username", "kind", "value", "createdAt", "lastAt") VALUES (?, ?, ?, ?, ?)"#;
        tx.exec(sql, args![username, kind, value, now, now]).await?;
    }
    let came_back = r#"SELECT "id" FROM "SignInOrigins" WHERE "username" = ? AND "kind" = ? AND "lastAt" > "createdAt"
                       ORDER BY "lastAt" DESC, "id" DESC LIMIT 1000 OFFSET ?"#;
    let fresh = r#"SELECT "id" FROM "SignInOrigins" WHERE "username" = ? AND "kind" = ? AND "lastAt" <= "createdAt"
                   ORDER BY "lastAt" DESC, "id" DESC LIMIT 1000 OFFSET ?"#;
    for (sql, most) in [(came_back, PER_USER), (fresh, FRESH_PER_USER)] {
        let rows = tx.all(sql, args![username, kind, most]).await?;
        let surplus = rows.iter().map(|row| row.get("id"));
        let surplus: Vec<i64> = surplus.collect::<std::result::Result<_, _>>()?;
        if !surplus.is_empty() {
            let sql = r#"DELETE FROM "SignInOrigins" WHERE "id" IN ?"#;
            tx.exec(sql, args![surplus]).await?;
        }
    }
    Ok(())
}

/// Forgets every device of a user. Networks stay: they give nobody who guesses more than a slow budget.
pub(crate) async fn forget_devices(tx: &mut Tx, username: &str) -> Result<u64> {
    let sql = r#"DELETE FROM "SignInOrigins" WHERE "username" = ? AND "kind" = 'device'"#;
    Ok(tx.exec(sql, args![username]).await?)
}

/// Deletes what is too old to count.
pub(crate) async fn prune(core: &Core) -> Result<()> {
    let sql = r#"DELETE FROM "SignInOrigins" WHERE "lastAt" <= ?"#;
    let before = core.clock.now() - LIFETIME;
    core.db.exec(sql, args![before]).await?;
    Ok(())
}
