//! Secrets at rest: what the database holds of them is sealed with a key that it does not hold (XChaCha20-Poly1305). Without a key
//! (a server's database in development) they stand as they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use rand::RngCore as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::actor::Actor;
use crate::clock::Clock;
use crate::db::{Db, Tx};
use crate::pve::Secret;
use crate::{Core, Error, Result, args, audit, proxy_key, setting, transaction};

/// What the key is checked against.
const CHECK: &str = "secret.check";
/// How a sealed text begins.
const VERSION: &str = "v1:";
const NONCE: usize = 24;

/// Seals and opens; without a key it does neither.
#[derive(Clone, Default)]
pub struct Cipher(Option<XChaCha20Poly1305>);

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Cipher" } else { "no key" })
    }
}

/// The 32 bytes of a key as it is written: 64 hexadecimal digits.
#[must_use]
pub fn key(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.trim();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut key = Zeroizing::new([0; 32]);
    for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(key)
}

/// Whether a text is one that [`Cipher::seal`] made.
pub(crate) fn is_sealed(text: &str) -> bool {
    text.starts_with(VERSION)
}

impl Cipher {
    /// With the key as it is written; an empty or absent one is none.
    #[must_use]
    pub fn new(text: Option<&Secret>) -> Self {
        let key = text.and_then(|text| key(text.expose()));
        Self(key.map(|key| XChaCha20Poly1305::new((&*key).into())))
    }

    /// Whether there is a key.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.0.is_some()
    }

    /// Refuses to be another one than that of the database.
    fn check(&self, sealed: &str) -> Result<()> {
        if self.open(CHECK, sealed).is_err() {
            let message = "CAC_SECRET_KEY is not the key of this database. Set the right one; `cac secret rotate` changes it.";
            return Err(Error::conflict("CAC_SECRET_KEY", message));
        }
        Ok(())
    }

    /// Seals a text for one place, from which alone it can be opened again; `None` without a key.
    pub fn seal(&self, place: &str, text: &str) -> Result<Option<String>> {
        let Some(cipher) = &self.0 else {
            return Ok(None);
        };
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload {
            msg: text.as_bytes(),
            aad: place.as_bytes(),
        };
        let sealed = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::Internal("a secret cannot be sealed".to_owned()))?;
        let whole = [&nonce[..], &sealed].concat();
        Ok(Some(format!("{VERSION}{}", STANDARD.encode(whole))))
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, place: &str, sealed: &str) -> Result<Secret> {
        let closed = |why: &str| Error::Upstream(format!("A secret in the database {why}."));
        let Some(cipher) = &self.0 else {
            return Err(closed("is encrypted; this program needs CAC_SECRET_KEY"));
        };
        let whole = sealed
            .strip_prefix(VERSION)
            .and_then(|text| STANDARD.decode(text).ok());
        let whole = whole.filter(|whole| whole.len() > NONCE);
        let whole = whole.ok_or_else(|| closed("is damaged"))?;
        let (nonce, sealed) = whole.split_at(NONCE);
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| closed("is damaged"))?;
        let payload = Payload {
            msg: sealed,
            aad: place.as_bytes(),
        };
        let text = cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| closed("was encrypted with another key, or is damaged"))?;
        let text = String::from_utf8(text).map_err(|error| {
            error.into_bytes().zeroize();
            closed("is damaged")
        })?;
        Ok(Secret::new(text))
    }
}

/// Where a node's secret is sealed for.
pub(crate) fn node(id: i64) -> String {
    format!("Nodes.secret:{id}")
}

/// The cipher of this configuration; another key than the one that the database was first used with is refused.
pub(crate) async fn start(db: &Db, clock: &Clock, text: Option<&Secret>) -> Result<Cipher> {
    let cipher = Cipher::new(text);
    if !cipher.has_key() {
        return Ok(cipher);
    }
    transaction!(db, tx => {
        tx.lock("settings").await?;
        match setting::find(tx, CHECK).await? {
            Some(sealed) => cipher.check(&sealed)?,
            None => write_check(tx, clock, &cipher).await?,
        }
    })?;
    Ok(cipher)
}

/// The same, without a note of which key it is.
pub(crate) async fn inspect(db: &Db, text: Option<&Secret>) -> Result<Cipher> {
    let cipher = Cipher::new(text);
    if cipher.has_key()
        && let Some(sealed) = setting::value(db, CHECK).await?
    {
        cipher.check(&sealed)?;
    }
    Ok(cipher)
}

async fn write_check(tx: &mut Tx, clock: &Clock, cipher: &Cipher) -> Result<()> {
    let sealed = cipher.seal(CHECK, &crate::secret::random())?;
    setting::update(tx, clock, CHECK, &sealed.unwrap_or_default()).await
}

/// What a change of all secrets makes of each.
enum To<'a> {
    /// By the key in use: what is sealed already stays.
    Sealed(&'a Cipher),
    /// By another key.
    Resealed(&'a Cipher),
    Plain,
}

/// Seals what stands in plain text, as after an adoption; how many.
pub async fn encrypt(core: &Core, actor: &Actor) -> Result<u64> {
    if !core.cipher.has_key() {
        let message = "Set CAC_SECRET_KEY first; `cac secret new` makes one.";
        return Err(Error::invalid("CAC_SECRET_KEY", message));
    }
    let cipher = &core.cipher;
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let count = rewrite(tx, core, &To::Sealed(cipher), r#"SELECT * FROM "Nodes" WHERE "secret" IS NOT NULL"#).await?;
        note(tx, core, actor, "secret_encrypt", count).await?
    })
}

/// Seals everything with a new key; how many. The programs need the new one from then on.
pub async fn rotate(core: &Core, actor: &Actor, new: &Secret) -> Result<u64> {
    let cipher = Cipher::new(Some(new));
    if !cipher.has_key() {
        let message = "The new key must have 64 hexadecimal digits; `cac secret new` makes one.";
        return Err(Error::invalid("key", message));
    }
    let all = r#"SELECT * FROM "Nodes" WHERE "secret" IS NOT NULL OR "secretSealed" IS NOT NULL"#;
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let count = rewrite(tx, core, &To::Resealed(&cipher), all).await?;
        write_check(tx, &core.clock, &cipher).await?;
        note(tx, core, actor, "secret_rotate", count).await?
    })
}

/// Puts all secrets back in plain text, for going back to the original; how many.
pub async fn export(core: &Core, actor: &Actor) -> Result<u64> {
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let count = rewrite(tx, core, &To::Plain, r#"SELECT * FROM "Nodes" WHERE "secretSealed" IS NOT NULL"#).await?;
        note(tx, core, actor, "secret_export", count).await?
    })
}

async fn note(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    action: &'static str,
    count: u64,
) -> Result<u64> {
    audit::Change::new(action, "/secrets")
        .detail(format!("{count} secrets"))
        .write(tx, core, actor)
        .await?;
    Ok(count)
}

/// How many secrets stand in plain text, and how many are sealed. A plain one beside a sealed one is the one that counts.
pub(crate) async fn count(db: &Db) -> Result<(i64, i64)> {
    let sql = r#"SELECT COUNT("secret") AS "plain",
                 COALESCE(SUM(CASE WHEN "secret" IS NULL AND "secretSealed" IS NOT NULL THEN 1 ELSE 0 END), 0) AS "sealed" FROM "Nodes""#;
    let nodes = db.one(sql, args![]).await?;
    let (mut plain, mut sealed) = (nodes.get::<i64>("plain")?, nodes.get::<i64>("sealed")?);
    let sql = r#"SELECT "value" FROM "Settings" WHERE "name" IN ?"#;
    let names: Vec<String> = proxy_key::SECRETS.map(str::to_owned).into();
    for row in db.all(sql, args![names]).await? {
        match is_sealed(&row.get::<String>("value")?) {
            true => sealed += 1,
            false => plain += 1,
        }
    }
    Ok((plain, sealed))
}

async fn rewrite(tx: &mut Tx, core: &Core, to: &To<'_>, rows: &'static str) -> Result<u64> {
    let mut count = 0;
    for row in tx.all(rows, args![]).await? {
        let id: i64 = row.get("id")?;
        let sealed: Option<String> = row.get("secretSealed")?;
        // A plain one was written by hand after the other was sealed: it is the newer one.
        let text = match (row.get::<Option<String>>("secret")?, sealed) {
            (Some(plain), _) => Secret::new(plain),
            (None, Some(sealed)) => core.cipher.open(&node(id), &sealed)?,
            (None, None) => continue,
        };
        let (plain, sealed) = match to {
            To::Sealed(cipher) | To::Resealed(cipher) => {
                (None, cipher.seal(&node(id), text.expose())?)
            }
            To::Plain => (Some(text.expose()), None),
        };
        let sql = r#"UPDATE "Nodes" SET "secret" = ?, "secretSealed" = ? WHERE "id" = ?"#;
        count += tx.exec(sql, args![plain, sealed.as_deref(), id]).await?;
    }
    Ok(count + rewrite_settings(tx, core, to).await?)
}

/// Secrets among the settings; those that are already as they should be are left.
async fn rewrite_settings(tx: &mut Tx, core: &Core, to: &To<'_>) -> Result<u64> {
    let mut count = 0;
    for name in proxy_key::SECRETS {
        let Some(before) = setting::find(tx, name).await? else {
            continue;
        };
        let cipher = match (to, is_sealed(&before)) {
            (To::Sealed(_), true) | (To::Plain, false) => continue,
            (To::Sealed(cipher) | To::Resealed(cipher), _) => Some(*cipher),
            (To::Plain, true) => None,
        };
        let after = proxy_key::rewritten(&before, &core.cipher, cipher)?;
        setting::update(tx, &core.clock, name, &after).await?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_at_its_place_alone() {
        let cipher = |digit: &str| Cipher::new(Some(&Secret::new(digit.repeat(64))));
        let (ours, theirs) = (cipher("a"), cipher("b"));
        let sealed = ours.seal("here", "a secret").unwrap().unwrap();
        assert_ne!(
            Some(&sealed),
            ours.seal("here", "a secret").unwrap().as_ref()
        );
        assert_eq!(ours.open("here", &sealed).unwrap().expose(), "a secret");
        assert!(ours.open("there", &sealed).is_err());
        assert!(theirs.open("here", &sealed).is_err());
        assert!(Cipher::default().open("here", &sealed).is_err());
        for damaged in ["", "v1:", "v1:AAAA", "v2:AAAA", &sealed[..sealed.len() - 4]] {
            assert!(ours.open("here", damaged).is_err(), "{damaged}");
        }
        for bad in ["", "abc", &"g".repeat(64), &"é".repeat(32)] {
            assert!(key(bad).is_none(), "{bad}");
        }
    }
}
