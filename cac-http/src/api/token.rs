//! API tokens and browser sessions: what people prove themselves with.

use cac_core::credential::Credential;
use cac_core::session;
use cac_core::token::{self, NewToken};
use chrono::{DateTime, Utc};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::auth::{Signed, set_cookie};
use crate::error::Result;
use crate::input::Input;
use crate::origin;

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
    /// `containers:read`, `containers:write` (includes reading), `containers:register`, `jobs`, `nginx:read`, `nginx:report`, or
    /// `admin` for everything that the owner may do.
    scopes: Vec<String>,
    /// Absent: it does not expire.
    expires: Option<DateTime<Utc>>,
    /// To the minute; absent: never.
    last_used_at: Option<DateTime<Utc>>,
    /// Whether its owner may not sign in any more, so that it is good for nothing.
    suspended: bool,
    created_at: DateTime<Utc>,
}

impl From<token::Token> for Token {
    fn from(row: token::Token) -> Self {
        Self {
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
    /// Left out: it does not expire.
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
}

#[derive(ApiResponse)]
pub(crate) enum Made {
    /// The token
    #[oai(status = 201)]
    Token(Json<NewlyMade>, #[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum List {
    /// The tokens
    #[oai(status = 200)]
    Tokens(Json<Vec<Token>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum Sessions {
    /// The sessions, oldest first
    #[oai(status = 200)]
    Sessions(Json<Vec<Session>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum Ended {
    /// It is worth nothing any more
    #[oai(status = 204)]
    Gone,
}

#[derive(ApiResponse)]
pub(crate) enum AllEnded {
    /// They are worth nothing any more, this one included
    #[oai(status = 204)]
    Gone(#[oai(header = "Set-Cookie")] String),
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
        let page = super::page(limit.0, offset.0);
        let (rows, total) = token::list(&who.core, &who.actor, all, page).await?;
        let total = u64::try_from(total).unwrap_or_default();
        Ok(List::Tokens(
            Json(rows.into_iter().map(Token::from).collect()),
            total,
        ))
    }

    /// Make a token
    ///
    /// It may never do more than its owner, and a token that makes another one gives no scope that it has not itself.
    #[oai(
        path = "/tokens",
        method = "post",
        operation_id = "token_create",
        tag = "Tag::Login"
    )]
    async fn token_create(&self, who: Signed, body: Input<TokenRequest>) -> Result<Made> {
        let asked = body.read()?;
        let new = NewToken {
            name: asked.name.unwrap_or_default(),
            scopes: asked.scopes.unwrap_or_default(),
            expires: asked.expires,
        };
        let made = token::create(&who.core, &who.actor, who.token.as_ref(), &new).await?;
        let (row, token) = (Token::from(made.0), made.1);
        let at = origin::absolute(&who.core.config, &format!("/tokens/{}", row.id));
        Ok(Made::Token(Json(NewlyMade { token, row }), at))
    }

    /// Delete a token
    #[oai(
        path = "/tokens/:id",
        method = "delete",
        operation_id = "token_delete",
        tag = "Tag::Login"
    )]
    async fn token_delete(&self, who: Signed, id: Path<i64>) -> Result<Ended> {
        token::delete(&who.core, &who.actor, id.0).await?;
        Ok(Ended::Gone)
    }

    /// List one's own sessions
    #[oai(
        path = "/sessions",
        method = "get",
        operation_id = "session_list",
        tag = "Tag::Login"
    )]
    async fn session_list(&self, who: Signed) -> Result<Sessions> {
        let current = match &who.credential {
            Credential::Session(id) => Some(id.as_str()),
            Credential::Token(_) => None,
        };
        let rows = session::list(&who.core, &who.actor, current).await?;
        let total = rows.len() as u64;
        let shown = rows.into_iter().map(|row| Session {
            id: row.id,
            expires: row.expires,
            created_at: row.created_at,
            current: row.current,
        });
        Ok(Sessions::Sessions(Json(shown.collect()), total))
    }

    /// Sign out everywhere
    ///
    /// Ends all sessions of one's own; tokens stay.
    #[oai(
        path = "/sessions",
        method = "delete",
        operation_id = "session_delete_all",
        tag = "Tag::Login"
    )]
    async fn session_delete_all(&self, who: Signed) -> Result<AllEnded> {
        session::delete_all(&who.core, &who.actor.username).await?;
        Ok(AllEnded::Gone(set_cookie(&who.core.config, None)))
    }

    /// End one of one's own sessions
    #[oai(
        path = "/sessions/:id",
        method = "delete",
        operation_id = "session_delete",
        tag = "Tag::Login"
    )]
    async fn session_delete(&self, who: Signed, id: Path<String>) -> Result<Ended> {
        session::delete_listed(&who.core, &who.actor, &id.0).await?;
        Ok(Ended::Gone)
    }
}
