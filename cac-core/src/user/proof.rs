//! The password given again by somebody who is signed in, for what it protects.

use super::{Credentials, anonymous_client, check_login_node, login_node, prove};
use crate::actor::Actor;
use crate::pve::{Login, Secret};
use crate::{Core, Error, Result, session};

/// What giving the password again leads to.
#[derive(Debug)]
pub enum Proof {
    /// It was right, and the session counts as proved from now on.
    Done,
    /// Proxmox VE asks for a second factor; send `challenge` back with the code.
    SecondFactor {
        challenge: Secret,
        kinds: Vec<String>,
    },
}

/// Takes the password (and the second factor) of a session's owner again, for what needs it to have been given lately. Wrong ones
/// count as failed logins.
pub async fn reauthenticate(
    core: &Core,
    actor: &Actor,
    session: &str,
    credentials: Credentials<'_>,
    client: &session::Client,
) -> Result<Proof> {
    let second = credentials.second.is_some();
    if credentials.password.expose().is_empty() && !second {
        return Err(Error::invalid(
            "password",
            "Enter your Proxmox VE password.",
        ));
    }
    let login_node = login_node(core).await?;
    check_login_node(core, &login_node).await?;
    let pve = anonymous_client(&login_node)?;
    let proved = prove(core, &pve, &actor.username, credentials, client).await;
    match proved.map(|(login, _)| login) {
        Ok(Login::Ticket(_)) => {}
        Ok(Login::SecondFactor { challenge, kinds }) => {
            return Ok(Proof::SecondFactor { challenge, kinds });
        }
        // A 401 would say that the session is no good.
        Err(Error::Unauthenticated(_)) if second => {
            return Err(Error::invalid(
                "code",
                "The code is wrong or too old. Start again.",
            ));
        }
        Err(Error::Unauthenticated(_)) => {
            return Err(Error::invalid(
                "password",
                "The password is wrong. Enter it again.",
            ));
        }
        Err(error) => return Err(error),
    }
    if session::set_proved(core, session).await? {
        Ok(Proof::Done)
    } else {
        let message = "Your session has ended meanwhile. Sign in again.";
        Err(Error::Unauthenticated(message.to_owned()))
    }
}
