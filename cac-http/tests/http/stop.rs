//! The end of the server, and its start on a port that is taken.

use std::time::{Duration, Instant};

use crate::lab::Lab;

#[tokio::test]
async fn open_streams_do_not_hold_the_stop_up() {
    let mut lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let (_, job) = lab.create(&alice, "web").await;
    let stream = lab
        .get(&format!("/jobs/{job}/stream"), &alice)
        .send()
        .await
        .unwrap();
    let first = lab.get("/nginx.conf", "").send().await.unwrap();
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let waiting = tokio::spawn(
        lab.get("/nginx.conf?wait=60", "")
            .header("if-none-match", tag)
            .send(),
    );
    let asked = Instant::now();
    lab.stop.cancel();
    lab.served.take().unwrap().await.unwrap().unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    let rest = stream.text().await.unwrap();
    assert!(rest.starts_with("event: state\n"), "{rest}");
    let _ = waiting.await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_one_sentence() {
    let taken = cac_http::bind("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = taken.local_addr().unwrap();
    let message = cac_http::bind(address).await.unwrap_err();
    assert_eq!(
        message,
        format!(
            "port {} is taken on 127.0.0.1; stop the other program or set CAC_LISTEN",
            address.port()
        )
    );
}
