//! The periodical look-up of everyone who owns something: admin rights follow the group, and who was disabled, expired or deleted in
//! Proxmox VE loses sessions and tokens. While Proxmox VE is away nothing is renewed, so admin rights lapse.
//!
//! One `GET /access/users` shows who exists. A name that is not in it is looked up alone, since the list holds only what the service
//! token may read; only the answer "no such user" about that very name, in a realm that exists, is taken for its absence.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::state::{self, Answer, CONFIRMED_AFTER, State};
use super::{canonical, check_login_node, is_former, login_node, service_client};
use crate::pve::{self, Pve};
use crate::{
    Actor, Core, Result, account_request, args, session, sign_in_origin, token, transaction,
};

/// Everyone is looked up again this often, well within the lifetime of admin rights.
const EVERY: chrono::Duration = chrono::Duration::minutes(5);
/// Users that one round looks up alone, those first that were not asked about for longest.
const SINGLE: usize = 100;
/// Users that are stored in one statement.
const BATCH: usize = 500;

/// Repeats [`look_up`] once a minute.
pub async fn keep_looking_up(core: Core, stop: CancellationToken) {
    loop {
        if let Err(error) = look_up(&core).await {
            tracing::warn!(%error, "users cannot be looked up");
        }
        if let Err(error) = sign_in_origin::prune(&core).await {
            tracing::warn!(%error, "old sign-in origins cannot be deleted");
        }
        if let Err(error) = token::look_after(&core).await {
            tracing::warn!(%error, "the ends of tokens cannot be looked after");
        }
        if let Err(error) = account_request::remove_expired(&core).await {
            tracing::warn!(%error, "unconfirmed account requests cannot be removed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
    }
}

/// Somebody whose look-up is due.
struct Due {
    username: String,
    tried_at: Option<DateTime<Utc>>,
    /// Only the time has to be stored if the account is found active: there is no session and no token.
    quiet: bool,
}

/// One round: looks up every owner whose last look-up is older than five minutes.
pub async fn look_up(core: &Core) -> Result<()> {
    let due = due(core).await?;
    if due.is_empty() {
        return Ok(());
    }
    let node = login_node(core).await?;
    // Otherwise the names could be other people's, and everyone would seem to be gone.
    check_login_node(core, &node).await?;
    let Some(service) = service_client(&node) else {
        return Ok(());
    };
    let listed: HashMap<String, pve::User> = match service.users().await {
        Ok(users) => users
            .into_iter()
            .map(|user| (user.userid.clone(), user))
            .collect(),
        Err(error) if error.status().is_some() => {
            tracing::warn!(%error, "users cannot be listed");
            HashMap::new()
        }
        Err(error) => return Err(error.into()),
    };
    let mut round = Round {
        core,
        realms: realms(&service).await,
        service,
        single: SINGLE,
        quiet: Vec::new(),
        tried: Vec::new(),
    };
    for due in due {
        let user = listed.get(&core.proxmox_user(&due.username));
        round.look_up(&due, user).await?;
    }
    round.finish().await
}

async fn realms(service: &Pve) -> HashSet<String> {
    match service.realms().await {
        Ok(realms) => realms.into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "realms cannot be listed, so nobody is taken for gone");
            HashSet::new()
        }
    }
}

pub(super) fn answer(core: &Core, user: &pve::User) -> Answer {
    let now = u64::try_from(core.clock.now().timestamp()).unwrap_or_default();
    match user.is_active(now) {
        true => Answer::Active {
            admin: user.groups.contains(&core.config.proxmox.admin_group),
        },
        false => Answer::Disabled,
    }
}

struct Round<'a> {
    core: &'a Core,
    service: Pve,
    realms: HashSet<String>,
    /// How many more users may be looked up alone.
    single: usize,
    /// Active users of whom only the time has to be stored.
    quiet: Vec<String>,
    /// Users about whom nothing definite was said.
    tried: Vec<String>,
}

impl Round<'_> {
    async fn look_up(&mut self, due: &Due, listed: Option<&pve::User>) -> Result<()> {
        let answer = match listed {
            Some(user) => Some(answer(self.core, user)),
            None if self.single == 0 => return Ok(()),
            None => {
                self.single -= 1;
                self.ask(&due.username).await
            }
        };
        match answer {
            Some(Answer::Active { .. }) if due.quiet => {
                self.quiet.push(due.username.clone());
                Ok(())
            }
            Some(answer) => state::record(self.core, &due.username, answer).await,
            None => {
                self.tried.push(due.username.clone());
                Ok(())
            }
        }
    }

    async fn ask(&mut self, username: &str) -> Option<Answer> {
        let userid = self.core.proxmox_user(username);
        let realm = userid.rsplit_once('@').map_or("", |(_, realm)| realm);
        match self.service.user(&userid).await {
            Ok(user) => Some(answer(self.core, &user)),
            Err(error) if error.is_no_such_user(&userid) && self.realms.contains(realm) => {
                Some(Answer::NoSuchUser)
            }
            Err(error) => {
                // Nobody else would be answered either; the next round tries again.
                if error.status().is_none() {
                    self.single = 0;
                }
                tracing::warn!(%error, username, "user cannot be looked up");
                None
            }
        }
    }

    async fn finish(self) -> Result<()> {
        let now = self.core.clock.now();
        for names in self.quiet.chunks(BATCH) {
            let sql = r#"UPDATE "UserStates" SET "checkedAt" = ?, "triedAt" = ? WHERE "username" IN ? AND "state" = 'active'"#;
            self.core
                .db
                .exec(sql, args![now, now, names.to_vec()])
                .await?;
        }
        for names in self.tried.chunks(BATCH) {
            note_tried(self.core, names, now).await?;
        }
        Ok(())
    }
}

/// Stores that these users were asked about, so that the next ones have their turn.
async fn note_tried(core: &Core, names: &[String], now: DateTime<Utc>) -> Result<()> {
    transaction!(core.db, tx => {
        tx.lock("logins").await?;
        for name in names {
            let sql = r#"UPDATE "UserStates" SET "triedAt" = ? WHERE "username" = ?"#;
            if tx.exec(sql, args![now, name]).await? == 0 {
                let sql = r#"INSERT INTO "UserStates" ("username", "triedAt") VALUES (?, ?)"#;
                tx.exec(sql, args![name, now]).await?;
            }
        }
    })
}

/// Every owner whose look-up is due, the one first that was not asked about for longest.
async fn due(core: &Core) -> Result<Vec<Due>> {
    let now = core.clock.now();
    let mut signed: HashSet<String> = session::stale(core, EVERY).await?.into_iter().collect();
    signed.extend(token::stale(core, EVERY).await?);
    let sql = r#"SELECT "username", "state", "missingSince", "triedAt" FROM "UserStates""#;
    let mut due: BTreeMap<String, Due> = BTreeMap::new();
    let mut fresh = HashSet::new();
    for row in core.db.all(sql, args![]).await? {
        let (username, tried_at): (String, Option<DateTime<Utc>>) =
            (row.get("username")?, row.get("triedAt")?);
        let since: Option<DateTime<Utc>> = row.get("missingSince")?;
        let quiet = State::parse(&row.get::<String>("state")?) == State::Active;
        let decides = since.is_some_and(|since| now - since >= CONFIRMED_AFTER);
        if tried_at.is_some_and(|tried| now - tried < EVERY)
            && !decides
            && !signed.contains(&username)
        {
            fresh.insert(username);
            continue;
        }
        let quiet = quiet && !signed.contains(&username);
        due.insert(
            username.clone(),
            Due {
                username,
                tried_at,
                quiet,
            },
        );
    }
    for username in owners(core).await?.into_iter().chain(signed) {
        if !fresh.contains(&username) && !due.contains_key(&username) {
            let new = Due {
                username: username.clone(),
                tried_at: None,
                quiet: false,
            };
            due.insert(username, new);
        }
    }
    let mut due: Vec<Due> = due
        .into_values()
        .filter(|due| is_user(core, &due.username))
        .collect();
    due.sort_by_key(|due| due.tried_at);
    Ok(due)
}

/// Whether Proxmox VE can be asked about this owner: not a former owner, the program itself, or a name that no user can have.
pub(super) fn is_user(core: &Core, owner: &str) -> bool {
    let program = Actor::local().username;
    owner != program && !is_former(owner) && canonical(core, owner).is_ok_and(|name| name == owner)
}

/// The owners of containers and keys. Users who own nothing but jobs have a row in `UserStates` from their first sign-in on.
async fn owners(core: &Core) -> Result<HashSet<String>> {
    let sql = r#"SELECT "username" FROM "Containers" UNION SELECT "username" FROM "Tokens" UNION SELECT "username" FROM "Quotas""#;
    let rows = core.db.all(sql, args![]).await?;
    rows.iter().map(|row| Ok(row.get("username")?)).collect()
}
