//! What clients see.

use cac_core::nginx::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::lab::{Lab, PATIENCE, head, request, stream, tcp, udp, web};

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
    let mut socket = lab.tls("one.cac.localhost").await.unwrap();
    let ask = "GET /ws HTTP/1.1\r\nHost: one.cac.localhost:8443\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let answer = timeout(PATIENCE, head(&mut socket)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
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
    let expected = format!("I am one, {size} bytes of body.");
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
