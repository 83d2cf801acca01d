//! The users that own something, as admins see them, and the decision about a name whose account was missing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::former::{self, former_user, is_former};
use super::state::{self, State};
use super::{canonical, service};
use crate::actor::Actor;
use crate::{Core, Error, Result, args, audit, token, transaction};

/// A user or former owner, with what they own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub username: String,
    pub state: State,
    /// Since when the account was missing; absent for one that was not.
    pub missing_since: Option<DateTime<Utc>>,
    /// The last definite answer of Proxmox VE.
    pub checked_at: Option<DateTime<Utc>>,
    pub containers: i64,
    pub tokens: i64,
    /// Browsers that are signed in.
    pub sessions: i64,
}

/// Who has a name now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    /// The person who had it before.
    Same,
    /// Somebody else, or nobody yet: what the name owned goes to a former owner.
    New,
}

impl User {
    fn new(username: &str) -> Self {
        Self {
            username: username.to_owned(),
            state: match is_former(username) {
                true => State::Former,
                false => State::Unknown,
            },
            missing_since: None,
            checked_at: None,
            containers: 0,
            tokens: 0,
            sessions: 0,
        }
    }
}

/// Everyone who owns something or has signed in, by name; for admins.
pub async fn list(core: &Core, actor: &Actor) -> Result<Vec<User>> {
    actor.must_be_admin()?;
    let mut users: BTreeMap<String, User> = BTreeMap::new();
    let mut tx = core.db.read().await?;
    let sql = r#"SELECT "username", "state", "missingSince", "checkedAt" FROM "UserStates""#;
    for row in tx.all(sql, args![]).await? {
        let user = entry(&mut users, row.get("username")?);
        user.state = State::parse(&row.get::<String>("state")?);
        user.missing_since = row.get("missingSince")?;
        user.checked_at = row.get("checkedAt")?;
    }
    let sql = r#"SELECT "username", COUNT(*) AS "n" FROM "Containers" GROUP BY "username""#;
    for row in tx.all(sql, args![]).await? {
        entry(&mut users, row.get("username")?).containers = row.get("n")?;
    }
    let sql = r#"SELECT "username", COUNT(*) AS "n" FROM "Tokens" GROUP BY "username""#;
    for row in tx.all(sql, args![]).await? {
        entry(&mut users, row.get("username")?).tokens = row.get("n")?;
    }
    let sql = r#"SELECT "username", COUNT(*) AS "n" FROM "Sessions" WHERE "username" IS NOT NULL AND "expires" > ? GROUP BY "username""#;
    for row in tx.all(sql, args![core.clock.now()]).await? {
        entry(&mut users, row.get("username")?).sessions = row.get("n")?;
    }
    Ok(users.into_values().collect())
}

fn entry(users: &mut BTreeMap<String, User>, name: String) -> &mut User {
    users.entry(name).or_insert_with_key(|name| User::new(name))
}

/// One of [`list`]; for admins.
pub async fn find(core: &Core, actor: &Actor, username: &str) -> Result<User> {
    let users = list(core, actor).await?;
    let found = users.into_iter().find(|user| user.username == username);
    found.ok_or_else(|| missing(username))
}

fn missing(username: &str) -> Error {
    Error::NotFound(format!("There is no user `{username}` here."))
}

/// Decides who has a name now; for admins. The same person gets suspended tokens back, or what a former owner left; for a new person
/// everything of the name goes to a former owner and its tokens are deleted. The user as it then is.
pub async fn update(core: &Core, actor: &Actor, username: &str, person: Person) -> Result<User> {
    let user = find(core, actor, username).await?;
    let name = former_user(username).unwrap_or(username).to_owned();
    let valid = canonical(core, &name).is_ok_and(|stored| stored == name);
    if !valid || (user.state == State::Former && person == Person::New) {
        let message = match valid {
            true => "This is a former owner. Give the containers to a user, or choose `same`.",
            false => "No user of Proxmox VE can have this name. Give the containers to a user.",
        };
        return Err(Error::invalid("person", message));
    }
    if person == Person::Same {
        must_exist(core, &name).await?;
    }
    let now = core.clock.now();
    let after = transaction!(core.db, tx => {
        tx.lock("logins").await?;
        let before = state::load(tx, &name).await?.map_or(State::Unknown, |record| record.state);
        let entry = audit::Change::new("user_update", format!("/users/{username}"));
        match person {
            Person::New => {
                let former = former::unused_former_owner(tx, &name).await?;
                let taken = former::release_to(tx, &name, &former, now).await?;
                let entry = entry.new_field("person", "new").field("state", before.name(), State::Former.name());
                taken.describe(entry).write(tx, core, actor).await?;
                former
            }
            Person::Same if user.state == State::Former || before.is_in_doubt() => {
                let mut entry = entry.new_field("person", "same");
                if user.state == State::Former {
                    let taken = former::restore(tx, username, &name, now).await?;
                    entry = taken.describe(entry.field("username", username, &name));
                }
                if before.is_in_doubt() {
                    state::store(tx, &name, State::Active, None, now).await?;
                    token::resume(tx, &name, now).await?;
                    entry = entry.field("state", before.name(), State::Active.name());
                }
                former::give_roles(tx, core, &name).await?;
                entry.write(tx, core, actor).await?;
                name.clone()
            }
            // Whose the name is was never in doubt.
            Person::Same => name.clone(),
        }
    })?;
    core.wake.jobs();
    match find(core, actor, &after).await {
        // Nothing was left behind.
        Err(Error::NotFound(_)) => Ok(User::new(&after)),
        found => found,
    }
}

/// Refuses a name that Proxmox VE does not know. Where it cannot be asked, the admin's word counts.
async fn must_exist(core: &Core, username: &str) -> Result<()> {
    let Ok(service) = service(core).await else {
        return Ok(());
    };
    let userid = core.proxmox_user(username);
    match service.user(&userid).await {
        Err(error) if error.is_no_such_user(&userid) => Err(Error::conflict(
            "person",
            format!("Proxmox VE knows no user `{userid}`. Create the user there first."),
        )),
        _ => Ok(()),
    }
}
