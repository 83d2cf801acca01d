//! A portal that commands talk to: the generated client, with whatever a context or the environment says, and its errors as exit statuses.

use std::time::Duration;

use progenitor_client::{Error, ResponseValue};
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue};

use crate::api::{Client, types};
use crate::cmd::Common;
use crate::context::Contexts;
use crate::print::{Exit, Failure};

/// The longest silence; streams say something every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Where commands go, and as whom.
pub(crate) struct Portal {
    /// Without a slash at the end.
    pub(crate) url: String,
    pub(crate) client: Client,
}

/// What a request proves itself with.
pub(crate) enum Proof<'a> {
    Nothing,
    Token(&'a str),
    Cookie(&'a str),
}

impl Portal {
    /// The one of `CAC_URL` and `CAC_TOKEN`, else of `--context`, else the current one.
    pub(crate) fn open(common: &Common) -> Result<Self, Failure> {
        let named = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        if let (None, Some(url)) = (&common.context, named("CAC_URL")) {
            let token = named("CAC_TOKEN").ok_or_else(|| {
                Exit::not_signed_in(
                    "CAC_URL is set and CAC_TOKEN is not: set both, or neither and use `cac login`.",
                )
            })?;
            return Self::at(&url, &Proof::Token(&token));
        }
        let contexts = Contexts::load()?;
        let (_, context) = contexts.find(common.context.as_deref())?;
        Self::at(&context.url, &Proof::Token(&context.token))
    }

    /// The one at this address.
    pub(crate) fn at(url: &str, proof: &Proof) -> Result<Self, Failure> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        let proved = match proof {
            Proof::Nothing => None,
            Proof::Token(token) => Some((AUTHORIZATION, format!("Bearer {token}"))),
            Proof::Cookie(cookie) => Some((COOKIE, (*cookie).to_owned())),
        };
        if let Some((name, text)) = proved {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| "The token has characters that no token has.")?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let url = url.trim_end_matches('/').to_owned();
        let client = reqwest::Client::builder()
            .user_agent(concat!("cac/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(SILENCE)
            .build()?;
        Ok(Self {
            client: Client::new_with_client(&url, client),
            url,
        })
    }

    /// The row id of a container that is named by its id or its host name: one's own, for admins anybody's.
    pub(crate) async fn container(&self, name: &str) -> Result<types::Container, Failure> {
        if let Ok(id) = name.parse::<i64>() {
            return self.client.container_find().id(id).send().await.told();
        }
        let own = self.containers(false, None).await?;
        let found = own.into_iter().find(|one| one.hostname == name);
        let found = match found {
            Some(found) => Some(found),
            // Only admins may look through everybody's.
            None => match self.containers(true, None).await {
                Ok(all) => all.into_iter().find(|one| one.hostname == name),
                Err(_) => None,
            },
        };
        match found {
            // The list has no live state of everything that one container has.
            Some(found) => self
                .client
                .container_find()
                .id(found.id)
                .send()
                .await
                .told(),
            None => Err(Exit::not_found(&format!(
                "You have no container `{name}`; `cac container list` shows yours."
            ))),
        }
    }

    /// All of them, page by page.
    pub(crate) async fn containers(
        &self,
        all: bool,
        user: Option<&str>,
    ) -> Result<Vec<types::Container>, Failure> {
        let mut rows = Vec::new();
        loop {
            let mut list = self.client.container_list();
            if all {
                list = list.all(true);
            }
            if let Some(user) = user {
                list = list.user(user);
            }
            let offset = i64::try_from(rows.len())?;
            let page = list.limit(PAGE).offset(offset).send().await.told()?;
            let last = i64::try_from(page.len())? < PAGE;
            rows.extend(page);
            if last {
                return Ok(rows);
            }
        }
    }
}

/// The largest page that the portal gives.
const PAGE: i64 = 1000;

/// An answer, or a failure with its exit status.
pub(crate) trait Told<T> {
    fn told(self) -> Result<T, Failure>;
}

impl<T> Told<T> for Result<ResponseValue<T>, Error<types::Problem>> {
    fn told(self) -> Result<T, Failure> {
        match self {
            Ok(answer) => Ok(answer.into_inner()),
            Err(error) => Err(refused(error)),
        }
    }
}

/// What a failed request means to the person who typed it.
pub(crate) fn refused(error: Error<types::Problem>) -> Failure {
    match error {
        Error::ErrorResponse(answer) => problem(&answer),
        Error::CommunicationError(error) | Error::InvalidUpgrade(error) => unreachable(&error),
        Error::UnexpectedResponse(answer) => Exit::failed(&format!(
            "The portal answers with status {}, which this `cac` does not know: is the address right, and are both of one version?",
            answer.status()
        )),
        Error::InvalidRequest(text) => Exit::usage(&text),
        other => Exit::failed(&format!("The portal's answer is not understood: {other}")),
    }
}

/// A connection that was not made, or broke.
pub(crate) fn unreachable(error: &reqwest::Error) -> Failure {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        why = format!("{why}: {inner}");
        source = inner.source();
    }
    Exit::try_again(&format!("The portal cannot be reached ({why})."))
}

fn problem(problem: &types::Problem) -> Failure {
    let mut text = problem.detail.clone();
    let lines = problem.errors.iter();
    let mut lines: Vec<String> = lines
        .map(|(field, why)| format!("  {field}: {why}"))
        .collect();
    lines.sort();
    if lines.len() > 1 {
        text = format!("Please correct:\n{}", lines.join("\n"));
    }
    match problem.status {
        400 => Exit::usage(&text),
        401 => Exit::not_signed_in(&format!("{text}\nSign in: `cac login URL`.")),
        403 => Exit::not_signed_in(&text),
        404 => Exit::not_found(&text),
        409 => Exit::conflict(&text),
        429 | 503 => Exit::try_again(&text),
        _ => Exit::failed(&match &problem.request_id {
            Some(id) => format!("{text} (request {id})"),
            None => text,
        }),
    }
}
