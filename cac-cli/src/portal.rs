//! A portal that commands talk to: the generated client, with whatever a context or the environment says, and its errors as exit statuses.

use std::time::Duration;

use progenitor_client::{ClientHooks, Error, OperationInfo, ResponseValue};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue};
use url::Url;

use crate::api::{Client, types};
use crate::cmd::Common;
use crate::context::{Contexts, variable};
use crate::print::{Exit, Failure, status};

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
    /// The one of `--context`, else of `CAC_URL` and `CAC_TOKEN` or of `CAC_CONTEXT`, else the current one.
    pub(crate) fn open(common: &Common) -> Result<Self, Failure> {
        let [url, token, context] = ["CAC_URL", "CAC_TOKEN", "CAC_CONTEXT"].map(variable);
        let (url, token, context) = (url?, token?, context?);
        let name = match (&common.context, url, token, context) {
            (Some(name), ..) => Some(name.clone()),
            (None, Some(url), Some(token), None) => {
                return Self::at(&address("CAC_URL", &url)?, &Proof::Token(&token));
            }
            (None, None, None, context) => context,
            (None, Some(_), Some(_), Some(_)) => {
                return Err(Exit::usage(
                    "CAC_CONTEXT and CAC_URL are both set: unset one of them.",
                ));
            }
            (None, ..) => {
                return Err(Exit::usage(
                    "Set both CAC_URL and CAC_TOKEN, or neither and use `cac login`.",
                ));
            }
        };
        let contexts = Contexts::load()?;
        let (_, context) = contexts.find(name.as_deref())?;
        Self::at(&context.url, &Proof::Token(&context.token))
    }

    /// The one at this [`address`].
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
                .map_err(|_| Exit::usage("The token has characters that no token has."))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("cac/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(SILENCE)
            .build()?;
        Ok(Self {
            client: Client::new_with_client(url, client),
            url: url.to_owned(),
        })
    }

    /// A container by its host name, one's own or for admins anybody's, or by its row id. A name wins, also one of digits.
    pub(crate) async fn container(&self, name: &str) -> Result<types::Container, Failure> {
        let named = |rows: Vec<types::Container>| rows.into_iter().find(|one| one.hostname == name);
        let mut found = named(self.containers((false, None), None).await?);
        if found.is_none() {
            found = match self.containers((true, None), None).await {
                Ok(all) => named(all),
                // Only admins may look through everybody's.
                Err(failure) if status(&*failure) == 3 => None,
                Err(failure) => return Err(failure),
            };
        }
        let id = match found {
            Some(found) => found.id,
            None => match name.parse::<i64>() {
                Ok(id) if id.to_string() == name => id,
                _ => {
                    return Err(Exit::not_found(&format!(
                        "You have no container `{name}`; `cac container list` shows yours."
                    )));
                }
            },
        };
        // The list has not everything.
        self.client.container_find().id(id).send().await.told()
    }

    /// All of them, page by page.
    pub(crate) async fn containers(
        &self,
        (all, user): (bool, Option<&str>),
        search: Option<&str>,
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
            if let Some(search) = search {
                list = list.search(search);
            }
            let offset = i64::try_from(rows.len())?;
            let page = list.limit(PAGE).offset(offset).send().await.told()?;
            let last = i64::try_from(page.len())? < PAGE;
            rows.extend(page);
            if last || rows.len() >= MOST {
                return Ok(rows);
            }
        }
    }
}

/// The largest page that the portal gives.
const PAGE: i64 = 1000;
/// More are not asked for, whatever a portal says.
const MOST: usize = 100_000;

/// A portal's address, without a slash at the end.
pub(crate) fn address(what: &str, text: &str) -> Result<String, Failure> {
    let url = Url::parse(text).ok().filter(|url| {
        let plain = url.username().is_empty() && url.password().is_none();
        let whole = url.query().is_none() && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && plain && whole
    });
    match url {
        Some(url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        None => Err(Exit::usage(&format!(
            "{what}: give an address such as https://portal.example.org, without a user, `?` and `#`."
        ))),
    }
}

/// A word that becomes a part of a path: `.` and `..` would lead elsewhere.
pub(crate) fn segment<'a>(what: &str, text: &'a str) -> Result<&'a str, Failure> {
    match text {
        "" | "." | ".." => Err(Exit::usage(&format!("`{text}` is no name of {what}."))),
        text => Ok(text),
    }
}

/// How an answer that is not the portal's is told by [`ClientHooks::post`]; its status follows.
const FOREIGN: &str = "status ";

impl ClientHooks for Client {
    /// A problem is JSON; a reverse proxy's page is not.
    async fn post<E>(
        &self,
        result: &reqwest::Result<reqwest::Response>,
        _: &OperationInfo,
    ) -> Result<(), Error<E>> {
        let Ok(answer) = result else { return Ok(()) };
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if answer.status().is_success() || kind.contains("json") {
            return Ok(());
        }
        Err(Error::Custom(format!(
            "{FOREIGN}{}",
            answer.status().as_u16()
        )))
    }
}

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
        Error::UnexpectedResponse(answer) => by_status(answer.status().as_u16()),
        Error::InvalidRequest(text) => Exit::usage(&text),
        // Never the body itself: it may hold a token.
        Error::InvalidResponsePayload(_, error) => Exit::failed(&format!(
            "The portal's answer is not understood ({error}): are both of one version?"
        )),
        Error::ResponseBodyError(error) => unreachable(&error),
        Error::Custom(text) => {
            let status = text
                .strip_prefix(FOREIGN)
                .and_then(|text| text.parse().ok());
            by_status(status.unwrap_or_default())
        }
    }
}

/// A status whose answer is not the portal's: a reverse proxy's, or another program's.
pub(crate) fn by_status(status: u16) -> Failure {
    let text = format!(
        "The answer with status {status} is not the portal's: is the address right, and are both of one version?"
    );
    ended(status, &text, None)
}

/// How a command ends by an HTTP status that was nobody's typing; the request's id helps where nothing else does.
pub(crate) fn ended(status: u16, text: &str, request: Option<&str>) -> Failure {
    match status {
        401 | 403 => Exit::not_signed_in(text),
        404 => Exit::not_found(text),
        409 => Exit::conflict(text),
        408 | 429 | 502..=504 => Exit::try_again(text),
        _ => Exit::failed(&match request {
            Some(id) => format!("{text} (request {id})"),
            None => text.to_owned(),
        }),
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
        400 | 413 => Exit::usage(&text),
        401 => Exit::not_signed_in(&format!("{text}\nSign in: `cac login URL`.")),
        status => ended(status, &text, problem.request_id.as_deref()),
    }
}
