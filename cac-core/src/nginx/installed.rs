//! An nginx that somebody else runs, such as systemd: its file is replaced once nginx finds the new one good, it is told to read it, and
//! where it does not take it over the old one is put back. Whoever is killed in between leaves a whole file that nginx found good.

mod master;

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::found::Found;
use super::ports::{Listen, Sockets, TakenPorts, listens, web_listens};
use super::process::has_workers;
use super::proxy::{ProxyError, lock};
use super::render::etag;
use super::verified::VerifiedFile;
use crate::processes;

/// What every file of ours begins with.
const OURS: &str = "# Made by cac ";

/// Such an nginx, as long as this process looks after its file.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) found: Found,
    /// Such as `/etc/nginx/nginx.conf`.
    file: PathBuf,
    /// A shell command that has nginx read its file again; absent: the signal HUP to its process.
    reload: Option<String>,
    /// Where its process says its number: as the file has it, and as the one before did.
    pids: Vec<PathBuf>,
    memory: Memory,
    _lock: File,
}

/// What is kept beside the file from one process to the next.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    live: Option<InForce>,
    taken: BTreeSet<Listen>,
}

/// On which file nginx runs since when it was told to.
#[derive(Debug, Serialize, Deserialize)]
struct InForce {
    etag: String,
    footing: Footing,
}

/// By which is seen that somebody else started nginx, ended it or changed its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footing {
    /// Number of the process, and when it began.
    master: Option<(i32, u64)>,
    /// Number of the file on its disk, size and time of the last change.
    file: Option<(u64, u64, i64, i64)>,
}

impl Footing {
    /// Whether nginx takes connections by the file, or one before.
    pub fn serves(&self) -> bool {
        self.master.is_some()
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    Live,
    /// Other programs have ports of it: give one without what is [`Installed::taken`] now.
    Unfit,
}

impl Installed {
    /// Others are kept away from the file: two would undo each other's work.
    pub(super) fn open(
        found: Found,
        file: &Path,
        reload: Option<String>,
    ) -> Result<Self, ProxyError> {
        let failed = |source| ProxyError::Io {
            path: file.to_owned(),
            source,
        };
        // nginx would look for a relative one from its own folder, and what a link leads to is replaced, not the link.
        let file = fs::canonicalize(file).or_else(|_| std::path::absolute(file));
        let file = file.map_err(failed)?;
        let lock = lock(&beside(&file, "cac-lock"), &file)?;
        let memory = fs::read(beside(&file, "cac-state")).unwrap_or_default();
        let old = fs::read(&file).unwrap_or_default();
        let mut installed = Self {
            found,
            pids: vec![pid(&String::from_utf8_lossy(&old))],
            reload,
            memory: serde_json::from_slice(&memory).unwrap_or_default(),
            file,
            _lock: lock,
        };
        if installed.taken().len() > TakenPorts::MOST {
            installed.memory.taken.clear();
        }
        Ok(installed)
    }

    /// The file that nginx reads, as a whole path.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Asks the program again what it can do: a module may have come.
    pub(super) fn ask_again(&mut self) {
        if let Some(found) = Found::ask(&self.found.binary) {
            self.found = found;
        }
    }

    /// The tag of the file, if nginx runs on it for sure.
    pub(super) fn in_force(&self) -> Option<&str> {
        let live = self.memory.live.as_ref()?;
        let same = live.footing.serves() && live.footing == self.footing();
        same.then_some(live.etag.as_str())
    }

    /// How it stands here now.
    pub(super) fn footing(&self) -> Footing {
        let master = self.running().ok().filter(|master| has_workers(*master));
        let master = master.and_then(processes::look);
        let file = fs::metadata(&self.file).ok();
        Footing {
            master: master.map(|seen| (seen.pid, seen.began)),
            file: file.map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec())),
        }
    }

    /// Whether it is not so any more, a port is free that another program had, or one is taken without which nginx could not start.
    pub(super) fn has_changed(&self, footing: &Footing) -> bool {
        let taken = &self.memory.taken;
        if self.footing() != *footing || !self.still_taken().is_superset(taken) {
            return true;
        }
        if footing.serves() || self.taken().len() >= TakenPorts::MOST {
            return false;
        }
        let file = self.current();
        !self.others_at(&file).iter().all(|on| taken.contains(on))
    }

    /// The file, if it is one of ours.
    fn current(&self) -> String {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        Some(text)
            .filter(|text| text.starts_with(OURS))
            .unwrap_or_default()
    }

    /// Ports that other programs have.
    pub(super) fn taken(&self) -> TakenPorts {
        let ports = self.memory.taken.iter();
        ports.map(|on| (on.at.port(), on.protocol)).collect()
    }

    fn still_taken(&self) -> BTreeSet<Listen> {
        if self.memory.taken.is_empty() {
            return BTreeSet::new();
        }
        let sockets = Sockets::now();
        let taken = self.memory.taken.iter().copied();
        taken.filter(|on| sockets.have(on)).collect()
    }

    /// Forgets those that are free again.
    pub(super) fn look_for_freed(&mut self) {
        let still = self.still_taken();
        if still != self.memory.taken {
            self.memory.taken = still;
            self.remember();
        }
    }

    /// Whether more is known to be taken now.
    fn note_taken(&mut self, found: Vec<Listen>) -> bool {
        let before = self.memory.taken.len();
        for on in found {
            let ports = self.taken();
            let known = ports.has(on.at.port(), on.protocol);
            if (known || ports.len() < TakenPorts::MOST) && self.memory.taken.insert(on) {
                tracing::warn!(address = %on.at, protocol = %on.protocol, "another program listens there: what would is left out");
            }
        }
        let more = self.memory.taken.len() > before;
        if more {
            self.remember();
        }
        more
    }

    /// Where the file would listen and another program does.
    fn others_at(&self, text: &str) -> Vec<Listen> {
        // A reload may not have been seen to its end.
        let own: BTreeSet<Listen> = match self.running() {
            Ok(_) => {
                let files = [self.current(), self.last_good().unwrap_or_default()];
                files.iter().flat_map(|file| listens(file)).collect()
            }
            Err(_) => BTreeSet::new(),
        };
        let sockets = Sockets::now();
        let new = listens(text).filter(|on| !own.contains(on));
        new.filter(|on| sockets.have(on)).collect()
    }

    /// Puts the file in place and nginx on it. On an error the old one is in force, or nginx does not run and finds the new one when it
    /// starts.
    pub(super) async fn apply(&mut self, file: &VerifiedFile) -> Result<Became, ProxyError> {
        let text = file.text();
        if self.in_force() == Some(&etag(text)) {
            return Ok(Became::Live);
        }
        if let Err(error @ ProxyError::OtherFile { .. }) = self.running() {
            return Err(error);
        }
        let others = self.others_at(text);
        if self.note_taken(others) {
            return Ok(Became::Unfit);
        }
        let old = match fs::read(&self.file) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(self.failed(source)),
        };
        let candidate = self.beside("cac-new");
        write(&candidate, text.as_bytes(), None).map_err(|source| self.failed(source))?;
        self.check(&candidate).await?;
        let foreign = old.as_ref().filter(|old| !old.starts_with(OURS.as_bytes()));
        let rights = fs::metadata(&self.file).ok();
        if let Some(foreign) = foreign {
            let kept = self.keep_foreign(foreign);
            kept.map_err(|source| self.failed(source))?;
        }
        if let Some(error) = self.could_not_start(text) {
            // It may on the one before.
            if let Some(good) = self.last_good().filter(|good| *good != self.current()) {
                write(&candidate, good.as_bytes(), None).map_err(|source| self.failed(source))?;
                self.put(&candidate)?;
            }
            return Err(error);
        }
        let error = match self.change_to(&candidate, text).await {
            Ok(()) => return Ok(Became::Live),
            Err(error) if error.is_absence() => return Err(error),
            Err(error) => error,
        };
        // What is in place may be what somebody did not see to its end.
        let good = self.last_good().filter(|_| foreign.is_none());
        let good = good.map(String::into_bytes);
        let before = good.or(old).unwrap_or_default();
        let before_text = String::from_utf8_lossy(&before);
        if !before.is_empty() {
            let written = write(&candidate, &before, rights.as_ref());
            written.map_err(|source| self.failed(source))?;
            if let Err(error) = self.change_to(&candidate, &before_text).await {
                tracing::error!(%error, "nginx does not take back its old configuration");
            }
        }
        let ProxyError::PortTaken { address } = error else {
            return Err(error);
        };
        let sockets = Sockets::now();
        let others = listens(text).filter(|on| on.at == address && sockets.have(on));
        if self.note_taken(others.collect()) {
            return Ok(Became::Unfit);
        }
        Err(match has_port_elsewhere(&before_text, address) {
            true => ProxyError::PortMoved { address },
            false => error,
        })
    }

    /// A file that is not ours stays beside, whole and as secret as it was; each of them once.
    fn keep_foreign(&self, foreign: &[u8]) -> io::Result<()> {
        let names = (2..).map(|n| format!("before-cac.{n}"));
        for name in std::iter::once("before-cac".to_owned()).chain(names) {
            let kept = self.beside(&name);
            match fs::read(&kept) {
                Ok(known) if known == foreign => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let beside = self.beside("cac-half");
                    write(&beside, foreign, Some(&fs::metadata(&self.file)?))?;
                    return fs::rename(&beside, &kept);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The tag of the file on which nginx is while another one is refused, where that is known: it was told to, or started on it.
    pub(super) fn good(&self) -> Option<String> {
        let last = self
            .last_good()
            .filter(|last| self.footing().serves() && *last == self.current())?;
        Some(etag(&last))
    }

    /// Why nginx could not start on a file: another program has a port of its own.
    fn could_not_start(&self, text: &str) -> Option<ProxyError> {
        if self.running().is_ok() {
            return None;
        }
        let sockets = Sockets::now();
        let taken = web_listens(text).find(|on| sockets.have(on))?;
        Some(ProxyError::PortTaken { address: taken.at })
    }

    /// The file on which nginx was last, where that is known.
    fn last_good(&self) -> Option<String> {
        let live = self.memory.live.as_ref()?;
        let text = fs::read_to_string(self.beside("cac-live")).ok()?;
        (etag(&text) == live.etag).then_some(text)
    }

    fn remember(&self) {
        let text = serde_json::to_vec(&self.memory).expect("numbers and addresses are JSON");
        self.keep("cac-state", &text);
    }

    /// Failing to is no harm: the next process has nginx read its file once more.
    fn keep(&self, what: &str, text: &[u8]) {
        let (path, beside) = (self.beside(what), self.beside("cac-half"));
        if let Err(error) = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)) {
            tracing::warn!(path = %path.display(), %error, "cannot be kept");
        }
    }

    fn beside(&self, what: &str) -> PathBuf {
        beside(&self.file, what)
    }

    fn failed(&self, source: io::Error) -> ProxyError {
        let path = self.file.clone();
        ProxyError::Io { path, source }
    }

    fn put(&self, candidate: &Path) -> Result<(), ProxyError> {
        let put = || {
            fs::rename(candidate, &self.file)?;
            match self.file.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        };
        put().map_err(|source| self.failed(source))
    }

    /// Puts a candidate in place and nginx on it.
    async fn change_to(&mut self, candidate: &Path, text: &str) -> Result<(), ProxyError> {
        self.put(candidate)?;
        // Until nginx has read the file, its number is where the old one says.
        let new = pid(text);
        self.pids.retain(|old| *old != new);
        self.pids.truncate(1);
        self.pids.insert(0, new);
        self.change_over(text).await?;
        let (etag, footing) = (etag(text), self.footing());
        self.memory.live = Some(InForce { etag, footing });
        self.remember();
        if text.starts_with(OURS) {
            self.keep("cac-live", text.as_bytes());
        }
        Ok(())
    }
}

/// What a directive of the outermost block says, in a file of ours.
fn directive<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_suffix(';')?;
        rest.starts_with([' ', '\t']).then(|| rest.trim())
    })
}

/// Where the nginx of a file says its number.
fn pid(text: &str) -> PathBuf {
    directive(text, "pid").unwrap_or("/run/nginx.pid").into()
}

/// Whether a file has the port at other addresses than this one.
fn has_port_elsewhere(text: &str, address: SocketAddr) -> bool {
    let mut listens = text.lines().filter_map(Listen::read);
    listens.any(|on| on.at != address && on.at.port() == address.port())
}

fn beside(file: &Path, what: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}

/// Whole on the disk, as others may read it, or with the owner, where that may be, and the rights of another file.
fn write(path: &Path, text: &[u8], other: Option<&Metadata>) -> io::Result<()> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    let rights = match other {
        Some(other) => {
            let _ = chown(path, Some(other.uid()), Some(other.gid()));
            other.permissions()
        }
        None => Permissions::from_mode(0o644),
    };
    file.set_permissions(rights)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_directive_may_stand_apart() {
        let file = "user  www-data;\npid        /run/other.pid;\npidfile x;\n";
        assert_eq!(pid(file), PathBuf::from("/run/other.pid"));
        assert_eq!(pid("events {}\n"), PathBuf::from("/run/nginx.pid"));
    }
}
