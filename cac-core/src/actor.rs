//! Who asks. Every noun function that reads or changes something of somebody takes one.

use crate::{Error, Result};

/// Somebody whose identity has been proved, or the program itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The stored form: bare for the default realm, else `name@realm`.
    pub username: String,
    /// Member of the admin group, looked up not longer than 15 minutes ago.
    pub admin: bool,
}

impl Actor {
    /// An ordinary user or an admin.
    pub fn new(username: impl Into<String>, admin: bool) -> Self {
        Self {
            username: username.into(),
            admin,
        }
    }

    /// Whoever may run a command on this machine with the program's own configuration.
    #[must_use]
    pub fn local() -> Self {
        Self::new("local", true)
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
