//! Secrets that the program makes for itself.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

use crate::pve::Secret;

/// 256 random bits as hexadecimal text.
#[must_use]
pub fn random() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex(&bytes)
}

/// SHA-256 in hexadecimal: what is stored of a text that is itself random, or too long to be compared.
#[must_use]
pub fn hash(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The secret kept in `path`; made there (mode 0600) at the first call. Safe when several processes start at once.
pub fn in_file(path: &Path) -> std::io::Result<Secret> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let made = random();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let beside = path.with_extension(format!("{}.new", &made[..8]));
    let mut file = options.open(&beside)?;
    file.write_all(made.as_bytes())?;
    file.sync_all()?;
    // A hard link fails if somebody else was first; then theirs is the secret.
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    match linked {
        Ok(()) => Ok(Secret::new(&made)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(Secret::new(std::fs::read_to_string(path)?.trim()))
        }
        Err(error) => Err(error),
    }
}
