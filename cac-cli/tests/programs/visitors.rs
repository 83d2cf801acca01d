//! Visitors of every kind while `cac proxy sync` has nginx read one file after another: nobody is turned away and nothing breaks off.
//! `RELOADS=100 cargo test --release -p cac-cli --test programs visitors` is the long form.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::front::{Front, HTTPS};
use crate::lab::PATIENCE;

const NAME: &str = "web.proxy.test";
const PORT: u16 = 9000;
/// Between two things that one visitor does.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Counts {
    fresh: AtomicU32,
    slow: AtomicU32,
    kept: AtomicU32,
    /// Connections that a reload closed between two requests.
    closed: AtomicU32,
    echoes: AtomicU32,
    streams: AtomicU32,
}

/// Everybody's way to nginx.
struct Visitors {
    ip: Ipv4Addr,
    connector: TlsConnector,
    done: AtomicBool,
    counts: Counts,
}

fn count(of: &AtomicU32) {
    of.fetch_add(1, Ordering::SeqCst);
}

impl Visitors {
    fn new(ip: Ipv4Addr, certificate: &Path) -> Arc<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let own = CertificateDer::from_pem_file(certificate).unwrap();
        roots.add(own).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        Arc::new(Self {
            ip,
            connector: TlsConnector::from(Arc::new(config.with_no_client_auth())),
            done: AtomicBool::new(false),
            counts: Counts::default(),
        })
    }

    fn go_on(&self) -> bool {
        !self.done.load(Ordering::SeqCst)
    }

    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.ip, HTTPS)).await?;
        let name = ServerName::try_from(NAME).unwrap();
        self.connector.connect(name, stream).await
    }

    /// A connection for each request.
    async fn fresh(self: Arc<Self>) {
        while self.go_on() {
            let mut stream = self.connect().await.expect("a new connection");
            ask(&mut stream, "/").await.expect("an answer");
            count(&self.counts.fresh);
            // Without a trace in the kernel, which runs out of ports else.
            stream.get_ref().0.set_zero_linger().unwrap();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Requests that are under way when nginx changes over.
    async fn slow(self: Arc<Self>) {
        while self.go_on() {
            let mut stream = self.connect().await.expect("a new connection");
            ask(&mut stream, "/slow").await.expect("a whole answer");
            count(&self.counts.slow);
        }
    }

    /// One connection for many requests, as browsers have it: a reload may close it between two of them, which is no answer cut short.
    async fn kept(self: Arc<Self>) {
        let mut stream = self.connect().await.expect("a new connection");
        let mut used = false;
        while self.go_on() {
            match ask(&mut stream, "/").await {
                Ok(()) => {
                    used = true;
                    count(&self.counts.kept);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Broken { received: 0, .. }) if used => {
                    count(&self.counts.closed);
                    stream = self.connect().await.expect("a new connection");
                    used = false;
                }
                Err(broken) => panic!("{broken:?}"),
            }
        }
    }

    /// One WebSocket from the first to the last reload.
    async fn socket(self: Arc<Self>) {
        let mut stream = self.connect().await.expect("a new connection");
        let ask = format!(
            "GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut received = 0;
        let head = head(&mut stream, &mut received).await.unwrap();
        assert!(head.contains(" 101 "), "{head}");
        while self.go_on() {
            stream.write_all(b"hello").await.unwrap();
            let mut back = [0; 5];
            let read = timeout(PATIENCE, stream.read_exact(&mut back)).await;
            read.expect("an echo").expect("an open WebSocket");
            assert_eq!(&back, b"hello");
            count(&self.counts.echoes);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// New connections to a TCP service.
    async fn stream(self: Arc<Self>) {
        while self.go_on() {
            let at = (self.ip, PORT);
            let mut stream = TcpStream::connect(at).await.expect("a new connection");
            ask(&mut stream, "/slow").await.expect("a whole answer");
            count(&self.counts.streams);
        }
    }
}

#[derive(Debug)]
struct Broken {
    received: usize,
    #[expect(dead_code, reason = "shown by Debug")]
    error: io::Error,
}

/// One request, and its answer to the end.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> Result<(), Broken> {
    let mut received = 0;
    let asked = async {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let head = head(stream, &mut received).await?;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut body = [0; 2];
        stream.read_exact(&mut body).await?;
        assert_eq!(&body, b"ok");
        Ok(())
    };
    let error = match timeout(PATIENCE, asked).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    Err(Broken { received, error })
}

async fn head<S: AsyncRead + Unpin>(stream: &mut S, received: &mut usize) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        *received = head.len();
    }
    Ok(String::from_utf8(head).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_visitor_is_turned_away_or_cut_off_while_nginx_changes_over() {
    let reloads = std::env::var("RELOADS").ok();
    let reloads: usize = reloads.map_or(8, |text| text.parse().expect("a number"));
    let front = Front::new(&[]).await;
    let sync = front.sync(&["--interval", "0"]);
    let web = front.add("web").await;
    front.stands(web, "live").await;
    let ssh = front.add("ssh").await;
    front.as_stream(ssh, "tcp", PORT).await;
    front.stands(ssh, "live").await;

    let visitors = Visitors::new(front.ip, &front.dir.path().join("tls/certificate.pem"));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..8 {
        all.spawn(Arc::clone(&visitors).fresh());
        all.spawn(Arc::clone(&visitors).slow());
        all.spawn(Arc::clone(&visitors).kept());
        all.spawn(Arc::clone(&visitors).socket());
        all.spawn(Arc::clone(&visitors).stream());
    }
    let counts = &visitors.counts;
    let told = || sync.err() + &sync.out();
    let live = || told().matches("nginx is up to date").count();
    let before = live();
    for round in 0..reloads {
        let slow = counts.slow.load(Ordering::SeqCst);
        let one = front.add(&format!("n{round}")).await;
        front.stands(one, "live").await;
        // So that each reload meets requests of its own.
        crate::lab::until("requests end", async || {
            let broken = all.try_join_next();
            assert!(broken.is_none(), "{broken:?} after {round} reloads");
            (counts.slow.load(Ordering::SeqCst) >= slow + 8).then_some(())
        })
        .await;
    }
    visitors.done.store(true, Ordering::SeqCst);
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    assert!(live() >= before + reloads, "{}", told());
    for of in [
        &counts.fresh,
        &counts.slow,
        &counts.kept,
        &counts.echoes,
        &counts.streams,
    ] {
        assert!(of.load(Ordering::SeqCst) as usize > reloads);
    }
    let shown = |of: &AtomicU32| of.load(Ordering::SeqCst);
    println!(
        "{reloads} reloads: {} requests on connections of their own, {} slow ones, {} on kept connections of which {} were closed \
         between two requests, {} WebSocket messages, {} TCP connections; none failed",
        shown(&counts.fresh),
        shown(&counts.slow),
        shown(&counts.kept),
        shown(&counts.closed),
        shown(&counts.echoes),
        shown(&counts.streams)
    );
    sync.stop();
    front.nginx.stop();
}
