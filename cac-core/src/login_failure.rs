//! Failed logins, counted in the database and so across processes: who guesses passwords has to wait longer and longer, per name and
//! per address. A name is only slowed, never locked, so that nobody shuts its owner out.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::db::Tx;
use crate::{Core, Error, Result, args, transaction};

/// After so long without an attempt all are forgotten.
const FORGOTTEN: chrono::Duration = chrono::Duration::hours(1);

/// What failures are counted under.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Count {
    name: String,
    /// So many cost nothing.
    free: u32,
    /// The longest time to wait, in seconds.
    longest: u64,
}

fn counts(username: &str, address: Option<IpAddr>) -> Vec<Count> {
    let of_name = Count {
        name: format!("user {username}"),
        free: 5,
        longest: 60,
    };
    let of_address = address.map(|address| Count {
        name: format!("address {}", neighbours(address)),
        free: 20,
        longest: 900,
    });
    std::iter::once(of_name).chain(of_address).collect()
}

/// The addresses that count as one: with IPv6 a host has a whole /64.
#[must_use]
pub fn neighbours(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(ip) => IpAddr::from((ip.to_bits() & (u128::MAX << 64)).to_be_bytes()),
        ip => ip,
    }
}

impl Count {
    /// A second after the first failure that is not free, doubled with each one.
    fn wait(&self, failures: u32) -> Duration {
        match failures.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(over) => Duration::from_secs(self.longest.min(1 << over.min(20))),
        }
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

/// Refuses an attempt that comes too early. One that may be made counts as failed until [`passed`] or [`undecided`] says otherwise,
/// so that many at once do not pass unseen.
pub(crate) async fn attempt(core: &Core, username: &str, address: Option<IpAddr>) -> Result<()> {
    let counts = counts(username, address);
    let wait = transaction!(core.db, tx => {
        tx.lock("logins").await?;
        let now = core.clock.now();
        let mut wait = Duration::ZERO;
        let mut seen = Vec::new();
        for count in &counts {
            let (failures, last) = count.failures(tx, now).await?;
            let gone = last.and_then(|last| (now - last).to_std().ok()).unwrap_or_default();
            wait = wait.max(count.wait(failures).saturating_sub(gone));
            seen.push(failures);
        }
        if wait.is_zero() {
            for (count, failures) in counts.iter().zip(seen) {
                count.set(tx, failures + 1, now).await?;
            }
        }
        wait
    })?;
    if wait.is_zero() {
        return Ok(());
    }
    let after = Duration::from_secs(wait.as_secs() + 1);
    let message = format!(
        "Too many failed logins by this name or from this address; try again in {} s.",
        after.as_secs()
    );
    Err(Error::TooMany { message, after })
}

/// The password was right: the name's failures are forgotten, and this was none of the address's.
pub(crate) async fn passed(core: &Core, username: &str, address: Option<IpAddr>) -> Result<()> {
    take_back(core, username, address, true).await
}

/// Nothing was found out about the password.
pub(crate) async fn undecided(core: &Core, username: &str, address: Option<IpAddr>) -> Result<()> {
    take_back(core, username, address, false).await
}

async fn take_back(
    core: &Core,
    username: &str,
    address: Option<IpAddr>,
    forget: bool,
) -> Result<()> {
    transaction!(core.db, tx => {
        tx.lock("logins").await?;
        let now = core.clock.now();
        for (index, count) in counts(username, address).iter().enumerate() {
            let (failures, last) = count.failures(tx, now).await?;
            let left = if forget && index == 0 { 0 } else { failures.saturating_sub(1) };
            count.set(tx, left, last.unwrap_or(now)).await?;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_up_to_a_limit() {
        let all = counts("alice", Some(IpAddr::from([192, 0, 2, 7])));
        let seconds = |count: &Count, failures| count.wait(failures).as_secs();
        let name: Vec<_> = [0, 4, 5, 6, 8, 50].map(|n| seconds(&all[0], n)).to_vec();
        assert_eq!(name, [0, 0, 1, 2, 8, 60]);
        let address: Vec<_> = [19, 20, 23, 60].map(|n| seconds(&all[1], n)).to_vec();
        assert_eq!(address, [0, 1, 8, 900]);
        let six = |text: &str| counts("a", Some(text.parse().unwrap())).remove(1).name;
        assert_eq!(six("2001:db8::1"), six("2001:db8::ffff:1"));
    }
}
