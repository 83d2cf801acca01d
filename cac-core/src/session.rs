//! Browser sessions: rows on the server; only a keyed hash of the id is stored, so the database opens no session.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use chrono::Duration;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::actor::Actor;
use crate::{Core, Result, args, secret, transaction};

/// How long a session lasts.
pub const LIFETIME: Duration = Duration::hours(24);
/// How old the look-up of admin rights may be.
pub const ADMIN_LIFETIME: Duration = Duration::minutes(15);
/// How old an answer of [`recent`] may be.
const ROUND: std::time::Duration = std::time::Duration::from_secs(4);
/// Sessions of one query.
const BATCH: usize = 1000;

/// Starts a session; returns the id for the cookie, which is shown only here.
pub async fn create(core: &Core, actor: &Actor) -> Result<String> {
    let id = secret::random();
    let now = core.clock.now();
    transaction!(core.db, tx => {
        tx.exec(r#"DELETE FROM "Sessions" WHERE "expires" < ?"#, args![now]).await?;
        tx.exec(
            r#"INSERT INTO "Sessions" ("session_id", "expires", "username", "admin", "adminCheckedAt", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, ?, ?, ?)"#,
            args![hash(core, &id), now + LIFETIME, &actor.username, actor.admin, now, now, now],
        )
        .await?;
    })?;
    Ok(id)
}

/// Who the session belongs to, if it is still good. Admin rights that were not looked up lately do not count.
pub async fn find(core: &Core, id: &str) -> Result<Option<Actor>> {
    let hash = hash(core, id);
    Ok(find_all(core, vec![hash.clone()]).await?.remove(&hash))
}

/// The same by the hashes of ids, for those that are good.
async fn find_all(core: &Core, hashes: Vec<String>) -> Result<HashMap<String, Actor>> {
    let now = core.clock.now();
    let rows = core
        .db
        .all(
            r#"SELECT "session_id", "username", "admin", "adminCheckedAt" FROM "Sessions"
               WHERE "session_id" IN ? AND "expires" > ? AND "username" IS NOT NULL"#,
            args![hashes, now],
        )
        .await?;
    let mut found = HashMap::new();
    for row in rows {
        let checked: Option<chrono::DateTime<chrono::Utc>> = row.get("adminCheckedAt")?;
        let fresh = checked.is_some_and(|checked| now - checked < ADMIN_LIFETIME);
        let admin = row.get::<bool>("admin")? && fresh;
        let actor = Actor::new(row.get::<String>("username")?, admin);
        found.insert(row.get("session_id")?, actor);
    }
    Ok(found)
}

/// The sessions that were looked at lately, all of them together.
#[derive(Debug, Default)]
pub(crate) struct Recent(tokio::sync::Mutex<Round>);

#[derive(Debug, Default)]
struct Round {
    at: Option<Instant>,
    good: HashMap<String, Actor>,
    asked: HashSet<String>,
}

/// As [`find`], from what was seen within the last seconds: for many long requests that ask again and again, at the cost of
/// one query for all of them.
pub async fn recent(core: &Core, id: &str) -> Result<Option<Actor>> {
    let hash = hash(core, id);
    let mut round = core.sessions.0.lock().await;
    let new = round.asked.insert(hash.clone());
    if round.at.is_none_or(|at| at.elapsed() >= ROUND) {
        let asked: Vec<String> = round.asked.iter().cloned().collect();
        let mut good = HashMap::new();
        for some in asked.chunks(BATCH) {
            good.extend(find_all(core, some.to_vec()).await?);
        }
        // Who does not ask again within a round is forgotten.
        *round = Round {
            at: Some(Instant::now()),
            good,
            asked: HashSet::from([hash.clone()]),
        };
    } else if new && !round.good.contains_key(&hash) {
        round.good.extend(find_all(core, vec![hash.clone()]).await?);
    }
    Ok(round.good.get(&hash).cloned())
}

/// Ends one session.
pub async fn delete(core: &Core, id: &str) -> Result<()> {
    core.db
        .exec(
            r#"DELETE FROM "Sessions" WHERE "session_id" = ?"#,
            args![hash(core, id)],
        )
        .await?;
    Ok(())
}

/// Ends every session of a user.
pub async fn delete_all(core: &Core, username: &str) -> Result<()> {
    core.db
        .exec(
            r#"DELETE FROM "Sessions" WHERE "username" = ?"#,
            args![username],
        )
        .await?;
    Ok(())
}

/// Users with a session whose admin look-up is older than `age`.
pub(crate) async fn stale(core: &Core, age: Duration) -> Result<Vec<String>> {
    let now = core.clock.now();
    let rows = core
        .db
        .all(
            r#"SELECT DISTINCT "username" FROM "Sessions" WHERE "expires" > ? AND "username" IS NOT NULL AND "adminCheckedAt" < ?"#,
            args![now, now - age],
        )
        .await?;
    rows.iter().map(|row| Ok(row.get("username")?)).collect()
}

/// Stores the result of a look-up in every session of the user.
pub(crate) async fn set_admin(core: &Core, username: &str, admin: bool) -> Result<()> {
    let now = core.clock.now();
    core.db
        .exec(
            r#"UPDATE "Sessions" SET "admin" = ?, "adminCheckedAt" = ?, "updatedAt" = ? WHERE "username" = ?"#,
            args![admin, now, now, username],
        )
        .await?;
    Ok(())
}

fn hash(core: &Core, id: &str) -> String {
    let key = core.config.session_secret.expose().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(id.as_bytes());
    secret::hex(&mac.finalize().into_bytes())
}
