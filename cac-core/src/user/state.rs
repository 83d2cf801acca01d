//! What is known of a user's account in Proxmox VE: rows of `UserStates`, and what each definite answer changes.
//!
//! Only a definite answer changes a state: the account as Proxmox VE shows it, or "no such user". A 403, silence or a list without
//! the name change nothing. An account that is missing once has its tokens suspended; missing again [`CONFIRMED_AFTER`] later it is
//! gone, and what it owned goes to a former owner. A name that exists again in between may be another person, so it stays
//! suspended, and cannot sign in, until an admin has decided.

use chrono::{DateTime, Duration, Utc};
use serde::Serialize;

use super::former::{self, Taken};
use crate::actor::Origin;
use crate::db::Tx;
use crate::session::Client;
use crate::{Core, Error, Result, args, audit, session, token, transaction};

/// A missing account is gone when it is still missing after this time.
pub(super) const CONFIRMED_AFTER: Duration = Duration::minutes(10);

/// How a user's account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No definite answer yet.
    Unknown,
    /// May sign in.
    Active,
    /// Disabled or expired; comes back when it is enabled again.
    Disabled,
    /// Proxmox VE knows no such user.
    Missing,
    /// The name was missing and exists again: an admin decides whether it is the same person.
    Returned,
    /// No account: a former owner, in whose name things wait for a new owner.
    Former,
}

impl State {
    /// The stored word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Missing => "missing",
            Self::Returned => "returned",
            Self::Former => "former",
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        let all = [Self::Active, Self::Disabled, Self::Missing, Self::Returned];
        let found = all.into_iter().find(|state| state.name() == text);
        found.unwrap_or(Self::Unknown)
    }

    /// Whether the name was missing and nobody has decided since.
    pub(super) fn is_in_doubt(self) -> bool {
        matches!(self, Self::Missing | Self::Returned)
    }
}

/// A row of `UserStates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) missing_since: Option<DateTime<Utc>>,
    pub(super) checked_at: Option<DateTime<Utc>>,
}

/// A definite answer of Proxmox VE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Active { admin: bool },
    Disabled,
    NoSuchUser,
}

/// What an answer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    State(State),
    /// The account is confirmed to be gone.
    Gone,
}

impl Record {
    pub(super) fn next(self, answer: Answer, now: DateTime<Utc>) -> Next {
        let confirmed = |since: DateTime<Utc>| now - since >= CONFIRMED_AFTER;
        match answer {
            Answer::NoSuchUser if self.missing_since.is_some_and(confirmed) => Next::Gone,
            Answer::NoSuchUser => Next::State(State::Missing),
            _ if self.state.is_in_doubt() => Next::State(State::Returned),
            Answer::Active { .. } => Next::State(State::Active),
            Answer::Disabled => Next::State(State::Disabled),
        }
    }
}

const NEW: Record = Record {
    state: State::Unknown,
    missing_since: None,
    checked_at: None,
};

pub(super) async fn load(tx: &mut Tx, username: &str) -> Result<Option<Record>> {
    let sql =
        r#"SELECT "state", "missingSince", "checkedAt" FROM "UserStates" WHERE "username" = ?"#;
    let Some(row) = tx.opt(sql, args![username]).await? else {
        return Ok(None);
    };
    Ok(Some(Record {
        state: State::parse(&row.get::<String>("state")?),
        missing_since: row.get("missingSince")?,
        checked_at: row.get("checkedAt")?,
    }))
}

/// Stores a state that was found out at `now`. The caller holds the lock `logins`.
pub(super) async fn store(
    tx: &mut Tx,
    username: &str,
    state: State,
    missing_since: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<()> {
    let sql = r#"UPDATE "UserStates" SET "state" = ?, "missingSince" = ?, "checkedAt" = ?, "triedAt" = ? WHERE "username" = ?"#;
    let given = args![state.name(), missing_since, now, now, username];
    if tx.exec(sql, given).await? == 0 {
        let sql = r#"INSERT INTO "UserStates" ("state", "missingSince", "checkedAt", "triedAt", "username") VALUES (?, ?, ?, ?, ?)"#;
        let given = args![state.name(), missing_since, now, now, username];
        tx.exec(sql, given).await?;
    }
    Ok(())
}

/// Stores a definite answer and does what follows from it, in one transaction.
pub(super) async fn record(core: &Core, username: &str, answer: Answer) -> Result<()> {
    let now = core.clock.now();
    let next = transaction!(core.db, tx => {
        tx.lock("logins").await?;
        let before = load(tx, username).await?.unwrap_or(NEW);
        let next = before.next(answer, now);
        let mut taken = Taken::default();
        match next {
            Next::Gone => taken = former::release(tx, username, now).await?,
            Next::State(state) => {
                let missing_since = match state {
                    State::Missing | State::Returned => before.missing_since.or(Some(now)),
                    _ => None,
                };
                store(tx, username, state, missing_since, now).await?;
                let admin = match (state, answer) {
                    (State::Active, Answer::Active { admin }) => Some(admin),
                    _ => None,
                };
                session::set_admin(tx, username, admin, now).await?;
                token::set_admin(tx, username, admin, now).await?;
            }
        }
        note(tx, core, username, before.state, next, taken).await?;
        (before.state, next)
    })?;
    match next {
        (_, Next::Gone) => {
            tracing::warn!(
                username,
                "user is gone: tokens deleted, containers moved to a former owner"
            );
        }
        (before, Next::State(state)) if before != state && state != State::Active => {
            tracing::warn!(
                username,
                state = state.name(),
                "user state changed: sessions ended, tokens suspended"
            );
        }
        _ => {}
    }
    Ok(())
}

/// Writes a change that nobody of here made into the audit log, unless it is only that a user is known from now on.
async fn note(
    tx: &mut Tx,
    core: &Core,
    username: &str,
    before: State,
    next: Next,
    taken: Taken,
) -> Result<()> {
    let after = match next {
        Next::State(state) => state,
        Next::Gone => State::Former,
    };
    if before == after || (before, after) == (State::Unknown, State::Active) {
        return Ok(());
    }
    let entry = audit::Change::new("user_state", format!("/users/{username}"));
    let entry = entry.field("state", before.name(), after.name());
    let entry = match next {
        Next::Gone => entry.detail("tokens deleted, the rest belongs to the former owner"),
        Next::State(_) => entry,
    };
    let entry = taken.describe(entry);
    entry.write_for(tx, core, None, &Origin::default()).await
}

/// Notes that Proxmox VE accepted this user's password, which proves that the account exists. Refuses a name that was missing, since
/// it may be another person now.
pub(super) async fn admit(core: &Core, username: &str, client: &Client) -> Result<()> {
    let now = core.clock.now();
    let in_doubt = transaction!(core.db, tx => {
        tx.lock("logins").await?;
        match load(tx, username).await? {
            Some(record) if record.state.is_in_doubt() => {
                if record.state != State::Returned {
                    audit::Change::new("user_state", format!("/users/{username}"))
                        .field("state", record.state.name(), State::Returned.name())
                        .write_for(tx, core, None, &client.origin())
                        .await?;
                }
                store(tx, username, State::Returned, record.missing_since, now).await?;
                true
            }
            Some(_) => false,
            None => {
                store(tx, username, State::Active, None, now).await?;
                false
            }
        }
    })?;
    if !in_doubt {
        return Ok(());
    }
    Err(Error::Forbidden(format!(
        "The account `{username}` was deleted in Proxmox VE and exists again, so it may belong to another person now. \
         Ask an admin to confirm it: page Users, or `cac user update {username}`."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_repeated_no_such_user_is_final_and_a_returned_name_waits() {
        let now = Utc::now();
        let active = Answer::Active { admin: false };
        let at = |state, minutes: Option<i64>| Record {
            state,
            missing_since: minutes.map(|minutes| now - Duration::minutes(minutes)),
            checked_at: None,
        };
        for (before, answer, next) in [
            (NEW, active, Next::State(State::Active)),
            (NEW, Answer::Disabled, Next::State(State::Disabled)),
            (NEW, Answer::NoSuchUser, Next::State(State::Missing)),
            (
                at(State::Disabled, None),
                active,
                Next::State(State::Active),
            ),
            (
                at(State::Missing, Some(9)),
                Answer::NoSuchUser,
                Next::State(State::Missing),
            ),
            (at(State::Missing, Some(10)), Answer::NoSuchUser, Next::Gone),
            (
                at(State::Missing, Some(9)),
                active,
                Next::State(State::Returned),
            ),
            (
                at(State::Missing, Some(9)),
                Answer::Disabled,
                Next::State(State::Returned),
            ),
            (
                at(State::Returned, Some(60)),
                active,
                Next::State(State::Returned),
            ),
            (
                at(State::Returned, Some(60)),
                Answer::NoSuchUser,
                Next::Gone,
            ),
            // Another host's clock is ahead.
            (
                at(State::Missing, Some(-60)),
                Answer::NoSuchUser,
                Next::State(State::Missing),
            ),
        ] {
            assert_eq!(before.next(answer, now), next, "{before:?} {answer:?}");
        }
    }
}
