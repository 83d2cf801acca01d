//! Whether somebody may still do now what he asked for earlier: a job may wait for weeks, and its owner may have lost the rights since then.

use super::look_up::{answer, is_user};
use super::state::{Answer, State};
use super::{check_login_node, is_former, login_node, service_client};
use crate::{Core, args};

/// What Proxmox VE says of a user now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Admin,
    User,
    /// Disabled, expired or deleted.
    Nobody,
    /// It cannot be asked, or proves nothing.
    Unknown,
}

pub(crate) async fn standing(core: &Core, username: &str) -> Standing {
    if is_former(username) {
        return Standing::Nobody;
    }
    if !is_user(core, username) {
        return Standing::Unknown;
    }
    let sql = r#"SELECT "state" FROM "UserStates" WHERE "username" = ?"#;
    let known = core.db.opt(sql, args![username]).await;
    let known: Option<String> = known.ok().flatten().and_then(|row| row.get("state").ok());
    if known.is_some_and(|state| State::parse(&state).is_in_doubt()) {
        // The name may be another person's by now; an admin decides.
        return Standing::Nobody;
    }
    let Ok(node) = login_node(core).await else {
        return Standing::Unknown;
    };
    if check_login_node(core, &node).await.is_err() {
        return Standing::Unknown;
    }
    let Some(service) = service_client(&node) else {
        return Standing::Unknown;
    };
    let userid = core.proxmox_user(username);
    match service.user(&userid).await {
        Ok(user) => match answer(core, &user) {
            Answer::Active { admin: true } => Standing::Admin,
            Answer::Active { admin: false } => Standing::User,
            Answer::Disabled | Answer::NoSuchUser => Standing::Nobody,
        },
        Err(error) if error.is_no_such_user(&userid) => {
            let realm = userid.rsplit_once('@').map_or("", |(_, realm)| realm);
            let realms = service.realms().await.unwrap_or_default();
            match realms.iter().any(|one| one == realm) {
                true => Standing::Nobody,
                false => Standing::Unknown,
            }
        }
        Err(error) => {
            tracing::warn!(%error, username, "whether this user may still run jobs is not known");
            Standing::Unknown
        }
    }
}
