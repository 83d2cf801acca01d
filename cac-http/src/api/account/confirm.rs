//! Confirming the e-mail address of an account request, by the link that was mailed to it.

use cac_core::account_request as request;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use poem_openapi::payload::Html;

use super::{Outcome, Page, Tag, done};
use crate::auth::{Anyone, Told};
use crate::error::Result;
use crate::page;

pub(crate) struct Api;

const CONFIRMED: &str =
    "Your e-mail address is confirmed. An admin decides about your request and answers by e-mail.";

#[OpenApi]
impl Api {
    /// The page that a link to confirm an address leads to
    ///
    /// It only asks: programs that check the links of a mail open them, too.
    #[oai(
        path = "/account/confirm/:link",
        method = "get",
        operation_id = "account_confirm_page",
        tag = "Tag::Accounts"
    )]
    async fn account_confirm_page(&self, who: Anyone, link: Path<String>) -> Result<Page> {
        let row = request::by_confirmation(&who.core, &link.0).await?;
        Ok(Page::Page(Html(page::account::confirm(&row))))
    }

    /// Confirm the e-mail address of an account request
    ///
    /// The admins are told of the request then. The link works no more afterwards.
    #[oai(
        path = "/account/confirm/:link",
        method = "post",
        operation_id = "account_request_confirm",
        tag = "Tag::Accounts"
    )]
    async fn account_request_confirm(&self, who: Anyone, link: Path<String>) -> Result<Outcome> {
        if who.actor.is_none() {
            who.identity.tell(Told {
                origin: Some(who.origin.clone()),
                ..Told::default()
            });
        }
        request::confirm(&who.core, &link.0, &who.origin).await?;
        let answer = done(who.html, CONFIRMED, page::account::registered);
        Ok(Outcome::Done(answer))
    }
}
