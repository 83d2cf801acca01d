//! Browser sessions: rows on the server; only a keyed hash of the id is stored, so the database opens no session.

use std::collections::HashMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;

use crate::actor::{Actor, Origin, Via};
use crate::cipher::Cipher;
use crate::db::Tx;
use crate::login_failure::neighbours;
use crate::pve::Secret;
use crate::{Core, Error, Result, args, audit, secret, sign_in_origin, transaction};

/// How long a session lasts.
pub const LIFETIME: Duration = Duration::hours(24);
/// How old the look-up of admin rights may be.
pub const ADMIN_LIFETIME: Duration = Duration::minutes(15);
/// How long the password, once given, stands for what needs it again.
pub const PROOF_LIFETIME: Duration = Duration::minutes(15);
/// Characters of a session's hash that stand for it.
const SHORT: usize = 16;

/// Characters of what a program says of itself that are kept.
const AGENT: usize = 300;

/// The program that signs in, as far as it is known; its user knows the session by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Client {
    /// Where its requests come from.
    pub address: Option<IpAddr>,
    /// What it says of itself, as in the header `User-Agent`.
    pub user_agent: Option<String>,
    /// Names the request of the sign-in in the server's log.
    #[serde(skip)]
    pub request: Option<String>,
    /// The text of the cookie by which a device is known (see `sign_in_origin`); never stored.
    #[serde(skip)]
    pub device: Option<Secret>,
}

impl Client {
    /// What the audit log says of a sign-in by it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let mut origin = Origin::new(Via::Session).at(self.address);
        origin.request.clone_from(&self.request);
        origin
    }
}

/// Starts a session; returns the id for the cookie, which is shown only here.
pub async fn create(core: &Core, actor: &Actor, client: &Client) -> Result<String> {
    let id = secret::random();
    let cut = |agent: &String| agent.chars().take(AGENT).collect();
    let client = Client {
        address: client.address,
        user_agent: client.user_agent.as_ref().map(cut),
        request: None,
        device: None,
    };
    let data = json!(client).to_string();
    let now = core.clock.now();
    transaction!(core.db, tx => {
        tx.exec(r#"DELETE FROM "Sessions" WHERE "expires" < ?"#, args![now]).await?;
        tx.exec(
            r#"INSERT INTO "Sessions" ("session_id", "expires", "data", "username", "admin", "adminCheckedAt", "provedAt", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"#,
            args![key(core, &id), now + LIFETIME, &data, &actor.username, actor.admin, now, now, now, now],
        )
        .await?;
        audit::Change::new("login_create", "/login").write(tx, core, actor).await?;
    })?;
    Ok(id)
}

/// Who the session belongs to, if it is still good. Admin rights that were not looked up lately do not count.
pub async fn find(core: &Core, id: &str) -> Result<Option<Actor>> {
    let hash = key(core, id);
    Ok(find_all(core, vec![hash.clone()]).await?.remove(&hash))
}

/// The same by the hashes of ids, for those that are good.
pub(crate) async fn find_all(core: &Core, hashes: Vec<String>) -> Result<HashMap<String, Actor>> {
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
        let checked: Option<DateTime<Utc>> = row.get("adminCheckedAt")?;
        let fresh = checked.is_some_and(|checked| now - checked < ADMIN_LIFETIME);
        let admin = row.get::<bool>("admin")? && fresh;
        let actor = Actor::new(row.get::<String>("username")?, admin);
        found.insert(row.get("session_id")?, actor);
    }
    Ok(found)
}

/// Whether its password (and the second factor) was given within [`PROOF_LIFETIME`].
pub async fn is_proved(core: &Core, id: &str) -> Result<bool> {
    let sql = r#"SELECT "provedAt" FROM "Sessions" WHERE "session_id" = ?"#;
    let Some(row) = core.db.opt(sql, args![key(core, id)]).await? else {
        return Ok(false);
    };
    let proved: Option<DateTime<Utc>> = row.get("provedAt")?;
    Ok(proved.is_some_and(|at| core.clock.now() - at < PROOF_LIFETIME))
}

/// Notes that the password was given again; whether there is such a session.
pub(crate) async fn set_proved(core: &Core, id: &str) -> Result<bool> {
    let now = core.clock.now();
    let sql = r#"UPDATE "Sessions" SET "provedAt" = ?, "updatedAt" = ? WHERE "session_id" = ? AND "expires" > ?"#;
    let changed = core
        .db
        .exec(sql, args![now, now, key(core, id), now])
        .await?;
    Ok(changed > 0)
}

/// Seals a form that a session sent, for the same session to send it again to the same `path`: it goes through the browser while the
/// password is asked for.
pub fn seal_form(core: &Core, id: &str, path: &str, form: &[u8]) -> Result<String> {
    let text = STANDARD.encode(form);
    let sealed = form_cipher(core).seal(&form_place(core, id, path), &text)?;
    sealed.ok_or_else(|| Error::Internal("a form cannot be sealed".to_owned()))
}

/// Opens what [`seal_form`] sealed; `None` for what was sealed otherwise, or for another session or path.
#[must_use]
pub fn open_form(core: &Core, id: &str, path: &str, sealed: &str) -> Option<Vec<u8>> {
    let opened = form_cipher(core).open(&form_place(core, id, path), sealed);
    STANDARD.decode(opened.ok()?.expose()).ok()
}

// Of the secret that all portals of an installation share, so that another one may take the form.
fn form_cipher(core: &Core) -> Cipher {
    let key = Secret::new(key(core, "the key of sealed forms"));
    Cipher::new(Some(&key))
}

fn form_place(core: &Core, id: &str, path: &str) -> String {
    format!("Sessions.form:{}:{path}", key(core, id))
}

/// A session as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The beginning of its hash; opens nothing.
    pub id: String,
    pub expires: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    /// Whether it is the one that asks.
    pub current: bool,
    pub client: Client,
}

/// The actor's own sessions, oldest first; `current` is the id of the one that asks.
pub async fn list(core: &Core, actor: &Actor, current: Option<&str>) -> Result<Vec<Session>> {
    let current = current.map(|id| key(core, id));
    let sql = r#"SELECT "session_id", "expires", "data", "createdAt" FROM "Sessions" WHERE "username" = ? AND "expires" > ? ORDER BY "createdAt""#;
    let rows = core
        .db
        .all(sql, args![&actor.username, core.clock.now()])
        .await?;
    let shown = rows.iter().map(|row| {
        let hash: String = row.get("session_id")?;
        let data: Option<String> = row.get("data")?;
        let client = data.and_then(|data| serde_json::from_str(&data).ok());
        Ok(Session {
            client: client.unwrap_or_default(),
            current: current.as_ref() == Some(&hash),
            id: hash[..SHORT].to_owned(),
            expires: row.get("expires")?,
            created_at: row.get("createdAt")?,
        })
    });
    shown.collect()
}

/// Ends one of the actor's own sessions by what [`list`] calls it.
pub async fn delete_listed(core: &Core, actor: &Actor, id: &str) -> Result<()> {
    let missing = || Error::NotFound(format!("You have no session {id}."));
    if id.len() != SHORT || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(missing());
    }
    transaction!(core.db, tx => {
        let sql = r#"DELETE FROM "Sessions" WHERE "username" = ? AND "session_id" LIKE ?"#;
        if tx.exec(sql, args![&actor.username, format!("{id}%")]).await? == 0 {
            return Err(missing());
        }
        audit::Change::new("session_delete", format!("/sessions/{id}")).deleted().write(tx, core, actor).await?;
    })
}

/// Ends the session of an id, as at a sign-out; `actor` is who it belongs to.
pub async fn delete(core: &Core, actor: &Actor, id: &str) -> Result<()> {
    transaction!(core.db, tx => {
        let sql = r#"DELETE FROM "Sessions" WHERE "session_id" = ?"#;
        if tx.exec(sql, args![key(core, id)]).await? > 0 {
            audit::Change::new("login_delete", "/logout").write(tx, core, actor).await?;
        }
    })
}

/// Ends the session that a new sign-in takes the place of.
pub async fn discard(core: &Core, id: &str, origin: &Origin) -> Result<()> {
    let key = key(core, id);
    transaction!(core.db, tx => {
        let sql = r#"SELECT "username" FROM "Sessions" WHERE "session_id" = ?"#;
        if let Some(row) = tx.opt(sql, args![&key]).await? {
            let username: Option<String> = row.get("username")?;
            let sql = r#"DELETE FROM "Sessions" WHERE "session_id" = ?"#;
            tx.exec(sql, args![&key]).await?;
            audit::Change::new("session_delete", format!("/sessions/{}", &key[..SHORT]))
                .deleted()
                .detail("a new sign-in took its place")
                .write_for(tx, core, username, origin)
                .await?;
        }
    })
}

/// Ends every session of the actor, and forgets the devices that the actor has signed in from.
pub async fn delete_all(core: &Core, actor: &Actor) -> Result<()> {
    transaction!(core.db, tx => {
        let sql = r#"DELETE FROM "Sessions" WHERE "username" = ?"#;
        let ended = tx.exec(sql, args![&actor.username]).await?;
        let devices = sign_in_origin::forget_devices(tx, &actor.username).await?;
        audit::Change::new("session_delete_all", "/sessions")
            .detail(format!("{ended} sessions ended, {devices} devices forgotten"))
            .write(tx, core, actor).await?;
    })
}

/// Whether a session of the actor was begun from the same network by a program that says the same of itself.
pub(crate) async fn is_like_another(core: &Core, actor: &Actor, client: &Client) -> Result<bool> {
    let sql = r#"SELECT "data" FROM "Sessions" WHERE "username" = ? AND "expires" > ?"#;
    let rows = core
        .db
        .all(sql, args![&actor.username, core.clock.now()])
        .await?;
    let network = |client: &Client| client.address.map(neighbours);
    for row in &rows {
        let data: Option<String> = row.get("data")?;
        let other: Option<Client> = data.and_then(|data| serde_json::from_str(&data).ok());
        let other = other.unwrap_or_default();
        if network(&other) == network(client) && other.user_agent == client.user_agent {
            return Ok(true);
        }
    }
    Ok(false)
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

/// Stores the result of a look-up in every session of the user: whether they are an admin. `None` ends the sessions.
pub(crate) async fn set_admin(
    tx: &mut Tx,
    username: &str,
    admin: Option<bool>,
    now: DateTime<Utc>,
) -> Result<()> {
    let Some(admin) = admin else {
        let sql = r#"DELETE FROM "Sessions" WHERE "username" = ?"#;
        tx.exec(sql, args![username]).await?;
        return Ok(());
    };
    let sql = r#"UPDATE "Sessions" SET "admin" = ?, "adminCheckedAt" = ?, "updatedAt" = ? WHERE "username" = ?"#;
    tx.exec(sql, args![admin, now, now, username]).await?;
    Ok(())
}

/// What is stored of an id.
pub(crate) fn key(core: &Core, id: &str) -> String {
    let key = core.config.session_secret.expose().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(id.as_bytes());
    secret::hex(&mac.finalize().into_bytes())
}
