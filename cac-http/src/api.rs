//! The operations, one file per noun; each is a thin layer over the library's function of the same name.

use poem_openapi::{OpenApiService, Tags};

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod container;
pub(crate) mod health;
pub(crate) mod import;
pub(crate) mod job;
pub(crate) mod life;
pub(crate) mod login;
pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod proxy;
pub(crate) mod quota;
pub(crate) mod reconcile;
pub(crate) mod service;
pub(crate) mod template;
pub(crate) mod token;
pub(crate) mod user;

/// The chapters of the specification.
#[derive(Tags)]
pub(crate) enum Tag {
    /// Signing in and out with Proxmox VE accounts
    Login,
    /// Asking for an account, and deciding about it
    Accounts,
    /// LXC containers and the services they offer
    Containers,
    /// How much each user may have
    Quotas,
    /// Durable work, its output and its event streams
    Jobs,
    /// Proxmox VE hosts, for admins
    Nodes,
    /// Who did what, for admins
    Audit,
    /// The configuration of reverse proxies, and what is live there
    Nginx,
    /// Liveness, readiness and metrics
    Health,
}

pub(crate) type Apis = (
    login::Api,
    token::Api,
    // A tuple has at most sixteen.
    (
        account::Api,
        account::confirm::Api,
        account::decline::Api,
        user::Api,
    ),
    container::Api,
    life::Api,
    service::Api,
    template::Api,
    quota::Api,
    job::Api,
    node::Api,
    import::Api,
    reconcile::Api,
    audit::Api,
    nginx::Api,
    proxy::Api,
    health::Api,
);

/// The largest page of a list.
pub(crate) const LIMIT: u32 = 1000;

pub(crate) fn service() -> OpenApiService<Apis, ()> {
    let apis = (
        login::Api,
        token::Api,
        // A tuple has at most sixteen.
        (
            account::Api,
            account::confirm::Api,
            account::decline::Api,
            user::Api,
        ),
        container::Api,
        life::Api,
        service::Api,
        template::Api,
        quota::Api,
        job::Api,
        node::Api,
        import::Api,
        reconcile::Api,
        audit::Api,
        nginx::Api,
        proxy::Api,
        health::Api,
    );
    OpenApiService::new(apis, "Create-a-Container", env!("CARGO_PKG_VERSION")).description(
        "LXC containers on Proxmox VE, reached by name. Errors are `application/problem+json` (RFC 9457). \
         Lists are ordered by id; `limit` and `offset` page through them and `X-Total-Count` has the total.",
    )
}

/// `limit` and `offset` as the database takes them; a larger page is cut to [`LIMIT`].
pub(crate) fn page(limit: Option<u64>, offset: Option<u64>) -> (u32, u32) {
    let cut = |n: u64, max: u32| u32::try_from(n).unwrap_or(max).min(max);
    (
        cut(limit.unwrap_or(LIMIT.into()), LIMIT),
        cut(offset.unwrap_or(0), u32::MAX),
    )
}
