//! Taking account requests: how many, and from whom. Where mail can be sent, a request is nobody's business until the person has followed
//! the link that was mailed to the address: it is unconfirmed, no admin is told of it, and it is removed after [`CONFIRM_HOURS`].
//!
//! All limits are of one address or network, so that a flood from some networks keeps nobody else from asking.

use std::net::IpAddr;
use std::time::Duration as StdDuration;

use chrono::{DateTime, Duration, Utc};
use ipnet::IpNet;

use super::{AccountRequest, NewAccountRequest, check};
use crate::audit::{self, Origin};
use crate::db::Tx;
use crate::job::account_mail::{self, What};
use crate::{Core, Error, Result, args, mail, secret, transaction};

/// How long a person has to follow the link.
pub const CONFIRM_HOURS: i64 = 48;
/// Unconfirmed requests with the same e-mail address: more mails than that nobody needs.
const SAME_EMAIL: i64 = 3;
/// Within so many hours. Whoever fills the number for somebody else's address keeps that person out no longer.
const SAME_EMAIL_HOURS: i64 = 6;

/// How many account requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one address (with IPv6: of its /64) within an hour.
    pub per_address: u32,
    /// That wait, confirmed or not, from one network (its /24, or with IPv6 its /64).
    pub waiting: u32,
}

/// What becomes of a request that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// An admin decides.
    Pending,
    /// The person gets a mail with a link to follow first.
    Unconfirmed,
}

/// The network of an address: its /24, or with IPv6 its /64.
fn network(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

/// Stores a request from the address of its origin. The same again while it waits changes nothing and mails nobody.
pub async fn create(core: &Core, new: &NewAccountRequest, origin: &Origin) -> Result<Received> {
    let new = check(core, new)?;
    let mails = mail::on(core);
    let received = transaction!(core.db, tx => {
        tx.lock("account_requests").await?;
        let now = core.clock.now();
        remove_before(tx, now).await?;
        let sql = r#"SELECT "status" FROM "AccountRequests" WHERE "status" IN ('pending', 'unconfirmed') AND "username" = ? AND "email" = ?"#;
        if let Some(row) = tx.opt(sql, args![&new.username, &new.email]).await? {
            return Ok(match row.get::<String>("status")?.as_str() {
                "pending" => Received::Pending,
                _ => Received::Unconfirmed,
            });
        }
        let from = match origin.address {
            Some(address) => (crate::login_failure::neighbours(address).to_string(), network(address).to_string()),
            None => ("local".to_owned(), "local".to_owned()),
        };
        room(tx, core, &new, &from).await?;
        let status = if mails { "unconfirmed" } else { "pending" };
        let id = tx.insert(
            r#"INSERT INTO "AccountRequests" ("name", "email", "username", "reason", "status", "address", "network", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"#,
            args![&new.name, &new.email, &new.username, &new.reason, status, &from.0, &from.1, now, now],
        )
        .await?;
        audit::Change::new("account_request_create", format!("/account-requests/{id}"))
            .created()
            .new_field("username", &new.username)
            .new_field("email", &new.email)
            .write_for(tx, core, None, origin)
            .await?;
        if mails {
            account_mail::add(tx, core, id, What::Confirm, None).await?;
            Received::Unconfirmed
        } else {
            Received::Pending
        }
    })?;
    core.wake.jobs();
    Ok(received)
}

/// Refuses a request where too many came already; `from` is the address and its network.
async fn room(
    tx: &mut Tx,
    core: &Core,
    new: &NewAccountRequest,
    (address, network): &(String, String),
) -> Result<()> {
    let limits = core.config.account_requests;
    let hour = core.clock.now() - Duration::hours(1);
    let sql = r#"SELECT COUNT(*) AS "n" FROM "AccountRequests" WHERE "network" = ? AND "address" = ? AND "createdAt" > ?"#;
    let lately = tx.one(sql, args![network, address, hour]).await?;
    let sql = r#"SELECT COUNT(*) AS "n" FROM "AccountRequests" WHERE "network" = ? AND "status" IN ('pending', 'unconfirmed')"#;
    let waiting = tx.one(sql, args![network]).await?;
    let sql = r#"SELECT COUNT(*) AS "n" FROM "AccountRequests" WHERE "status" = 'unconfirmed' AND LOWER("email") = ? AND "createdAt" > ?"#;
    let since = core.clock.now() - Duration::hours(SAME_EMAIL_HOURS);
    let same = tx.one(sql, args![new.email.to_lowercase(), since]).await?;
    let too_many = |message: &str, hours: u64| {
        Err(Error::TooMany {
            message: message.to_owned(),
            after: StdDuration::from_secs(hours * 3600),
        })
    };
    if lately.get::<i64>("n")? >= limits.per_address.into() {
        return too_many(
            "Too many account requests came from your address within an hour. Try again in an hour.",
            1,
        );
    }
    if waiting.get::<i64>("n")? >= limits.waiting.into() {
        return too_many(
            "Too many account requests from your network wait for a decision. Try again tomorrow, or ask an admin directly.",
            24,
        );
    }
    if same.get::<i64>("n")? >= SAME_EMAIL {
        return too_many(
            "Several requests with this e-mail address wait to be confirmed. Follow the link in one of the mails, or try again in six hours.",
            6,
        );
    }
    Ok(())
}

async fn remove_before(tx: &mut Tx, now: DateTime<Utc>) -> Result<()> {
    let sql =
        r#"DELETE FROM "AccountRequests" WHERE "status" = 'unconfirmed' AND "createdAt" <= ?"#;
    tx.exec(sql, args![now - Duration::hours(CONFIRM_HOURS)])
        .await?;
    Ok(())
}

/// Removes the requests that were not confirmed in time.
pub(crate) async fn remove_expired(core: &Core) -> Result<()> {
    let now = core.clock.now();
    transaction!(core.db, tx => {
        tx.lock("account_requests").await?;
        remove_before(tx, now).await?;
    })
}

/// The request that a link of [`What::Confirm`] belongs to, while it works.
pub async fn by_confirmation(core: &Core, link: &str) -> Result<AccountRequest> {
    let sql = r#"SELECT * FROM "AccountRequests" WHERE "linkHash" = ? AND "status" = 'unconfirmed' AND "linkExpires" > ?"#;
    let given = args![secret::hash(link), core.clock.now()];
    match core.db.opt(sql, given).await? {
        Some(row) => AccountRequest::from_row(&row),
        None => Err(Error::NotFound(
            "This link was used already, or is too old. If you have heard nothing since, send your request again.".to_owned(),
        )),
    }
}

/// Notes that the address is the person's own, and has the admins told of the request.
pub async fn confirm(core: &Core, link: &str, origin: &Origin) -> Result<AccountRequest> {
    let id = by_confirmation(core, link).await?.id;
    let now = core.clock.now();
    transaction!(core.db, tx => {
        tx.lock("account_requests").await?;
        let sql = r#"UPDATE "AccountRequests" SET "status" = 'pending', "confirmedAt" = ?, "linkHash" = NULL, "linkExpires" = NULL,
                            "updatedAt" = ? WHERE "id" = ? AND "linkHash" = ? AND "status" = 'unconfirmed'"#;
        // Of two clicks at once the second one finds it done.
        if tx.exec(sql, args![now, now, id, secret::hash(link)]).await? == 0 {
            origin.entry_written();
        } else {
            account_mail::tell_admins(tx, core, id).await?;
            audit::Change::new("account_request_confirm", format!("/account-requests/{id}"))
                .field("status", "unconfirmed", "pending")
                .write_for(tx, core, None, origin)
                .await?;
        }
    })?;
    core.wake.jobs();
    super::find_any(core, id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_what_one_person_commonly_has() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(network(address.parse().unwrap()).to_string(), expected);
        }
    }
}
