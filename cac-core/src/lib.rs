//! Create-a-Container as a library: everything the product knows, without HTTP and without a command line.
//!
//! One noun per file (type, rules, SQL); a rule lives once, here, because API, pages, CLI and jobs share it.
//!
//! - [`config`] what comes from the environment; [`setting`] what the installation remembers about itself
//! - [`db`] the one door to SQLite, MariaDB and PostgreSQL; [`schema`] migrations and adoption
//! - [`error`] one error without HTTP; every edge maps it once
//! - [`pve`] the Proxmox VE client; [`node`] the hosts, [`placement`] which of them takes a container
//! - [`container`], [`service`] what people own; [`user`], [`actor`] who they are, [`session`], [`token`] how they prove it
//!   ([`credential`]), [`login_failure`], [`sign_in_origin`] what slows down who guesses; [`audit`] what they did; [`account_request`] who wants to become
//!   one, [`mail`] what is written to people
//! - [`job`] durable work: the queue, its runner, one file per kind of work; [`task`] programs that admins describe
//! - [`infrastructure`] what belongs to the installation itself and is never an upstream
//! - [`reach`] where containers are reached; [`nginx`] the configuration from typed data, and the loop that keeps an nginx on it; [`routes`] what it serves now,
//!   [`proxy`] who pulls it, [`proxy_key`] by which key pullers know it
//! - [`retention`] how long rows stay that nobody asks for
//! - [`supervise`] work in the background that begins again after a panic
//! - [`doctor`] a look at everything an installation stands on; [`overview`] counts for metrics

use std::ops::Deref;
use std::sync::Arc;

pub mod account_request;
pub mod actor;
pub mod audit;
pub mod cipher;
pub mod clock;
pub mod config;
pub mod container;
pub mod credential;
pub mod db;
pub mod doctor;
pub mod error;
pub mod hostname;
mod idempotency;
pub mod infrastructure;
pub mod job;
pub mod login_failure;
pub mod mail;
pub mod nginx;
pub mod node;
pub mod one_time_link;
pub mod overview;
pub mod placement;
mod processes;
#[cfg(feature = "program")]
pub mod program;
pub mod proxy;
pub mod proxy_key;
pub mod pve;
pub mod quota;
pub mod reach;
pub mod reconcile;
pub mod retention;
pub mod routes;
pub mod schema;
pub mod secret;
pub mod service;
pub mod session;
pub mod setting;
pub mod sign_in_origin;
pub mod supervise;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;
pub mod user;
pub mod wake;

pub use actor::Actor;
pub use config::Config;
pub use error::{Error, Result};

/// The library at work: one database, one configuration. Cheap to clone.
#[derive(Clone)]
pub struct Core(Arc<Parts>);

/// What every noun function may use.
pub struct Parts {
    pub db: db::Db,
    pub config: Config,
    pub clock: clock::Clock,
    /// Seals and opens secrets that the database holds.
    pub cipher: cipher::Cipher,
    pub wake: wake::Wake,
    /// The random name of this installation; part of every ownership marker.
    pub installation: String,
    pub(crate) clients: node::Clients,
    pub(crate) feeds: job::Feeds,
    pub(crate) credentials: credential::Recent,
    pub(crate) live: container::Live,
    pub(crate) newest: routes::Newest,
    /// What this process does in the background.
    pub background: supervise::Background,
    pub(crate) away: routes::Looks,
    pub(crate) infrastructure: infrastructure::Memory,
    pub(crate) suspects: reconcile::Suspects,
    pub(crate) strangers: container::Strangers,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("installation", &self.installation)
            .finish_non_exhaustive()
    }
}

impl Deref for Core {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Core {
    /// Connects, brings the schema up to date (a database of the original is refused until `cac migrate up` adopted it).
    pub async fn start(config: Config) -> Result<Self> {
        let connections = config.database_connections;
        let db = db::Db::connect_with(config.database_url.expose(), connections).await?;
        schema::start(&db).await?;
        Self::with(db, config, clock::Clock::System).await
    }

    /// A core on a database whose schema is up to date.
    pub async fn with(db: db::Db, config: Config, clock: clock::Clock) -> Result<Self> {
        let installation = setting::installation(&db, &clock).await?;
        let cipher = cipher::start(&db, &clock, config.secret_key.as_ref()).await?;
        Ok(Self::assemble(db, config, clock, (installation, cipher)))
    }

    /// The same for somebody who only looks: nothing is written, not even what a first start would write.
    pub async fn inspect(db: db::Db, config: Config, clock: clock::Clock) -> Result<Self> {
        let installation = setting::value(&db, setting::INSTALLATION).await?;
        let installation = installation.unwrap_or_default();
        let cipher = cipher::inspect(&db, config.secret_key.as_ref()).await?;
        Ok(Self::assemble(db, config, clock, (installation, cipher)))
    }

    fn assemble(
        db: db::Db,
        config: Config,
        clock: clock::Clock,
        (installation, cipher): (String, cipher::Cipher),
    ) -> Self {
        Self(Arc::new(Parts {
            wake: wake::Wake::new(&db),
            db,
            config,
            clock,
            cipher,
            installation,
            clients: node::Clients::default(),
            feeds: job::Feeds::default(),
            credentials: credential::Recent::default(),
            live: container::Live::default(),
            newest: routes::Newest::default(),
            background: supervise::Background::default(),
            away: routes::Looks::default(),
            infrastructure: infrastructure::Memory::default(),
            suspects: reconcile::Suspects::default(),
            strangers: container::Strangers::default(),
        }))
    }
}
