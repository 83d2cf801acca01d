//! `/nginx.conf`.

use std::time::{Duration, Instant};

use cac_core::container::{self, NewContainer};
use cac_core::{Actor, args};

use crate::lab::{Lab, expect};

#[tokio::test]
async fn a_whole_file_with_a_strong_tag() {
    let lab = Lab::new().await;
    let alice = lab.login("alice").await;
    let before = lab.get("/nginx.conf", "").send().await.unwrap();
    assert_eq!(before.status(), 200);
    assert!(
        before.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    let tag = before.headers()["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let same = lab
        .get("/nginx.conf", "")
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            same.status().as_u16(),
            same.headers()["etag"].to_str().unwrap()
        ),
        (304, tag.as_str())
    );
    // Held back until something changes.
    let waiting = lab
        .get("/nginx.conf?wait=60", "")
        .header("if-none-match", &tag)
        .send();
    let (_, job) = lab.create(&alice, "web").await;
    let changed = waiting.await.unwrap();
    assert_eq!(changed.status(), 200);
    assert_ne!(changed.headers()["etag"].to_str().unwrap(), tag);
    assert!(changed.text().await.unwrap().contains("web.cac.localhost"));
    assert_eq!(lab.ended(job).await, "success");
    let asked = Instant::now();
    let now = lab.get("/nginx.conf", "").send().await.unwrap();
    let tag = now.headers()["etag"].to_str().unwrap().to_owned();
    let same = lab
        .get("/nginx.conf?wait=1", "")
        .header("if-none-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(same.status(), 304);
    assert!(asked.elapsed() >= Duration::from_secs(1));
    expect(
        lab.get("/nginx.conf?wait=soon", "").send().await.unwrap(),
        400,
    )
    .await;
}

/// S11 of the original: a map of the network for everyone.
#[tokio::test]
async fn only_local_machines_and_admins_read_it() {
    let lab = Lab::idle(&[
        ("NGINX_CONF_ALLOW", "127.0.0.0/8"),
        ("TRUSTED_PROXIES", "127.9.9.9"),
    ])
    .await;
    assert_eq!(
        lab.get("/nginx.conf", "").send().await.unwrap().status(),
        200
    );
    for header in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        expect(
            lab.get("/nginx.conf", "")
                .header(header, "127.0.0.1")
                .send()
                .await
                .unwrap(),
            401,
        )
        .await;
    }
    let proxied = Lab::idle(&[]).await;
    let from = async |address: &str| {
        proxied
            .get("/nginx.conf", "")
            .header("x-forwarded-for", address)
            .send()
            .await
            .unwrap()
    };
    expect(from("198.51.100.7").await, 401).await;
    expect(from("127.0.0.1, 198.51.100.7").await, 401).await;
    assert_eq!(from("127.0.0.1").await.status(), 200);
    let closed = Lab::idle(&[("NGINX_CONF_ALLOW", "198.51.100.0/24")]).await;
    expect(closed.get("/nginx.conf", "").send().await.unwrap(), 401).await;
    let (alice, admin) = (closed.login("alice").await, closed.login("admin").await);
    expect(closed.get("/nginx.conf", &alice).send().await.unwrap(), 403).await;
    assert_eq!(
        closed
            .get("/nginx.conf", &admin)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

/// What another process wrote is seen without a wake-up in this one.
#[tokio::test]
async fn a_wait_sees_what_another_process_changed() {
    let lab = Lab::idle(&[]).await;
    let new = NewContainer {
        hostname: "quiet".to_owned(),
        os_release: "debian".to_owned(),
        http_port: Some(8080),
        ..NewContainer::default()
    };
    let made = container::create(&lab.core, &Actor::new("alice", false), &new, None)
        .await
        .unwrap();
    let before = lab.get("/nginx.conf", "").send().await.unwrap();
    let tag = before.headers()["etag"].to_str().unwrap().to_owned();
    let waiting = lab
        .get("/nginx.conf?wait=60", "")
        .header("if-none-match", tag)
        .send();
    let write = async {
        let sql = r#"UPDATE "Containers" SET "ipv4Address" = '127.77.0.1' WHERE "id" = ?"#;
        lab.core.db.exec(sql, args![made.id]).await.unwrap();
    };
    let (changed, ()) = tokio::join!(waiting, write);
    assert!(
        changed
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains("127.77.0.1:8080")
    );
}
