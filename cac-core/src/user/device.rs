//! Telling people of sign-ins from a device that they have not signed in from before.

use crate::actor::Actor;
use crate::job::user_mail::{self, Notice};
use crate::session::{self, Client};
use crate::sign_in_origin::{self, SignInOrigin};
use crate::{Core, Result, transaction};

/// Mails a user who signs in from a new device; call it before the device is remembered.
pub(super) async fn notify(
    core: &Core,
    actor: &Actor,
    client: &Client,
    from: &SignInOrigin,
) -> Result<()> {
    if core.config.mail.is_none() || !is_new(core, actor, client, from).await? {
        return Ok(());
    }
    let notice = Notice::NewDevice {
        address: client.address,
        user_agent: client.user_agent.clone(),
        at: core.clock.now(),
    };
    transaction!(core.db, tx => { user_mail::add(tx, core, &actor.username, &notice).await? })?;
    core.wake.jobs();
    Ok(())
}

/// Whether this is news to the user. The first sign-in that is known of is none, and neither is a program that keeps no cookies and
/// signs in again from where it has a session.
async fn is_new(core: &Core, actor: &Actor, client: &Client, from: &SignInOrigin) -> Result<bool> {
    match from {
        SignInOrigin::KnownDevice(_) => Ok(false),
        SignInOrigin::KnownNetwork(_) => Ok(!session::is_like_another(core, actor, client).await?),
        SignInOrigin::Unknown => sign_in_origin::is_any_known(core, &actor.username).await,
    }
}
