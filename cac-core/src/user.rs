//! Users are Proxmox VE's: names and realms, signing in, and who is an admin. Passwords are never kept.

mod device;
mod directory;
mod former;
mod look_up;
mod proof;
mod standing;
mod state;

pub use directory::{Person, User, find, list, update};
pub use former::{NameUse, name_use};
pub(crate) use former::{is_former, release_name};
pub use look_up::{keep_looking_up, look_up};
pub use proof::{Proof, reauthenticate};
pub(crate) use standing::{Standing, standing};
pub use state::State;

use crate::actor::Actor;
use crate::node::{self, Node};
use crate::pve::{self, Auth, Login, Pve, Secret, Target, Ticket, Tls};
use crate::sign_in_origin::{self, SignInOrigin};
use crate::{Core, Error, Result, audit, login_failure, session, setting, transaction};

const LOGIN_URL: &str = "login.url";
const LOGIN_REALM: &str = "login.realm";

/// What a right password leads to.
#[derive(Debug)]
pub enum SignIn {
    /// Signed in: the session's id for the cookie.
    Done {
        session: String,
        actor: Actor,
        device: Device,
    },
    /// Proxmox VE asks for a second factor; send `challenge` back with the code.
    SecondFactor {
        challenge: Secret,
        kinds: Vec<String>,
    },
}

/// The device that somebody signed in from.
#[derive(Debug)]
pub struct Device {
    /// Whether this user had signed in from it before.
    pub known: bool,
    /// The text of the cookie by which it is known the next time; shown only here.
    pub cookie: Secret,
}

/// The answer to a second factor's challenge.
#[derive(Debug)]
pub struct SecondFactor {
    pub challenge: Secret,
    /// A code of six digits, or in Proxmox VE's form such as `recovery:KEY`.
    pub code: Secret,
}

/// The login node: how to reach it, and the service token that may look people up.
struct LoginNode {
    url: String,
    tls: Tls,
    token: Option<(String, Secret)>,
}

impl Core {
    /// `name@realm` as Proxmox VE knows a stored user name.
    #[must_use]
    pub fn proxmox_user(&self, username: &str) -> String {
        if username.contains('@') {
            username.to_owned()
        } else {
            format!("{username}@{}", self.config.proxmox.realm)
        }
    }
}

/// The stored form of a name that somebody typed: bare in the default realm, else `name@realm`.
pub fn canonical(core: &Core, typed: &str) -> Result<String> {
    let typed = typed.trim();
    let (name, realm) = typed
        .rsplit_once('@')
        .unwrap_or((typed, &core.config.proxmox.realm));
    // Proxmox VE's own rule for user ids: PVE::Auth::Plugin, 3 to 64 characters in all.
    let name_ok = !name.is_empty()
        && name
            .chars()
            .all(|c| !c.is_whitespace() && !c.is_control() && !":/@".contains(c));
    let realm_ok = realm.starts_with(|c: char| c.is_ascii_alphabetic())
        && (2..=32).contains(&realm.len())
        && realm
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !name_ok || !realm_ok || !(3..=64).contains(&(name.chars().count() + 1 + realm.len())) {
        return Err(Error::invalid(
            "username",
            "Give your Proxmox VE user name, such as `alice` or `alice@pam`.",
        ));
    }
    let bare = realm == core.config.proxmox.realm;
    // Nobody looks this name up, so whoever had it would keep what they have after their account is gone.
    if bare && name == Actor::local().username {
        return Err(Error::invalid(
            "username",
            "This name stands for the machine itself, so nobody can have it here. Use another account.",
        ));
    }
    Ok(if bare {
        name.to_owned()
    } else {
        format!("{name}@{realm}")
    })
}

/// What somebody proves with to be who they say.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// Empty where the challenge is answered.
    pub password: &'a Secret,
    pub second: Option<&'a SecondFactor>,
}

/// Signs somebody in with their Proxmox VE password.
pub async fn sign_in(
    core: &Core,
    typed: &str,
    password: &Secret,
    second: Option<&SecondFactor>,
    client: &session::Client,
) -> Result<SignIn> {
    let username = canonical(core, typed)?;
    if password.expose().is_empty() && second.is_none() {
        return Err(Error::invalid("password", "Give your Proxmox VE password."));
    }
    let login_node = login_node(core).await?;
    check_login_node(core, &login_node).await?;
    let pve = anonymous_client(&login_node)?;
    let credentials = Credentials { password, second };
    let (login, from) = prove(core, &pve, &username, credentials, client).await?;
    let ticket = match login {
        Login::Ticket(ticket) => ticket,
        Login::SecondFactor { challenge, kinds } => {
            return Ok(SignIn::SecondFactor { challenge, kinds });
        }
    };
    // As Proxmox VE spells it: in realms that ignore case the typed name would be another owner, whom no look-up finds.
    let userid = ticket.user.clone();
    let username = canonical(core, &userid)?;
    remember_login_node(core, &login_node).await?;
    state::admit(core, &username, client).await?;
    let admin = is_admin(core, &login_node, &pve, &ticket, &userid).await;
    let actor = Actor::new(username, admin).from_origin(client.origin());
    // It is told of, but nobody is kept out for it.
    if let Err(error) = device::notify(core, &actor, client, &from).await {
        tracing::warn!(%error, "a sign-in from a new device cannot be mailed");
    }
    let device = Device {
        known: matches!(from, SignInOrigin::KnownDevice(_)),
        cookie: sign_in_origin::remember(core, &actor.username, client, &from).await?,
    };
    let session = session::create(core, &actor, client).await?;
    Ok(SignIn::Done {
        session,
        actor,
        device,
    })
}

fn anonymous_client(node: &LoginNode) -> Result<Pve> {
    let target = Target {
        api_url: node.url.clone(),
        tls: node.tls.clone(),
        auth: Auth::None,
    };
    Pve::new(target).map_err(unreachable)
}

/// Asks Proxmox VE whether the credentials are right, and says what is known of where they come from. Wrong ones are counted, and slow
/// the next tries down.
async fn prove(
    core: &Core,
    pve: &Pve,
    username: &str,
    credentials: Credentials<'_>,
    client: &session::Client,
) -> Result<(Login, SignInOrigin)> {
    let userid = core.proxmox_user(username);
    let attempt = login_failure::attempt(core, username, client).await?;
    match ask(pve, &userid, credentials).await {
        Ok(login @ Login::Ticket(_)) => {
            attempt.passed(core).await?;
            Ok((login, attempt.origin))
        }
        Ok(challenge @ Login::SecondFactor { .. }) => {
            attempt.undecided(core).await?;
            Ok((challenge, attempt.origin))
        }
        Err(error) if error.is_unauthenticated() => {
            let what = if credentials.second.is_some() {
                "The code is wrong or too old."
            } else {
                "User name or password is wrong."
            };
            Err(Error::Unauthenticated(what.to_owned()))
        }
        Err(error) => {
            attempt.undecided(core).await?;
            Err(unreachable(error))
        }
    }
}

/// Whether the password, or in the second step the code, is right.
async fn ask(pve: &Pve, userid: &str, credentials: Credentials<'_>) -> Result<Login, pve::Error> {
    let Credentials { password, second } = credentials;
    let Some(second) = second else {
        return pve.login(userid, password).await;
    };
    let code = second.code.expose().trim();
    let response = if code.contains(':') {
        code.to_owned()
    } else {
        format!("totp:{code}")
    };
    pve.login_second_factor(userid, &second.challenge, &Secret::new(response))
        .await
}

fn unreachable(error: pve::Error) -> Error {
    tracing::warn!(%error, "Proxmox VE cannot be asked for a login");
    Error::Unreachable(
        "Proxmox VE cannot be reached now, so nobody can sign in. Try again in a moment."
            .to_owned(),
    )
}

async fn login_node(core: &Core) -> Result<LoginNode> {
    let proxmox = &core.config.proxmox;
    if let Some(url) = &proxmox.url {
        return Ok(LoginNode {
            url: url.clone(),
            tls: proxmox.tls.clone(),
            token: proxmox.token.clone(),
        });
    }
    let Some(node) = first(core).await? else {
        return Err(Error::Unreachable(
            "No Proxmox VE is configured yet; an operator sets PROXMOX_URL or runs `cac node add --local`."
                .to_owned(),
        ));
    };
    let tls = node.tls()?;
    let token = node.token_id.clone().zip(node.secret.clone());
    Ok(LoginNode {
        url: node.api_url.unwrap_or_default(),
        tls,
        token,
    })
}

/// Whether people are looked up with this node's own token.
pub(crate) async fn looks_up_by(core: &Core, node: &Node) -> Result<bool> {
    if core.config.proxmox.url.is_some() {
        return Ok(false);
    }
    Ok(first(core).await?.is_some_and(|login| login.id == node.id))
}

/// The node that people sign in at where no `PROXMOX_URL` says so.
async fn first(core: &Core) -> Result<Option<Node>> {
    let nodes = node::all(core).await?.into_iter();
    Ok(nodes
        .filter(|node| node.enabled && node.api_url.is_some())
        .min_by_key(|node| node.id))
}

/// Bare user names mean people of one realm of one cluster: after the first login neither may change unnoticed.
async fn check_login_node(core: &Core, node: &LoginNode) -> Result<()> {
    let mut tx = core.db.read().await?;
    let realm = &core.config.proxmox.realm;
    for (name, now, what) in [
        (LOGIN_URL, &node.url, "address"),
        (LOGIN_REALM, realm, "realm"),
    ] {
        if let Some(before) = setting::find(&mut tx, name).await?
            && before != *now
        {
            tracing::error!(%before, %now, "the login {what} has changed");
            return Err(Error::Unreachable(format!(
                "The Proxmox VE {what} for logins has changed from {before} to {now}, so user names could mean other people. \
                 An operator confirms it with `cac login-node confirm`."
            )));
        }
    }
    Ok(())
}

async fn remember_login_node(core: &Core, node: &LoginNode) -> Result<()> {
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        for (name, now) in [(LOGIN_URL, &node.url), (LOGIN_REALM, &core.config.proxmox.realm)] {
            if setting::find(tx, name).await?.is_none() {
                setting::create(tx, &core.clock, name, now).await?;
            }
        }
    })
}

/// Says at a program's start whether people can sign in as before; the same check is made at every login.
pub async fn check_start(core: &Core) -> Result<()> {
    match login_node(core).await {
        Ok(node) => check_login_node(core, &node).await,
        // Nodes may be added later.
        Err(_) => Ok(()),
    }
}

/// Confirms that names mean the users of the login node that is configured now. For a local command.
pub async fn confirm_login_node(core: &Core, actor: &Actor) -> Result<String> {
    let node = login_node(core).await?;
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let before = (setting::find(tx, LOGIN_URL).await?, setting::find(tx, LOGIN_REALM).await?);
        audit::Change::new("login_node_confirm", "/login-node")
            .field("apiUrl", &before.0, Some(&node.url))
            .field("realm", &before.1, Some(&core.config.proxmox.realm))
            .write(tx, core, actor)
            .await?;
        setting::update(tx, &core.clock, LOGIN_URL, &node.url).await?;
        setting::update(tx, &core.clock, LOGIN_REALM, &core.config.proxmox.realm).await?;
    })?;
    Ok(format!("{} realm {}", node.url, core.config.proxmox.realm))
}

/// With the service token, since a user may not even read himself; else with the fresh ticket. A refusal means: no admin.
async fn is_admin(core: &Core, node: &LoginNode, pve: &Pve, ticket: &Ticket, userid: &str) -> bool {
    let group = &core.config.proxmox.admin_group;
    if let Some(service) = service_client(node) {
        match service.user(userid).await {
            Ok(user) => return user.groups.iter().any(|g| g == group),
            Err(error) => {
                tracing::warn!(%error, "the service token cannot look users up; give it Sys.Audit on /access/groups")
            }
        }
    }
    let users = pve.with_ticket(ticket).users().await.unwrap_or_default();
    users
        .iter()
        .any(|user| user.userid == userid && user.groups.iter().any(|g| g == group))
}

fn service_client(node: &LoginNode) -> Option<Pve> {
    let (id, secret) = node.token.clone()?;
    Pve::new(Target {
        api_url: node.url.clone(),
        tls: node.tls.clone(),
        auth: Auth::Token { id, secret },
    })
    .ok()
}

/// The client that acts as the login node's service token.
pub(crate) async fn service(core: &Core) -> Result<Pve> {
    service_client(&login_node(core).await?).ok_or_else(|| {
        let message = "No service token is configured for the login node (PROXMOX_TOKEN_ID), so nothing can be done there.";
        Error::Upstream(message.to_owned())
    })
}

/// Whether admin rights can be looked up again without the user; the page names the missing setting otherwise.
pub async fn has_service_token(core: &Core) -> bool {
    login_node(core)
        .await
        .is_ok_and(|node| node.token.is_some())
}
