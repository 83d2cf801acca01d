//! One call on the wire: its encoding, its deadline, and what its answer or silence means. Nothing is repeated here
//! but a call whose kept ticket was refused, which Proxmox VE does before it looks at anything else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use rustls::CertificateError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{Error, Pve};

/// Largest reply that is read; the longest one recorded is below 1 MiB.
const REPLY_LIMIT: usize = 16 * 1024 * 1024;

/// Proxmox splits forms at `&` and `;` and cuts values at `=`, so everything outside this set is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// A connection pool to one address.
pub(super) struct Wire {
    pub client: reqwest::Client,
    pub base: String,
    pub connect: Duration,
    pub request: Duration,
}

/// One call before it is sent. Parameters go into the query of GET and DELETE (a body there is refused), else into a form.
pub(super) struct Call {
    method: Method,
    path: String,
    /// A password may be among them.
    parameters: Zeroizing<String>,
}

impl Call {
    /// `segments` are escaped; one that would change the path (empty, `.`, `..`) is refused.
    pub(super) fn new(method: Method, segments: &[&str]) -> Result<Self, Error> {
        let mut path = String::new();
        for segment in segments {
            if matches!(*segment, "" | "." | "..") {
                return Err(Error::setup(format!(
                    "{segment:?} cannot stand in the address /{}: a name is missing or wrong",
                    segments.join("/")
                )));
            }
            path.push('/');
            path.push_str(&escape(segment));
        }
        Ok(Self {
            method,
            path,
            parameters: Zeroizing::default(),
        })
    }

    pub(super) fn get(segments: &[&str]) -> Result<Self, Error> {
        Self::new(Method::GET, segments)
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        let value = Zeroizing::new(value.to_string());
        let value = Zeroizing::new(escape(&value).into_owned());
        let name = escape(name);
        // A text that outgrew its memory would leave a copy behind in the old one.
        let length = self.parameters.len() + name.len() + value.len() + 2;
        let mut parameters = Zeroizing::new(String::with_capacity(length));
        parameters.push_str(&self.parameters);
        if !parameters.is_empty() {
            parameters.push('&');
        }
        parameters.push_str(&name);
        parameters.push('=');
        parameters.push_str(&value);
        self.parameters = parameters;
        self
    }

    pub(super) fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn is_read(&self) -> bool {
        self.method == Method::GET
    }

    /// For messages: method and path, never a parameter (a password is one).
    fn label(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn maybe_sent(&self, cause: impl Into<String>) -> Error {
        Error::MaybeSent {
            call: self.label(),
            cause: cause.into(),
            read: self.is_read(),
        }
    }

    fn unsent(&self, cause: impl Into<String>, transient: bool) -> Error {
        Error::Unsent {
            call: self.label(),
            cause: cause.into(),
            transient,
        }
    }

    pub(super) fn bad_reply(&self, cause: impl Into<String>) -> Error {
        Error::BadReply {
            call: self.label(),
            cause: cause.into(),
            read: self.is_read(),
        }
    }
}

fn escape(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, ESCAPED).into()
}

/// What every good answer is wrapped in; `total` stands beside the data of logs and task lists.
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    pub data: T,
    #[serde(default, deserialize_with = "super::wire::loose")]
    pub total: Option<u64>,
}

/// `data` that does not matter.
pub(super) type Nothing = serde::de::IgnoredAny;

impl Pve {
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        Ok(self.envelope(call).await?.data)
    }

    pub(super) async fn envelope<T: DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<Envelope<T>, Error> {
        let writes = !call.is_read();
        let credentials = self.acting.credentials(&self.wire).await?;
        let first = self.wire.send(&call, credentials.headers(writes)?).await;
        let body = match first {
            Err(error) if error.is_unauthenticated() => {
                match self.acting.replace(&self.wire, &credentials).await? {
                    Some(fresh) => self.wire.send(&call, fresh.headers(writes)?).await?,
                    None => return Err(error),
                }
            }
            other => other?,
        };
        parse(&call, &body)
    }
}

pub(super) fn parse<T: DeserializeOwned>(call: &Call, body: &[u8]) -> Result<Envelope<T>, Error> {
    serde_json::from_slice(body).map_err(|error| call.bad_reply(error.to_string()))
}

impl Wire {
    /// The JSON text of a good answer.
    pub(super) async fn send(&self, call: &Call, headers: HeaderMap) -> Result<Vec<u8>, Error> {
        let in_body = matches!(call.method, Method::POST | Method::PUT);
        let mut url = format!("{}/api2/json{}", self.base, call.path);
        if !in_body && !call.parameters.is_empty() {
            url.push('?');
            url.push_str(&call.parameters);
        }
        let mut request = self
            .client
            .request(call.method.clone(), url)
            .headers(headers);
        if in_body {
            request = request
                .header(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded"),
                )
                .body(call.parameters.to_string());
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.silence(call, &error))?;
        let status = response.status();
        let reason = reason_phrase(&response);
        let json = is_json(response.headers());
        tracing::debug!(
            call = call.label(),
            status = status.as_u16(),
            "Proxmox VE answered"
        );
        let body = self.body(call, response).await?;
        verdict(call, status, reason, json.then_some(body))
    }

    async fn body(&self, call: &Call, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.silence(call, &error))?
        {
            if body.len() + chunk.len() > REPLY_LIMIT {
                return Err(call.bad_reply(format!("longer than {REPLY_LIMIT} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What it means that no whole answer came.
    fn silence(&self, call: &Call, error: &reqwest::Error) -> Error {
        if error.is_builder() {
            return call.unsent(deepest(error), false);
        }
        if error.is_connect() {
            return if error.is_timeout() {
                let seconds = self.connect.as_secs_f32();
                call.unsent(format!("no connection within {seconds} s"), true)
            } else {
                call.unsent(deepest(error), !is_distrust(error))
            };
        }
        if error.is_timeout() {
            let seconds = self.request.as_secs_f32();
            return call.maybe_sent(format!("no whole answer within {seconds} s"));
        }
        match find::<hyper::Error>(error) {
            // hyper says "canceled" only of requests of which it had not written a byte.
            Some(hyper) if hyper.is_canceled() => call.unsent(deepest(error), true),
            Some(hyper) if hyper.is_parse() => call.bad_reply(deepest(error)),
            _ => call.maybe_sent(deepest(error)),
        }
    }
}

/// `body` is there when it was declared as JSON.
fn verdict(
    call: &Call,
    status: StatusCode,
    reason: String,
    body: Option<Vec<u8>>,
) -> Result<Vec<u8>, Error> {
    match status.as_u16() {
        200..=299 => body.ok_or_else(|| {
            call.bad_reply("not JSON: is this the address of a Proxmox VE API (port 8006)?")
        }),
        // pveproxy could not reach pvedaemon or the other node: no worker has seen the call.
        595 => Err(call.unsent(format!("595 {reason}"), true)),
        // pveproxy lost its worker or the other node half-way; 502 to 504 are a foreign proxy's words for it.
        code @ (502..=504 | 596..=599) => Err(call.maybe_sent(format!("{code} {reason}"))),
        code @ 400..=999 => Err(refusal(code, reason, body)),
        code => Err(call.bad_reply(format!(
            "{code} {reason}: is this the address of a Proxmox VE API (port 8006)?"
        ))),
    }
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    errors: Option<BTreeMap<String, serde_json::Value>>,
}

/// Proxmox's own words: `message` (since 8.3), else the reason phrase, which older ones and the HTTP layer use alone.
fn refusal(status: u16, phrase: String, body: Option<Vec<u8>>) -> Error {
    let said = body.and_then(|body| serde_json::from_slice::<Refusal>(&body).ok());
    let (message, errors) = said.map_or((None, None), |said| (said.message, said.errors));
    let reason = message
        .map(|text| one_line(&text))
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| one_line(&phrase));
    let errors = errors.unwrap_or_default().into_iter().map(|(name, text)| {
        let text = match text {
            serde_json::Value::String(text) => one_line(&text),
            other => other.to_string(),
        };
        (name, text)
    });
    Error::Refused {
        status,
        reason,
        errors: errors.collect(),
    }
}

/// Perl's texts end with a newline and nested ones hold several.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    // "Permission check failed (URI … ticket.\n)" breaks inside its brackets.
    lines.join(" ").replace(" )", ")")
}

/// hyper keeps only phrases that differ from the usual one, and empties those with bytes beyond ASCII.
fn reason_phrase(response: &Response) -> String {
    let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
    phrase
        .map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned())
        .filter(|phrase| !phrase.trim().is_empty())
        .unwrap_or_else(|| {
            let usual = response.status().canonical_reason();
            usual.unwrap_or("no reason given").to_owned()
        })
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The text of the innermost cause; the outer ones only say "error sending request".
fn deepest(error: &reqwest::Error) -> String {
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(own))) = tls_error(error)
    {
        return own.0.to_string();
    }
    let mut cause: &dyn StdError = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn find<T: StdError + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut cause: Option<&dyn StdError> = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        cause = inner.source();
    }
    None
}

/// Whether the certificate was the reason: waiting does not mend that.
fn is_distrust(error: &reqwest::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidCertificate(_)))
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    // An io::Error hides what it wraps from source(), also when that is another one.
    error
        .downcast_ref()
        .or_else(|| {
            let io = error.downcast_ref::<std::io::Error>()?;
            tls_error(io.get_ref()?)
        })
        .or_else(|| tls_error(error.source()?))
}
