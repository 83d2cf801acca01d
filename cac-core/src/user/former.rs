//! Former owners: what a user owned whose account is gone.
//!
//! The rows themselves are given to the name `former owner NAME`. No user can have it, since user names have no spaces; so nothing
//! that compares owners, here or in an operator's SQL, can take a new person of the same name for the owner. Routes, sizes and
//! everything else of a container stay as they are. The keys of the user (tokens, sessions, known devices, idempotency keys) are
//! deleted.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::state::{self, State};
use crate::actor::Origin;
use crate::db::Tx;
use crate::job::container_access;
use crate::{Core, Result, args, audit, transaction};

const PREFIX: &str = "former owner ";

/// The owner's name of what this user leaves behind.
#[must_use]
pub(super) fn former_owner(username: &str) -> String {
    format!("{PREFIX}{username}")
}

/// The user that a former owner was.
#[must_use]
pub(super) fn former_user(owner: &str) -> Option<&str> {
    let rest = owner.strip_prefix(PREFIX)?;
    Some(rest.split_once(" (").map_or(rest, |(name, _)| name))
}

/// Whether this owner has no account.
pub(crate) fn is_former(owner: &str) -> bool {
    former_user(owner).is_some()
}

/// What a name had that was deleted or went to another owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    containers: u64,
    jobs: u64,
    tokens: u64,
    sessions: u64,
    /// Known devices, idempotency keys, the quota, and what was known of the account.
    other: u64,
}

impl Taken {
    fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Adds the numbers to an audit entry.
    pub(super) fn describe(self, entry: audit::Change) -> audit::Change {
        let some = |n: u64| Some(n).filter(|n| *n > 0);
        entry
            .old_field("containers", some(self.containers))
            .old_field("jobs", some(self.jobs))
            .old_field("tokens", some(self.tokens))
            .old_field("sessions", some(self.sessions))
    }
}

/// Takes everything from a name: keys are deleted, the rest goes to the former owner. The caller holds the lock `logins`.
pub(super) async fn release(tx: &mut Tx, username: &str, now: DateTime<Utc>) -> Result<Taken> {
    let former = unused_former_owner(tx, username).await?;
    release_to(tx, username, &former, now).await
}

/// [`release`] to a former owner of this name, which is [`unused_former_owner`]'s.
pub(super) async fn release_to(
    tx: &mut Tx,
    username: &str,
    former: &str,
    now: DateTime<Utc>,
) -> Result<Taken> {
    // Containers are created, and counted for quotas, under this lock.
    tx.lock("names").await?;
    // What was to run later with this person's rights does not.
    let sql = r#"UPDATE "Jobs" SET "status" = 'cancelled', "reason" = 'Whoever asked for it has no account any more.', "finishedAt" = ?,
                        "updatedAt" = ? WHERE "createdBy" = ? AND "status" = 'pending' AND ("kind" IS NULL OR "kind" = 'task')"#;
    tx.exec(sql, args![now, now, username]).await?;
    let mut taken = rename(tx, username, former, now).await?;
    let sql = r#"DELETE FROM "Sessions" WHERE "username" = ?"#;
    taken.sessions = tx.exec(sql, args![username]).await?;
    let sql = r#"DELETE FROM "Tokens" WHERE "username" = ?"#;
    taken.tokens = tx.exec(sql, args![username]).await?;
    for sql in [
        r#"DELETE FROM "IdempotencyKeys" WHERE "username" = ?"#,
        r#"DELETE FROM "SignInOrigins" WHERE "username" = ?"#,
        r#"DELETE FROM "UserStates" WHERE "username" = ?"#,
    ] {
        taken.other += tx.exec(sql, args![username]).await?;
    }
    Ok(taken)
}

/// The name that [`release`] gives to what it takes. Several people may have had the user name one after the other: what they left is not
/// mixed.
pub(super) async fn unused_former_owner(tx: &mut Tx, username: &str) -> Result<String> {
    let mut owner = former_owner(username);
    let mut number = 2;
    let sql = r#"SELECT (SELECT COUNT(*) FROM "Containers" WHERE "username" = ?) + (SELECT COUNT(*) FROM "Jobs" WHERE "createdBy" = ?)
                      + (SELECT COUNT(*) FROM "Quotas" WHERE "username" = ?) AS "n""#;
    while tx
        .one(sql, args![&owner, &owner, &owner])
        .await?
        .get::<i64>("n")?
        > 0
    {
        owner = format!("{} ({number})", former_owner(username));
        number += 1;
    }
    Ok(owner)
}

/// Gives containers, quota, jobs and ended account requests of one owner to another.
async fn rename(tx: &mut Tx, from: &str, to: &str, now: DateTime<Utc>) -> Result<Taken> {
    let mut taken = Taken::default();
    let sql = r#"UPDATE "Containers" SET "username" = ?, "updatedAt" = ? WHERE "username" = ?"#;
    taken.containers = tx.exec(sql, args![to, now, from]).await?;
    let sql = r#"UPDATE "Jobs" SET "createdBy" = ? WHERE "createdBy" = ?"#;
    taken.jobs = tx.exec(sql, args![to, from]).await?;
    // Notices go to the address of such a request where Proxmox VE has none. The column is shorter than names of owners may be.
    let short = |name: &str| name.chars().take(64).collect::<String>();
    let sql =
        r#"UPDATE "AccountRequests" SET "username" = ? WHERE "username" = ? AND "status" = 'done'"#;
    tx.exec(sql, args![short(to), short(from)]).await?;
    let sql = r#"SELECT "id" FROM "Quotas" WHERE "username" = ?"#;
    if tx.opt(sql, args![to]).await?.is_none() {
        let sql = r#"UPDATE "Quotas" SET "username" = ?, "updatedAt" = ? WHERE "username" = ?"#;
        taken.other += tx.exec(sql, args![to, now, from]).await?;
    } else {
        let sql = r#"DELETE FROM "Quotas" WHERE "username" = ?"#;
        taken.other += tx.exec(sql, args![from]).await?;
    }
    Ok(taken)
}

/// Gives everything of a former owner back to the name. The caller holds the lock `logins`.
pub(super) async fn restore(
    tx: &mut Tx,
    former: &str,
    username: &str,
    now: DateTime<Utc>,
) -> Result<Taken> {
    tx.lock("names").await?;
    rename(tx, former, username, now).await
}

/// Adds a job for each container of a user that gives them the role there again: Proxmox VE deleted the roles with the account. The
/// caller wakes the runners after its commit.
pub(super) async fn give_roles(tx: &mut Tx, core: &Core, username: &str) -> Result<()> {
    let sql = r#"SELECT "id" FROM "Containers" WHERE "username" = ? AND "containerId" IS NOT NULL AND "nodeId" IS NOT NULL ORDER BY "id""#;
    for row in tx.all(sql, args![username]).await? {
        container_access::add_for_owner(tx, core, row.get("id")?, username).await?;
    }
    Ok(())
}

/// [`release`] in a transaction of its own, for a new person who chose a password by an account request's link. Writes no audit entry
/// where the name had nothing.
pub(crate) async fn release_name(
    core: &Core,
    username: &str,
    request: i64,
    origin: &Origin,
) -> Result<()> {
    transaction!(core.db, tx => {
        tx.lock("logins").await?;
        let before = state::load(tx, username).await?.map(|record| record.state.name());
        let taken = release(tx, username, core.clock.now()).await?;
        if !taken.is_nothing() {
            let entry = audit::Change::new("user_state", format!("/users/{username}"))
                .field("state", before, State::Former.name())
                .detail(format!("the name belongs to a new person, of account request {request}"));
            taken.describe(entry).write_for(tx, core, None, origin).await?;
        }
    })
}

/// What exists under a user name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NameUse {
    pub containers: i64,
    pub tokens: i64,
    pub jobs: i64,
    /// Of a former owner of this name; nobody with the name gets them by having it.
    pub former_containers: i64,
    /// How the account stands, as far as it was looked up.
    pub account: Option<State>,
}

impl NameUse {
    /// Whether something belongs to the name now, and so would belong to a new person.
    #[must_use]
    pub fn owns(&self) -> bool {
        self.containers + self.tokens + self.jobs > 0
    }

    /// Whether a new person may get the name only from somebody who has accepted what exists under it. An account that may sign in is
    /// no such case: Proxmox VE does not create it twice.
    #[must_use]
    pub fn needs_acceptance(&self) -> bool {
        let in_doubt = self.account.is_some_and(State::is_in_doubt);
        self.owns() || self.former_containers > 0 || in_doubt
    }

    /// In words, such as `2 containers, 1 API token and an account that is missing in Proxmox VE`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let count = |n: i64, one: &str| match n {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {one}s")),
        };
        let account = self.account.map(|state| match state {
            State::Active => "an account that may sign in".to_owned(),
            state => format!("an account that is {} in Proxmox VE", state.name()),
        });
        let all = [
            count(self.containers, "container"),
            count(self.tokens, "API token"),
            count(self.jobs, "job"),
            count(self.former_containers, "container of a former owner").map(|text| {
                // The plural is inside.
                text.replace(
                    "container of a former owners",
                    "containers of a former owner",
                )
            }),
            account,
        ];
        let parts: Vec<String> = all.into_iter().flatten().collect();
        match parts.split_last() {
            None => "nothing".to_owned(),
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        }
    }
}

/// What exists under each of these user names; names under which nothing exists are left out. Rights: none are checked.
pub async fn name_use(core: &Core, names: &[String]) -> Result<HashMap<String, NameUse>> {
    let mut found: HashMap<String, NameUse> = HashMap::new();
    if names.is_empty() {
        return Ok(found);
    }
    let mut tx = core.db.read().await?;
    let sql = r#"SELECT "username", COUNT(*) AS "n" FROM "Containers" WHERE "username" IN ? GROUP BY "username""#;
    for row in tx.all(sql, args![names.to_vec()]).await? {
        found.entry(row.get("username")?).or_default().containers = row.get("n")?;
    }
    let sql = r#"SELECT "username", COUNT(*) AS "n" FROM "Containers" WHERE "username" LIKE 'former owner %' GROUP BY "username""#;
    for row in tx.all(sql, args![]).await? {
        let owner: String = row.get("username")?;
        let user = former_user(&owner).unwrap_or_default().to_owned();
        if names.contains(&user) {
            found.entry(user).or_default().former_containers += row.get::<i64>("n")?;
        }
    }
    let sql = r#"SELECT "username", COUNT(*) AS "n" FROM "Tokens" WHERE "username" IN ? GROUP BY "username""#;
    for row in tx.all(sql, args![names.to_vec()]).await? {
        found.entry(row.get("username")?).or_default().tokens = row.get("n")?;
    }
    let sql = r#"SELECT "createdBy", COUNT(*) AS "n" FROM "Jobs" WHERE "createdBy" IN ? GROUP BY "createdBy""#;
    for row in tx.all(sql, args![names.to_vec()]).await? {
        found.entry(row.get("createdBy")?).or_default().jobs = row.get("n")?;
    }
    for name in names {
        if let Some(record) = state::load(&mut tx, name).await?
            && record.state != State::Unknown
        {
            found.entry(name.clone()).or_default().account = Some(record.state);
        }
    }
    Ok(found)
}
