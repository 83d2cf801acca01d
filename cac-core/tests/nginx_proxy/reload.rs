//! What is under way when nginx reads another file: it ends whole, whatever kind it is.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cac_core::nginx::{Protocol, StreamService};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::lab::{
    Gate, Lab, NGINX, PATIENCE, digest, events, gated_web, pattern, read_until, stream, tcp, udp,
    web,
};

const SIZE: usize = 12_000_000;
const WEB: &str = "web.cac.localhost";

/// As `curl` takes them. nginx cuts what is under way over HTTP/3.
const LASTING: &[&str] = &["--http1.1", "--http2"];
/// For this one a `curl` that knows it comes first in `PATH`.
const HTTP3: &[&str] = &["--http3-only"];

/// What `curl` is answered at a path of the web server.
type Answer = JoinHandle<Vec<u8>>;

fn curl(lab: &Lab, version: &str, path: &str, more: &[&str]) -> Answer {
    let resolve = format!("{WEB}:8443:{}", lab.ip);
    let mut curl = Command::new("curl");
    curl.args(["-sS", version, "--resolve", &resolve, "--max-time", "60"]);
    curl.arg("--cacert").arg(&lab.certificate.certificate);
    curl.args(more).arg(format!("https://{WEB}:8443{path}"));
    tokio::task::spawn_blocking(move || {
        let output = curl.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{curl:?}: {words}");
        output.stdout
    })
}

/// A large download and a large upload with these versions; all stand half-way when this returns.
async fn bodies(versions: &[&str], lab: &Lab, gate: &Gate, file: &Path) -> Vec<(Answer, Answer)> {
    gate.close();
    let down = |version: &&str| curl(lab, version, &format!("/bytes/{SIZE}"), &[]);
    let up = |version: &&str| curl(lab, version, "/", &["-T", file.to_str().unwrap()]);
    let both = |version| (down(version), up(version));
    let under_way: Vec<_> = versions.iter().map(both).collect();
    let begun = Instant::now();
    while gate.waiting.load(Ordering::SeqCst) < 2 * under_way.len() {
        assert!(begun.elapsed() < PATIENCE, "they do not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    under_way
}

async fn arrive(under_way: Vec<(Answer, Answer)>, sent: &[u8]) {
    let told = format!("I am web, {SIZE} bytes of body, {}.", digest(sent));
    for (download, upload) in under_way {
        assert_eq!(digest(&download.await.unwrap()), digest(&pattern(SIZE)));
        let answer = String::from_utf8(upload.await.unwrap()).unwrap();
        assert!(answer.starts_with(&told), "{answer}");
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    let read = timeout(PATIENCE, stream.read_exact(&mut back)).await;
    read.expect("an answer").unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_ends_whole_after_reloads() {
    let lab = Lab::new();
    let (gate, next) = (Arc::new(Gate::default()), Arc::new(Notify::new()));
    let streams = [
        stream(Protocol::Tcp, 2222, tcp().await),
        stream(Protocol::Udp, 2222, udp().await),
        StreamService {
            tls: true,
            ..stream(Protocol::Tcp, 2993, tcp().await)
        },
    ];
    let upstream = gated_web("web", &gate).await;
    let sse = events(Arc::clone(&next)).await;
    let names = [(WEB, upstream), ("sse.cac.localhost", sse)];
    let mut proxy = lab.start(&lab.render(&names, &streams)).await;
    let file = lab.dir.path().join("upload");
    let sent = pattern(SIZE);
    std::fs::write(&file, &sent).unwrap();

    // Before any reload: nothing waits at the gate.
    let once = bodies(LASTING, &lab, &gate, &file).await;
    gate.open();
    arrive(once, &sent).await;

    let under_way = bodies(LASTING, &lab, &gate, &file).await;
    let mut socket = lab.websocket(WEB).await;
    let mut plain = TcpStream::connect((lab.ip, 2222)).await.unwrap();
    let mut ended = lab.tls_at("mail.cac.localhost", 2993).await.unwrap();
    let mut listening = lab.tls("sse.cac.localhost").await.unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    datagrams.connect((lab.ip, 2222)).await.unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: sse.cac.localhost\r\n\r\n";
    listening.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut listening, "data: 1\n\n").await;
    read_until(&mut plain, "SSH-2.0-test\r\n").await;
    read_until(&mut ended, "SSH-2.0-test\r\n").await;
    for round in 0..4 {
        if round > 0 {
            let more = format!("n{round}.cac.localhost");
            let names = [names[0], names[1], (&more, upstream)];
            proxy.apply(&lab.render(&names, &streams)).await.unwrap();
        }
        echo(&mut socket).await;
        echo(&mut plain).await;
        echo(&mut ended).await;
        datagrams.send(b"hello").await.unwrap();
        let mut back = [0; 5];
        let read = timeout(PATIENCE, datagrams.recv(&mut back)).await;
        assert_eq!(read.unwrap().unwrap(), 5);
    }
    next.notify_one();
    read_until(&mut listening, "data: 2\n\n").await;
    gate.open();
    arrive(under_way, &sent).await;

    // What begins afterwards.
    let again = bodies(LASTING, &lab, &gate, &file).await;
    gate.open();
    arrive(again, &sent).await;
    echo(&mut lab.websocket(WEB).await).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_websocket_is_cut_at_the_shutdown_limit_and_not_before() {
    let mut lab = Lab::new();
    lab.settings.worker_shutdown = Duration::from_secs(3);
    let names = [(WEB, web("web").await)];
    let mut proxy = lab.start(&lab.render(&names, &[])).await;
    let mut socket = lab.websocket(WEB).await;
    let begun = Instant::now();
    proxy.apply(&lab.render(&[], &[])).await.unwrap();
    while begun.elapsed() < Duration::from_secs(2) {
        echo(&mut socket).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
    // An end without TLS' own word for it is an error to some.
    drop(end.expect("the limit holds"));
    assert!(rest.is_empty());
    let after = begun.elapsed();
    assert!(after > Duration::from_millis(2900), "{after:?}");
    proxy.stop().await;
}

/// With an nginx that has it, as `.ci/newer` brings one; with another the file asks for nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn http_3_where_nginx_has_it_and_somebody_asked() {
    let mut lab = Lab::new();
    let gate = Arc::new(Gate::default());
    let upstream = gated_web("web", &gate).await;
    let render = |lab: &Lab, more: &str| lab.render(&[(WEB, upstream), (more, upstream)], &[]);
    assert!(!render(&lab, "n.cac.localhost").text.contains("quic"));
    lab.settings.http3 = NGINX.http3;
    let first = render(&lab, "n.cac.localhost");
    assert_eq!(first.text.contains("quic"), NGINX.http3);
    let mut proxy = lab.start(&first).await;
    let file = lab.dir.path().join("upload");
    let sent = pattern(SIZE);
    std::fs::write(&file, &sent).unwrap();
    let versions = if NGINX.http3 { HTTP3 } else { &[] };
    for round in 0..3 {
        let under_way = bodies(versions, &lab, &gate, &file).await;
        gate.open();
        arrive(under_way, &sent).await;
        let more = format!("n{round}.cac.localhost");
        proxy.apply(&render(&lab, &more)).await.unwrap();
        // New connections are served at once.
        for version in LASTING.iter().chain(versions) {
            let answer = curl(&lab, version, "/", &["-i"]).await.unwrap();
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.contains("I am web, "), "{answer}");
            let offered = answer.to_lowercase().contains("\nalt-svc: h3=\":8443\"");
            assert_eq!(offered, NGINX.http3, "{answer}");
        }
    }
    proxy.stop().await;
}
