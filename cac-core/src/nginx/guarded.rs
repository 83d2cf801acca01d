//! The nginx of this machine behind its verifier: nothing comes to its file that was not verified. Used by `cac proxy sync` itself where
//! that may write nginx' files, else by the helper that does so for it ([`super::helper`]).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::found::{Found, StreamModule};
use super::installed::{Became, Footing, Installed};
use super::proxy::ProxyError;
use super::statement::StatementError;
use super::verified::{ProxyTrust, SignedFile, Verifier};

/// What a puller has to know of the nginx that it works for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NginxStatus {
    pub version: (u32, u32, u32),
    pub http3: bool,
    /// `builtin`, `dynamic` or `none`, as `/nginx.conf` understands it.
    pub stream: String,
    /// Ports that other programs have, as a comma list.
    pub taken: String,
    pub footing: Footing,
    /// The tag of the file, if nginx runs on it for sure.
    pub in_force: Option<String>,
    /// The tag of the file on which nginx is while another one is refused, where that is known.
    pub good: Option<String>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyResult {
    Live,
    /// Other programs have ports of it: ask for one without what is taken now.
    Unfit,
    Failed(ApplyFailure),
}

/// Why a file is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyFailure {
    /// A sentence that stands for itself.
    pub message: String,
    /// In nginx' own words, where it refused the file.
    pub words: String,
    pub reason: FailureReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureReason {
    /// It cannot be trusted; nothing was changed.
    Unverified,
    /// It is older than another one that was taken.
    Older,
    /// nginx does not run, and finds the file when it starts.
    Absent,
    /// nginx refused it, and will again.
    Refused,
    /// Something else, that may pass.
    MayPass,
}

impl From<StatementError> for ApplyFailure {
    fn from(error: StatementError) -> Self {
        let message = error.to_string();
        Self {
            words: message.clone(),
            message,
            reason: match error {
                StatementError::Older { .. } => FailureReason::Older,
                _ => FailureReason::Unverified,
            },
        }
    }
}

impl From<ProxyError> for ApplyFailure {
    fn from(error: ProxyError) -> Self {
        let message = error.to_string();
        let reason = match &error {
            error if error.is_absence() => FailureReason::Absent,
            error if error.may_pass() => FailureReason::MayPass,
            _ => FailureReason::Refused,
        };
        Self {
            words: match error {
                ProxyError::Refused { words } => words,
                _ => message.clone(),
            },
            message,
            reason,
        }
    }
}

/// An nginx and what may become its file.
#[derive(Debug)]
pub struct GuardedNginx {
    nginx: Installed,
    verifier: Verifier,
}

impl GuardedNginx {
    /// Others are kept away from the file as long as this lives. `reload` is a shell command, instead of a signal.
    pub fn open(
        found: Found,
        file: &Path,
        reload: Option<String>,
        trust: ProxyTrust,
    ) -> Result<Self, ProxyError> {
        let nginx = Installed::open(found, file, reload)?;
        let verifier = Verifier::new(trust, nginx.file());
        Ok(Self { nginx, verifier })
    }

    /// Looks again at what may have changed beside us: nginx' modules, and ports that other programs had.
    pub fn refresh(&mut self) {
        self.nginx.ask_again();
        self.nginx.look_for_freed();
        if let StreamModule::Dynamic(path) = &self.nginx.found.stream_module {
            self.verifier.trust.limits.stream_module = Some(path.as_path().to_owned());
        }
    }

    pub fn status(&self) -> NginxStatus {
        let found = &self.nginx.found;
        let stream = match found.stream_module {
            StreamModule::Builtin => "builtin",
            StreamModule::Dynamic(_) => "dynamic",
            StreamModule::Missing => "none",
        };
        NginxStatus {
            version: found.version,
            http3: found.http3,
            stream: stream.to_owned(),
            taken: self.nginx.taken().to_string(),
            footing: self.nginx.footing(),
            in_force: self.nginx.in_force().map(ToOwned::to_owned),
            good: self.nginx.good(),
        }
    }

    /// Whether it stands otherwise now, a port is free that another program had, or one is taken without which nginx could not start.
    pub fn has_changed(&self, footing: &Footing) -> bool {
        self.nginx.has_changed(footing)
    }

    /// Puts a file in place and nginx on it, if it may be. On an error the last good one is in force.
    pub async fn apply(&mut self, file: SignedFile) -> ApplyResult {
        let verified = match self.verifier.verify(file) {
            Ok(verified) => verified,
            Err(error) => return ApplyResult::Failed(error.into()),
        };
        match self.nginx.apply(&verified).await {
            Ok(Became::Live) => ApplyResult::Live,
            Ok(Became::Unfit) => ApplyResult::Unfit,
            Err(error) => ApplyResult::Failed(error.into()),
        }
    }
}
