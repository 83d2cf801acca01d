//! Users and rights. Who is an administrator is decided elsewhere; here is what Proxmox VE says.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;

use super::http::{Call, Nothing};
use super::wire::{self, Loose};
use super::{Error, Pve, Secret};

/// Privileges by path; the flag says whether they reach below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(pub BTreeMap<String, BTreeMap<String, bool>>);

impl Permissions {
    /// Whether exactly this path lists the privilege; rights inherited from above are only there when the path was asked for.
    pub fn has(&self, path: &str, privilege: &str) -> bool {
        self.0
            .get(path)
            .is_some_and(|privileges| privileges.contains_key(privilege))
    }
}

/// A user. `expire` is in seconds since 1970, 0 for never.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    /// `name@realm`.
    #[serde(default)]
    pub userid: String,
    #[serde(default = "yes", deserialize_with = "wire::loose")]
    pub enable: bool,
    #[serde(default, deserialize_with = "wire::loose")]
    pub expire: u64,
    /// An array for one user, text with commas in the list.
    #[serde(default, deserialize_with = "wire::loose")]
    pub groups: Vec<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub email: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub firstname: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub lastname: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub comment: Option<String>,
}

/// A user that is to be made, enabled.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// `name@realm`.
    pub userid: String,
    /// Sent and not kept.
    pub password: Secret,
    pub groups: Vec<String>,
    pub email: Option<String>,
    pub firstname: Option<String>,
    pub lastname: Option<String>,
    pub comment: Option<String>,
}

/// A row of `/access/domains`.
#[derive(Deserialize)]
struct Realm {
    realm: String,
}

// Proxmox's own default for a user.
fn yes() -> bool {
    true
}

impl User {
    /// Whether the user is enabled and not expired at `now` (seconds since 1970).
    pub fn is_active(&self, now: u64) -> bool {
        self.enable && (self.expire == 0 || self.expire > now)
    }
}

impl Pve {
    /// The caller's own rights, on one path (with what it inherits) or on all that have any.
    pub async fn permissions(&self, path: Option<&str>) -> Result<Permissions, Error> {
        let call = Call::get(&["access", "permissions"])?.with_some("path", path);
        let raw: BTreeMap<String, BTreeMap<String, serde_json::Value>> = self.call(call).await?;
        let flags = |privileges: BTreeMap<String, serde_json::Value>| {
            let flag = |(name, value)| (name, bool::read(&value).unwrap_or(false));
            privileges.into_iter().map(flag).collect()
        };
        let paths = raw.into_iter().map(|(path, all)| (path, flags(all)));
        Ok(Permissions(paths.collect()))
    }

    /// One user; needs audit rights on a group it is in or on `/access/groups`, a user may not even read itself.
    /// An unknown one is a refusal with [`Error::is_does_not_exist`].
    pub async fn user(&self, userid: &str) -> Result<User, Error> {
        let mut user: User = self.call(Call::get(&["access", "users", userid])?).await?;
        user.userid = userid.to_owned();
        Ok(user)
    }

    /// The users that the caller may see, itself always among them unless it is a token.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        self.call(Call::get(&["access", "users"])?.with("full", 1))
            .await
    }

    /// The names of the realms that users can belong to; asking needs no right.
    pub async fn realms(&self) -> Result<Vec<String>, Error> {
        let rows: Vec<Realm> = self.call(Call::get(&["access", "domains"])?).await?;
        Ok(rows.into_iter().map(|row| row.realm).collect())
    }

    /// Makes a user with everything it needs in one call; one that exists is [`Error::is_already_exists`].
    pub async fn user_create(&self, new: &NewUser) -> Result<(), Error> {
        let groups = Some(new.groups.join(",")).filter(|groups| !groups.is_empty());
        let call = Call::new(Method::POST, &["access", "users"])?
            .with("userid", &new.userid)
            .with("password", new.password.expose())
            .with("enable", 1)
            .with_some("groups", groups)
            .with_some("email", new.email.as_ref())
            .with_some("firstname", new.firstname.as_ref())
            .with_some("lastname", new.lastname.as_ref())
            .with_some("comment", new.comment.as_ref());
        self.call::<Nothing>(call).await?;
        Ok(())
    }

    /// Whether the lists of containers that the caller gets are complete.
    pub async fn sees_all(&self) -> Result<bool, Error> {
        let rights = self.permissions(Some("/vms")).await?;
        Ok(rights.has("/vms", "VM.Audit"))
    }

    /// Gives `user` (or a token `user@realm!name`) the role on the path and below it; given again it changes nothing.
    pub async fn acl_grant(&self, path: &str, role: &str, user: &str) -> Result<(), Error> {
        self.call::<Nothing>(acl(path, role, user)?).await?;
        Ok(())
    }

    /// Takes the role on exactly this path back; what was not given is no error.
    pub async fn acl_revoke(&self, path: &str, role: &str, user: &str) -> Result<(), Error> {
        let call = acl(path, role, user)?.with("delete", 1);
        self.call::<Nothing>(call).await?;
        Ok(())
    }
}

fn acl(path: &str, role: &str, user: &str) -> Result<Call, Error> {
    let kind = if user.contains('!') {
        "tokens"
    } else {
        "users"
    };
    Ok(Call::new(Method::PUT, &["access", "acl"])?
        .with("path", path)
        .with("roles", role)
        .with(kind, user)
        .with("propagate", 1))
}
