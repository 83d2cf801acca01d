//! What the tests stand on: an address of their own, containers that answer, clients that trust the certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cac_core::nginx::{
    Certificate, Found, HttpOptions, HttpService, Protocol, Proxy, ProxyConfig, Rendered, Settings,
    StreamService, find_nginx, render, self_signed,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) static NGINX: LazyLock<Found> = LazyLock::new(|| {
    find_nginx().expect("these tests need nginx: apt-get install nginx-light libnginx-mod-stream")
});

pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    /// Ours alone, so that every test may use the same ports.
    pub(crate) ip: Ipv4Addr,
    pub(crate) settings: Settings,
    pub(crate) certificate: Certificate,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let [a, b, c] = rand::random::<[u8; 3]>();
        let ip = Ipv4Addr::new(127, 100 + a % 100, b, 1 + c % 250);
        let dir = tempfile::tempdir().unwrap();
        let domains = ["cac.localhost".parse().unwrap()];
        let certificate = self_signed(&domains, &dir.path().join("tls")).unwrap();
        let mut settings = Settings::private(&NGINX, &prefix(&dir), &certificate).unwrap();
        settings.http_listen = vec![SocketAddr::from((ip, 8080))];
        settings.https_listen = vec![SocketAddr::from((ip, 8443))];
        settings.stream_listen = vec![ip.into()];
        Self {
            dir,
            ip,
            settings,
            certificate,
        }
    }

    pub(crate) fn prefix(&self) -> std::path::PathBuf {
        prefix(&self.dir)
    }

    pub(crate) fn config(&self) -> ProxyConfig {
        ProxyConfig::new(NGINX.clone(), self.prefix())
    }

    pub(crate) fn render(
        &self,
        http: &[(&str, SocketAddr)],
        streams: &[StreamService],
    ) -> Rendered {
        let service = |(name, upstream): &(&str, SocketAddr)| HttpService {
            name: name.parse().unwrap(),
            upstream: *upstream,
            options: HttpOptions::default(),
        };
        let http: Vec<_> = http.iter().map(service).collect();
        let rendered = render(&self.settings, &http, streams);
        assert!(rendered.left_out.is_empty(), "{:?}", rendered.left_out);
        rendered
    }

    /// The same with settings of their own.
    pub(crate) fn render_own(&self, http: &[(&str, SocketAddr, HttpOptions)]) -> Rendered {
        let service = |(name, upstream, options): &(&str, SocketAddr, HttpOptions)| HttpService {
            name: name.parse().unwrap(),
            upstream: *upstream,
            options: *options,
        };
        let http: Vec<_> = http.iter().map(service).collect();
        let rendered = render(&self.settings, &http, &[]);
        assert!(rendered.left_out.is_empty(), "{:?}", rendered.left_out);
        rendered
    }

    pub(crate) async fn start(&self, rendered: &Rendered) -> Proxy {
        Proxy::start(self.config(), rendered).await.unwrap()
    }

    pub(crate) async fn plain(&self) -> TcpStream {
        TcpStream::connect((self.ip, 8080)).await.unwrap()
    }

    pub(crate) async fn tls(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.tls_at(name, 8443).await
    }

    pub(crate) async fn tls_at(
        &self,
        name: &str,
        port: u16,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        let own = CertificateDer::from_pem_file(&self.certificate.certificate).unwrap();
        roots.add(own).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect((self.ip, port)).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// A WebSocket to what gives back what comes over it.
    pub(crate) async fn websocket(&self, name: &str) -> TlsStream<TcpStream> {
        let mut socket = self.tls(name).await.unwrap();
        let ask = format!(
            "GET /ws HTTP/1.1\r\nHost: {name}:8443\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        socket.write_all(ask.as_bytes()).await.unwrap();
        let answer = timeout(PATIENCE, head(&mut socket)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        socket
    }

    /// Status and whole answer of a request for `/` over TLS, on a connection of its own.
    pub(crate) async fn get(&self, name: &str) -> std::io::Result<(u16, String)> {
        request(self.tls(name).await?, name, "/", "").await
    }

    /// The nginx processes of this lab, by number.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let prefix = self.prefix().canonicalize().unwrap();
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let cwd = std::fs::read_link(entry.path().join("cwd")).ok()?;
            (cwd == prefix).then_some(pid)
        })
        .collect()
    }

    pub(crate) fn master(&self) -> i32 {
        let text = std::fs::read_to_string(self.prefix().join("nginx.pid")).unwrap();
        text.trim().parse().unwrap()
    }
}

fn prefix(dir: &TempDir) -> std::path::PathBuf {
    Path::join(dir.path(), "nginx")
}

pub(crate) fn stream(protocol: Protocol, port: u16, upstream: SocketAddr) -> StreamService {
    StreamService {
        protocol,
        port,
        upstream,
        tls: false,
    }
}

/// Sends a request with further lines and a body after them; reads to the end.
pub(crate) async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    host: &str,
    path: &str,
    more: &str,
) -> std::io::Result<(u16, String)> {
    let more = if more.is_empty() { "\r\n" } else { more };
    let text = format!("GET {path} HTTP/1.1\r\nHost: {host}:8443\r\nConnection: close\r\n{more}");
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    match status {
        Some(status) => Ok((status, answer)),
        None => Err(std::io::Error::other(format!("no answer: {answer:?}"))),
    }
}

/// Reads up to and with the empty line.
pub(crate) async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Reads until this has come.
pub(crate) async fn read_until<S: AsyncRead + Unpin>(stream: &mut S, what: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(what) {
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        seen.push(byte.expect("an answer").unwrap());
    }
}

/// A container's web server: answers with its name, what it was asked and the body's size; takes WebSockets and gives back what comes
/// over them.
pub(crate) async fn web(name: &'static str) -> SocketAddr {
    gated_web(name, &Arc::default()).await
}

/// The same, where bodies of 1 MB and more stop half-way, there and back, until the gate is opened. `/bytes/N` is [`pattern`].
pub(crate) async fn gated_web(name: &'static str, gate: &Arc<Gate>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::clone(gate);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { answer(stream, name, &gate).await });
        }
    });
    address
}

/// Open unless somebody closes it.
#[derive(Default)]
pub(crate) struct Gate {
    closed: watch::Sender<bool>,
    /// Who stands before it.
    pub(crate) waiting: AtomicUsize,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn open(&self) {
        self.closed.send_replace(false);
    }

    async fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut closed = self.closed.subscribe();
        drop(closed.wait_for(|closed| !closed).await);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bytes that show when one is missing or twice.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let words = (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(length).collect()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The same over TLS, with a certificate that nobody knows.
pub(crate) async fn tls_web(name: &'static str, certificate: &Certificate) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(&certificate.certificate).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.ok()?;
                answer(stream, name, &Gate::default()).await
            });
        }
    });
    address
}

/// Takes connections and never says anything.
pub(crate) async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

/// Sends an event, and the next one when it is told.
pub(crate) async fn events(next: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.ok()?;
        head(&mut stream).await?;
        let begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
        stream.write_all(begin.as_bytes()).await.ok()?;
        next.notified().await;
        stream.write_all(b"data: 2\n\n").await.ok()
    });
    address
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    name: &str,
    gate: &Gate,
) -> Option<()> {
    let head = head(&mut stream).await?;
    let lower = head.to_lowercase();
    if lower.contains("\r\nupgrade: websocket\r\n") {
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.ok()?;
        let (mut from, mut to) = tokio::io::split(stream);
        tokio::io::copy(&mut from, &mut to).await.ok()?;
        return Some(());
    }
    let asked = |before: &str, after: char| {
        let (_, rest) = lower.split_once(before)?;
        rest.split(after).next()?.parse::<usize>().ok()
    };
    let (upload, download) = (asked("\r\ncontent-length: ", '\r'), asked(" /bytes/", ' '));
    let mut body = vec![0; upload.unwrap_or(0)];
    let (begin, rest) = body.split_at_mut(upload.unwrap_or(0) / 2);
    stream.read_exact(begin).await.ok()?;
    if begin.len() >= 500_000 {
        gate.pass().await;
    }
    stream.read_exact(rest).await.ok()?;
    let told = match download {
        Some(length) => pattern(length),
        None => {
            let (length, digest) = (body.len(), digest(&body));
            format!("I am {name}, {length} bytes of body, {digest}.\n{head}").into_bytes()
        }
    };
    let length = told.len();
    let begin = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(begin.as_bytes()).await.ok()?;
    let (begin, rest) = told.split_at(length / 2);
    stream.write_all(begin).await.ok()?;
    if length >= 1_000_000 {
        gate.pass().await;
    }
    stream.write_all(rest).await.ok()
}

/// Says a line first, as ssh servers do, then gives back what comes.
pub(crate) async fn tcp() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"SSH-2.0-test\r\n").await.ok()?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok()
            });
        }
    });
    address
}

/// Gives back each datagram.
pub(crate) async fn udp() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
    address
}
