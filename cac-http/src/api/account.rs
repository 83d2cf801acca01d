//! Account requests: asking, deciding, and the link by which the person chooses a password.

use std::collections::BTreeMap;

use cac_core::account_request::{
    self as request, AccountRequest, NewAccountRequest, Received, Refusal,
};
use cac_core::pve::Secret;
use cac_core::{mail, user};
use chrono::{DateTime, Utc};
use poem::http::StatusCode;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::accept::Both;
use crate::auth::{Anyone, Signed, Told};
use crate::error::{ApiError, Result};
use crate::input::{Input, shown};
use crate::page;

pub(crate) mod confirm;
pub(crate) mod decline;

pub(crate) struct Api;

const STORED: &str = "Your request is stored. An admin answers by e-mail.";
const MAILED: &str = "Your request is stored. Follow the link in the mail that was sent to you; an admin decides after that.";

/// What somebody asks for.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct RegisterRequest {
    /// Required, or `firstName` and `lastName`.
    name: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    /// Required. The answer goes there.
    email: Option<String>,
    /// Required. The user name that is asked for.
    username: Option<String>,
    /// Required. What the account is needed for.
    reason: Option<String>,
    /// When the account is no longer needed; becomes a part of the reason.
    conclusion_date: Option<String>,
}

impl From<RegisterRequest> for NewAccountRequest {
    fn from(asked: RegisterRequest) -> Self {
        let text = |text: Option<String>| text.unwrap_or_default().trim().to_owned();
        let (first, last) = (text(asked.first_name), text(asked.last_name));
        let name = match text(asked.name) {
            name if name.is_empty() => format!("{first} {last}").trim().to_owned(),
            name => name,
        };
        let (mut reason, until) = (text(asked.reason), text(asked.conclusion_date));
        if !until.is_empty() && !reason.is_empty() {
            reason = format!("{reason}\n(until {until})");
        }
        Self {
            name,
            email: text(asked.email),
            username: text(asked.username),
            reason,
        }
    }
}

/// That it worked.
#[derive(Object)]
pub(crate) struct Done {
    success: bool,
    message: String,
}

/// Somebody's request.
#[derive(Object)]
#[oai(
    rename = "AccountRequest",
    rename_all = "camelCase",
    skip_serializing_if_is_none
)]
pub(crate) struct Request {
    id: i64,
    name: String,
    email: String,
    username: String,
    reason: String,
    /// `pending`, `declined`, `approved` (a link was sent), `done` (the user exists), or `unconfirmed`: the person has not followed the
    /// link yet that was mailed to the address.
    status: String,
    /// Whether the person has proved that the e-mail address is theirs; without mail nobody can.
    email_confirmed: bool,
    /// The network that the request came from, such as `192.0.2.0/24`.
    network: Option<String>,
    decided_by: Option<String>,
    decided_at: Option<DateTime<Utc>>,
    /// Why it was declined.
    answer: Option<String>,
    created_at: DateTime<Utc>,
    /// Only in the answer to an approval where no mail can be sent: the link, to be handed over.
    link: Option<String>,
    /// What exists under the user name, while the request can be decided; absent when nothing does.
    existing: Option<NameUse>,
}

/// What exists under a user name.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct NameUse {
    containers: i64,
    tokens: i64,
    jobs: i64,
    /// Of a former owner of this name.
    former_containers: i64,
    /// How the account stands in Proxmox VE, as far as it was looked up: `active`, `disabled`, `missing` or `returned`.
    account: Option<String>,
}

impl From<&user::NameUse> for NameUse {
    fn from(existing: &user::NameUse) -> Self {
        Self {
            containers: existing.containers,
            tokens: existing.tokens,
            jobs: existing.jobs,
            former_containers: existing.former_containers,
            account: existing.account.map(|state| state.name().to_owned()),
        }
    }
}

impl Request {
    fn new(row: AccountRequest, existing: Option<&user::NameUse>) -> Self {
        Self {
            existing: existing.map(NameUse::from),
            id: row.id,
            name: row.name,
            email: row.email,
            username: row.username,
            reason: row.reason,
            status: row.status,
            email_confirmed: row.confirmed_at.is_some(),
            network: row.network,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            answer: row.answer,
            created_at: row.created_at,
            link: None,
        }
    }
}

/// A request with what exists under its name.
async fn with_use(who: &Signed, row: AccountRequest) -> Result<Request> {
    let found = request::name_use(&who.core, &who.actor, std::slice::from_ref(&row)).await?;
    let existing = found.get(&row.username);
    Ok(Request::new(row, existing))
}

/// The page of a request, with what exists under its name.
async fn page_of(
    who: &Signed,
    row: &AccountRequest,
    link: Option<&str>,
    refused: Option<page::Refused<'_>>,
) -> Result<String> {
    let found = request::name_use(&who.core, &who.actor, std::slice::from_ref(row)).await?;
    let existing = found.get(&row.username);
    Ok(page::account::one(&who.actor, row, existing, link, refused))
}

/// Why a request is declined.
#[derive(Object)]
#[oai(rename = "DeclineRequest", rename_all = "camelCase")]
pub(crate) struct Answer {
    /// Required, unless without a mail. The person reads it.
    answer: Option<String>,
    /// Whether the person is not told by mail.
    without_mail: Option<bool>,
}

impl From<Answer> for Refusal {
    fn from(asked: Answer) -> Self {
        Self {
            answer: asked.answer.unwrap_or_default(),
            without_mail: asked.without_mail.unwrap_or(false),
        }
    }
}

/// The password that the person chose.
#[derive(Object)]
#[oai(rename = "PasswordRequest")]
pub(crate) struct Password {
    /// Required. 8 to 64 characters; goes to Proxmox VE and is not kept.
    password: Option<String>,
}

#[derive(ApiResponse)]
pub(crate) enum Page {
    /// The page
    #[oai(status = 200)]
    Page(Html<String>),
}

#[derive(ApiResponse)]
pub(crate) enum Outcome {
    /// It is stored
    #[oai(status = 200)]
    Done(Both<Done>),
}

#[derive(ApiResponse)]
pub(crate) enum Made {
    /// The user exists now
    #[oai(status = 201)]
    Done(Both<Done>),
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// The requests
    #[oai(status = 200)]
    Requests(Both<Vec<Request>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum One {
    /// The request
    #[oai(status = 200)]
    Request(Both<Request>),
}

#[derive(ApiResponse)]
#[allow(
    clippy::large_enum_variant,
    reason = "an answer is made once and sent at once"
)]
pub(crate) enum Decided {
    /// The request
    #[oai(status = 200)]
    Request(Both<Request>),
    /// For browsers: to the request
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

fn done(html: bool, message: &str, page: impl FnOnce(&str) -> String) -> Both<Done> {
    if html {
        return Both::Html(Html(page(message)));
    }
    Both::Json(Json(Done {
        success: true,
        message: message.to_owned(),
    }))
}

#[OpenApi]
impl Api {
    /// The form that asks for an account
    #[oai(
        path = "/register",
        method = "get",
        operation_id = "account_request_page",
        tag = "Tag::Accounts"
    )]
    async fn account_request_page(&self) -> Result<Page> {
        let page = page::account::register(&std::collections::BTreeMap::new(), None);
        Ok(Page::Page(Html(page)))
    }

    /// Ask for an account
    ///
    /// It is stored. Where mail can be sent, the person gets a link to follow first; it is mailed to the admins after that, and removed
    /// after two days otherwise. Limited for each address and network (429).
    #[oai(
        path = "/register",
        method = "post",
        operation_id = "account_request_create",
        tag = "Tag::Accounts"
    )]
    async fn account_request_create(
        &self,
        who: Anyone,
        body: Input<RegisterRequest>,
    ) -> Result<Outcome> {
        // Whoever asks is mostly nobody yet; that somebody did is kept.
        if who.actor.is_none() {
            who.identity.tell(Told {
                origin: Some(who.origin.clone()),
                ..Told::default()
            });
        }
        let asked = async {
            let new = body.read_some()?.into();
            request::create(&who.core, &new, &who.origin)
                .await
                .map_err(ApiError::from)
        };
        match asked.await {
            Ok(received) => {
                let message = match received {
                    Received::Pending => STORED,
                    Received::Unconfirmed => MAILED,
                };
                let answer = done(who.html, message, page::account::registered);
                Ok(Outcome::Done(answer))
            }
            Err(error) if who.html => {
                let page = page::account::register(&shown(&body.raw), Some(&error.0.problem));
                Err(error.with_page(page))
            }
            Err(error) => Err(error),
        }
    }

    /// List the account requests
    #[oai(
        path = "/account-requests",
        method = "get",
        operation_id = "account_request_list",
        tag = "Tag::Accounts"
    )]
    async fn account_request_list(
        &self,
        who: Signed,
        /// `pending`, `declined`, `approved`, `done` or `unconfirmed`; left out: all but those that are unconfirmed.
        status: Query<Option<String>>,
        /// At most 1000.
        limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
    ) -> Result<List> {
        let page = super::page(limit.0, offset.0);
        let (rows, total) = request::list(&who.core, &who.actor, status.0.as_deref(), page).await?;
        let shown = if who.html {
            let status = status.0.as_deref();
            let page = page::account::list(&who.actor, &rows, total, status, page);
            Both::Html(Html(page))
        } else {
            let found = request::name_use(&who.core, &who.actor, &rows).await?;
            let shown = rows.into_iter().map(|row| {
                let existing = found.get(&row.username).copied();
                Request::new(row, existing.as_ref())
            });
            Both::Json(Json(shown.collect()))
        };
        let total = u64::try_from(total).unwrap_or_default();
        Ok(List::Requests(shown, total))
    }

    /// One account request
    #[oai(
        path = "/account-requests/:id",
        method = "get",
        operation_id = "account_request_find",
        tag = "Tag::Accounts"
    )]
    async fn account_request_find(&self, who: Signed, id: Path<i64>) -> Result<One> {
        let row = request::find(&who.core, &who.actor, id.0).await?;
        Ok(One::Request(if who.html {
            Both::Html(Html(page_of(&who, &row, None, None).await?))
        } else {
            Both::Json(Json(with_use(&who, row).await?))
        }))
    }

    /// Approve an account request
    ///
    /// The person gets a link by mail, which works once, and chooses a password there; the user is made in Proxmox VE at that moment.
    /// Approved again, a new link replaces the old one. Where containers, tokens or jobs exist under the name, or a former owner had it,
    /// the answer is 409 until `acceptExisting=true` says that the admin knows it. The new person gets none of that: it goes to the
    /// former owner when the password is chosen. A session's password must have been given lately (`POST /reauthenticate`).
    #[oai(
        path = "/account-requests/:id/approve",
        method = "post",
        operation_id = "account_request_approve",
        tag = "Tag::Accounts"
    )]
    async fn account_request_approve(
        &self,
        who: Signed,
        id: Path<i64>,
        /// That you know what exists under the name.
        #[oai(name = "acceptExisting")]
        accept_existing: Query<Option<bool>>,
    ) -> Result<Decided> {
        who.admin()?;
        who.must_be_proved().await?;
        let accepted = accept_existing.0.unwrap_or_default();
        match request::approve(&who.core, &who.actor, id.0, accepted).await {
            Ok((row, link)) if who.html => Ok(match link.as_deref() {
                // It is shown this once.
                Some(link) => {
                    let page = page_of(&who, &row, Some(link), None).await?;
                    Decided::Request(Both::Html(Html(page)))
                }
                None => Decided::There(format!("/account-requests/{}", id.0)),
            }),
            Ok((row, link)) => Ok(Decided::Request(Both::Json(Json(Request {
                link,
                ..with_use(&who, row).await?
            })))),
            Err(error) => Err(with_request(&who, id.0, BTreeMap::new(), error.into()).await),
        }
    }

    /// Decline an account request
    ///
    /// The person is told why by mail.
    #[oai(
        path = "/account-requests/:id/decline",
        method = "post",
        operation_id = "account_request_decline",
        tag = "Tag::Accounts"
    )]
    async fn account_request_decline(
        &self,
        who: Signed,
        id: Path<i64>,
        body: Input<Answer>,
    ) -> Result<Decided> {
        who.admin()?;
        let decline = async {
            let refusal = body.read()?.into();
            Result::Ok(request::decline(&who.core, &who.actor, id.0, &refusal).await?)
        };
        match decline.await {
            Ok(_) if who.html => Ok(Decided::There(format!("/account-requests/{}", id.0))),
            Ok(row) => Ok(Decided::Request(Both::Json(Json(Request::new(row, None))))),
            Err(error) => Err(with_request(&who, id.0, shown(&body.raw), error).await),
        }
    }

    /// The form that a link leads to
    #[oai(
        path = "/account/:link",
        method = "get",
        operation_id = "account_page",
        tag = "Tag::Accounts"
    )]
    async fn account_page(&self, who: Anyone, link: Path<String>) -> Result<Page> {
        let found = request::by_link(&who.core, &link.0).await?;
        Ok(Page::Page(Html(page::account::password(
            &found.username,
            None,
        ))))
    }

    /// Choose a password
    ///
    /// Makes the user in Proxmox VE. The link works no more afterwards.
    #[oai(
        path = "/account/:link",
        method = "post",
        operation_id = "account_create",
        tag = "Tag::Accounts"
    )]
    async fn account_create(
        &self,
        who: Anyone,
        link: Path<String>,
        body: Input<Password>,
    ) -> Result<Made> {
        let made = async {
            let password = Secret::new(body.read()?.password.unwrap_or_default());
            let redeemed = request::redeem(&who.core, &link.0, &password, &who.origin).await;
            redeemed.map_err(ApiError::from)
        };
        match made.await {
            Ok(row) => {
                who.identity.tell(Told {
                    username: Some(row.username.clone()),
                    origin: Some(who.origin.clone()),
                    ..Told::default()
                });
                let message = format!("Your account {} is ready.", row.username);
                Ok(Made::Done(done(who.html, &message, page::account::ready)))
            }
            Err(error) if who.html => match request::by_link(&who.core, &link.0).await {
                Ok(row) => {
                    let page = page::account::password(&row.username, Some(&error.0.problem));
                    Err(error.with_page(page))
                }
                Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Send a test mail
    ///
    /// To `MAIL_ADMIN`; for admins and from the machine itself, and not in production.
    #[oai(
        path = "/send-test-email",
        method = "get",
        operation_id = "mail_test",
        tag = "Tag::Accounts"
    )]
    async fn mail_test(&self, who: Anyone) -> Result<Outcome> {
        if who.core.config.environment == cac_core::config::Environment::Production {
            let text = "There is nothing at this address.";
            return Err(ApiError::new(StatusCode::NOT_FOUND, text));
        }
        if !who.source.is_here() {
            let actor = who.actor.as_ref().ok_or_else(ApiError::unauthenticated)?;
            actor.must_be_admin()?;
        }
        let to = mail::test(&who.core).await?;
        let message = format!("A test mail was sent to {}.", to.join(", "));
        Ok(Outcome::Done(Both::Json(Json(Done {
            success: true,
            message,
        }))))
    }
}

/// A refusal, with the request's page around it where a browser asked.
async fn with_request(
    who: &Signed,
    id: i64,
    sent: BTreeMap<String, String>,
    error: ApiError,
) -> ApiError {
    match request::find(&who.core, &who.actor, id).await {
        Ok(row) if who.html => {
            let refused = Some((&sent, &error.0.problem));
            match page_of(who, &row, None, refused).await {
                Ok(page) => error.with_page(page),
                Err(_) => error,
            }
        }
        _ => error,
    }
}
