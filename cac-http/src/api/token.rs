//! API tokens and browser sessions: what people prove themselves with.

use cac_core::credential::Credential;
use cac_core::session;
use cac_core::token::{self, NewToken};
use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::accept::Both;
use crate::auth::{Signed, set_cookie};
use crate::error::{ApiError, Result};
use crate::input::{self, Input};
use crate::page::token::Told;
use crate::{origin, page};

pub(crate) struct Api;

/// An API token, without what proves it.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Token {
    id: i64,
    /// The owner.
    username: String,
    /// What the owner calls it.
    name: String,
    /// Its first characters, to tell it apart.
    beginning: String,
    /// `containers:read`, `containers:write` (includes reading), `containers:register` (only while the owner is an admin), `jobs`,
    /// `nginx:read`, `nginx:report`, or `admin` for everything that the owner may do.
    scopes: Vec<String>,
    /// Absent: it has no end yet, and gets one.
    expires: Option<DateTime<Utc>>,
    /// Whether it expires within 30 days, or is in the last third of a shorter lifetime: create a new one in time.
    expires_soon: bool,
    /// To the minute; absent: never.
    last_used_at: Option<DateTime<Utc>>,
    /// Whether its owner may not sign in any more, so that it is good for nothing.
    suspended: bool,
    created_at: DateTime<Utc>,
}

impl Token {
    fn of(row: token::Token, now: DateTime<Utc>) -> Self {
        Self {
            expires_soon: row.expires_soon(now),
            id: row.id,
            username: row.username,
            name: row.name,
            beginning: row.beginning,
            scopes: row
                .scopes
                .iter()
                .map(|scope| scope.name().to_owned())
                .collect(),
            expires: row.expires,
            last_used_at: row.last_used_at,
            suspended: row.suspended,
            created_at: row.created_at,
        }
    }
}

/// A token that is to be made.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct TokenRequest {
    /// Required. 1 to 64 characters, to know it by.
    name: Option<String>,
    /// Required. What it may be used for.
    scopes: Option<Vec<String>>,
    /// At most `TOKEN_MAX_DAYS` from now; left out: that long.
    expires: Option<DateTime<Utc>>,
}

/// A new token with its text, which is shown only here.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct NewlyMade {
    /// To be sent as `Authorization: Bearer TOKEN`.
    token: String,
    #[oai(flatten)]
    row: Token,
}

/// A browser's session.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct Session {
    /// Names it; opens nothing.
    id: String,
    expires: DateTime<Utc>,
    created_at: DateTime<Utc>,
    /// Whether it is the one that asks.
    current: bool,
    /// Where it was signed in from, if that is known.
    address: Option<String>,
    /// What the program that signed in said of itself.
    user_agent: Option<String>,
}

#[derive(ApiResponse)]
pub(crate) enum Made {
    /// The token
    #[oai(status = 201)]
    Token(Both<NewlyMade>, #[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// The tokens
    #[oai(status = 200)]
    Tokens(Both<Vec<Token>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum Sessions {
    /// The sessions, oldest first
    #[oai(status = 200)]
    Sessions(Both<Vec<Session>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum Ended {
    /// It is worth nothing any more
    #[oai(status = 204)]
    Gone,
    /// For browsers: back to the list, or to the login
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum AllEnded {
    /// They are worth nothing any more, this one included
    #[oai(status = 204)]
    Gone(#[oai(header = "Set-Cookie")] String),
    /// For browsers: to the login
    #[oai(status = 303)]
    There(
        #[oai(header = "Set-Cookie")] String,
        #[oai(header = "Location")] String,
    ),
}

#[OpenApi]
impl Api {
    /// List the tokens
    #[oai(
        path = "/tokens",
        method = "get",
        operation_id = "token_list",
        tag = "Tag::Login"
    )]
    async fn token_list(
        &self,
        who: Signed,
        /// Everyone's, for admins.
        all: Query<Option<bool>>,
        /// At most 1000.
        limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
    ) -> Result<List> {
        let all = all.0.unwrap_or(false);
        if all {
            who.admin()?;
        }
        let limit = limit.0.or(who.html.then_some(page::ROWS));
        let part = super::page(limit, offset.0);
        if who.html {
            let view = page::token::View { all, part };
            let (page, total) =
                page::token::list(&who.core, &who.actor, &view, Told::default()).await?;
            return Ok(List::Tokens(Both::Html(Html(page)), total));
        }
        let (rows, total) = token::list(&who.core, &who.actor, all, part).await?;
        let total = u64::try_from(total).unwrap_or_default();
        let now = who.core.clock.now();
        let rows = rows.into_iter().map(|row| Token::of(row, now)).collect();
        Ok(List::Tokens(Both::Json(Json(rows)), total))
    }

    /// Make a token
    ///
    /// It may never do more than its owner, and a token that makes another one gives no scope that it has not itself. For `admin`,
    /// `containers:register` and those of proxies a session's password must have been given lately (`POST /reauthenticate`).
    #[oai(
        path = "/tokens",
        method = "post",
        operation_id = "token_create",
        tag = "Tag::Login"
    )]
    async fn token_create(&self, who: Signed, body: Input<TokenRequest>) -> Result<Made> {
        let (row, token) = match make(&who, &body).await {
            Ok(made) => made,
            Err(error) if who.html => {
                let sent = input::shown(&body.raw);
                let told = Told {
                    refused: Some((&sent, &error.0.problem)),
                    ..Told::default()
                };
                let page = own_page(&who, told).await?;
                return Err(error.with_page(page));
            }
            Err(error) => return Err(error),
        };
        let at = origin::absolute(&who.core.config, &format!("/tokens/{}", row.id));
        let shown = if who.html {
            let told = Told {
                made: Some((&row, &token)),
                ..Told::default()
            };
            Both::Html(Html(own_page(&who, told).await?))
        } else {
            let row = Token::of(row, who.core.clock.now());
            Both::Json(Json(NewlyMade { token, row }))
        };
        Ok(Made::Token(shown, at))
    }

    /// Delete a token
    #[oai(
        path = "/tokens/:id",
        method = "delete",
        operation_id = "token_delete",
        tag = "Tag::Login"
    )]
    async fn token_delete(&self, who: Signed, id: Path<i64>) -> Result<Ended> {
        let token = token::delete(&who.core, &who.actor, id.0).await?;
        if !who.html {
            return Ok(Ended::Gone);
        }
        let own = token.username == who.actor.username;
        let list = if own { "/tokens" } else { "/tokens?all=true" };
        Ok(Ended::There(list.to_owned()))
    }

    /// List one's own sessions
    #[oai(
        path = "/sessions",
        method = "get",
        operation_id = "session_list",
        tag = "Tag::Login"
    )]
    async fn session_list(&self, who: Signed) -> Result<Sessions> {
        let rows = session::list(&who.core, &who.actor, current(&who)).await?;
        let total = rows.len() as u64;
        if who.html {
            let page = page::session::list(&who.actor, &rows);
            return Ok(Sessions::Sessions(Both::Html(Html(page)), total));
        }
        let shown = rows.into_iter().map(|row| Session {
            id: row.id,
            expires: row.expires,
            created_at: row.created_at,
            current: row.current,
            address: row.client.address.map(|address| address.to_string()),
            user_agent: row.client.user_agent,
        });
        let shown = Both::Json(Json(shown.collect()));
        Ok(Sessions::Sessions(shown, total))
    }

    /// Sign out everywhere
    ///
    /// Ends all sessions of one's own, and forgets the devices that one has signed in from. With `tokens` it revokes all API tokens, too.
    #[oai(
        path = "/sessions",
        method = "delete",
        operation_id = "session_delete_all",
        tag = "Tag::Login"
    )]
    async fn session_delete_all(
        &self,
        who: Signed,
        /// Whether one's own API tokens are revoked as well.
        tokens: Query<Option<bool>>,
    ) -> Result<AllEnded> {
        if tokens.0.unwrap_or(false) {
            token::delete_all(&who.core, &who.actor).await?;
        }
        session::delete_all(&who.core, &who.actor).await?;
        let cookie = set_cookie(&who.core.config, None);
        if who.html {
            return Ok(AllEnded::There(cookie, "/login".to_owned()));
        }
        Ok(AllEnded::Gone(cookie))
    }

    /// End one of one's own sessions
    #[oai(
        path = "/sessions/:id",
        method = "delete",
        operation_id = "session_delete",
        tag = "Tag::Login"
    )]
    async fn session_delete(&self, who: Signed, id: Path<String>) -> Result<Ended> {
        let rows = match who.html {
            true => session::list(&who.core, &who.actor, current(&who)).await?,
            false => Vec::new(),
        };
        session::delete_listed(&who.core, &who.actor, &id.0).await?;
        if !who.html {
            return Ok(Ended::Gone);
        }
        let own = rows.iter().any(|row| row.current && row.id == id.0);
        let next = if own { "/login" } else { "/sessions" };
        Ok(Ended::There(next.to_owned()))
    }
}

/// The id of the session that asks.
fn current(who: &Signed) -> Option<&str> {
    match &who.credential {
        Credential::Session(id) => Some(id),
        Credential::Token(_) => None,
    }
}

async fn make(who: &Signed, body: &Input<TokenRequest>) -> Result<(token::Token, String)> {
    let asked = body.read()?;
    if token::needs_proof(asked.scopes.as_deref().unwrap_or_default()) {
        who.must_be_proved().await?;
    }
    let new = NewToken {
        name: asked.name.unwrap_or_default(),
        scopes: asked.scopes.unwrap_or_default(),
        expires: asked.expires,
    };
    let made = token::create(&who.core, &who.actor, who.token.as_ref(), &new).await;
    made.map_err(ApiError::from)
}

/// The page of one's own tokens, after a form was sent.
async fn own_page(who: &Signed, told: Told<'_>) -> Result<String> {
    let view = page::token::View {
        all: false,
        part: super::page(Some(page::ROWS), None),
    };
    Ok(page::token::list(&who.core, &who.actor, &view, told)
        .await?
        .0)
}
