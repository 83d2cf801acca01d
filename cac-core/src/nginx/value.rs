//! The only kinds of text that may reach the configuration file: each is checked when it is made, so a value that
//! could break out of its place does not exist. It is not the place for rules about who may have which name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is none of these values; a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub(super) String);

/// A fully qualified DNS name in lower case, at least two labels of 1–63 of `a-z0-9-`, at most 253 characters in all
/// ([RFC 1123 §2.1](https://www.rfc-editor.org/rfc/rfc1123#section-2.1)); never a wildcard, an address or empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicName(String);

impl From<PublicName> for String {
    fn from(name: PublicName) -> Self {
        name.0
    }
}

impl TryFrom<String> for PublicName {
    type Error = BadValue;

    fn try_from(text: String) -> Result<Self, BadValue> {
        text.parse()
    }
}

impl PublicName {
    /// The name, without a dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublicName {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let refuse = |why: &str| Err(BadValue(format!("{text:?} is not a public name: {why}")));
        if text.is_empty() || text.len() > 253 {
            return refuse("it must have 1 to 253 characters.");
        }
        let mut labels = 0;
        for label in text.split('.') {
            labels += 1;
            if label.is_empty() || label.len() > 63 {
                return refuse("each part between dots must have 1 to 63 characters.");
            }
            if !label
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            {
                return refuse("use only the letters a to z in lower case, digits and dashes.");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return refuse("no part may begin or end with a dash.");
            }
        }
        if labels < 2 {
            return refuse("add its domain, as in web.example.org.");
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) {
            return refuse("its last part is a number, as in an address.");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PublicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path of the settings as nginx can read it without quotes; relative ones start at nginx' own prefix. `*` stays
/// possible for the include.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigPath(PathBuf);

impl ConfigPath {
    /// The path as given.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The path as text; it is UTF-8 by construction.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// A path below this one.
    pub fn join(&self, below: &str) -> Result<Self, BadValue> {
        Self::try_from(self.0.join(below).as_path())
    }
}

/// Characters that mean something to nginx, blanks and control characters.
pub(super) fn breaks_out(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '"' | '\'' | ';' | '{' | '}' | '$' | '\\' | '#' | '`')
}

impl FromStr for ConfigPath {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let refuse = |why: &str| {
            Err(BadValue(format!(
                "{text:?} cannot be a path in nginx.conf: {why}"
            )))
        };
        if text.is_empty() {
            return refuse("it is empty.");
        }
        if text.len() > 4000 {
            return refuse("it is longer than 4000 characters.");
        }
        if let Some(c) = text.chars().find(|&c| breaks_out(c)) {
            return refuse(&format!("choose one without {c:?}."));
        }
        let word = matches!(text, "off" | "stderr" | "on") || text.contains(':');
        if !text.starts_with('/') && word {
            return refuse(
                "nginx would read it as something else; write the whole path, from the slash on.",
            );
        }
        Ok(Self(PathBuf::from(text)))
    }
}

impl TryFrom<&Path> for ConfigPath {
    type Error = BadValue;

    fn try_from(path: &Path) -> Result<Self, BadValue> {
        match path.to_str() {
            Some(text) => text.parse(),
            None => Err(BadValue(format!(
                "{} is not UTF-8; choose another path.",
                path.display()
            ))),
        }
    }
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request header that never reaches a container: 1–64 letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeaderName(String);

/// What applications sign people in with.
const NEEDED: [&str; 3] = ["authorization", "cookie", "x-auth-token"];
/// What the file sets itself, or what carries the request.
const OWN: [&str; 12] = [
    "host",
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "upgrade",
    "connection",
    "proxy",
    "content-length",
    "content-type",
    "transfer-encoding",
];

impl FromStr for HeaderName {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let refuse = |why: &str| Err(BadValue(format!("{text:?} cannot be removed: {why}")));
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if !(1..=64).contains(&text.len()) || !text.bytes().all(good) {
            return refuse("a header's name is 1 to 64 letters, digits and dashes.");
        }
        let lower = text.to_ascii_lowercase();
        if NEEDED.contains(&lower.as_str()) {
            return refuse("applications sign people in with it; leave it out of the list.");
        }
        if OWN.contains(&lower.as_str()) {
            return refuse("nginx sets it itself; leave it out of the list.");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The account nginx' workers run as: 1–32 of `a-z0-9_-`, beginning with a letter or `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

impl FromStr for UserName {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let mut bytes = text.bytes();
        let first = bytes
            .next()
            .is_some_and(|b| matches!(b, b'a'..=b'z' | b'_'));
        let rest = bytes.all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if first && rest && text.len() <= 32 {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadValue(format!(
                "{text:?} is not a user name: use up to 32 of a to z, digits, _ and -, beginning with a letter."
            )))
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
