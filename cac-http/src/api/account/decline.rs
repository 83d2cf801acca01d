//! Declining many account requests at once.

use cac_core::account_request::{self as request, Refusal, Selection};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::auth::Signed;
use crate::error::Result;
use crate::input::Input;
use crate::page;

pub(crate) struct Api;

/// Which requests are declined, and what the people are told.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct DeclineAllRequest {
    /// Ids of requests, 1,000 at most.
    ids: Option<Vec<i64>>,
    /// All that wait and came from this network, as the list has it.
    network: Option<String>,
    /// Required, unless without mails. Each person reads it.
    answer: Option<String>,
    /// Whether nobody is told by mail. Addresses that were never confirmed get no mail in any case.
    without_mail: Option<bool>,
}

/// What became of each.
#[derive(Object)]
pub(crate) struct DeclinedRequests {
    /// The ids of those that are declined now.
    declined: Vec<i64>,
    /// The ids of those that there are not, or that were declined or done before.
    skipped: Vec<i64>,
}

#[derive(ApiResponse)]
pub(crate) enum Outcome {
    /// What became of each
    #[oai(status = 200)]
    Done(Json<DeclinedRequests>),
    /// For browsers: to the list
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[OpenApi]
impl Api {
    /// Decline many account requests
    ///
    /// As `POST /account-requests/{id}/decline` does, for those of `ids` and those of `network`.
    #[oai(
        path = "/account-requests/decline",
        method = "post",
        operation_id = "account_request_decline_all",
        tag = "Tag::Accounts"
    )]
    async fn account_request_decline_all(
        &self,
        who: Signed,
        body: Input<DeclineAllRequest>,
    ) -> Result<Outcome> {
        who.admin()?;
        let decline = async {
            let asked = body.read()?;
            let selection = Selection {
                ids: asked.ids.unwrap_or_default(),
                network: asked.network.filter(|network| !network.trim().is_empty()),
            };
            let refusal = Refusal {
                answer: asked.answer.unwrap_or_default(),
                without_mail: asked.without_mail.unwrap_or(false),
            };
            Result::Ok(request::decline_all(&who.core, &who.actor, &selection, &refusal).await?)
        };
        match decline.await {
            Ok(_) if who.html => Ok(Outcome::There(
                "/account-requests?status=pending".to_owned(),
            )),
            Ok(outcome) => Ok(Outcome::Done(Json(DeclinedRequests {
                declined: outcome.declined,
                skipped: outcome.skipped,
            }))),
            Err(error) if who.html => {
                let sent = crate::input::shown(&body.raw);
                let refused = (&sent, &error.0.problem);
                let page = page::account::list_again(&who.core, &who.actor, refused).await?;
                Err(error.with_page(page))
            }
            Err(error) => Err(error),
        }
    }
}
