//! The key with which an installation signs what it gives to its reverse proxies. It is made once, at its first use, and stands in
//! `Settings`, sealed as the nodes' secrets are, so that any `cac-http` of the installation can sign. What it signs is
//! [`crate::nginx::statement`]'s matter.
//!
//! A key is changed in three steps, without a moment in which a proxy refuses its portal: [`create_next`], the proxies pin both keys,
//! [`activate_next`].

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::actor::{Actor, Origin};
use crate::cipher::{self, Cipher};
use crate::db::{Db, Row, Tx};
use crate::nginx::{FileOrder, PinnedKey, SignedStatement, SigningKey, Statement};
use crate::{Core, Error, Result, args, audit, secret, setting, transaction};

/// What the audit log calls it.
const TARGET: &str = "/proxy-key";
const CURRENT: &str = "proxy.key";
const NEXT: &str = "proxy.key.next";
/// The settings that hold a secret.
pub(crate) const SECRETS: [&str; 2] = [CURRENT, NEXT];
const EPOCH: &str = "proxy.epoch";
/// Machines that read the configuration without asking for a signature, and when they did last.
const UNSIGNED: &str = "proxy.unsigned";
/// Of those so many are kept.
const MOST: usize = 20;
/// A read is noted again after this long.
const NOTED: TimeDelta = TimeDelta::minutes(10);
/// A machine that has read nothing for this long does so no more.
const FORGOTTEN: TimeDelta = TimeDelta::hours(24);

/// What proxies pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyKeys {
    /// Signs now.
    pub current: PinnedKey,
    /// Will sign after [`activate_next`].
    pub next: Option<PinnedKey>,
}

/// The keys, for admins; the first call makes the current one.
pub async fn find(core: &Core, actor: &Actor) -> Result<ProxyKeys> {
    actor.must_be_admin()?;
    let stored = stored(core).await?;
    let next = match &stored.next {
        Some(next) => Some(open(core, next)?.public()),
        None => None,
    };
    Ok(ProxyKeys {
        current: stored.current.public(),
        next,
    })
}

/// Makes the key that will follow the current one, or says which was made already. Rights: none are checked.
pub async fn create_next(core: &Core, actor: &Actor) -> Result<PinnedKey> {
    stored(core).await?;
    let sealed = transaction!(core.db, tx => {
        tx.lock("settings").await?;
        match setting::find(tx, NEXT).await? {
            Some(sealed) => sealed,
            None => {
                let sealed = create(tx, core, NEXT).await?;
                audit::Change::new("proxy_key_create", TARGET).created().write(tx, core, actor).await?;
                sealed
            }
        }
    })?;
    Ok(open(core, &sealed)?.public())
}

/// The key that was made by [`create_next`] signs from now on, and the current one is gone. Rights: none are checked.
pub async fn activate_next(core: &Core, actor: &Actor) -> Result<PinnedKey> {
    let sealed = transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let Some(next) = setting::find(tx, NEXT).await? else {
            let message = "There is no next key. Make one with `cac proxy key new`, pin it on every proxy, then activate it.";
            return Err(Error::conflict("key", message));
        };
        setting::update(tx, &core.clock, CURRENT, &next).await?;
        tx.exec(r#"DELETE FROM "Settings" WHERE "name" = ?"#, args![NEXT]).await?;
        audit::Change::new("proxy_key_activate", TARGET).write(tx, core, actor).await?;
        next
    })?;
    Ok(open(core, &sealed)?.public())
}

/// Begins a new epoch, in which the revisions of a restored database are newer than all before. Rights: none are checked.
pub async fn begin_epoch(core: &Core, actor: &Actor) -> Result<i64> {
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let before = setting::find(tx, EPOCH).await?.and_then(|text| text.parse().ok()).unwrap_or(0);
        // The restored database does not know the epochs that began after the backup, and seconds are beyond all of them.
        let epoch = core.clock.now().timestamp().max(before + 1);
        setting::update(tx, &core.clock, EPOCH, &epoch.to_string()).await?;
        audit::Change::new("proxy_epoch_begin", TARGET)
            .field("epoch", before, epoch)
            .write(tx, core, actor)
            .await?;
        epoch
    })
}

/// Signs what is said about a file for a proxy.
pub async fn sign(core: &Core, proxy: &str, revision: i64, text: &str) -> Result<SignedStatement> {
    let stored = stored(core).await?;
    let order = FileOrder {
        epoch: stored.epoch,
        revision,
    };
    let statement = Statement::about(&core.installation, proxy, order, text);
    Ok(stored.current.sign(&statement))
}

struct Stored {
    current: SigningKey,
    /// As it stands in the database.
    next: Option<String>,
    epoch: i64,
}

/// Read afresh each time: another process may have changed the key.
async fn stored(core: &Core) -> Result<Stored> {
    let sql = r#"SELECT "name", "value" FROM "Settings" WHERE "name" IN (?, ?, ?)"#;
    let rows = core.db.all(sql, args![CURRENT, NEXT, EPOCH]).await?;
    let value = |row: &Row| Ok((row.get::<String>("name")?, row.get::<String>("value")?));
    let mut values: BTreeMap<_, _> = rows.iter().map(value).collect::<Result<_>>()?;
    let current = match values.remove(CURRENT) {
        Some(current) => current,
        None => transaction!(core.db, tx => {
            tx.lock("settings").await?;
            match setting::find(tx, CURRENT).await? {
                Some(current) => current,
                None => {
                    let sealed = create(tx, core, CURRENT).await?;
                    // Nobody asked for it: it is needed.
                    audit::Change::new("proxy_key_create", TARGET)
                        .created()
                        .write_for(tx, core, None, &Origin::default())
                        .await?;
                    sealed
                }
            }
        })?,
    };
    Ok(Stored {
        current: open(core, &current)?,
        next: values.remove(NEXT),
        epoch: values
            .remove(EPOCH)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
    })
}

/// The caller holds the lock `settings`.
async fn create(tx: &mut Tx, core: &Core, name: &str) -> Result<String> {
    let seed = secret::random();
    let value = core.cipher.seal(CURRENT, &seed)?.unwrap_or(seed);
    setting::update(tx, &core.clock, name, &value).await?;
    Ok(value)
}

fn open(core: &Core, value: &str) -> Result<SigningKey> {
    let seed = match cipher::is_sealed(value) {
        true => core.cipher.open(CURRENT, value)?,
        false => crate::pve::Secret::new(value),
    };
    let seed = cipher::key(seed.expose());
    let seed = seed.ok_or_else(|| Error::Internal("The proxies' key is damaged.".to_owned()))?;
    Ok(SigningKey::from_seed(&core.installation, &seed))
}

/// The value of one of [`SECRETS`] as it is to stand in the database: sealed by `to`, or without it in plain text.
pub(crate) fn rewritten(value: &str, from: &Cipher, to: Option<&Cipher>) -> Result<String> {
    // Both keys are sealed for one place, so that the next one can take the other's.
    let seed = match cipher::is_sealed(value) {
        true => from.open(CURRENT, value)?,
        false => crate::pve::Secret::new(value),
    };
    let plain = seed.expose().to_owned();
    Ok(match to {
        Some(to) => to.seal(CURRENT, &plain)?.unwrap_or(plain),
        None => plain,
    })
}

/// A machine that reads the configuration without a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnsignedReader {
    pub address: String,
    pub last: DateTime<Utc>,
}

/// Notes that a machine read the configuration without asking for a signature, so that `cac doctor` can say so.
pub async fn note_unsigned(core: &Core, address: &str) -> Result<()> {
    let now = core.clock.now();
    let recent = |known: &BTreeMap<String, DateTime<Utc>>| {
        let last = known.get(address);
        last.is_some_and(|last| now - *last < NOTED)
    };
    if recent(&read_unsigned(&core.db).await?) {
        return Ok(());
    }
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let mut known = parse_unsigned(setting::find(tx, UNSIGNED).await?);
        known.insert(address.to_owned(), now);
        known.retain(|_, last| now - *last < FORGOTTEN);
        while known.len() > MOST {
            let oldest = known.iter().min_by_key(|(_, last)| **last).map(|(address, _)| address.clone());
            oldest.map(|oldest| known.remove(&oldest));
        }
        let text = serde_json::to_string(&known).unwrap_or_default();
        setting::update(tx, &core.clock, UNSIGNED, &text).await?;
    })
}

/// Machines that read it so within the last day.
pub async fn unsigned_readers(db: &Db, now: DateTime<Utc>) -> Result<Vec<UnsignedReader>> {
    let known = read_unsigned(db).await?.into_iter();
    let known = known.filter(|(_, last)| now - *last < FORGOTTEN);
    Ok(known
        .map(|(address, last)| UnsignedReader { address, last })
        .collect())
}

async fn read_unsigned(db: &Db) -> Result<BTreeMap<String, DateTime<Utc>>> {
    Ok(parse_unsigned(setting::value(db, UNSIGNED).await?))
}

fn parse_unsigned(value: Option<String>) -> BTreeMap<String, DateTime<Utc>> {
    value
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}
