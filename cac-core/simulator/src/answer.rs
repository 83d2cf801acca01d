//! What a call ends with: data, or one of the refusals that Proxmox VE knows. Not the bytes on the wire (see `server`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A successful result: the value for `data`, and what may stand beside it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) data: Value,
    /// Number of rows there are in all; lists of tasks and log lines carry it beside `data`.
    pub(crate) total: Option<usize>,
    /// Sent as plain text instead of the JSON envelope.
    pub(crate) text: Option<String>,
}

impl Output {
    pub(crate) fn with_total(data: Value, total: usize) -> Self {
        Self {
            data,
            total: (total > 0).then_some(total),
            text: None,
        }
    }
}

impl From<Value> for Output {
    fn from(data: Value) -> Self {
        Self {
            data,
            ..Self::default()
        }
    }
}

/// Parameter name to the text that says what is wrong with it.
pub(crate) type ParamErrors = BTreeMap<String, String>;

/// Why a call was refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// 401 without a body.
    Unauthenticated(&'static str),
    /// 401 of the login call, with a JSON body.
    LoginFailed,
    /// 400 `Parameter verification failed.`
    Params(ParamErrors),
    /// 403; the text goes into the brackets, none when it is empty.
    Forbidden(String),
    /// 500 with the text of the failure, without its newline.
    Failed(String),
    /// 501 for a path or method that does not exist.
    NotImplemented(String),
    /// Any status, the text is the reason phrase and the body.
    Plain(u16, String),
    /// Any status, the text is the reason phrase, no body.
    Bare(u16, String),
}

pub(crate) type Reply = Result<Output, Refusal>;

impl Refusal {
    pub(crate) fn param(name: &str, text: impl Into<String>) -> Self {
        Self::Params(BTreeMap::from([(name.to_owned(), text.into())]))
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::Forbidden(detail.into())
    }

    /// Status, reason phrase and JSON body (or plain text) of the refusal.
    pub(crate) fn parts(self) -> (u16, String, Option<Result<Value, String>>) {
        let envelope = |message: &str| json!({"data": null, "message": format!("{message}\n")});
        match self {
            Self::Unauthenticated(reason) => (401, reason.to_owned(), None),
            Self::LoginFailed => {
                let text = "authentication failure";
                (401, text.to_owned(), Some(Ok(envelope(text))))
            }
            Self::Params(errors) => {
                let text = "Parameter verification failed.";
                let mut body = envelope(text);
                body["errors"] = json!(errors);
                (400, text.to_owned(), Some(Ok(body)))
            }
            Self::Forbidden(detail) => {
                let text = if detail.is_empty() {
                    "Permission check failed".to_owned()
                } else {
                    format!("Permission check failed ({detail})")
                };
                (403, text.clone(), Some(Ok(envelope(&text))))
            }
            Self::Failed(text) => (500, text.clone(), Some(Ok(envelope(&text)))),
            Self::NotImplemented(text) => {
                // This one text has no newline at its end, unlike all others.
                let body = json!({"data": null, "message": text});
                (501, text, Some(Ok(body)))
            }
            Self::Plain(status, text) => (status, text.clone(), Some(Err(text))),
            Self::Bare(status, text) => (status, text, None),
        }
    }
}
