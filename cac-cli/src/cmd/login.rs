//! `cac login` and `cac logout`: from a Proxmox VE account to an API token, which alone is kept.

use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{Duration, Utc};
use clap::Args;
use progenitor_client::Error;
use reqwest::header::{HeaderMap, SET_COOKIE};
use url::{Host, Url};

use super::Common;
use crate::api::types;
use crate::context::{Context, Contexts, variable};
use crate::portal::{Portal, Proof, Told as _, address, refused};
use crate::print::{self, Exit, Failure};

/// Days until a token of `cac login` expires.
const DAYS: u32 = 90;

#[derive(Args)]
pub(crate) struct Login {
    /// Such as https://portal.example.org
    url: String,
    /// The Proxmox VE account; left out, it is asked for
    #[arg(long, short)]
    username: Option<String>,
    /// A file with the password; `-` or nothing reads it from the terminal or standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The code of a second factor; left out, it is asked for if Proxmox VE asks
    #[arg(long)]
    code: Option<String>,
    /// A file with an API token to keep, instead of making one; `-` reads it from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["username", "password_file", "code"])]
    token_file: Option<PathBuf>,
    /// What the token may be used for, as `cac token create --help` lists it; left out: everything that you may do
    #[arg(long, value_delimiter = ',', value_name = "SCOPE")]
    scope: Vec<String>,
    /// Days until the token expires; left out: 90, or as many as the portal allows
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: Option<u32>,
    /// What to call this portal here; left out: its host
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Login {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let url = address("The portal", &self.url)?;
        let parsed = Url::parse(&url)?;
        let here = match parsed.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        if parsed.scheme() == "http" && !here {
            print::note(
                "Beware: without https: your password and the token can be read on the way.",
            );
        }
        let host = parsed.host_str().unwrap_or_default();
        let name = match (&self.name, parsed.port()) {
            (Some(name), _) => named(name)?,
            (None, Some(port)) => format!("{host}:{port}"),
            (None, None) => host.to_owned(),
        };
        // Whether it can be kept, before a token is made that nobody would know of.
        Contexts::change(|_| Ok(()))?;
        let context = match &self.token_file {
            Some(file) => kept(&url, file).await?,
            None => self.made(&url).await?,
        };
        let kept = Contexts::change(|contexts| {
            contexts.current = Some(name.clone());
            Ok(contexts.contexts.insert(name.clone(), context.clone()))
        });
        let before = match kept {
            Ok(before) => before.filter(|before| before.token != context.token),
            Err(failure) => {
                forget(&context).await?;
                return Err(failure);
            }
        };
        if let Some(before) = before {
            // It would be good for long, and nobody would know of it.
            let _ = forget(&before).await;
        }
        if common.json {
            let told =
                serde_json::json!({"context": name, "url": url, "username": context.username});
            print::json(&told)?;
        } else {
            let who = context.username.as_deref();
            let who = who.map(|who| format!(" as {who}")).unwrap_or_default();
            print::data(&format!(
                "Signed in at {url}{who}; the context is `{name}`.\n"
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Signs in, makes a token, and ends the session again.
    async fn made(&self, url: &str) -> Result<Context, Failure> {
        let username = match &self.username {
            Some(username) => username.trim().to_owned(),
            None => super::asked("Proxmox VE account", "--username NAME")?,
        };
        if username.is_empty() {
            return Err(Exit::usage("Give the name of your Proxmox VE account."));
        }
        let file = self.password_file.as_deref();
        let password = super::secret("The password", "--password-file", file)?;
        let cookie = self.sign_in(url, username, password).await?;
        let portal = Portal::at(url, &Proof::Cookie(&cookie))?;
        let scopes = match self.scope.is_empty() {
            true => super::token::scopes(&["admin".to_owned()])?,
            false => super::token::scopes(&self.scope)?,
        };
        let wanted = types::TokenRequest {
            name: format!("cac on {}", machine()),
            scopes,
            expires: Some(Utc::now() + Duration::days(self.days.unwrap_or(DAYS).into())),
        };
        let create = |wanted| portal.client.token_create().body(wanted).send();
        let mut made = create(wanted.clone()).await;
        // The portal may allow less than what nobody has asked for.
        if let Err(Error::ErrorResponse(problem)) = &made
            && self.days.is_none()
            && problem.errors.contains_key("expires")
        {
            let expires = None;
            made = create(types::TokenRequest { expires, ..wanted }).await;
        }
        let made = made.told();
        // The session has done its work, whatever came of it.
        if portal.client.login_delete().send().await.is_err() {
            print::note("The session could not be ended; it ends by itself after a day.");
        }
        let made = made?;
        Ok(Context {
            url: url.to_owned(),
            username: Some(made.username),
            token: made.token,
            token_id: Some(made.id),
        })
    }

    /// The session's cookie. The device's one is kept for the next time.
    async fn sign_in(
        &self,
        url: &str,
        username: String,
        password: String,
    ) -> Result<String, Failure> {
        // Known here from an earlier sign-in, so that somebody else's guessing does not slow this one.
        let device = Contexts::load()?.devices.get(url).cloned();
        let proof = device.as_deref().map_or(Proof::Nothing, Proof::Cookie);
        let portal = Portal::at(url, &proof)?;
        let mut body = types::Credentials {
            username: Some(username),
            password: Some(password),
            challenge: None,
            code: None,
            redirect: None,
        };
        let mut answer = portal.client.login_create().body(body.clone()).send().await;
        if let Err(Error::ErrorResponse(problem)) = &answer
            && let Some(challenge) = &problem.challenge
        {
            let code = match &self.code {
                Some(code) => code.clone(),
                None => super::asked("Code of your second factor", "--code CODE")?,
            };
            body.password = None;
            body.challenge = Some(challenge.clone());
            body.code = Some(code);
            answer = portal.client.login_create().body(body).send().await;
        }
        let answer = answer.map_err(|error| match refused(error).downcast::<Exit>() {
            // Not "sign in first": that is what was tried.
            Ok(exit) if exit.status == 3 => {
                Exit::not_signed_in(exit.to_string().lines().next().unwrap_or_default())
            }
            Ok(exit) => exit,
            Err(other) => other,
        })?;
        let cookies = Cookies::of(answer.headers());
        if let Some(device) = cookies.device {
            Contexts::change(|contexts| Ok(contexts.devices.insert(url.to_owned(), device)))?;
        }
        let none = || "The portal set no cookie: is the address right?".into();
        cookies.session.ok_or_else(none)
    }
}

/// What a sign-in sets, each as `name=value`.
#[derive(Default)]
struct Cookies {
    session: Option<String>,
    device: Option<String>,
}

impl Cookies {
    fn of(headers: &HeaderMap) -> Self {
        let mut cookies = Self::default();
        for set in headers.get_all(SET_COOKIE) {
            let pair = set.to_str().unwrap_or_default();
            let pair = pair.split(';').next().unwrap_or_default();
            match pair.split_once('=') {
                Some((name, _)) if name.ends_with("-device") => {
                    cookies.device = Some(pair.to_owned());
                }
                Some(_) if cookies.session.is_none() => cookies.session = Some(pair.to_owned()),
                _ => {}
            }
        }
        cookies
    }
}

/// A token that was made elsewhere, if the portal knows it.
async fn kept(url: &str, file: &std::path::Path) -> Result<Context, Failure> {
    let token = super::secret("The token", "--token-file", Some(file))?;
    let token = token.trim().to_owned();
    let portal = Portal::at(url, &Proof::Token(&token))?;
    let username = match portal.client.quota_own().send().await {
        Ok(quota) => Some(quota.into_inner().username),
        // It is good, but not for this.
        Err(Error::ErrorResponse(problem)) if problem.status == 403 => None,
        Err(error) => return Err(refused(error)),
    };
    Ok(Context {
        url: url.to_owned(),
        username,
        token,
        token_id: None,
    })
}

/// This machine's name, as far as it has one.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(40).collect();
    match name.as_str() {
        "" => "a machine".to_owned(),
        _ => name,
    }
}

/// What a context may be called.
fn named(name: &str) -> Result<String, Failure> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if name.is_empty() || name.len() > 100 || name.starts_with('-') || name.contains(odd) {
        return Err(Exit::usage(
            "A context's name has 1 to 100 characters, no spaces, and no `-` at its begin.",
        ));
    }
    Ok(name.to_owned())
}

/// Deletes a context's token at its portal, if `cac login` made it.
async fn forget(context: &Context) -> Result<(), Failure> {
    let Some(id) = context.token_id else {
        return Ok(());
    };
    let portal = Portal::at(&context.url, &Proof::Token(&context.token))?;
    match portal.client.token_delete().id(id).send().await {
        Ok(_) => Ok(()),
        // It is worth nothing already.
        Err(Error::ErrorResponse(problem)) if matches!(problem.status, 401 | 404) => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

#[derive(Args)]
pub(crate) struct Logout {
    /// End all of your sessions at the portal as well
    #[arg(long)]
    everywhere: bool,
    /// With --everywhere: revoke all of your API tokens, too
    #[arg(long, requires = "everywhere")]
    tokens: bool,
}

/// `cac logout`
pub(crate) async fn out(logout: &Logout, common: &Common) -> Result<ExitCode, Failure> {
    if logout.everywhere {
        let portal = Portal::open(common)?;
        let request = portal.client.session_delete_all();
        request.tokens(logout.tokens).send().await.told()?;
        let what = match logout.tokens {
            true => "Your sessions are ended and your API tokens are revoked.",
            false => "Your sessions are ended.",
        };
        print::note(what);
    }
    let name = match &common.context {
        Some(name) => Some(name.clone()),
        None => variable("CAC_CONTEXT")?,
    };
    let (context, next) = Contexts::change(|contexts| {
        let (name, context) = contexts.find(name.as_deref())?;
        let (name, context) = (name.to_owned(), context.clone());
        contexts.contexts.remove(&name);
        if contexts.current.as_deref() == Some(&name) {
            contexts.current = None;
        }
        Ok((context, contexts.contexts.keys().next().cloned()))
    })?;
    if let Err(why) = forget(&context).await {
        return Err(format!(
            "You are signed out here, but the token could not be deleted: {why} Delete `{}…` at {} later.",
            context.token.get(..12).unwrap_or_default(),
            context.url
        )
        .into());
    }
    let next = next.map(|name| format!(" `cac context use {name}` takes another one."));
    let text = format!("Signed out of {}.{}", context.url, next.unwrap_or_default());
    print::done(&text, common.json)?;
    Ok(ExitCode::SUCCESS)
}
