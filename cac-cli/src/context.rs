//! Contexts: the portals that somebody has signed in at, with the API token of each, in a file that only they can read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::print::{Exit, Failure};

/// One portal.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Context {
    /// Without a slash at the end.
    pub(crate) url: String,
    pub(crate) username: Option<String>,
    pub(crate) token: String,
    /// Absent for a token that was made elsewhere, and so is not deleted at the logout.
    pub(crate) token_id: Option<i64>,
}

/// All portals, and the one that commands go to.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Contexts {
    pub(crate) current: Option<String>,
    pub(crate) contexts: BTreeMap<String, Context>,
    /// By portal, the cookie by which it knows this machine at the next `cac login`; it stays after a logout.
    #[serde(default)]
    pub(crate) devices: BTreeMap<String, String>,
}

/// `contexts.json` in the user's folder for configuration (XDG base directory specification).
fn file() -> Result<PathBuf, Failure> {
    let named = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    let home = || Some(named("HOME")?.join(".config"));
    named("XDG_CONFIG_HOME")
        .or_else(home)
        .map(|dir| dir.join("cac/contexts.json"))
        .ok_or_else(|| "There is no place for contexts: set HOME or XDG_CONFIG_HOME.".into())
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> Failure {
    format!("{}: {why}", file.display()).into()
}

impl Contexts {
    pub(crate) fn load() -> Result<Self, Failure> {
        Self::read(&file()?)
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unusable(file, error)),
        };
        if fs::metadata(file)?.permissions().mode() & 0o077 != 0 {
            let why = format!(
                "others can read it, and it holds tokens: `chmod 600 {0}`, and make new tokens if somebody has (`cac login`).",
                file.display()
            );
            return Err(unusable(file, why));
        }
        serde_json::from_str(&text).map_err(|error| {
            unusable(
                file,
                format!("it is damaged ({error}); remove it and sign in again."),
            )
        })
    }

    /// Changes them while nobody else does, and keeps them.
    pub(crate) fn change<T>(
        change: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let file = file()?;
        let dir = file.parent().ok_or("no folder")?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| unusable(dir, error))?;
        let lock = dir.join("contexts.lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(|error| unusable(&lock, error))?;
        lock.lock()?;
        let mut contexts = Self::read(&file)?;
        let changed = change(&mut contexts)?;
        contexts.store(&file)?;
        Ok(changed)
    }

    /// Beside it first, then in its place, so that it is always whole. A link leads to where the file really is.
    fn store(&self, file: &Path) -> Result<(), Failure> {
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let beside = file.with_extension(format!("{}.new", std::process::id()));
        let text = serde_json::to_string_pretty(self)? + "\n";
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut new| {
                new.write_all(text.as_bytes())?;
                new.sync_all()?;
                fs::rename(&beside, &file)
            });
        written.map_err(|error| {
            let _ = fs::remove_file(&beside);
            unusable(&file, error)
        })
    }

    /// The context of that name, else the current one.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<(&str, &Context), Failure> {
        let Some(name) = name.or(self.current.as_deref()) else {
            return Err(Exit::not_signed_in(
                "You are not signed in anywhere: `cac login https://portal.example.org`. Scripts set CAC_URL and CAC_TOKEN.",
            ));
        };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok((name, context)),
            None => Err(Exit::not_signed_in(&format!(
                "There is no context `{name}`; `cac context list` shows those there are."
            ))),
        }
    }
}

/// The variable, unless it is empty.
pub(crate) fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Exit::usage(&format!("{name}: {error}."))),
    }
}
