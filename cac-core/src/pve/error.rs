//! What went wrong with a call, sorted by what its caller may do next. Texts are fit for a job log; they hold no secret.

use std::collections::BTreeMap;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The call never reached the part of Proxmox VE that would have acted: repeating it is safe. `transient` is false
    /// where repeating alone cannot help (bad address, untrusted certificate); `call` is empty where none was tried.
    #[error("{}: {cause}", unsent(call))]
    Unsent {
        call: String,
        cause: String,
        transient: bool,
    },
    /// The call may have been carried out: look before repeating it. After a `read` repeating is safe all the same.
    #[error("no answer from Proxmox VE ({call}): {cause}")]
    MaybeSent {
        call: String,
        cause: String,
        read: bool,
    },
    /// Proxmox VE said no, in its own words; `errors` by parameter name.
    #[error("Proxmox VE refused with {status}: {reason}{}", parameters(errors))]
    Refused {
        status: u16,
        reason: String,
        errors: BTreeMap<String, String>,
    },
    /// An answer came that is not one of Proxmox VE's; a write may have been carried out.
    #[error("unusable answer from Proxmox VE ({call}): {cause}")]
    BadReply {
        call: String,
        cause: String,
        read: bool,
    },
}

impl Error {
    /// Something is wrong with the target or the arguments; no call was made.
    pub(super) fn setup(cause: impl Into<String>) -> Self {
        Self::Unsent {
            call: String::new(),
            cause: cause.into(),
            transient: false,
        }
    }

    /// Whether the same call can be made again without looking first.
    pub fn is_safe_to_repeat(&self) -> bool {
        match self {
            Self::Unsent { .. } => true,
            Self::MaybeSent { read, .. } | Self::BadReply { read, .. } => *read,
            Self::Refused { .. } => self.is_transient(),
        }
    }

    /// Whether Proxmox VE may have done what was asked although there is no good answer.
    pub fn may_have_happened(&self) -> bool {
        matches!(
            self,
            Self::MaybeSent { read: false, .. } | Self::BadReply { read: false, .. }
        )
    }

    /// Trouble that may pass by itself: network, a restarting daemon, a lock, no quorum.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unsent { transient, .. } => *transient,
            Self::MaybeSent { .. } => true,
            Self::Refused { .. } => {
                self.is_locked_or_lock_timeout()
                    || self.says(|text| {
                        text.contains("no quorum")
                            || text.contains("RPCEnvironment init request failed")
                    })
            }
            Self::BadReply { .. } => false,
        }
    }

    /// The name or VMID is taken. Says nothing about who holds it.
    pub fn is_already_exists(&self) -> bool {
        self.says(|text| text.contains("already exists"))
    }

    /// What was named does not exist. For a container this proves nothing alone: the wrong node says the same.
    /// A 403 never counts, since it is also the answer for things outside the caller's rights.
    pub fn is_does_not_exist(&self) -> bool {
        !self.is_forbidden()
            && self.says(|text| {
                let text = text.to_ascii_lowercase();
                text.contains("does not exist") || text.contains("no such ")
            })
    }

    /// Proxmox VE says that exactly this user (`name@realm`) does not exist (recordings 059, 1068). It looks for the user before it looks
    /// at the caller's rights, so this is definite whoever asks; a 403 is about a user that exists, or about another right.
    pub fn is_no_such_user(&self, userid: &str) -> bool {
        let sentence = format!("no such user ('{userid}')");
        self.status() == Some(500) && self.says(|text| text.contains(&sentence))
    }

    /// A container's lock (`CT is locked (backup)`) or a lock file that stayed busy for Proxmox's ten seconds.
    pub fn is_locked_or_lock_timeout(&self) -> bool {
        self.says(is_lock_text)
    }

    /// The digest that was sent is not the configuration's any more: somebody else changed it. Read it again.
    pub fn is_modified_meanwhile(&self) -> bool {
        self.says(|text| text.contains("detected modified configuration"))
    }

    /// 403. For rights that come through a pool it is also the answer for a container that is gone.
    pub fn is_forbidden(&self) -> bool {
        self.status() == Some(403)
    }

    /// 401: no, wrong or expired credentials.
    pub fn is_unauthenticated(&self) -> bool {
        self.status() == Some(401)
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    fn says(&self, test: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Refused { reason, errors, .. } => {
                test(reason) || errors.values().any(|text| test(text))
            }
            _ => false,
        }
    }
}

impl From<Error> for crate::Error {
    /// Never `Unauthenticated` or `Forbidden`: those speak of our caller, a refusal here of our own credentials.
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Unsent {
                transient: true, ..
            }
            | Error::MaybeSent { .. } => Self::Unreachable(text),
            _ => Self::Upstream(text),
        }
    }
}

fn unsent(call: &str) -> String {
    if call.is_empty() {
        "Proxmox VE cannot be called".to_owned()
    } else {
        format!("Proxmox VE was not reached ({call})")
    }
}

/// Whether Proxmox's words, of a refusal or of a task, speak of a lock.
pub(crate) fn is_lock_text(text: &str) -> bool {
    text.contains("is locked (")
        || text.contains("can't lock file")
        || text.contains("got lock request timeout")
        || text.contains("Failed to obtain guest migration lock")
}

fn parameters(errors: &BTreeMap<String, String>) -> String {
    let texts: Vec<String> = errors
        .iter()
        .map(|(name, text)| format!("{name}: {text}"))
        .collect();
    if texts.is_empty() {
        String::new()
    } else {
        format!(" ({})", texts.join("; "))
    }
}
