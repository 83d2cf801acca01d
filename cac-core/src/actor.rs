//! Who is asking, and through what. Every function that reads or changes what belongs to a user takes an [`Actor`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::{Error, Result};

/// An identity that has been proved, or the program itself.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The stored form: bare for the default realm, else `name@realm`.
    pub username: String,
    /// Member of the admin group, looked up not longer than 15 minutes ago.
    pub admin: bool,
    /// What the audit log says of the request.
    pub origin: Origin,
}

impl PartialEq for Actor {
    /// The same user with the same rights, whichever request they come with.
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username && self.admin == other.admin
    }
}

impl Eq for Actor {}

impl Actor {
    /// An ordinary user or an admin.
    pub fn new(username: impl Into<String>, admin: bool) -> Self {
        Self {
            username: username.into(),
            admin,
            origin: Origin::default(),
        }
    }

    /// Whoever may run a command on this machine with the program's own configuration.
    #[must_use]
    pub fn local() -> Self {
        Self::new("local", true).from_origin(Origin::new(Via::Local))
    }

    /// The same actor, with the request that they act through.
    #[must_use]
    pub fn from_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Refuses whoever is no admin.
    pub fn must_be_admin(&self) -> Result<()> {
        if self.admin {
            return Ok(());
        }
        Err(Error::Forbidden("Only admins may do this.".to_owned()))
    }

    /// Whether things of `owner` are this actor's business. User names compare byte by byte.
    #[must_use]
    pub fn may_see(&self, owner: Option<&str>) -> bool {
        self.admin || owner.is_some_and(|owner| owner == self.username)
    }
}

/// How a request proved who it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Nothing was proved, as at a failed sign-in or at an account request.
    #[default]
    Nothing,
    Session,
    Token,
    /// A machine whose address is allowed.
    Machine,
    /// A command on the server itself.
    Local,
}

impl Via {
    /// The stored word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Session => "session",
            Self::Token => "token",
            Self::Machine => "machine",
            Self::Local => "local",
        }
    }

    /// The variant of a stored word; unknown words prove nothing.
    pub(crate) fn parse(text: &str) -> Self {
        let all = [Self::Session, Self::Token, Self::Machine, Self::Local];
        let found = all.into_iter().find(|via| via.name() == text);
        found.unwrap_or(Self::Nothing)
    }
}

/// The request that a change came with. Clones belong to the same request: they share whether its audit entry was written.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    pub via: Via,
    /// The row id of the API token, where one was used.
    pub token: Option<i64>,
    pub address: Option<IpAddr>,
    /// Names the request in the server's log.
    pub request: Option<String>,
    /// What else is known of whoever asked, such as the operating system's user.
    pub note: Option<String>,
    written: Arc<AtomicBool>,
}

impl Origin {
    /// A request of which nothing else is known.
    #[must_use]
    pub fn new(via: Via) -> Self {
        Self {
            via,
            ..Self::default()
        }
    }

    /// The same with the address that the request came from.
    #[must_use]
    pub fn at(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    /// Whether a transaction of this request wrote an audit entry. It may still have been rolled back, but then the request failed.
    #[must_use]
    pub fn has_entry(&self) -> bool {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn entry_written(&self) {
        self.written.store(true, Ordering::Relaxed);
    }
}
