//! Failed sign-ins, counted in the database and so across processes: who guesses passwords has to wait longer and longer.
//!
//! An attempt counts on one budget of the user's, chosen by where it comes from: the known device's, else the known network's (see
//! `sign_in_origin`), else the name's, which everyone else shares. So a guesser uses up the name's budget, or that of a network
//! they are in, but never that of a device they do not have. Attempts from anything but a known device count on the address's budget
//! too, so that nobody tries one password on many names.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::actor::Actor;
use crate::db::{self, Tx};
use crate::session::Client;
use crate::sign_in_origin::{self, SignInOrigin};
use crate::{Core, Error, Result, args, audit, transaction, user};

/// After so long without an attempt all are forgotten.
const FORGOTTEN: chrono::Duration = chrono::Duration::hours(1);

/// Digits of a device's hash that name its budget.
const SHORT: usize = 16;

/// A budget of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Budget {
    /// `user NAME`, `network NAME ADDRESS`, `device NAME HASH` or `address ADDRESS`.
    name: String,
}

/// The addresses that count as one: with IPv6 a host has a whole /64.
#[must_use]
pub fn neighbours(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(ip) => IpAddr::from((ip.to_bits() & (u128::MAX << 64)).to_be_bytes()),
        ip => ip,
    }
}

/// The budgets of an attempt, the user's own one first.
fn budgets(username: &str, address: Option<IpAddr>, origin: &SignInOrigin) -> Vec<Budget> {
    // Some realms ignore case: each spelling would have failures of its own.
    let username = username.to_lowercase();
    let own = match origin {
        SignInOrigin::KnownDevice(hash) => format!("device {username} {}", &hash[..SHORT]),
        SignInOrigin::KnownNetwork(network) => format!("network {username} {network}"),
        SignInOrigin::Unknown => format!("user {username}"),
    };
    let shared = address
        .filter(|_| !matches!(origin, SignInOrigin::KnownDevice(_)))
        .map(|address| format!("address {}", neighbours(address)));
    let names = std::iter::once(own).chain(shared);
    names.map(|name| Budget { name }).collect()
}

impl Budget {
    fn of_address(&self) -> bool {
        self.name.starts_with("address ")
    }

    /// A second after the first failure that is not free, doubled with each one.
    fn wait(&self, failures: u32) -> Duration {
        let (free, longest) = if self.of_address() {
            (20, 900)
        } else {
            (5, 60)
        };
        match failures.checked_sub(free) {
            None => Duration::ZERO,
            Some(over) => Duration::from_secs((1 << over.min(20)).min(longest)),
        }
    }

    /// How much of the wait is left, `since` the last attempt.
    fn left(&self, failures: u32, since: chrono::Duration) -> Duration {
        self.wait(failures)
            .saturating_sub(since.to_std().unwrap_or_default())
    }

    async fn failures(
        &self,
        tx: &mut Tx,
        now: DateTime<Utc>,
    ) -> Result<(u32, Option<DateTime<Utc>>)> {
        let sql = r#"SELECT "failures", "lastAt" FROM "LoginFailures" WHERE "name" = ?"#;
        let Some(row) = tx.opt(sql, args![&self.name]).await? else {
            return Ok((0, None));
        };
        let last: Option<DateTime<Utc>> = row.get("lastAt")?;
        let counts = last.is_some_and(|last| now - last < FORGOTTEN);
        Ok((if counts { row.get("failures")? } else { 0 }, last))
    }

    async fn set(&self, tx: &mut Tx, failures: u32, now: DateTime<Utc>) -> Result<()> {
        let sql = r#"DELETE FROM "LoginFailures" WHERE "name" = ?"#;
        tx.exec(sql, args![&self.name]).await?;
        if failures > 0 {
            let sql =
                r#"INSERT INTO "LoginFailures" ("name", "failures", "lastAt") VALUES (?, ?, ?)"#;
            tx.exec(sql, args![&self.name, failures, now]).await?;
        }
        Ok(())
    }
}

/// An attempt that may be made. It counts as failed until [`Attempt::passed`] or [`Attempt::undecided`] says otherwise, so that many at
/// once do not pass unseen.
#[derive(Debug)]
pub(crate) struct Attempt {
    budgets: Vec<Budget>,
    /// Where it comes from.
    pub(crate) origin: SignInOrigin,
}

/// Refuses an attempt that comes too early.
pub(crate) async fn attempt(core: &Core, username: &str, client: &Client) -> Result<Attempt> {
    let origin = sign_in_origin::find(core, username, client).await?;
    let budgets = budgets(username, client.address, &origin);
    let wait = transaction!(core.db, tx => {
        tx.lock("logins").await?;
        let now = core.clock.now();
        let mut wait = Duration::ZERO;
        let mut failed = Vec::new();
        for budget in &budgets {
            let (failures, last) = budget.failures(tx, now).await?;
            wait = wait.max(budget.left(failures, last.map_or(chrono::Duration::MAX, |last| now - last)));
            failed.push(failures);
        }
        if wait.is_zero() {
            for (budget, failures) in budgets.iter().zip(failed) {
                budget.set(tx, failures + 1, now).await?;
            }
        }
        wait
    })?;
    if wait.is_zero() {
        return Ok(Attempt { budgets, origin });
    }
    let after = Duration::from_secs(wait.as_secs() + 1);
    let seconds = after.as_secs();
    let message = match origin {
        SignInOrigin::KnownDevice(_) => {
            format!("Too many failed sign-ins from this device. Try again in {seconds} s.")
        }
        SignInOrigin::KnownNetwork(_) => format!(
            "Too many failed sign-ins from this network. Try again in {seconds} s, or from a browser that you have signed in with before."
        ),
        SignInOrigin::Unknown => format!(
            "Too many failed sign-ins with this name or from this address. Try again in {seconds} s, or from a browser or network that you \
             have signed in from before."
        ),
    };
    Err(Error::TooMany { message, after })
}

impl Attempt {
    /// The password was right: the failures of the user's own budget are forgotten, and this was none of the address's.
    pub(crate) async fn passed(&self, core: &Core) -> Result<()> {
        self.take_back(core, true).await
    }

    /// Nothing was found out about the password.
    pub(crate) async fn undecided(&self, core: &Core) -> Result<()> {
        self.take_back(core, false).await
    }

    async fn take_back(&self, core: &Core, forget: bool) -> Result<()> {
        transaction!(core.db, tx => {
            tx.lock("logins").await?;
            let now = core.clock.now();
            for budget in &self.budgets {
                let (failures, last) = budget.failures(tx, now).await?;
                let own = !budget.of_address();
                let left = if forget && own { 0 } else { failures.saturating_sub(1) };
                budget.set(tx, left, last.unwrap_or(now)).await?;
            }
        })
    }
}

/// A budget that failures were counted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginFailures {
    /// `user NAME`, `network NAME ADDRESS`, `device NAME HASH` or `address ADDRESS`.
    pub name: String,
    pub failures: u32,
    pub last_at: DateTime<Utc>,
    /// Seconds until the next attempt is let through.
    pub wait: u64,
}

/// Every budget with failures that still count, by name. Rights: none are checked; for a local command.
pub async fn list(core: &Core) -> Result<Vec<LoginFailures>> {
    let now = core.clock.now();
    let sql = r#"SELECT "name", "failures", "lastAt" FROM "LoginFailures" WHERE "failures" > 0 AND "lastAt" > ? ORDER BY "name""#;
    let rows = core.db.all(sql, args![now - FORGOTTEN]).await?;
    let shown = rows.iter().map(|row| {
        let budget = Budget {
            name: row.get("name")?,
        };
        let (failures, last_at) = (row.get("failures")?, row.get("lastAt")?);
        let left = budget.left(failures, now - last_at);
        Ok(LoginFailures {
            wait: left
                .as_millis()
                .div_ceil(1000)
                .try_into()
                .unwrap_or(u64::MAX),
            name: budget.name,
            failures,
            last_at,
        })
    });
    shown.collect()
}

/// Forgets the failures of a user (in every budget of theirs) or of an address, or without a name all of them. How many budgets that
/// were. Rights: none are checked; for a local command.
pub async fn clear(core: &Core, actor: &Actor, name: Option<&str>) -> Result<u64> {
    let every = name.is_none();
    let (exact, device, network) = match name.map(str::trim) {
        None => Default::default(),
        Some(name) => match name.parse::<IpAddr>() {
            // No other budget has such a name.
            Ok(address) => {
                let name = format!("address {}", neighbours(address));
                (name.clone(), name.clone(), name)
            }
            Err(_) => {
                let username = user::canonical(core, name)?.to_lowercase();
                let below = |kind: &str| format!("{kind} {} %", db::without_wildcards(&username));
                (
                    format!("user {username}"),
                    below("device"),
                    below("network"),
                )
            }
        },
    };
    let sql = r#"DELETE FROM "LoginFailures" WHERE ? OR "name" = ? OR "name" LIKE ? ESCAPE '!' OR "name" LIKE ? ESCAPE '!'"#;
    transaction!(core.db, tx => {
        tx.lock("logins").await?;
        let cleared = tx.exec(sql, args![every, &exact, &device, &network]).await?;
        audit::Change::new("login_failures_clear", format!("/login-failures/{}", name.unwrap_or_default()))
            .detail(format!("{cleared} counts of failed sign-ins cleared"))
            .write(tx, core, actor)
            .await?;
        cleared
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_up_to_a_limit() {
        let all = budgets(
            "alice",
            Some(IpAddr::from([192, 0, 2, 7])),
            &SignInOrigin::Unknown,
        );
        let seconds = |budget: &Budget, failures| budget.wait(failures).as_secs();
        let name: Vec<_> = [0, 4, 5, 6, 8, 50].map(|n| seconds(&all[0], n)).to_vec();
        assert_eq!(name, [0, 0, 1, 2, 8, 60]);
        let address: Vec<_> = [19, 20, 23, 60].map(|n| seconds(&all[1], n)).to_vec();
        assert_eq!(address, [0, 1, 8, 900]);
        let six = |text: &str| {
            budgets("a", Some(text.parse().unwrap()), &SignInOrigin::Unknown).remove(1)
        };
        assert_eq!(six("2001:db8::1"), six("2001:db8::ffff:1"));
    }
}
