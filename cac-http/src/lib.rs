//! The web server of Create-a-Container: API, pages and event streams, thin over [`cac_core`].
//!
//! - `edge.rs` the outermost layer; `origin.rs` hosts, origins, proxies; `auth.rs` who is signed in; `scope.rs` what tokens may; `limit.rs` how many
//!   requests; `metrics.rs` what was served; `error.rs` one mapping
//! - `spec.rs` the OpenAPI document
//! - `compress.rs` pages, style and script made smaller
//! - `input.rs`, `accept.rs` bodies in and both kinds of answers out; `events.rs` the streams of a job
//! - `api/<noun>.rs` the operations; `page/<noun>.rs` their pages, with `templates/`; `assets.rs` style and script
//! - `program.rs` configuration, log and signals of the program

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cac_core::wake::{self, Channel};
use cac_core::{Core, infrastructure, reconcile, user};
use poem::endpoint::BoxEndpoint;
use poem::listener::TcpAcceptor;
use poem::{EndpointExt as _, Response, Route, Server};
use tokio_util::sync::CancellationToken;

mod accept;
mod api;
mod assets;
mod auth;
mod compress;
mod edge;
mod error;
mod events;
mod input;
mod limit;
mod metrics;
mod origin;
mod page;
mod program;
mod scope;
mod spec;

pub use program::run;

/// How long requests in flight get after the stop was asked for.
const GRACE: Duration = Duration::from_millis(500);

/// Everything the portal serves.
pub fn app(core: Core) -> BoxEndpoint<'static, Response> {
    stoppable(core, CancellationToken::new())
}

fn stoppable(core: Core, stop: CancellationToken) -> BoxEndpoint<'static, Response> {
    let spec = spec();
    let operations = edge::Operations::of(&spec);
    let routes = Route::new()
        .at("/openapi.json", assets::spec(spec))
        .at("/docs", assets::docs())
        .at("/assets/:name", poem::get(assets::file))
        .nest("/", api::service());
    let limits = Arc::new(limit::Limits::new(&core));
    let edge = edge::Edge {
        inner: routes,
        carried: auth::Carried {
            core,
            stop,
            limits,
            served: Arc::default(),
        },
        operations,
    };
    edge.boxed()
}

/// Serves until `stop`, then ends in well under a second, event streams included; looks admin rights up and watches containers meanwhile.
pub async fn serve(
    core: Core,
    listener: tokio::net::TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listening = wake::listen(&core, Channel::Output).await;
    let looking = tokio::spawn(user::keep_looking_up(core.clone(), stop.clone()));
    let watching = tokio::spawn(reconcile::watch(core.clone(), stop.clone()));
    let at = listener.local_addr().ok();
    let publishing = tokio::spawn(infrastructure::publish(core.clone(), at, stop.clone()));
    let served = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?)
        .run_with_graceful_shutdown(
            stoppable(core, stop.clone()),
            stop.cancelled_owned(),
            Some(GRACE),
        )
        .await;
    looking.abort();
    watching.abort();
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
