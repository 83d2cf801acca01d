//! The web server of Create-a-Container: API, pages and event streams, thin over [`cac_core`].
//!
//! - `server.rs` connections, bounded in number and time; `slots.rs` what one client holds open; `readiness.rs` whether the database answers
//! - `edge.rs` the outermost layer; `origin.rs` hosts, origins, proxies; `auth.rs` who is signed in; `scope.rs` what tokens may; `limit.rs` how many
//!   requests; `metrics.rs` what was served; `error.rs` one mapping
//! - `spec.rs` the OpenAPI document
//! - `compress.rs` pages, style and script made smaller
//! - `held_form.rs` forms that wait for the password
//! - `input.rs`, `accept.rs` bodies in and both kinds of answers out; `events.rs` the streams of a job
//! - `api/<noun>.rs` the operations; `page/<noun>.rs` their pages, with `templates/`; `assets.rs` style and script;
//!   `well_known.rs` icons and other files in places of their own
//! - `program.rs` configuration, log and signals of the program

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use cac_core::supervise::supervise;
use cac_core::wake::{self, Channel};
use cac_core::{Core, container, infrastructure, reconcile, user};
use poem::endpoint::BoxEndpoint;
use poem::{EndpointExt as _, Response, Route};
use tokio_util::sync::CancellationToken;

mod accept;
mod api;
mod assets;
mod auth;
mod compress;
mod edge;
mod error;
mod events;
mod held_form;
mod input;
mod limit;
mod metrics;
mod origin;
mod page;
mod program;
mod readiness;
mod scope;
mod server;
mod slots;
mod spec;
mod well_known;

pub use program::run;

/// Everything the portal serves.
fn app(
    core: Core,
    readiness: Arc<readiness::Readiness>,
    stop: CancellationToken,
) -> BoxEndpoint<'static, Response> {
    let spec = spec();
    let operations = edge::Operations::of(&spec);
    let routes = Route::new()
        .at("/openapi.json", assets::spec(spec))
        .at("/docs", assets::docs())
        .at("/assets/:name", poem::get(assets::file))
        .nest("/", api::service());
    let routes = well_known::add(routes, &core);
    let limits = Arc::new(limit::Limits::new(&core));
    let edge = edge::Edge {
        inner: routes,
        carried: auth::Carried {
            core,
            stop,
            limits,
            readiness,
            served: Arc::default(),
        },
        operations,
    };
    edge::Detached(Arc::new(edge)).boxed()
}

/// Serves until `stop`, then ends in well under a second, event streams included; looks admin rights up, verifies and watches containers
/// meanwhile.
pub async fn serve(
    core: Core,
    listener: tokio::net::TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listening = wake::listen(&core, Channel::Output).await;
    let (looked, until) = (core.clone(), stop.clone());
    let looking = tokio::spawn(async move {
        let look_up = || user::keep_looking_up(looked.clone(), until.clone());
        supervise(&looked, "user look-up", look_up).await;
    });
    let (verified, until) = (core.clone(), stop.clone());
    let verifying = tokio::spawn(async move {
        let verify = || container::keep_verifying(verified.clone(), until.clone());
        supervise(&verified, "container verification", verify).await;
    });
    let (watched, until) = (core.clone(), stop.clone());
    let containers = tokio::spawn(async move {
        let watch = || reconcile::watch(watched.clone(), until.clone());
        supervise(&watched, "container watch", watch).await;
    });
    let at = listener.local_addr().ok();
    let (published, until) = (core.clone(), stop.clone());
    let publishing = tokio::spawn(async move {
        let publish = || infrastructure::publish(published.clone(), at, until.clone());
        supervise(&published, "own addresses", publish).await;
    });
    let readiness = Arc::<readiness::Readiness>::default();
    readiness.look(&core).await;
    let bounds = server::Bounds::new(&core.config);
    let endpoint = app(core.clone(), Arc::clone(&readiness), stop.clone());
    let watching = readiness.keep_looking(&core, stop.clone());
    let serving = server::serve(listener, endpoint, bounds, stop.clone());
    let ((), served) = tokio::join!(watching, serving);
    looking.abort();
    verifying.abort();
    containers.abort();
    publishing.abort();
    listening.end().await;
    served
}

/// Listens on `address`; the error is a sentence that says what to do, with the `setting` that the address comes from.
pub async fn bind(address: SocketAddr, setting: &str) -> Result<tokio::net::TcpListener, String> {
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => format!(
                "Port {} of {} is taken by another program: stop that one or choose another port with {setting}.",
                address.port(),
                address.ip()
            ),
            ErrorKind::PermissionDenied => format!(
                "Port {} may not be used by this user: choose one above 1023 with {setting}.",
                address.port()
            ),
            _ => format!(
                "Nothing can listen on {address} ({error}): choose an address of this machine with {setting}."
            ),
        })
}

/// The OpenAPI document, as `openapi/openapi.json` keeps it.
#[must_use]
pub fn spec() -> String {
    format!("{:#}\n", spec::contract())
}

/// The same for generators of clients, as `openapi/client.json` keeps it: JSON only, one type of success for each operation.
#[must_use]
pub fn client_spec() -> String {
    format!("{:#}\n", spec::for_generators())
}
