//! Which certificates are believed, and that nothing is sent where they are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use cac_core::pve::{Error, Fingerprint, Pve, Target, Tls};
use tokio::io::AsyncWriteExt;

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

/// Pitfall 15: nodes have certificates of their own, which are pinned.
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

/// Run by the next test in a process whose system trusts the server's certificate.
#[tokio::test]
#[ignore = "needs the environment that the_systems_roots_are_believed makes"]
async fn a_call_by_the_systems_roots() {
    let target = Target {
        api_url: std::env::var("PVE_TEST_URL").unwrap(),
        tls: Tls::SystemRoots,
        auth: token(),
    };
    let pve = Pve::new(target).unwrap();
    assert_eq!(pve.version().await.unwrap().release, "8.4");
}

#[tokio::test]
async fn the_systems_roots_are_believed() {
    let (der, key) = certificate();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, pem).unwrap();
    let server = Server::raw_with(der, key, |mut stream| async move {
        read_request(&mut stream).await.unwrap();
        stream.write_all(&version()).await.unwrap();
        let _ = stream.shutdown().await;
    })
    .await;
    let url = server.url();
    let call = |trusted: bool| {
        let mut run = tokio::process::Command::new(std::env::current_exe().unwrap());
        run.args(["--ignored", "--exact", "trust::a_call_by_the_systems_roots"])
            .env("PVE_TEST_URL", &url)
            .kill_on_drop(true);
        if trusted {
            run.env("SSL_CERT_FILE", &roots);
        }
        run.output()
    };
    let output = call(true).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    assert!(!call(false).await.unwrap().status.success());
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
