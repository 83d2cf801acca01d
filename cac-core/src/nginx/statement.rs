//! What the portal signs about a configuration file: for which installation and proxy it is, its place in the order of files, and the
//! SHA-256 of its bytes. A puller that has pinned the key takes no other file, whoever sits between.
//!
//! The statement is a text of fixed lines, so that signer and verifier agree on its bytes without a serializer between them:
//!
//! ```text
//! cac-nginx-statement v1
//! installation: 3fa2c1d0
//! proxy: edge-1
//! epoch: 0
//! revision: 42
//! sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::value::BadValue;
use crate::secret::hex;

const FIRST_LINE: &str = "cac-nginx-statement v1";
/// Says what the rest of a pinned key is.
const KEY_PREFIX: &str = "cac-ed25519";

/// A file's place among all files of an installation. A new epoch begins when somebody has restored an older backup of the database:
/// its revisions count from a lower number again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileOrder {
    pub epoch: i64,
    pub revision: i64,
}

impl fmt::Display for FileOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {} of epoch {}", self.revision, self.epoch)
    }
}

/// What is said about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub installation: String,
    pub proxy: String,
    pub order: FileOrder,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

impl Statement {
    /// About these bytes.
    pub fn about(installation: &str, proxy: &str, order: FileOrder, text: &str) -> Self {
        Self {
            installation: installation.to_owned(),
            proxy: proxy.to_owned(),
            order,
            sha256: hex(&Sha256::digest(text)),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        writeln!(f, "installation: {}", self.installation)?;
        writeln!(f, "proxy: {}", self.proxy)?;
        writeln!(f, "epoch: {}", self.order.epoch)?;
        writeln!(f, "revision: {}", self.order.revision)?;
        writeln!(f, "sha256: {}", self.sha256)
    }
}

impl FromStr for Statement {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad =
            || BadValue("The statement is not one that this release of cac reads.".to_owned());
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(bad());
        }
        let mut field = |name: &str| {
            let line = lines.next()?.strip_prefix(name)?;
            line.strip_prefix(": ").map(ToOwned::to_owned)
        };
        let mut read = || {
            Some(Self {
                installation: field("installation")?,
                proxy: field("proxy")?,
                order: FileOrder {
                    epoch: field("epoch")?.parse().ok()?,
                    revision: field("revision")?.parse().ok()?,
                },
                sha256: field("sha256")?,
            })
        };
        // Exactly one text for each statement: `+42`, a blank too many or a line more is none.
        read()
            .filter(|statement| statement.to_string() == text)
            .ok_or_else(bad)
    }
}

/// A proxy's name, as statements and reports have it.
pub fn is_proxy_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(fits)
}

/// A statement with its signature, as it travels in headers and over a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStatement {
    /// The statement's text in Base64.
    pub statement: String,
    /// Ed25519 over the statement's bytes, in Base64.
    pub signature: String,
}

/// The half of the key that only the installation has.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    installation: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    /// From 32 random bytes.
    pub fn from_seed(installation: &str, seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        Self {
            pair: pair.expect("every 32 bytes are a seed"),
            installation: installation.to_owned(),
        }
    }

    /// What proxies pin.
    pub fn public(&self) -> PinnedKey {
        let bytes = self.pair.public_key().as_ref();
        PinnedKey {
            installation: self.installation.clone(),
            key: bytes.try_into().expect("an Ed25519 key has 32 bytes"),
        }
    }

    /// Signs what is said about a file.
    pub fn sign(&self, statement: &Statement) -> SignedStatement {
        let text = statement.to_string();
        SignedStatement {
            signature: STANDARD.encode(self.pair.sign(text.as_bytes())),
            statement: STANDARD.encode(text),
        }
    }
}

/// The half of the key that a proxy's machine has, with the installation whose key it is: `cac-ed25519:3fa2c1d0:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedKey {
    pub installation: String,
    key: [u8; 32],
}

impl PinnedKey {
    /// Whether its other half signed the statement.
    pub fn signed(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key)
            .verify(text, signature)
            .is_ok()
    }

    /// For comparing two keys by eye: the SHA-256 of the key, in groups of four digits.
    pub fn fingerprint(&self) -> String {
        let digits = hex(&Sha256::digest(self.key));
        let groups = digits.as_bytes().chunks(4).take(8);
        let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
        groups.join("-")
    }
}

impl fmt::Display for PinnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = URL_SAFE_NO_PAD.encode(self.key);
        write!(f, "{KEY_PREFIX}:{}:{key}", self.installation)
    }
}

impl FromStr for PinnedKey {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let read = || {
            let mut parts = text.trim().split(':');
            let (prefix, installation, key) = (parts.next()?, parts.next()?, parts.next()?);
            let key = URL_SAFE_NO_PAD.decode(key).ok()?.try_into().ok()?;
            let whole = prefix == KEY_PREFIX && !installation.is_empty() && parts.next().is_none();
            let installation = installation.to_owned();
            whole.then_some(Self { installation, key })
        };
        read().ok_or_else(|| {
            let message = format!(
                "{text:?} is not a proxy key. Copy the whole line that `cac proxy key show` prints."
            );
            BadValue(message)
        })
    }
}

/// Why a file is not taken over; each a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    #[error(
        "No key is pinned on this machine, so the portal's file cannot be verified. Run `cac proxy key show` on the portal's machine, and put its line here as CAC_PROXY_KEY (/etc/default/cac-proxy)."
    )]
    NoKey,
    #[error(
        "The portal sent no signature with its file. Update the portal, or look for what removes the headers Cac-Statement and Cac-Signature on the way here."
    )]
    Unsigned,
    #[error(
        "The file's signature is not by a pinned key. If the portal's key was changed, run `cac proxy key show` on its machine and pin that line (CAC_PROXY_KEY); else somebody on the way changes files."
    )]
    BadSignature,
    #[error(
        "The file was changed on its way here: its bytes are not those that the portal signed."
    )]
    OtherBytes,
    #[error(
        "The file was signed for the proxy {theirs}, and this is {ours}. Give this machine's name with --name or CAC_PROXY_NAME."
    )]
    OtherProxy { theirs: String, ours: String },
    #[error(
        "The file was signed for the installation {theirs}, and the pinned key is of {ours}. Pin the key of the portal that this proxy belongs to."
    )]
    OtherInstallation { theirs: String, ours: String },
    #[error(
        "The file is older ({given}) than one that was applied here ({applied}). If the portal's database was restored from a backup, run `cac proxy epoch` on the portal's machine; else somebody on the way sends old files."
    )]
    Older {
        given: FileOrder,
        applied: FileOrder,
    },
    #[error("{0}")]
    Unreadable(String),
    #[error("The file says what cac never writes, so it is refused: {0}")]
    NotOurs(String),
}

/// Checks that a pinned key signed a statement for this proxy about these bytes, and returns it.
pub fn verify(
    keys: &[PinnedKey],
    proxy: &str,
    text: &str,
    signed: Option<&SignedStatement>,
) -> Result<Statement, StatementError> {
    if keys.is_empty() {
        return Err(StatementError::NoKey);
    }
    let signed = signed.ok_or(StatementError::Unsigned)?;
    let statement = STANDARD.decode(&signed.statement);
    let signature = STANDARD.decode(&signed.signature);
    let (Ok(said), Ok(signature)) = (statement, signature) else {
        return Err(StatementError::BadSignature);
    };
    // Nothing of the statement is looked at before its signature is known to be good.
    let key = keys.iter().find(|key| key.signed(&said, &signature));
    let key = key.ok_or(StatementError::BadSignature)?;
    let said = String::from_utf8_lossy(&said);
    let said: Statement = said
        .parse()
        .map_err(|error: BadValue| StatementError::Unreadable(error.to_string()))?;
    if said.installation != key.installation {
        return Err(StatementError::OtherInstallation {
            theirs: said.installation,
            ours: key.installation.clone(),
        });
    }
    if said.proxy != proxy {
        return Err(StatementError::OtherProxy {
            theirs: said.proxy,
            ours: proxy.to_owned(),
        });
    }
    if said.sha256 != hex(&Sha256::digest(text)) {
        return Err(StatementError::OtherBytes);
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Made by cac …\nevents {}\n";
    const ORDER: FileOrder = FileOrder {
        epoch: 0,
        revision: 42,
    };

    fn key(installation: &str, byte: u8) -> SigningKey {
        SigningKey::from_seed(installation, &[byte; 32])
    }

    fn signed(key: &SigningKey, proxy: &str) -> SignedStatement {
        key.sign(&Statement::about(&key.installation, proxy, ORDER, FILE))
    }

    #[test]
    fn only_the_pinned_key_this_proxy_and_these_bytes_are_good() {
        let (ours, other) = (key("3fa2c1d0", 1), key("3fa2c1d0", 2));
        let (pinned, both) = ([ours.public()], [other.public(), ours.public()]);
        let good = signed(&ours, "here");
        let check = |keys: &[PinnedKey], file: &str, signed: &SignedStatement| {
            verify(keys, "here", file, Some(signed)).map(|said| said.order)
        };
        assert_eq!(check(&pinned, FILE, &good), Ok(ORDER));
        assert_eq!(check(&both, FILE, &good), Ok(ORDER), "while keys change");
        assert_eq!(check(&[], FILE, &good), Err(StatementError::NoKey));
        assert_eq!(
            verify(&pinned, "here", FILE, None),
            Err(StatementError::Unsigned)
        );
        let changed = FILE.replace("{}", "{ }");
        assert_eq!(
            check(&pinned, &changed, &good),
            Err(StatementError::OtherBytes)
        );
        let forged = signed(&other, "here");
        assert_eq!(
            check(&pinned, FILE, &forged),
            Err(StatementError::BadSignature)
        );
        let theirs = signed(&ours, "there");
        assert!(matches!(
            check(&pinned, FILE, &theirs),
            Err(StatementError::OtherProxy { .. })
        ));
        // One key in two installations, as after a copy of the database's settings.
        let copied = signed(&key("00000000", 1), "here");
        assert!(matches!(
            check(&pinned, FILE, &copied),
            Err(StatementError::OtherInstallation { .. })
        ));
        let mixed = SignedStatement {
            statement: signed(&ours, "there").statement,
            ..good
        };
        assert_eq!(
            check(&pinned, FILE, &mixed),
            Err(StatementError::BadSignature)
        );
    }

    #[test]
    fn a_statement_has_one_text_alone() {
        let said = Statement::about("3fa2c1d0", "here", ORDER, FILE);
        let text = said.to_string();
        assert_eq!(text.parse(), Ok(said));
        for bad in [
            text.replace("v1", "v2"),
            text.replace("42", "+42"),
            text.replace("42", "042"),
            text.replace("here", "here\nproxy: there"),
            format!("{text}more\n"),
            text.trim_end().to_owned(),
            text.replace('\n', "\r\n"),
            String::new(),
        ] {
            assert!(bad.parse::<Statement>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pinned_key_is_read_as_it_is_printed() {
        let key = key("3fa2c1d0", 1).public();
        let text = key.to_string();
        assert!(text.starts_with("cac-ed25519:3fa2c1d0:"), "{text}");
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(key.fingerprint().len(), 39);
        for bad in [
            "",
            "cac-ed25519",
            "cac-ed25519::AAAA",
            &text[1..],
            &text[..50],
        ] {
            assert!(bad.parse::<PinnedKey>().is_err(), "{bad}");
        }
    }
}
