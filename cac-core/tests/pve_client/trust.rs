//! Which certificates are believed, and that nothing is sent where they are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cac_core::pve::{Error, Fingerprint, Pve, Target, Tls};

use crate::server::{Server, certificate, read_request, token, version};

fn client(server: &Server, tls: Tls) -> Pve {
    let target = Target {
        tls,
        ..server.target(token())
    };
    Pve::new(target).unwrap()
}

/// A server and the number of requests it has read.
async fn counting() -> (Server, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let server = Server::answering(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        version()
    })
    .await;
    (server, requests)
}

#[tokio::test]
async fn the_pinned_certificate_is_believed() {
    let (server, requests) = counting().await;
    let shown = Pve::fingerprint_of(&server.url()).await.unwrap();
    assert_eq!(shown, server.fingerprint);
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    let typed: Fingerprint = shown.to_string().to_lowercase().parse().unwrap();
    let pve = client(&server, Tls::Fingerprint(typed));
    assert_eq!(pve.version().await.unwrap().version, "8.4.21");
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_gets_nothing() {
    let (server, requests) = counting().await;
    let pinned = Fingerprint::of(b"another certificate");
    let pve = client(&server, Tls::Fingerprint(pinned));
    let error = pve.version().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unsent {
                transient: false,
                ..
            }
        ),
        "{error:?}"
    );
    let text = error.to_string();
    for fingerprint in [pinned, server.fingerprint] {
        assert!(text.contains(&fingerprint.to_string()), "{text}");
    }
    assert!(text.contains("pin the new one"), "{text}");
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_pinned_certificate_without_its_key_gets_nothing() {
    let (stolen, _) = certificate();
    let (_, other_key) = certificate();
    let server = Server::raw_with(stolen, other_key, |mut stream| async move {
        assert!(read_request(&mut stream).await.is_err(), "a request came");
    })
    .await;
    let pve = client(&server, Tls::Fingerprint(server.fingerprint));
    let error = pve.version().await.unwrap_err();
    assert!(matches!(error, Error::Unsent { .. }), "{error:?}");
    assert!(Pve::fingerprint_of(&server.url()).await.is_err());
}

#[tokio::test]
async fn off_believes_anyone() {
    let (server, _) = counting().await;
    assert!(client(&server, Tls::Off).version().await.is_ok());
}

#[tokio::test]
async fn the_systems_roots_do_not_know_a_self_signed_certificate() {
    let (server, requests) = counting().await;
    let target = Target {
        tls: Tls::SystemRoots,
        ..server.target(token())
    };
    // Without any roots on the system the client itself is refused, and says what to install.
    let error = match Pve::new(target) {
        Ok(pve) => pve.version().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(
            error,
            Error::Unsent {
                transient: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nobody_presents_a_certificate() {
    let error = Pve::fingerprint_of("https://127.0.0.1:1")
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unsent {
                transient: true,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(Pve::fingerprint_of("http://127.0.0.1:1").await.is_err());
}
