//! What clients see.

use std::process::Command;
use std::sync::Arc;

use cac_core::nginx::{HttpOptions, Protocol, StreamService};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::lab::{
    Lab, PATIENCE, events, read_until, request, silent, stream, tcp, tls_web, udp, web,
};

#[tokio::test]
async fn each_name_leads_to_its_own_container() {
    let lab = Lab::new();
    let names = [
        ("one.cac.localhost", web("one").await),
        ("two.cac.localhost", web("two").await),
    ];
    let proxy = lab.start(&lab.render(&names, &[])).await;
    for name in ["one", "two"] {
        let host = format!("{name}.cac.localhost");
        let (status, answer) = lab.get(&host).await.unwrap();
        assert_eq!(status, 200);
        assert!(answer.contains(&format!("I am {name}, ")), "{answer}");
        let lines = [
            format!("Host: {host}:8443"),
            "X-Forwarded-Proto: https".to_owned(),
            format!("X-Forwarded-Host: {host}:8443"),
            "X-Real-IP: 127.0.0.1".to_owned(),
        ];
        for line in lines {
            assert!(answer.contains(&line), "{line} is not in {answer}");
        }
    }
    let (status, answer) = lab.get("none.cac.localhost").await.unwrap();
    assert_eq!(status, 404);
    assert!(!answer.contains("I am"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn plain_http_is_sent_to_https() {
    let lab = Lab::new();
    let names = [("one.cac.localhost", web("one").await)];
    let proxy = lab.start(&lab.render(&names, &[])).await;
    let (status, answer) = request(lab.plain().await, "one.cac.localhost", "/a?b=c", "")
        .await
        .unwrap();
    assert_eq!(status, 308);
    let to = "Location: https://one.cac.localhost:8443/a?b=c\r\n";
    assert!(answer.contains(to), "{answer}");
    let unknown = request(lab.plain().await, "none.cac.localhost", "/", "").await;
    assert_eq!(unknown.unwrap().0, 404);
    proxy.stop().await;
}

#[tokio::test]
async fn a_websocket_passes_in_both_directions() {
    let lab = Lab::new();
    let names = [("one.cac.localhost", web("one").await)];
    let proxy = lab.start(&lab.render(&names, &[])).await;
    let mut socket = lab.websocket("one.cac.localhost").await;
    for message in [b"hello", b"again"] {
        socket.write_all(message).await.unwrap();
        let mut back = [0; 5];
        timeout(PATIENCE, socket.read_exact(&mut back))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&back, message);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let lab = Lab::new();
    let names = [("one.cac.localhost", web("one").await)];
    let proxy = lab.start(&lab.render(&names, &[])).await;
    let size = 5_000_000;
    let more = format!("Content-Length: {size}\r\n\r\n{}", "x".repeat(size));
    let client = lab.tls("one.cac.localhost").await.unwrap();
    let (status, answer) = request(client, "one.cac.localhost", "/", &more)
        .await
        .unwrap();
    assert_eq!(status, 200);
    let expected = format!("I am one, {size} bytes of body, ");
    assert!(answer.contains(&expected), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn tcp_and_udp_ports_lead_to_their_containers() {
    let lab = Lab::new();
    let streams = [
        stream(Protocol::Tcp, 2222, tcp().await),
        stream(Protocol::Udp, 2222, udp().await),
    ];
    let proxy = lab.start(&lab.render(&[], &streams)).await;
    let mut ssh = TcpStream::connect((lab.ip, 2222)).await.unwrap();
    ssh.write_all(b"ping").await.unwrap();
    let mut back = [0; 18];
    timeout(PATIENCE, ssh.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&back, b"SSH-2.0-test\r\nping");
    let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    datagrams.connect((lab.ip, 2222)).await.unwrap();
    datagrams.send(b"question").await.unwrap();
    let mut back = [0; 100];
    let length = timeout(PATIENCE, datagrams.recv(&mut back)).await.unwrap();
    assert_eq!(&back[..length.unwrap()], b"question");
    proxy.stop().await;
}

#[tokio::test]
async fn nginx_ends_tls_for_a_tcp_port() {
    let lab = Lab::new();
    let service = StreamService {
        tls: true,
        ..stream(Protocol::Tcp, 2993, tcp().await)
    };
    let proxy = lab.start(&lab.render(&[], &[service])).await;
    let mut client = lab.tls_at("mail.cac.localhost", 2993).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    let mut back = [0; 18];
    let read = timeout(PATIENCE, client.read_exact(&mut back)).await;
    read.unwrap().unwrap();
    assert_eq!(&back, b"SSH-2.0-test\r\nping");
    proxy.stop().await;
}

#[tokio::test]
async fn a_service_has_settings_of_its_own_beside_the_others() {
    let mut lab = Lab::new();
    let portal = web("the portal").await;
    lab.settings.portal = Some(("portal.cac.localhost".parse().unwrap(), portal));
    let plain = HttpOptions::default();
    let secure = HttpOptions {
        https: true,
        ..plain
    };
    let narrow = HttpOptions {
        max_body: Some(1),
        ..plain
    };
    let hasty = HttpOptions {
        timeout: Some(1),
        ..plain
    };
    let services = [
        ("plain.cac.localhost", web("plain").await, plain),
        (
            "secure.cac.localhost",
            tls_web("secure", &lab.certificate).await,
            secure,
        ),
        ("narrow.cac.localhost", web("narrow").await, narrow),
        ("hasty.cac.localhost", silent().await, hasty),
    ];
    let proxy = lab.start(&lab.render_own(&services)).await;
    for name in ["plain", "secure", "narrow"] {
        let host = format!("{name}.cac.localhost");
        let (status, answer) = lab.get(&host).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains(&format!("I am {name}, ")), "{answer}");
        assert!(answer.contains(&format!("Host: {host}:8443")), "{answer}");
        // Whoever has settings of its own is sent to https like the others.
        let (status, _) = request(lab.plain().await, &host, "/", "").await.unwrap();
        assert_eq!(status, 308);
    }
    let size = 1_100_000;
    let more = format!("Content-Length: {size}\r\n\r\n{}", "x".repeat(size));
    for (name, expected) in [("narrow", 413), ("plain", 200)] {
        let host = format!("{name}.cac.localhost");
        let client = lab.tls(&host).await.unwrap();
        let (status, answer) = request(client, &host, "/", &more).await.unwrap();
        assert_eq!(status, expected, "{answer}");
    }
    // A container that says nothing: its visitor gets the page that the portal has for that.
    let (_, answer) = lab.get("hasty.cac.localhost").await.unwrap();
    let asked =
        "GET /unavailable?name=hasty.cac.localhost HTTP/1.0\r\nHost: portal.cac.localhost\r\n";
    assert!(
        answer.contains("I am the portal, 0 bytes of body, "),
        "{answer}"
    );
    assert!(answer.contains(asked), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn events_come_one_by_one() {
    let lab = Lab::new();
    let next = Arc::new(Notify::new());
    let names = [("one.cac.localhost", events(Arc::clone(&next)).await)];
    let proxy = lab.start(&lab.render(&names, &[])).await;
    let mut client = lab.tls("one.cac.localhost").await.unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: one.cac.localhost:8443\r\n\r\n";
    client.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut client, "data: 1\n\n").await;
    next.notify_one();
    read_until(&mut client, "data: 2\n\n").await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken() {
    let lab = Lab::new();
    let names = [("one.cac.localhost", web("one").await)];
    let proxy = lab.start(&lab.render(&names, &[])).await;
    let resolve = format!("one.cac.localhost:8443:{}", lab.ip);
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--http2",
        "-w",
        " %{http_version} %{http_code}",
        "--resolve",
        &resolve,
    ]);
    curl.arg("--cacert").arg(&lab.certificate.certificate);
    let output = curl
        .arg("https://one.cac.localhost:8443/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.starts_with("I am one, ") && said.ends_with(" 2 200"),
        "{output:?}"
    );
    proxy.stop().await;
}
