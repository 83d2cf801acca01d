//! HTTPS on the wire: the listener, requests read as pveproxy reads them, answers with their own reason phrases.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::answer::{Output, Refusal, Reply};
use crate::api::{self, Arrival};
use crate::core::Core;
use crate::faults::{Action, Fault, Moment};
use crate::params::{decode_body, decode_form};
use crate::task::TaskFault;

/// Bodies above this size break the connection off, as they do at pveproxy.
const BODY_LIMIT: usize = 512 * 1024;

/// Where faults are ordered over the wire.
const FAULTS: &str = "/simulator/faults";

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped on purpose")]
struct Dropped;

type Reaction = Result<Response<Full<Bytes>>, Dropped>;

/// Takes connections until the simulator stops.
pub(crate) async fn run(core: Arc<Core>, listener: TcpListener, tls: TlsAcceptor) {
    loop {
        let accepted = tokio::select! {
            () = core.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file handles or the like: do not spin.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (core, tls) = (Arc::clone(&core), tls.clone());
        core.clone().jobs.spawn(async move {
            tokio::select! {
                () = core.stop.cancelled() => {}
                () = connection(Arc::clone(&core), stream, tls) => {}
            }
        });
    }
}

async fn connection(core: Arc<Core>, stream: TcpStream, tls: TlsAcceptor) {
    let local = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| {
        let core = Arc::clone(&core);
        async move { react(&core, request, local).await }
    });
    // Broken connections are the peer's business, and sometimes ordered.
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

async fn react(core: &Arc<Core>, request: Request<Incoming>, local: bool) -> Reaction {
    let began = Instant::now();
    if request.uri().path() == FAULTS {
        return Ok(order_fault(core, request, local).await);
    }
    let method = request.method().as_str().to_owned();
    let path = decoded_path(request.uri().path());
    let shown = format!("/{}", path.join("/"));
    let number = 1 + core.requests.fetch_add(1, Ordering::Relaxed);
    if !core.faults.passes(number, Moment::Before) {
        return Err(Dropped);
    }
    let mut effect = Effect::default();
    for action in core
        .faults
        .hit(&method, shown.trim_start_matches("/api2/json"))
    {
        effect.add(core, &path, action).await;
    }
    if effect.drop_before {
        return Err(Dropped);
    }
    let reply = match effect.status {
        Some((code, reason)) => Err(Refusal::Bare(code, reason)),
        None => work(core, request, path, effect.task).await?,
    };
    if effect.drop_after || !core.faults.passes(number, Moment::After) {
        return Err(Dropped);
    }
    if matches!(
        reply,
        Err(Refusal::Unauthenticated(_) | Refusal::LoginFailed)
    ) {
        tokio::time::sleep(core.delay.denied.saturating_sub(began.elapsed())).await;
    }
    Ok(respond(reply))
}

fn decoded_path(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect()
}

/// What the faults that hit a request do to it.
#[derive(Default)]
struct Effect {
    drop_before: bool,
    drop_after: bool,
    status: Option<(u16, String)>,
    task: Option<TaskFault>,
}

impl Effect {
    async fn add(&mut self, core: &Arc<Core>, path: &[String], action: Action) {
        match action {
            Action::Latency { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Action::Status { code, reason } => self.status = Some((code, reason)),
            Action::DropBefore => self.drop_before = true,
            Action::DropAfter => self.drop_after = true,
            Action::HangTask => self.task = Some(TaskFault::Hang),
            Action::FailTask { text } => self.task = Some(TaskFault::Fail(text)),
            Action::HoldLock { ms } => hold_lock(core, path, ms).await,
            Action::Lock { name, ms } => set_lock(core, path, name, ms),
        }
    }
}

fn vmid_in(path: &[String]) -> Option<u32> {
    let place = path.iter().position(|part| part == "lxc")?;
    path.get(place + 1)?.parse().ok()
}

async fn hold_lock(core: &Arc<Core>, path: &[String], ms: u64) {
    let Some(vmid) = vmid_in(path) else { return };
    let Ok(guard) = core.lock(vmid).await else {
        return;
    };
    core.jobs.spawn(after(core, ms, move |_| drop(guard)));
}

fn set_lock(core: &Arc<Core>, path: &[String], name: String, ms: u64) {
    let Some(vmid) = vmid_in(path) else { return };
    if let Some(container) = core.change().containers.get_mut(&vmid) {
        container.config.insert("lock".to_owned(), name);
    }
    let release = move |core: &Core| {
        if let Some(container) = core.change().containers.get_mut(&vmid) {
            container.config.remove("lock");
        }
    };
    core.jobs.spawn(after(core, ms, release));
}

/// Does something after a time, or when the simulator stops.
fn after(
    core: &Arc<Core>,
    ms: u64,
    act: impl FnOnce(&Core) + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let core = Arc::clone(core);
    async move {
        tokio::select! {
            () = core.stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(ms)) => {}
        }
        act(&core);
    }
}

async fn work(
    core: &Arc<Core>,
    request: Request<Incoming>,
    path: Vec<String>,
    fault: Option<TaskFault>,
) -> Result<Reply, Dropped> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        return Err(Dropped);
    };
    let body = body.to_bytes();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let method = head.method.as_str();
    let params = match read_params(method, head.uri.query(), header(CONTENT_TYPE), &body) {
        Ok(params) => params,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let arrival = Arrival {
        method,
        path: &path,
        params,
        credentials: crate::auth::Credentials {
            authorization: header(AUTHORIZATION),
            cookie: header(COOKIE),
            csrf: head
                .headers
                .get("csrfpreventiontoken")
                .and_then(|value| value.to_str().ok()),
        },
        fault,
    };
    Ok(api::answer(core, arrival).await)
}

fn read_params(
    method: &str,
    query: Option<&str>,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<serde_json::Map<String, Value>, Refusal> {
    let query = decode_form(query.unwrap_or_default());
    match method {
        "GET" | "DELETE" if !body.is_empty() => Err(Refusal::Plain(
            501,
            format!("Unexpected content for method '{method}'"),
        )),
        "GET" | "DELETE" => Ok(query),
        "POST" | "PUT" => {
            let mut params = decode_body(content_type, body)?;
            params.extend(query);
            Ok(params)
        }
        _ => Err(Refusal::Bare(
            501,
            format!("method '{method}' not available"),
        )),
    }
}

async fn order_fault(
    core: &Arc<Core>,
    request: Request<Incoming>,
    local: bool,
) -> Response<Full<Bytes>> {
    if !local {
        let text = "faults are ordered from this machine only".to_owned();
        return respond(Err(Refusal::Plain(403, text)));
    }
    match request.method().as_str() {
        "GET" => {}
        "DELETE" => core.faults.clear(),
        _ => {
            let body = Limited::new(request.into_body(), BODY_LIMIT)
                .collect()
                .await;
            let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
            match serde_json::from_slice::<Fault>(&bytes) {
                Ok(fault) => core.faults.add(fault),
                Err(error) => {
                    let text = format!("this is no fault the simulator knows: {error}");
                    return respond(Err(Refusal::Plain(400, text)));
                }
            }
        }
    }
    respond(Ok(json!(core.faults.pending()).into()))
}

/// The wire form of a reply; every error closes the connection.
fn respond(reply: Reply) -> Response<Full<Bytes>> {
    let (status, reason, body) = match reply {
        Ok(output) => (200, "OK".to_owned(), Some(success(output))),
        Err(refusal) => refusal.parts(),
    };
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (kind, bytes) = match body {
        Some(Ok(json)) => (Some("application/json;charset=UTF-8"), json.to_string()),
        Some(Err(text)) => (Some("text/plain"), text),
        None => (None, String::new()),
    };
    let mut builder = Response::builder()
        .status(code)
        .header("cache-control", "max-age=0")
        .header("pragma", "no-cache")
        .header("server", "pve-api-daemon/3.0");
    if let Some(kind) = kind {
        builder = builder.header("content-type", kind);
    }
    if status >= 400 {
        builder = builder.header("connection", "close");
    }
    let first_line = reason.lines().next().unwrap_or_default();
    if let Ok(phrase) = ReasonPhrase::try_from(first_line.as_bytes()) {
        builder = builder.extension(phrase);
    }
    builder
        .body(Full::new(Bytes::from(bytes)))
        .expect("all headers are constants")
}

fn success(output: Output) -> Result<Value, String> {
    if let Some(text) = output.text {
        return Err(text);
    }
    let mut body = json!({"data": output.data});
    if let Some(total) = output.total {
        body["total"] = json!(total);
    }
    Ok(body)
}
