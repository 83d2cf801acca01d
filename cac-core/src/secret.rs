//! Secrets that the program makes for itself.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

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

/// The mode of a new file with secrets in `dir`: its owner's only. Where the directory is made for a group (setgid and writable by
/// it) the group's, too: the packages run portal and runner as two users that share a database file and its key.
pub(crate) fn file_mode(dir: &Path) -> u32 {
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let shared = std::fs::metadata(dir).is_ok_and(|found| found.mode() & 0o2020 == 0o2020);
    if shared { 0o660 } else { 0o600 }
}

/// The secret kept in `path`; made there at the first call, readable for its owner alone, or for the group of a shared directory.
/// Safe when several processes start at once.
pub fn in_file(path: &Path) -> std::io::Result<Secret> {
    let parent = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(parent)?;
    let made = random();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let beside = path.with_extension(format!("{}.new", &made[..8]));
    let mut file = options.open(&beside)?;
    // The umask may have taken the group's rights away. Nobody but the owner ever writes it.
    file.set_permissions(Permissions::from_mode(file_mode(parent) & !0o020))?;
    file.write_all(made.as_bytes())?;
    file.sync_all()?;
    // A hard link fails if somebody else was first; then theirs is the secret.
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    match linked {
        Ok(()) => Ok(Secret::new(made)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = Zeroizing::new(std::fs::read_to_string(path)?);
            Ok(Secret::new(text.trim()))
        }
        Err(error) => Err(error),
    }
}
