//! API tokens: what scripts and other clients prove themselves with. Only a hash is stored; a token is shown once, when it is made.

use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};
use serde::Serialize;

use crate::actor::Actor;
use crate::db::{Row, Tx};
use crate::error::Fields;
use crate::job::user_mail::{self, Notice};
use crate::session::ADMIN_LIFETIME;
use crate::{Core, Error, Result, args, audit, secret, transaction};

/// How a token begins, so that scanners of leaked secrets know it.
const PREFIX: &str = "cac_";
/// Characters of a token that are kept to tell it apart.
const BEGINNING: usize = 12;
/// How exactly the last use is known.
const USED_EVERY: Duration = Duration::minutes(1);
/// Tokens of one owner.
const MOST: i64 = 100;
/// How long before its end a token is said to expire soon; one that is made for a short time, in the last third of it.
const SOON: Duration = Duration::days(30);
/// How far ahead of ours a client's clock may be when it asks for the longest lifetime.
const CLOCKS: Duration = Duration::minutes(5);
/// What is left to a token without an end, of a release that had such.
const WITHOUT_END: Duration = Duration::days(365);

/// What a token may be used for; never for more than its owner may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Scope {
    /// See containers, services, templates, the quota.
    #[serde(rename = "containers:read")]
    ContainersRead,
    /// Ask for containers, change and delete them; includes reading.
    #[serde(rename = "containers:write")]
    ContainersWrite,
    /// Register containers that exist, for anybody; for admins.
    #[serde(rename = "containers:register")]
    ContainersRegister,
    /// See jobs and their output, add and cancel them.
    #[serde(rename = "jobs")]
    Jobs,
    /// Read `/nginx.conf`.
    #[serde(rename = "nginx:read")]
    NginxRead,
    /// Say which configuration a proxy has.
    #[serde(rename = "nginx:report")]
    NginxReport,
    /// Everything that the owner may do.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::ContainersRead,
        Self::ContainersWrite,
        Self::ContainersRegister,
        Self::Jobs,
        Self::NginxRead,
        Self::NginxReport,
        Self::Admin,
    ];

    /// As requests name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ContainersRead => "containers:read",
            Self::ContainersWrite => "containers:write",
            Self::ContainersRegister => "containers:register",
            Self::Jobs => "jobs",
            Self::NginxRead => "nginx:read",
            Self::NginxReport => "nginx:report",
            Self::Admin => "admin",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == text)
    }

    /// Whether only an admin may have it.
    fn admins_only(self) -> bool {
        matches!(
            self,
            Self::ContainersRegister | Self::NginxRead | Self::NginxReport
        )
    }

    /// Whether it needs an owner who is an admin now, looked up lately. A proxy goes on while Proxmox VE is away and admin rights cannot be
    /// looked up; a registration says whose a container is, and waits.
    fn needs_admin_now(self) -> bool {
        self == Self::ContainersRegister
    }

    /// Whether the password must have been given lately where a browser asks for a token with it: such a token outlives the
    /// session, and does what the owner's password protects.
    fn needs_proof(self) -> bool {
        matches!(
            self,
            Self::Admin | Self::ContainersRegister | Self::NginxRead | Self::NginxReport
        )
    }
}

/// A row of `Tokens`, without what proves it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    pub id: i64,
    /// The owner.
    pub username: String,
    /// What the owner calls it.
    pub name: String,
    /// Its first characters.
    pub beginning: String,
    pub scopes: Vec<Scope>,
    /// Absent: it has none yet, and gets one in the next round of the portal.
    pub expires: Option<DateTime<Utc>>,
    /// To the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Whether its owner may not sign in any more.
    pub suspended: bool,
    pub created_at: DateTime<Utc>,
}

/// Whether a token that lasts from `created` to `expires` is near its end.
#[must_use]
pub fn expires_soon(created: DateTime<Utc>, expires: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    expires > now && expires - now <= SOON.min((expires - created) / 3)
}

impl Token {
    /// Whether it is good now and near its end.
    #[must_use]
    pub fn expires_soon(&self, now: DateTime<Utc>) -> bool {
        !self.suspended
            && self
                .expires
                .is_some_and(|at| expires_soon(self.created_at, at, now))
    }
}

/// A token that is to be made.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    pub name: String,
    pub scopes: Vec<String>,
    pub expires: Option<DateTime<Utc>>,
}

/// A good token in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub id: i64,
    pub username: String,
    pub scopes: Vec<Scope>,
    /// Whether the owner is an admin, looked up not longer than 15 minutes ago.
    pub admin: bool,
    /// Whether the owner was one when last looked up.
    pub was_admin: bool,
    pub created_at: DateTime<Utc>,
    pub expires: Option<DateTime<Utc>>,
}

impl Held {
    /// Whether it has the scope, or one that includes it.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        let includes = |has: &Scope| match has {
            Scope::Admin => true,
            Scope::ContainersWrite if scope == Scope::ContainersRead => true,
            has => *has == scope,
        };
        let owner = match scope {
            scope if scope.needs_admin_now() => self.admin,
            scope if scope.admins_only() => self.was_admin,
            _ => true,
        };
        owner && self.scopes.iter().any(includes)
    }

    /// Who acts by it: an admin only with the scope for that.
    #[must_use]
    pub fn actor(&self) -> Actor {
        let admin = self.admin && self.scopes.contains(&Scope::Admin);
        Actor::new(&self.username, admin)
    }
}

fn scopes(text: &str) -> Vec<Scope> {
    text.split(' ').filter_map(Scope::parse).collect()
}

impl Token {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            username: row.get("username")?,
            name: row.get("name")?,
            beginning: row.get("beginning")?,
            scopes: scopes(&row.get::<String>("scopes")?),
            expires: row.get("expires")?,
            last_used_at: row.get("lastUsedAt")?,
            suspended: row.get("suspended")?,
            created_at: row.get("createdAt")?,
        })
    }
}

/// Whether a token with these scopes is given only to a session whose password was given lately
/// ([`crate::session::PROOF_LIFETIME`]). Words that are no scope are refused by [`create`].
#[must_use]
pub fn needs_proof(scopes: &[String]) -> bool {
    let mut parsed = scopes.iter().filter_map(|text| Scope::parse(text.trim()));
    parsed.any(Scope::needs_proof)
}

/// Makes a token of the actor's own; `by` is the token that asks for it, which gives no scope that it has not itself. The text is
/// shown only here.
pub async fn create(
    core: &Core,
    actor: &Actor,
    by: Option<&Held>,
    new: &NewToken,
) -> Result<(Token, String)> {
    let now = core.clock.now();
    let mut fields = Fields::default();
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        fields.add(
            "name",
            "Give it a name of 1 to 64 characters, to know it by.",
        );
    }
    let mut wanted: Vec<Scope> = Vec::new();
    let known = Scope::ALL.map(Scope::name).join(", ");
    for text in &new.scopes {
        match Scope::parse(text.trim()) {
            Some(scope) if scope.admins_only() && !actor.admin => {
                fields.add("scopes", format!("Only admins have tokens with `{text}`."));
            }
            Some(scope) if by.is_some_and(|by| !by.may(scope)) => {
                fields.add(
                    "scopes",
                    format!("The token that asks has no `{text}` itself."),
                );
            }
            Some(scope) => wanted.push(scope),
            None => fields.add(
                "scopes",
                format!("`{text}` is not a scope; choose from {known}."),
            ),
        }
    }
    if wanted.is_empty() {
        fields.add("scopes", format!("Choose at least one of {known}."));
    }
    let latest = now + core.config.token_lifetime;
    // Whoever stole a token has it no longer than its owner wanted.
    let end = by.and_then(|by| by.expires).filter(|end| *end < latest);
    let latest = end.unwrap_or(latest);
    let expires = new.expires.unwrap_or(latest);
    if expires <= now {
        fields.add("expires", "Give a time in the future, or none.");
    }
    if let Some(end) = end.filter(|end| expires > *end) {
        fields.add(
            "expires",
            format!(
                "The token that asks ends at {}, and makes none that lasts longer. Give a time up to then, or none; a session of a browser \
                 makes tokens that last longer.",
                end.format("%Y-%m-%dT%H:%M:%SZ")
            ),
        );
    } else if expires > latest + CLOCKS {
        fields.add(
            "expires",
            format!(
                "A token lasts at most {} days here (`TOKEN_MAX_DAYS`). Give a time up to {}, or none.",
                core.config.token_lifetime.num_days(),
                latest.format("%Y-%m-%dT%H:%M:%SZ")
            ),
        );
    }
    fields.into_result()?;
    let expires = expires.min(latest);
    wanted.sort();
    wanted.dedup();
    let text = format!("{PREFIX}{}", secret::random());
    let names: Vec<&str> = wanted.iter().map(|scope| scope.name()).collect();
    let id = transaction!(core.db, tx => {
        tx.lock("names").await?;
        let sql = r#"SELECT COUNT(*) AS "n" FROM "Tokens" WHERE "username" = ?"#;
        if tx.one(sql, args![&actor.username]).await?.get::<i64>("n")? >= MOST {
            return Err(Error::conflict("name", format!("You have {MOST} tokens already; delete those that are not used.")));
        }
        let id = tx.insert(
            r#"INSERT INTO "Tokens" ("username", "name", "hash", "beginning", "scopes", "expires", "admin", "adminCheckedAt",
                                     "suspended", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"#,
            args![
                &actor.username, name, secret::hash(&text), &text[..BEGINNING], names.join(" "), expires, actor.admin, now, false, now, now
            ],
        )
        .await?;
        let notice = Notice::TokenCreated {
            name: name.to_owned(),
            beginning: text[..BEGINNING].to_owned(),
            scopes: names.iter().map(|&name| name.to_owned()).collect(),
            expires,
        };
        user_mail::add(tx, core, &actor.username, &notice).await?;
        audit::Change::new("token_create", format!("/tokens/{id}"))
            .created()
            .new_field("name", name)
            .new_field("scopes", &names)
            .new_field("expires", expires)
            .write(tx, core, actor)
            .await?;
        id
    })?;
    core.wake.jobs();
    Ok((one(core, id).await?, text))
}

async fn one(core: &Core, id: i64) -> Result<Token> {
    let sql = r#"SELECT * FROM "Tokens" WHERE "id" = ?"#;
    match core.db.opt(sql, args![id]).await? {
        Some(row) => Token::from_row(&row),
        None => Err(Error::NotFound(format!("There is no token {id}."))),
    }
}

/// A page of tokens in order of their ids, and how many there are: one's own, or for admins everyone's.
pub async fn list(
    core: &Core,
    actor: &Actor,
    all: bool,
    (limit, offset): (u32, u32),
) -> Result<(Vec<Token>, i64)> {
    let all = all && actor.admin;
    let mut tx = core.db.read().await?;
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Tokens" WHERE (? OR "username" = ?)"#;
    let total = tx.one(sql, args![all, &actor.username]).await?.get("n")?;
    let sql =
        r#"SELECT * FROM "Tokens" WHERE (? OR "username" = ?) ORDER BY "id" LIMIT ? OFFSET ?"#;
    let rows = tx
        .all(sql, args![all, &actor.username, limit, offset])
        .await?;
    let tokens = rows.iter().map(Token::from_row).collect::<Result<_>>()?;
    Ok((tokens, total))
}

/// Ends a token of one's own, or for admins anybody's; which one it was.
pub async fn delete(core: &Core, actor: &Actor, id: i64) -> Result<Token> {
    let token = one(core, id).await?;
    if !actor.may_see(Some(&token.username)) {
        return Err(Error::NotFound(format!("There is no token {id}.")));
    }
    transaction!(core.db, tx => {
        let sql = r#"DELETE FROM "Tokens" WHERE "id" = ?"#;
        if tx.exec(sql, args![id]).await? == 0 {
            return Err(Error::NotFound(format!("There is no token {id}.")));
        }
        audit::Change::new("token_delete", format!("/tokens/{id}"))
            .deleted()
            .old_field("username", &token.username)
            .old_field("name", &token.name)
            .old_field("scopes", &token.scopes)
            .write(tx, core, actor)
            .await?;
    })?;
    Ok(token)
}

/// The token that this text is, if it is a good one; its use is noted.
pub async fn find(core: &Core, text: &str) -> Result<Option<Held>> {
    let hash = secret::hash(text);
    let Some((held, used)) = find_all(core, vec![hash.clone()]).await?.remove(&hash) else {
        return Ok(None);
    };
    let now = core.clock.now();
    if used.is_none_or(|used| used < now - USED_EVERY) {
        let sql = r#"UPDATE "Tokens" SET "lastUsedAt" = ? WHERE "hash" = ?"#;
        core.db.exec(sql, args![now, &hash]).await?;
    }
    Ok(Some(held))
}

/// By the hashes of tokens, those that are good, with their last use.
pub(crate) async fn find_all(
    core: &Core,
    hashes: Vec<String>,
) -> Result<HashMap<String, (Held, Option<DateTime<Utc>>)>> {
    let now = core.clock.now();
    let sql = r#"SELECT * FROM "Tokens" WHERE "hash" IN ? AND ("expires" IS NULL OR "expires" > ?) AND "suspended" = ?"#;
    let mut found = HashMap::new();
    for row in core.db.all(sql, args![hashes, now, false]).await? {
        let checked: DateTime<Utc> = row.get("adminCheckedAt")?;
        let was_admin: bool = row.get("admin")?;
        let held = Held {
            id: row.get("id")?,
            username: row.get("username")?,
            scopes: scopes(&row.get::<String>("scopes")?),
            admin: was_admin && now - checked < ADMIN_LIFETIME,
            was_admin,
            created_at: row.get("createdAt")?,
            expires: row.get("expires")?,
        };
        found.insert(row.get("hash")?, (held, row.get("lastUsedAt")?));
    }
    Ok(found)
}

/// Owners of tokens whose look-up is older than `age`; suspended ones are looked up, too.
pub(crate) async fn stale(core: &Core, age: Duration) -> Result<Vec<String>> {
    let now = core.clock.now();
    let sql = r#"SELECT DISTINCT "username" FROM "Tokens" WHERE ("expires" IS NULL OR "expires" > ?) AND "adminCheckedAt" < ?"#;
    let rows = core.db.all(sql, args![now, now - age]).await?;
    rows.iter().map(|row| Ok(row.get("username")?)).collect()
}

/// Stores what was looked up of an owner: whether they are an admin, or `None` when they may not sign in any more.
pub(crate) async fn set_admin(
    tx: &mut Tx,
    username: &str,
    admin: Option<bool>,
    now: DateTime<Utc>,
) -> Result<()> {
    let sql = r#"UPDATE "Tokens" SET "admin" = ?, "adminCheckedAt" = ?, "suspended" = ?, "updatedAt" = ? WHERE "username" = ?"#;
    let given = args![admin.unwrap_or(false), now, admin.is_none(), now, username];
    tx.exec(sql, given).await?;
    Ok(())
}

/// Ends the suspension of a user's tokens. Admin rights stay unknown until the next look-up, which is due at once.
pub(crate) async fn resume(tx: &mut Tx, username: &str, now: DateTime<Utc>) -> Result<()> {
    let sql = r#"UPDATE "Tokens" SET "suspended" = ?, "adminCheckedAt" = ?, "updatedAt" = ? WHERE "username" = ?"#;
    let long_ago = now - Duration::days(1);
    tx.exec(sql, args![false, long_ago, now, username]).await?;
    Ok(())
}

/// Revokes all tokens of the actor; how many there were.
pub async fn delete_all(core: &Core, actor: &Actor) -> Result<u64> {
    transaction!(core.db, tx => {
        let sql = r#"DELETE FROM "Tokens" WHERE "username" = ?"#;
        let revoked = tx.exec(sql, args![&actor.username]).await?;
        audit::Change::new("token_delete", "/tokens")
            .detail(format!("{revoked} tokens revoked with all sessions"))
            .write(tx, core, actor)
            .await?;
        revoked
    })
}

/// Good tokens of everybody that are near their end, the next one first. Rights: none are checked.
pub(crate) async fn expiring(core: &Core) -> Result<Vec<Token>> {
    let now = core.clock.now();
    let sql = r#"SELECT * FROM "Tokens" WHERE "expires" > ? AND "expires" <= ? AND "suspended" = ? ORDER BY "expires""#;
    let rows = core.db.all(sql, args![now, now + SOON, false]).await?;
    let tokens: Result<Vec<Token>> = rows.iter().map(Token::from_row).collect();
    Ok(tokens?
        .into_iter()
        .filter(|token| token.expires_soon(now))
        .collect())
}

/// Gives tokens without an end one, and mails the owners of those that are near theirs, once.
pub(crate) async fn look_after(core: &Core) -> Result<()> {
    let now = core.clock.now();
    // Of before the upgrade, of an older release beside this one, or inserted by hand.
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Tokens" WHERE "expires" IS NULL"#;
    if core.db.one(sql, args![]).await?.get::<i64>("n")? > 0 {
        let sql = r#"UPDATE "Tokens" SET "expires" = ?, "updatedAt" = ? WHERE "expires" IS NULL"#;
        let given = core.db.exec(sql, args![now + WITHOUT_END, now]).await?;
        tracing::info!(
            tokens = given,
            "tokens without an end expire in {} days",
            WITHOUT_END.num_days()
        );
    }
    if core.config.mail.is_none() {
        return Ok(());
    }
    for token in expiring(core).await? {
        let Some(expires) = token.expires else {
            continue;
        };
        let notice = Notice::TokenExpires {
            name: token.name,
            beginning: token.beginning,
            expires,
        };
        transaction!(core.db, tx => {
            let sql = r#"UPDATE "Tokens" SET "expiryMailedAt" = ? WHERE "id" = ? AND "expiryMailedAt" IS NULL"#;
            // Another portal may have done it meanwhile.
            if tx.exec(sql, args![now, token.id]).await? > 0 {
                user_mail::add(tx, core, &token.username, &notice).await?;
            }
        })?;
        core.wake.jobs();
    }
    Ok(())
}
