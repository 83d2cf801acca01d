//! A container's life through the API: made, started, alive, stopped, destroyed.

use std::net::Ipv4Addr;

use crate::common::{Client, http};
use cac_simulator::{Config, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn container_lives_from_create_to_destroy() {
    let simulator = Simulator::start(Config::default()).await.expect("start");
    let client = Client::login(&simulator, "root@pam", "simulator").await;
    let version = client.get("/version").await;
    assert_eq!(version.data()["release"], "8.4");

    let description = ("description", "made by a test\nhttp 8080\ntcp 7000");
    assert_eq!(
        client
            .create("101", &[("hostname", "web1"), description])
            .await,
        "OK"
    );
    let path = "/nodes/pve1/lxc/101";
    assert!(
        client
            .get(&format!("{path}/interfaces"))
            .await
            .data()
            .is_null()
    );
    assert_eq!(
        client
            .task("POST", &format!("{path}/status/start"), &[])
            .await,
        "OK"
    );

    let interfaces = client.get(&format!("{path}/interfaces")).await;
    let inet = interfaces.data()[1]["inet"]
        .as_str()
        .expect("an address")
        .to_owned();
    let address: Ipv4Addr = inet.split('/').next().expect("ip").parse().expect("IPv4");
    assert!(address.is_loopback(), "{address}");

    let page = http()
        .get(format!("http://{address}:8080/x"))
        .send()
        .await
        .expect("a page");
    assert!(page.text().await.expect("text").contains("<h1>web1</h1>"));
    let mut ssh = TcpStream::connect((address, 2022)).await.expect("SSH");
    let mut banner = [0; 8];
    ssh.read_exact(&mut banner).await.expect("banner");
    assert_eq!(&banner, b"SSH-2.0-");
    let mut echo = TcpStream::connect((address, 7000)).await.expect("echo");
    echo.write_all(b"ping").await.expect("sent");
    let mut back = [0; 4];
    echo.read_exact(&mut back).await.expect("echoed");
    assert_eq!(&back, b"ping");

    let refused = client.send("DELETE", path, &[]).await;
    assert_eq!(refused.status, 500);
    assert_eq!(
        refused.reason,
        "unable to destroy CT 101 - container is running"
    );
    assert_eq!(
        client
            .task("POST", &format!("{path}/status/stop"), &[])
            .await,
        "OK"
    );
    assert!(TcpStream::connect((address, 2022)).await.is_err());
    assert!(TcpStream::connect((address, 8080)).await.is_err());
    assert_eq!(client.task("DELETE", path, &[]).await, "OK");
    assert!(simulator.containers().is_empty());
    simulator.stop().await;
}
