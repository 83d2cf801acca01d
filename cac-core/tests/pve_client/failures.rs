//! What a caller is told when no good answer comes: unsent, maybe sent, refused or unusable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cac_core::pve::{Error, Pve, Target, Tls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::server::{Server, answer, read_request, token, version};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

fn impatient(target: Target, connect: Duration, request: Duration) -> Pve {
    Pve::with_timeouts(target, connect, request).unwrap()
}

#[tokio::test]
async fn nobody_listens_is_unsent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let target = Target {
        api_url: format!("https://127.0.0.1:{port}/api2/json"),
        tls: Tls::Off,
        auth: token(),
    };
    let error = Pve::new(target)
        .unwrap()
        .lxc_start("pve1", 100)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Unsent { cause, transient: true, .. } if cause.contains("refused")),
        "{error:?}"
    );
    assert!(error.is_safe_to_repeat() && !error.may_have_happened());
    assert!(
        error
            .to_string()
            .contains("POST /nodes/pve1/lxc/100/status/start")
    );
}

#[tokio::test]
async fn closed_during_the_handshake_is_unsent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            drop(tcp);
        }
    });
    let target = Target {
        api_url: format!("https://127.0.0.1:{port}"),
        tls: Tls::Off,
        auth: token(),
    };
    let error = Pve::new(target)
        .unwrap()
        .lxc_stop("pve1", 100)
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
    accepting.abort();
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_unsent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            held.push(tcp);
        }
    });
    let target = Target {
        api_url: format!("https://127.0.0.1:{port}"),
        tls: Tls::Off,
        auth: token(),
    };
    let pve = impatient(target, SHORT, LONG);
    let error = pve.lxc_stop("pve1", 100).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unsent { cause, transient: true, .. } if cause == "no connection within 0.3 s"),
        "{error:?}"
    );
    accepting.abort();
}

#[tokio::test]
async fn closed_before_reading_is_never_a_refusal() {
    let server = Server::raw(|stream| async move { drop(stream) }).await;
    let error = server.client().lxc_start("pve1", 100).await.unwrap_err();
    // The client cannot know whether anybody read what it wrote.
    assert!(
        matches!(
            error,
            Error::MaybeSent { read: false, .. }
                | Error::Unsent {
                    transient: true,
                    ..
                }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn closed_after_reading_is_maybe_sent() {
    let server = Server::raw(|mut stream| async move {
        read_request(&mut stream).await.unwrap();
    })
    .await;
    let error = server.client().lxc_start("pve1", 100).await.unwrap_err();
    assert!(
        matches!(error, Error::MaybeSent { read: false, .. }),
        "{error:?}"
    );
    assert!(error.may_have_happened() && !error.is_safe_to_repeat());
    let error = server.client().lxc_status("pve1", 100).await.unwrap_err();
    assert!(
        matches!(error, Error::MaybeSent { read: true, .. }),
        "{error:?}"
    );
    assert!(!error.may_have_happened() && error.is_safe_to_repeat());
}

#[tokio::test]
async fn broken_off_answers_are_maybe_sent() {
    for part in [
        "HTTP/1.1 20",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{\"data\":\"UPID:",
        "HTTP/1.1 500 CT is locked\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{\"data",
    ] {
        let server = Server::raw(move |mut stream| async move {
            read_request(&mut stream).await.unwrap();
            stream.write_all(part.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        })
        .await;
        let error = server.client().lxc_destroy("pve1", 100).await.unwrap_err();
        assert!(
            matches!(error, Error::MaybeSent { read: false, .. }),
            "{part:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn silence_is_maybe_sent() {
    for part in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
    ] {
        let server = Server::raw(move |mut stream| async move {
            read_request(&mut stream).await.unwrap();
            stream.write_all(part.as_bytes()).await.unwrap();
            // Until the client gives up.
            let _ = read_request(&mut stream).await;
        })
        .await;
        let pve = impatient(server.target(token()), LONG, SHORT);
        let error = pve.lxc_start("pve1", 100).await.unwrap_err();
        assert!(
            matches!(&error, Error::MaybeSent { cause, read: false, .. } if cause == "no whole answer within 0.3 s"),
            "{part:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn what_is_not_proxmox_is_a_bad_reply() {
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    let moved = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    let json = |body: &str| String::from_utf8(answer("200 OK", body)).unwrap();
    for (reply, words) in [
        ("SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_owned(), ""),
        (html.to_owned(), "not JSON"),
        (moved.to_owned(), "302 Found"),
        (json("{"), ""),
        (json("[]"), ""),
        (json(r#"{"data":null}"#), ""),
        (
            json(r#"{"data":"UPID:pve1:"}"#),
            "not the ID of a Proxmox VE task",
        ),
    ] {
        let calls = Arc::new(AtomicUsize::new(0));
        let (counted, bytes) = (calls.clone(), reply.clone());
        let server = Server::answering(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            bytes.clone().into_bytes()
        })
        .await;
        let error = server.client().lxc_start("pve1", 100).await.unwrap_err();
        let Error::BadReply {
            cause, read: false, ..
        } = &error
        else {
            panic!("{reply:?}: {error:?}");
        };
        assert!(cause.contains(words), "{reply:?}: {cause}");
        assert!(error.may_have_happened() && !error.is_transient());
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{reply:?}: no second try");
    }
}

#[tokio::test]
async fn endless_answers_are_cut() {
    let server = Server::raw(|mut stream| async move {
        read_request(&mut stream).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        let mut open = stream.write_all(head.as_bytes()).await;
        let blank = vec![b' '; 256 * 1024];
        while open.is_ok() {
            open = stream.write_all(&blank).await;
        }
    })
    .await;
    let error = server.client().version().await.unwrap_err();
    assert!(
        matches!(&error, Error::BadReply { cause, .. } if cause.contains("longer than")),
        "{error:?}"
    );
}

/// Pitfall 23: what went wrong stands in the reason phrase, and some releases have it nowhere else.
#[tokio::test]
async fn the_reason_phrase_is_enough() {
    for (status, code, words) in [
        ("401 Authentication failed!", 401, "Authentication failed!"),
        (
            "403 Permission check failed (/, Sys.Modify)",
            403,
            "Permission check failed (/, Sys.Modify)",
        ),
        ("500 CT 100 already running", 500, "CT 100 already running"),
        (
            "501 method 'PATCH' not available",
            501,
            "method 'PATCH' not available",
        ),
        ("500 ", 500, "Internal Server Error"),
        ("520 ", 520, "no reason given"),
        ("500 Internal Server Error", 500, "Internal Server Error"),
    ] {
        let bytes = answer(status, "");
        let server = Server::answering(move |_| bytes.clone()).await;
        let error = server.client().lxc_start("pve1", 100).await.unwrap_err();
        let Error::Refused {
            status,
            reason,
            errors,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!((*status, reason.as_str(), errors.len()), (code, words, 0));
        assert!(!error.may_have_happened());
    }
    // The phrase is lost to hyper where it is not ASCII; the message in the body is not.
    let bytes = answer("500 größe", r#"{"data":null,"message":"größe\n"}"#);
    let server = Server::answering(move |_| bytes.clone()).await;
    let error = server.client().version().await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { reason, .. } if reason == "größe"),
        "{error:?}"
    );
}

#[tokio::test]
async fn parameter_errors_come_one_by_one() {
    let body = r#"{"data":null,"message":"Parameter verification failed.\n","errors":{
        "net0":"invalid format - format error\nnet0.ip: invalid format - value does not look like a valid ipv4 network configuration\n\n",
        "cores":"value must have a minimum value of 1"}}"#;
    let bytes = answer("400 Parameter verification failed.", body);
    let server = Server::answering(move |_| bytes.clone()).await;
    let error = server.client().lxc_start("pve1", 100).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Proxmox VE refused with 400: Parameter verification failed. (cores: value must have a minimum value of 1; \
         net0: invalid format - format error net0.ip: invalid format - value does not look like a valid ipv4 network configuration)"
    );
}

#[tokio::test]
async fn old_releases_say_it_in_the_reason_phrase_beside_a_body() {
    let bytes = answer("500 CT 100 not running", r#"{"data":null}"#);
    let server = Server::answering(move |_| bytes.clone()).await;
    let error = server.client().lxc_stop("pve1", 100).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { reason, .. } if reason == "CT 100 not running"),
        "{error:?}"
    );
}

/// Pitfall 4: 595, 596 and 599 are the answers of a proxy in front of a node.
#[tokio::test]
async fn gateway_statuses() {
    for (status, unsent) in [
        ("595 No route to host", true),
        ("595 Connection refused", true),
        ("596 Connection timed out", false),
        ("597 Broken pipe", false),
        ("599 Too many redirections", false),
        ("502 Bad Gateway", false),
        ("504 Gateway Time-out", false),
    ] {
        let bytes = answer(status, "");
        let server = Server::answering(move |_| bytes.clone()).await;
        let error = server.client().lxc_start("pve1", 100).await.unwrap_err();
        let right = match &error {
            Error::Unsent {
                cause,
                transient: true,
                ..
            } => unsent && cause == status.trim(),
            Error::MaybeSent {
                cause, read: false, ..
            } => !unsent && cause.trim() == status.trim(),
            _ => false,
        };
        assert!(right, "{status}: {error:?}");
        assert!(error.is_transient());
        let error = server.client().version().await.unwrap_err();
        assert!(error.is_safe_to_repeat(), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn names_cannot_change_the_path() {
    let server = Server::answering(|request| {
        answer("500 x", &format!("{{\"message\":\"{}\"}}", request.target))
    })
    .await;
    for name in ["", ".", ".."] {
        let error = server.client().lxc_list(name).await.unwrap_err();
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
    }
    let error = server.client().lxc_list("a/../b?c#d%2e").await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { reason, .. }
            if reason == "/api2/json/nodes/a%2F..%2Fb%3Fc%23d%252e/lxc"),
        "{error:?}"
    );
}

#[tokio::test]
async fn connections_are_reused_and_a_dead_one_is_noticed() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let server = Server::raw(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            for _ in 0..3 {
                read_request(&mut stream).await.unwrap();
                stream.write_all(&version()).await.unwrap();
            }
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let pve = server.client();
    for _ in 0..3 {
        pve.version().await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let after = pve.clone().version().await;
    assert!(after.as_ref().is_ok() || after.is_err_and(|error| error.is_safe_to_repeat()));
}

/// Run by the next test in a process with proxies in its environment.
#[tokio::test]
async fn a_plain_call() {
    let server = Server::answering(|_| version()).await;
    assert_eq!(server.client().version().await.unwrap().release, "8.4");
}

#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    let mut run = tokio::process::Command::new(std::env::current_exe().unwrap());
    run.args(["--exact", "failures::a_plain_call"])
        .kill_on_drop(true);
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        run.env(name, "http://127.0.0.1:1");
    }
    let output = run.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}
