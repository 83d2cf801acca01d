//! How much each user may have.

use cac_core::quota::{self, Limits};
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{Html, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;
use crate::accept::Both;
use crate::auth::Signed;
use crate::error::Result;
use crate::input::Input;
use crate::page;

pub(crate) struct Api;

/// Amounts; absent ones do not limit.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(crate) struct Amounts {
    containers: Option<i64>,
    cores: Option<i64>,
    /// MiB
    memory: Option<i64>,
    /// GiB
    disk: Option<i64>,
    /// Of all containers.
    services: Option<i64>,
    /// External ports of all containers, tcp and udp.
    ports: Option<i64>,
}

impl From<Limits> for Amounts {
    fn from(limits: Limits) -> Self {
        Self {
            containers: limits.containers.map(i64::from),
            cores: limits.cores.map(i64::from),
            memory: limits.memory.map(i64::from),
            disk: limits.disk.map(i64::from),
            services: limits.services.map(i64::from),
            ports: limits.ports.map(i64::from),
        }
    }
}

/// A user's limits, and what is used and left of them.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct Quota {
    username: String,
    limits: Amounts,
    /// What an admin set for this user; the rest is configured for everyone.
    own_limits: Amounts,
    /// What is asked for counts, too.
    used: Amounts,
    remaining: Amounts,
}

impl From<quota::Quota> for Quota {
    fn from(quota: quota::Quota) -> Self {
        let used = quota.used;
        let left = |limit: Option<u32>, used: i64| Some((i64::from(limit?) - used).max(0));
        Self {
            remaining: Amounts {
                containers: left(quota.limits.containers, used.containers),
                cores: left(quota.limits.cores, used.cores),
                memory: left(quota.limits.memory, used.memory),
                disk: left(quota.limits.disk, used.disk),
                services: left(quota.limits.services, used.services),
                ports: left(quota.limits.ports, used.ports),
            },
            username: quota.username,
            limits: quota.limits.into(),
            own_limits: quota.own.into(),
            used: Amounts {
                containers: Some(used.containers),
                cores: Some(used.cores),
                memory: Some(used.memory),
                disk: Some(used.disk),
                services: Some(used.services),
                ports: Some(used.ports),
            },
        }
    }
}

/// A user's own limits; those that are left out are the configured ones.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(crate) struct QuotaRequest {
    containers: Option<i64>,
    cores: Option<i64>,
    /// MiB
    memory: Option<i64>,
    /// GiB
    disk: Option<i64>,
    /// Of all containers.
    services: Option<i64>,
    /// External ports of all containers, tcp and udp.
    ports: Option<i64>,
}

#[derive(ApiResponse)]
pub(crate) enum One {
    /// The quota
    #[oai(status = 200)]
    Quota(Json<Quota>),
}

#[derive(ApiResponse)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and moved once")]
pub(crate) enum Changed {
    /// The quota
    #[oai(status = 200)]
    Quota(Json<Quota>),
    /// For browsers: to the quotas
    #[oai(status = 303)]
    There(#[oai(header = "Location")] String),
}

#[derive(ApiResponse)]
pub(crate) enum All {
    /// The quotas, by user name
    #[oai(status = 200)]
    Quotas(Both<Vec<Quota>>, #[oai(header = "X-Total-Count")] u64),
}

#[OpenApi]
impl Api {
    /// One's own quota
    #[oai(
        path = "/quota",
        method = "get",
        operation_id = "quota_own",
        tag = "Tag::Quotas"
    )]
    async fn quota_own(&self, who: Signed) -> Result<One> {
        let quota = quota::find(&who.core, &who.actor, &who.actor.username).await?;
        Ok(One::Quota(Json(quota.into())))
    }

    /// List the quotas
    ///
    /// Of everyone who has a container or limits of their own; for admins.
    #[oai(
        path = "/quotas",
        method = "get",
        operation_id = "quota_list",
        tag = "Tag::Quotas"
    )]
    async fn quota_list(
        &self,
        who: Signed,
        /// Only this user's, who may have nothing yet.
        user: Query<Option<String>>,
    ) -> Result<All> {
        who.admin()?;
        let user = user.0.as_deref();
        let all = match user {
            Some(user) => vec![quota::find(&who.core, &who.actor, user).await?],
            None => quota::list(&who.core, &who.actor).await?,
        };
        let total = all.len() as u64;
        let shown = if who.html {
            Both::Html(Html(page::quota::list(&who.actor, &all, user, None)))
        } else {
            Both::Json(Json(all.into_iter().map(Quota::from).collect()))
        };
        Ok(All::Quotas(shown, total))
    }

    /// A user's quota
    #[oai(
        path = "/quotas/:username",
        method = "get",
        operation_id = "quota_find",
        tag = "Tag::Quotas"
    )]
    async fn quota_find(&self, who: Signed, username: Path<String>) -> Result<One> {
        let quota = quota::find(&who.core, &who.actor, &username.0).await?;
        Ok(One::Quota(Json(quota.into())))
    }

    /// Set a user's limits
    ///
    /// For admins. What is there already stays, also where it is more than the new limit.
    #[oai(
        path = "/quotas/:username",
        method = "put",
        operation_id = "quota_update",
        tag = "Tag::Quotas"
    )]
    async fn quota_update(
        &self,
        who: Signed,
        username: Path<String>,
        body: Input<QuotaRequest>,
    ) -> Result<Changed> {
        who.admin()?;
        match set(&who, &username.0, &body).await {
            Ok(_) if who.html => Ok(Changed::There("/quotas".to_owned())),
            Ok(quota) => Ok(Changed::Quota(Json(quota.into()))),
            Err(error) if who.html => {
                let user = username.0.as_str();
                let rows = [quota::find(&who.core, &who.actor, user).await?];
                let problem = Some(&error.0.problem);
                let page = page::quota::list(&who.actor, &rows, Some(user), problem);
                Err(error.with_page(page))
            }
            Err(error) => Err(error),
        }
    }
}

async fn set(who: &Signed, username: &str, body: &Input<QuotaRequest>) -> Result<quota::Quota> {
    let asked = body.read()?;
    let mut fields = cac_core::error::Fields::default();
    let mut limit = |field, value: Option<i64>| {
        let limit = u32::try_from(value?).ok();
        if limit.is_none() {
            fields.add(field, "Give a whole number from 0, or nothing.");
        }
        limit
    };
    let limits = Limits {
        containers: limit("containers", asked.containers),
        cores: limit("cores", asked.cores),
        memory: limit("memory", asked.memory),
        disk: limit("disk", asked.disk),
        services: limit("services", asked.services),
        ports: limit("ports", asked.ports),
    };
    fields.into_result()?;
    Ok(quota::set(&who.core, &who.actor, username, limits).await?)
}
