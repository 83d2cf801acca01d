//! Accepts connections and hands their requests to the endpoint.
//!
//! poem's own server (3.1.12) gives hyper no timer, so a client that sends half a request head holds its connection for ever, and its
//! loop spins when no descriptor is left. Here a connection that has no request in flight is closed after [`QUIET`], which covers half
//! heads, idle keep-alive and clients that never say a word, in HTTP/1 and HTTP/2 alike. Each address holds a bounded number of
//! connections, all together stay below the process's limit of descriptors, and a failing `accept` waits before it is tried again.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use cac_core::Config;
use cac_core::login_failure::neighbours;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use poem::endpoint::BoxEndpoint;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint as _, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::slots::{Slot, Slots};

/// How long a connection may be without a request in flight: until its first head is complete, and between two requests. The
/// original's Node.js closed idle connections after 5 s, so clients are used to it.
const QUIET: Duration = Duration::from_secs(10);
/// The same while every connection is taken, so that idle ones make room.
const QUIET_WHEN_FULL: Duration = Duration::from_secs(1);
/// How long a client may refuse to take what is written to it.
const UNREAD: Duration = Duration::from_secs(60);
/// Between two tries while the process has no descriptor left.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How often the log repeats that connections are refused.
const REPEAT: Duration = Duration::from_secs(10);
/// How long requests in flight get after the stop was asked for.
const GRACE: Duration = Duration::from_millis(500);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// How often an HTTP/2 client with requests in flight is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// How many connections there may be.
pub(crate) struct Bounds {
    /// Of one address, or one IPv6 network of 64 bits.
    pub per_address: usize,
    /// Of all together.
    pub total: usize,
    /// Proxies, which speak for many clients: only the total bounds them.
    pub exempt: Vec<IpNet>,
}

impl Bounds {
    /// From the settings and this process's limit of descriptors.
    pub(crate) fn new(config: &Config) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        // The rest is for the database, Proxmox VE and files.
        let total = limit.saturating_sub((limit / 8).max(64));
        let total = total.clamp(8, Semaphore::MAX_PERMITS);
        Self {
            // However few there are, one address never has more than half of them.
            per_address: config.open_limits.connections.min(total / 2),
            total,
            exempt: config.trusted_proxies.clone(),
        }
    }
}

/// Serves until `stop`; then requests in flight get [`GRACE`].
pub(crate) async fn serve(
    listener: TcpListener,
    endpoint: BoxEndpoint<'static, Response>,
    bounds: Bounds,
    stop: CancellationToken,
) -> io::Result<()> {
    let local = listener.local_addr()?;
    tracing::info!(address = %local, "listening");
    let server = Arc::new(Server {
        endpoint,
        local: LocalAddr(local.into()),
        full: Notify::new(),
        stop: stop.clone(),
        kill: CancellationToken::new(),
    });
    let mut door = Door::new(bounds);
    let tasks = TaskTracker::new();
    let accept = async {
        loop {
            let permit = door.room(&server.full).await;
            match listener.accept().await {
                Ok((socket, peer)) => {
                    if let Some(admission) = door.admit(peer.ip(), permit) {
                        tasks.spawn(connection(Arc::clone(&server), socket, peer, admission));
                    }
                }
                Err(error) => door.failed(&error).await,
            }
        }
    };
    stop.run_until_cancelled(accept).await;
    drop(listener);
    tasks.close();
    if timeout(GRACE, tasks.wait()).await.is_err() {
        server.kill.cancel();
        tasks.wait().await;
    }
    Ok(())
}

/// What all connections share.
struct Server {
    endpoint: BoxEndpoint<'static, Response>,
    local: LocalAddr,
    /// Wakes idle connections when every connection is taken.
    full: Notify,
    stop: CancellationToken,
    /// Ends what is still open when the grace is over.
    kill: CancellationToken,
}

/// Counts connections, and logs those it refuses, each kind at most once in [`REPEAT`].
struct Door {
    places: Arc<Semaphore>,
    addresses: Arc<Slots<IpAddr>>,
    exempt: Vec<IpNet>,
    full: Repeated,
    crowded: Repeated,
    failing: Repeated,
}

/// Held by an open connection.
struct Admission {
    _place: OwnedSemaphorePermit,
    _address: Option<Slot<IpAddr>>,
}

impl Door {
    fn new(bounds: Bounds) -> Self {
        Self {
            places: Arc::new(Semaphore::new(bounds.total)),
            addresses: Slots::new(bounds.per_address),
            exempt: bounds.exempt,
            full: Repeated::default(),
            crowded: Repeated::default(),
            failing: Repeated::default(),
        }
    }

    /// Waits until one more connection may be open; idle ones are asked to make room. Who comes meanwhile waits in the kernel's queue.
    async fn room(&mut self, full: &Notify) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return place;
            }
            if let Some(times) = self.full.due() {
                tracing::warn!(times, "every connection is taken, see LimitNOFILE");
            }
            full.notify_waiters();
            let place = Arc::clone(&self.places).acquire_owned();
            if let Ok(place) = timeout(BACK_OFF, place).await {
                return place.expect("the semaphore is never closed");
            }
        }
    }

    /// Absent where this address has as many connections as it may.
    fn admit(&mut self, peer: IpAddr, place: OwnedSemaphorePermit) -> Option<Admission> {
        let peer = peer.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&peer)) {
            return Some(Admission {
                _place: place,
                _address: None,
            });
        }
        let slot = self.addresses.take(neighbours(peer));
        if slot.is_none()
            && let Some(times) = self.crowded.due()
        {
            tracing::warn!(%peer, times, "connections refused, see CONNECTIONS_PER_ADDRESS");
        }
        Some(Admission {
            _place: place,
            _address: Some(slot?),
        })
    }

    async fn failed(&mut self, error: &io::Error) {
        // The client went away before it was accepted; the next one is there already.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        ) {
            return;
        }
        if let Some(times) = self.failing.due() {
            tracing::error!(%error, times, "accept failed");
        }
        // Without a descriptor the listener stays readable: trying at once would take a whole core.
        sleep(BACK_OFF).await;
    }
}

/// Something that may happen thousands of times a second, and is logged seldom.
#[derive(Default)]
struct Repeated {
    logged: Option<Instant>,
    times: u64,
}

impl Repeated {
    /// How many times it happened since it was logged, where it is to be logged again.
    fn due(&mut self) -> Option<u64> {
        self.times += 1;
        if self.logged.is_some_and(|at| at.elapsed() < REPEAT) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

async fn connection(
    server: Arc<Server>,
    socket: TcpStream,
    peer: SocketAddr,
    admission: Admission,
) {
    let activity = Arc::new(Activity::default());
    let shared = Arc::new((Arc::clone(&server), Arc::clone(&activity)));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let (server, activity) = &*shared;
            let open = OpenRequest::begin(activity);
            let remote = RemoteAddr(peer.into());
            let request = Request::from((request, server.local.clone(), remote, Scheme::HTTP));
            let response = server.endpoint.get_response(request).await;
            let response = hyper::Response::from(response);
            Ok::<_, Infallible>(response.map(|body| CountedBody { body, _open: open }))
        }
    });
    let io = Observed {
        socket,
        activity: Arc::clone(&activity),
        blocked: false,
        _admission: admission,
    };
    let builder = builder();
    let served = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    let mut served = pin!(served);
    tokio::select! {
        // An error is the client's: it sent what is no request, or went away.
        _ = served.as_mut() => return,
        () = activity.quiet(QUIET, &server.full) => {}
        () = server.stop.cancelled() => {}
    }
    // An idle connection ends here; a request that came in at this moment is still answered.
    served.as_mut().graceful_shutdown();
    tokio::select! {
        _ = served => {}
        // Half a head is waited for no longer.
        () = activity.quiet(QUIET_WHEN_FULL, &server.full) => {}
        () = server.kill.cancelled() => {}
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(QUIET);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(20)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// What a connection is doing.
struct Activity(Mutex<Doing>);

struct Doing {
    /// Requests whose answers are not over.
    in_flight: usize,
    /// When the last of them was over, or the connection began.
    quiet_since: Instant,
    /// Since when the client takes nothing of what is written to it.
    blocked_since: Option<Instant>,
}

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Doing {
            in_flight: 0,
            quiet_since: Instant::now(),
            blocked_since: None,
        }))
    }
}

impl Activity {
    fn lock(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().expect("nothing panics while it holds it")
    }

    /// Returns once there was no request in flight for `limit`, or nothing could be written for [`UNREAD`].
    async fn quiet(&self, limit: Duration, full: &Notify) {
        loop {
            let woken = full.notified();
            let now = Instant::now();
            let (end, idle) = {
                let doing = self.lock();
                match doing.blocked_since {
                    Some(since) => (since + UNREAD, false),
                    None if doing.in_flight > 0 => (now + limit, false),
                    None => (doing.quiet_since + limit, true),
                }
            };
            if end <= now {
                return;
            }
            tokio::select! {
                () = sleep_until(end) => {}
                () = woken => {
                    let since = self.lock().quiet_since;
                    if idle && self.lock().in_flight == 0 && since.elapsed() >= QUIET_WHEN_FULL {
                        return;
                    }
                }
            }
        }
    }

    fn blocked(&self, blocked: bool) {
        let mut doing = self.lock();
        let now = Instant::now();
        if blocked {
            doing.blocked_since.get_or_insert(now);
        } else {
            doing.blocked_since = None;
            // The rest of a large answer leaves after its body is over.
            doing.quiet_since = now;
        }
    }
}

/// A request until its answer is over.
struct OpenRequest(Arc<Activity>);

impl OpenRequest {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.lock().in_flight += 1;
        Self(Arc::clone(activity))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut doing = self.0.lock();
        doing.in_flight -= 1;
        doing.quiet_since = Instant::now();
    }
}

/// The body of an answer; its request is open until it is over.
struct CountedBody<B> {
    body: B,
    _open: OpenRequest,
}

impl<B: Body + Unpin> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that tells whether its client takes what is written. It carries the connection's admission, since after an upgrade (a
/// WebSocket) it lives on without the connection.
struct Observed {
    socket: TcpStream,
    activity: Arc<Activity>,
    /// Kept here too, so that the usual write takes no lock.
    blocked: bool,
    _admission: Admission,
}

impl Observed {
    fn wrote<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() != self.blocked {
            self.blocked = written.is_pending();
            self.activity.blocked(self.blocked);
        }
        written
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Observed {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(context, slices);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
