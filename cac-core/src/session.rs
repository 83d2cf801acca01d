//! Browser sessions: rows on the server; only a keyed hash of the id is stored, so the database opens no session.

use chrono::Duration;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::actor::Actor;
use crate::{Core, Result, args, secret, transaction};

/// How long a session lasts.
pub const LIFETIME: Duration = Duration::hours(24);
/// How old the look-up of admin rights may be.
pub const ADMIN_LIFETIME: Duration = Duration::minutes(15);

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
    let now = core.clock.now();
    let row = core
        .db
        .opt(
            r#"SELECT "username", "admin", "adminCheckedAt" FROM "Sessions"
               WHERE "session_id" = ? AND "expires" > ? AND "username" IS NOT NULL"#,
            args![hash(core, id), now],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let checked: Option<chrono::DateTime<chrono::Utc>> = row.get("adminCheckedAt")?;
    let fresh = checked.is_some_and(|checked| now - checked < ADMIN_LIFETIME);
    Ok(Some(Actor::new(
        row.get::<String>("username")?,
        row.get::<bool>("admin")? && fresh,
    )))
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
