//! The users that own something: how their accounts stand, and whose a name is.

use cac_core::Error;
use cac_core::user::{self, Person};
use chrono::{DateTime, Utc};
use poem_openapi::param::Path;
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::accept::Both;
use crate::auth::Signed;
use crate::error::Result;
use crate::input::Input;
use crate::page;

pub(crate) struct Api;

/// A user or former owner, with what they own.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct User {
    /// A former owner is called `former owner NAME`.
    username: String,
    /// `active`, `disabled` (or expired), `missing` (Proxmox VE knows no such user), `returned` (was missing and exists again: it waits
    /// for your decision), `former` (a former owner) or `unknown` (not looked up yet).
    state: String,
    /// Since when the account was missing.
    missing_since: Option<DateTime<Utc>>,
    /// The last definite answer of Proxmox VE.
    checked_at: Option<DateTime<Utc>>,
    containers: i64,
    tokens: i64,
    /// Browsers that are signed in.
    sessions: i64,
}

impl From<user::User> for User {
    fn from(user: user::User) -> Self {
        Self {
            username: user.username,
            state: user.state.name().to_owned(),
            missing_since: user.missing_since,
            checked_at: user.checked_at,
            containers: user.containers,
            tokens: user.tokens,
            sessions: user.sessions,
        }
    }
}

/// Whose a name is.
#[derive(Object)]
pub(crate) struct UserRequest {
    /// Required. `same`: the person who had the name before; suspended tokens work again, and a former owner's containers come back.
    /// `new`: another person, or nobody; tokens are deleted, and everything else goes to a former owner.
    person: Option<String>,
}

#[derive(ApiResponse)]
pub(crate) enum All {
    /// The users, by name
    #[oai(status = 200)]
    Users(Both<Vec<User>>, #[oai(header = "X-Total-Count")] u64),
}

#[derive(ApiResponse)]
pub(crate) enum One {
    /// The user
    #[oai(status = 200)]
    User(Json<User>),
}

#[derive(ApiResponse)]
pub(crate) enum Changed {
    /// The user as it is now; after `new` the former owner
    #[oai(status = 200)]
    User(Json<User>),
    /// For browsers: to the users
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[OpenApi]
impl Api {
    /// List the users
    ///
    /// Everyone who owns something or has signed in, and former owners; for admins.
    #[oai(
        path = "/users",
        method = "get",
        operation_id = "user_list",
        tag = "Tag::Accounts"
    )]
    async fn user_list(&self, who: Signed) -> Result<All> {
        let all = user::list(&who.core, &who.actor).await?;
        let total = all.len() as u64;
        let shown = if who.html {
            Both::Html(Html(page::user::list(&who.actor, &all, None)))
        } else {
            Both::Json(Json(all.into_iter().map(User::from).collect()))
        };
        Ok(All::Users(shown, total))
    }

    /// One user
    ///
    /// For admins.
    #[oai(
        path = "/users/:username",
        method = "get",
        operation_id = "user_find",
        tag = "Tag::Accounts"
    )]
    async fn user_find(&self, who: Signed, username: Path<String>) -> Result<One> {
        let user = user::find(&who.core, &who.actor, &username.0).await?;
        Ok(One::User(Json(user.into())))
    }

    /// Decide whose a name is
    ///
    /// For admins. An account that was missing in Proxmox VE and exists again stays suspended until then: it may belong to another
    /// person. A single container is given to another user by `PUT /containers/{id}`.
    #[oai(
        path = "/users/:username",
        method = "put",
        operation_id = "user_update",
        tag = "Tag::Accounts"
    )]
    async fn user_update(
        &self,
        who: Signed,
        username: Path<String>,
        body: Input<UserRequest>,
    ) -> Result<Changed> {
        who.admin()?;
        who.must_be_proved().await?;
        let update = async {
            let person = match body.read()?.person.as_deref() {
                Some("same") => Person::Same,
                Some("new") => Person::New,
                _ => return Err(Error::invalid("person", "Give `same` or `new`.").into()),
            };
            Result::Ok(user::update(&who.core, &who.actor, &username.0, person).await?)
        };
        match update.await {
            Ok(_) if who.html => Ok(Changed::There("/users".to_owned())),
            Ok(user) => Ok(Changed::User(Json(user.into()))),
            Err(error) if who.html => {
                let all = user::list(&who.core, &who.actor).await?;
                let page = page::user::list(&who.actor, &all, Some(&error.0.problem));
                Err(error.with_page(page))
            }
            Err(error) => Err(error),
        }
    }
}
