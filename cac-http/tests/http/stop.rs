//! The end of the server, and its start on a port that is taken.

use std::time::Duration;

use cac_core::testing::until;

use crate::lab::{Lab, expect};

#[tokio::test]
async fn open_streams_do_not_hold_the_stop_up() {
    let mut lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    let (_, job) = lab.create(&alice, "web").await;
    let mut stream = lab
        .get(&format!("/jobs/{job}/stream"), &alice)
        .send()
        .await
        .unwrap();
    let begun = stream.chunk().await.unwrap().expect("an event");
    assert!(begun.starts_with(b"event: state\n"), "{begun:?}");
    let first = lab.get("/nginx.conf", "").send().await.unwrap();
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let waiting = tokio::spawn(
        lab.get("/nginx.conf?wait=60", "")
            .header("if-none-match", tag)
            .send(),
    );
    lab.stop.cancel();
    // Both would go on for a minute or more.
    tokio::time::timeout(Duration::from_secs(20), lab.served.take().unwrap())
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
    stream.text().await.unwrap();
    let _ = waiting.await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_one_sentence() {
    let taken = cac_http::bind("127.0.0.1:0".parse().unwrap(), "CAC_LISTEN")
        .await
        .unwrap();
    let address = taken.local_addr().unwrap();
    let message = cac_http::bind(address, "CAC_LISTEN").await.unwrap_err();
    assert_eq!(
        message,
        format!(
            "Port {} of 127.0.0.1 is taken by another program: stop that one or choose another port with CAC_LISTEN.",
            address.port()
        )
    );
}

/// 5xx never shows a cause; the request's id leads to the log.
#[tokio::test]
async fn a_database_that_is_away_is_no_readiness_and_no_secret() {
    let lab = Lab::idle(&[]).await;
    let alice = lab.login("alice").await;
    expect(lab.get("/readyz", "").send().await.unwrap(), 200).await;
    lab.core.db.close().await;
    until("it is not ready", async || {
        lab.get("/readyz", "").send().await.unwrap().status() == 503
    })
    .await;
    expect(lab.get("/readyz", "").send().await.unwrap(), 503).await;
    expect(lab.get("/healthz", "").send().await.unwrap(), 200).await;
    // Not 401: the session may be good.
    let failed = lab.get("/containers", &alice).send().await.unwrap();
    assert!(failed.status().is_server_error(), "{}", failed.status());
    let id = failed.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let text = failed.text().await.unwrap();
    assert!(text.contains(&id), "{text}");
    for cause in ["pool", "Pool", "sqlx", "SELECT"] {
        assert!(!text.contains(cause), "{text}");
    }
}
