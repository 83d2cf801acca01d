//! Whether a file from the portal may be put in place here: signed by a pinned key, for this proxy, no older than what was, and without a
//! directive that cac never writes. Only what passed is a [`VerifiedFile`].

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::allowed::LocalLimits;
use super::statement::{self, FileOrder, PinnedKey, SignedStatement, StatementError};

/// A file as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedFile {
    pub text: String,
    /// Absent: the portal sent none.
    pub signed: Option<SignedStatement>,
}

/// A file that may be put in place; there is no other way to make one than [`Verifier::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VerifiedFile(String);

impl VerifiedFile {
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

/// What this machine knows of the portal and of itself.
#[derive(Debug, Clone)]
pub struct ProxyTrust {
    /// One, or two while the portal's key changes.
    pub keys: Vec<PinnedKey>,
    /// This machine's name.
    pub proxy: String,
    pub limits: LocalLimits,
}

/// Decides which files may be put in place.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) trust: ProxyTrust,
    /// Where the newest file's place in the order is kept.
    order: PathBuf,
}

/// The newest file that was verified here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    /// Another one begins anew.
    installation: String,
    #[serde(flatten)]
    order: FileOrder,
}

impl Verifier {
    /// For the nginx that reads `file`, a whole path.
    pub(super) fn new(trust: ProxyTrust, file: &Path) -> Self {
        let mut order = file.as_os_str().to_owned();
        order.push(".cac-order");
        let order = PathBuf::from(order);
        Self { trust, order }
    }

    /// Checks everything, and remembers the file's place, so that no older one is taken from now on.
    pub(super) fn verify(&self, file: SignedFile) -> Result<VerifiedFile, StatementError> {
        let (keys, proxy) = (&self.trust.keys, &self.trust.proxy);
        let said = statement::verify(keys, proxy, &file.text, file.signed.as_ref())?;
        let newest = self.newest().map_err(|why| self.unreadable(&why))?;
        let newest = newest.filter(|newest| newest.installation == said.installation);
        if let Some(newest) = &newest
            && said.order < newest.order
        {
            return Err(StatementError::Older {
                given: said.order,
                applied: newest.order,
            });
        }
        let allowed = self.trust.limits.check(&file.text);
        allowed.map_err(StatementError::NotOurs)?;
        if newest.is_none_or(|newest| newest.order < said.order) {
            // Before the file is put in place: whoever is killed in between takes the same file again, and no older one.
            self.remember(&Newest {
                installation: said.installation,
                order: said.order,
            })
            .map_err(|error| self.unreadable(&error.to_string()))?;
        }
        Ok(VerifiedFile(file.text))
    }

    fn newest(&self) -> Result<Option<Newest>, String> {
        match fs::read(&self.order) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn remember(&self, newest: &Newest) -> io::Result<()> {
        let text = serde_json::to_vec(newest).expect("names and numbers are JSON");
        let beside = self.order.with_extension("cac-order-half");
        let mut file = File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.order)?;
        match self.order.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    fn unreadable(&self, why: &str) -> StatementError {
        let path = self.order.display();
        StatementError::Unreadable(format!(
            "{path} holds the newest file's revision and cannot be used: {why}. Repair it; without it an older file would be taken."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SigningKey, Statement, StreamModule};
    use super::*;

    const FILE: &str = "# Made by cac from its database\nevents {\n    worker_connections 16;\n}\n";

    struct Lab {
        dir: tempfile::TempDir,
        key: SigningKey,
    }

    impl Lab {
        fn new(installation: &str) -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
                key: SigningKey::from_seed(installation, &[7; 32]),
            }
        }

        /// As each process makes its own.
        fn verifier(&self, key: &SigningKey) -> Verifier {
            let trust = ProxyTrust {
                keys: vec![key.public()],
                proxy: "here".to_owned(),
                limits: LocalLimits::debian(&StreamModule::Missing),
            };
            Verifier::new(trust, &self.dir.path().join("nginx.conf"))
        }

        fn take(
            &self,
            key: &SigningKey,
            order: (i64, i64),
            text: &str,
        ) -> Result<(), StatementError> {
            let (epoch, revision) = order;
            let order = FileOrder { epoch, revision };
            let installation = key.public().installation;
            let statement = Statement::about(&installation, "here", order, text);
            let file = SignedFile {
                text: text.to_owned(),
                signed: Some(key.sign(&statement)),
            };
            self.verifier(key).verify(file).map(drop)
        }
    }

    #[test]
    fn an_older_file_is_refused_until_a_new_epoch_begins() {
        let lab = Lab::new("3fa2c1d0");
        assert_eq!(lab.take(&lab.key, (0, 7), FILE), Ok(()));
        assert_eq!(lab.take(&lab.key, (0, 7), FILE), Ok(()), "the same again");
        assert_eq!(lab.take(&lab.key, (0, 9), FILE), Ok(()));
        let older = |given, applied| {
            Err(StatementError::Older {
                given: FileOrder {
                    epoch: 0,
                    revision: given,
                },
                applied,
            })
        };
        let nine = FileOrder {
            epoch: 0,
            revision: 9,
        };
        assert_eq!(lab.take(&lab.key, (0, 8), FILE), older(8, nine));
        // A backup was restored.
        assert_eq!(lab.take(&lab.key, (1, 3), FILE), Ok(()));
        let three = FileOrder {
            epoch: 1,
            revision: 3,
        };
        assert_eq!(lab.take(&lab.key, (0, 10), FILE), older(10, three));
        // The proxy came to another portal.
        let other = SigningKey::from_seed("00000000", &[8; 32]);
        assert_eq!(lab.take(&other, (0, 1), FILE), Ok(()));
    }

    #[test]
    fn what_is_refused_counts_for_nothing() {
        let lab = Lab::new("3fa2c1d0");
        let bad = FILE.replace("events", "load_module /tmp/x.so;\nevents");
        assert!(matches!(
            lab.take(&lab.key, (0, 99), &bad),
            Err(StatementError::NotOurs(_))
        ));
        assert_eq!(lab.take(&lab.key, (0, 7), FILE), Ok(()));
        // A damaged note is no reason to take anything.
        fs::write(lab.dir.path().join("nginx.conf.cac-order"), "{").unwrap();
        assert!(matches!(
            lab.take(&lab.key, (0, 8), FILE),
            Err(StatementError::Unreadable(_))
        ));
    }
}
