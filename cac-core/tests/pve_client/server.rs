//! A TLS server on a free port of 127.0.0.1. What it does with a connection is the test's business; it ends with the test.

use std::future::Future;
use std::io;
use std::sync::Arc;

use cac_core::pve::{Auth, Fingerprint, Pve, Secret, Target, Tls};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) type Stream = TlsStream<TcpStream>;

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) fingerprint: Fingerprint,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, method: &str, path: &str) -> bool {
        let target = self.target.split('?').next().unwrap_or_default();
        self.method == method && target == format!("/api2/json{path}")
    }
}

/// A new self-signed certificate for 127.0.0.1 and its key.
pub(crate) fn certificate() -> (Vec<u8>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    (made.cert.der().to_vec(), key.into())
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for Always {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl Server {
    /// Hands each connection, once its handshake is done, to `serve`.
    pub(crate) async fn raw<F, Served>(serve: F) -> Self
    where
        F: Fn(Stream) -> Served + Send + Sync + 'static,
        Served: Future<Output = ()> + Send + 'static,
    {
        let (der, key) = certificate();
        Self::raw_with(der, key, serve).await
    }

    /// As `raw`, with a certificate and a key that need not belong together.
    pub(crate) async fn raw_with<F, Served>(
        der: Vec<u8>,
        key: PrivateKeyDer<'static>,
        serve: F,
    ) -> Self
    where
        F: Fn(Stream) -> Served + Send + Sync + 'static,
        Served: Future<Output = ()> + Send + 'static,
    {
        let fingerprint = Fingerprint::of(&der);
        let key = ring::sign::any_supported_type(&key).unwrap();
        let certified = CertifiedKey::new(vec![der.into()], key);
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(Always(Arc::new(certified))));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = Arc::new(serve);
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, serve) = (acceptor.clone(), serve.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        serve(stream).await;
                    }
                });
            }
        });
        Self {
            port,
            fingerprint,
            accepting,
        }
    }

    /// Answers each request with the bytes that `answer` gives; the connection stays open unless they say "close".
    pub(crate) async fn answering<F>(answer: F) -> Self
    where
        F: Fn(Request) -> Vec<u8> + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        Self::raw(move |mut stream| {
            let answer = answer.clone();
            async move {
                while let Ok(request) = read_request(&mut stream).await {
                    let bytes = answer(request);
                    let close = bytes.windows(17).any(|part| part == b"Connection: close");
                    if stream.write_all(&bytes).await.is_err() || close {
                        break;
                    }
                }
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(crate) fn target(&self, auth: Auth) -> Target {
        Target {
            api_url: self.url(),
            tls: Tls::Fingerprint(self.fingerprint),
            auth,
        }
    }

    /// A client that trusts this server and acts by an API token.
    pub(crate) fn client(&self) -> Pve {
        Pve::new(self.target(token())).unwrap()
    }
}

pub(crate) fn token() -> Auth {
    Auth::Token {
        id: "svc@pve!api".to_owned(),
        secret: Secret::new("5ec2e7"),
    }
}

/// One whole request; an error at the end of the connection.
pub(crate) async fn read_request(stream: &mut Stream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes.split_off(end + 4);
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut request = Request {
        method: first.next().unwrap_or_default().to_owned(),
        target: first.next().unwrap_or_default().to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: String::new(),
    };
    let length = request.header("content-length").unwrap_or("0");
    let length: usize = length.parse().unwrap();
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    request.body = String::from_utf8(body).unwrap();
    Ok(request)
}

/// A whole answer; `body` as JSON if there is one, else none and no type, as pveproxy does it.
pub(crate) fn answer(status: &str, body: &str) -> Vec<u8> {
    let kind = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/json;charset=UTF-8\r\n"
    };
    let close = if status.starts_with('2') {
        ""
    } else {
        "Connection: close\r\n"
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{close}{kind}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

pub(crate) fn version() -> Vec<u8> {
    let body = r#"{"data":{"version":"8.4.21","release":"8.4","repoid":"2606ac850d46da29"}}"#;
    answer("200 OK", body)
}
