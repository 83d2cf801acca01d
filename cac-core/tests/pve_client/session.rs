//! Logging in, and a login that many callers share: one at a time, renewed in time, and once when it is refused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cac_core::pve::{Auth, Error, Login, Pve, Secret};
use futures_util::future::join_all;

use crate::server::{Request, Server, answer, version};

/// What the server saw, what it will do with the next logins, and which ticket it takes.
#[derive(Default)]
struct Door {
    seen: Vec<Request>,
    logins: usize,
    refusals: VecDeque<&'static str>,
    shut_out: Vec<String>,
}

fn ticket(number: usize) -> String {
    format!("PVE:alice@pve:{number:08X}::c2lnbmF0dXJl+/=")
}

fn cookie(number: usize) -> String {
    let encoded = ticket(number).replace(':', "%3A").replace('@', "%40");
    let encoded = encoded.replace('+', "%2B").replace('/', "%2F");
    format!("PVEAuthCookie={}", encoded.replace('=', "%3D"))
}

async fn door() -> (Server, Arc<Mutex<Door>>) {
    let door = Arc::new(Mutex::new(Door::default()));
    let shared = door.clone();
    let server = Server::answering(move |request| {
        let mut door = shared.lock().unwrap();
        door.seen.push(request.clone());
        if request.is("POST", "/access/ticket") {
            door.logins += 1;
            if let Some(status) = door.refusals.pop_front() {
                return answer(status, "");
            }
            let number = door.logins;
            let body = format!(
                r#"{{"data":{{"username":"alice@pve","ticket":"{}","CSRFPreventionToken":"{number:08X}:csrf","cap":{{}}}}}}"#,
                ticket(number)
            );
            return answer("200 OK", &body);
        }
        let shown = request.header("cookie").unwrap_or_default().to_owned();
        if shown.is_empty() || door.shut_out.contains(&shown) {
            return answer("401 Authentication failed!", "");
        }
        match request.method.as_str() {
            "GET" => version(),
            _ => answer("200 OK", r#"{"data":null}"#),
        }
    })
    .await;
    (server, door)
}

fn password() -> Auth {
    Auth::Password {
        user: "alice@pve".to_owned(),
        password: Secret::new("a;b=c&d+e f"),
    }
}

/// A client whose clock the test moves.
fn clocked(server: &Server) -> (Pve, Arc<Mutex<Instant>>) {
    let now = Arc::new(Mutex::new(Instant::now()));
    let shown = now.clone();
    let pve = Pve::new(server.target(password())).unwrap();
    let pve = pve.with_clock(Arc::new(move || *shown.lock().unwrap()));
    (pve, now)
}

fn forward(now: &Mutex<Instant>, minutes: u64) {
    *now.lock().unwrap() += Duration::from_secs(minutes * 60);
}

/// Pitfall 6: every refused login costs three seconds, so callers share one.
#[tokio::test]
async fn twenty_callers_make_one_login() {
    let (server, door) = door().await;
    let pve = Pve::new(server.target(password())).unwrap();
    let calls = (0..20).map(|_| {
        let pve = pve.clone();
        async move { pve.version().await }
    });
    for result in join_all(calls).await {
        result.unwrap();
    }
    let door = door.lock().unwrap();
    assert_eq!(door.logins, 1);
    assert_eq!(door.seen.len(), 21);
    assert_eq!(
        door.seen[0].body,
        "username=alice%40pve&password=a%3Bb%3Dc%26d%2Be%20f"
    );
    assert_eq!(
        door.seen[0].header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert!(
        door.seen[1..]
            .iter()
            .all(|request| request.header("cookie") == Some(&cookie(1)))
    );
}

#[tokio::test]
async fn callers_share_a_failed_login_too() {
    let (server, door) = door().await;
    door.lock().unwrap().refusals = VecDeque::from(["401 authentication failure"; 20]);
    let pve = Pve::new(server.target(password())).unwrap();
    for result in join_all((0..20).map(|_| pve.version())).await {
        assert!(result.unwrap_err().is_unauthenticated());
    }
    assert_eq!(door.lock().unwrap().logins, 1);
    door.lock().unwrap().refusals.clear();
    pve.version().await.unwrap();
    assert_eq!(door.lock().unwrap().logins, 2);
}

/// Pitfall 7: writes by ticket need a second token, writes by API token none.
#[tokio::test]
async fn the_csrf_token_goes_with_writes_only() {
    let (server, door) = door().await;
    let pve = Pve::new(server.target(password())).unwrap();
    pve.version().await.unwrap();
    pve.acl_grant("/vms/100", "PVEVMUser", "alice@pve")
        .await
        .unwrap();
    let door = door.lock().unwrap();
    assert_eq!(door.seen[1].header("csrfpreventiontoken"), None);
    assert_eq!(
        door.seen[2].header("csrfpreventiontoken"),
        Some("00000001:csrf")
    );
    assert_eq!(
        door.seen[2].body,
        "path=%2Fvms%2F100&roles=PVEVMUser&users=alice%40pve&propagate=1"
    );
}

/// Pitfall 5: a ticket lives two hours.
#[tokio::test]
async fn a_ticket_is_renewed_after_an_hour() {
    let (server, door) = door().await;
    let (pve, now) = clocked(&server);
    pve.version().await.unwrap();
    forward(&now, 59);
    pve.version().await.unwrap();
    assert_eq!(door.lock().unwrap().logins, 1);
    forward(&now, 1);
    pve.version().await.unwrap();
    let door = door.lock().unwrap();
    assert_eq!(door.logins, 2);
    assert_eq!(
        door.seen.last().unwrap().header("cookie"),
        Some(&*cookie(2))
    );
}

#[tokio::test]
async fn a_ticket_that_cannot_be_renewed_is_used_while_it_lives() {
    let (server, door) = door().await;
    let (pve, now) = clocked(&server);
    pve.version().await.unwrap();
    door.lock().unwrap().refusals = VecDeque::from(["595 Connection refused"; 3]);
    forward(&now, 61);
    pve.version().await.unwrap();
    pve.version().await.unwrap();
    assert_eq!(door.lock().unwrap().logins, 2, "not with each call again");
    forward(&now, 1);
    pve.version().await.unwrap();
    assert_eq!(door.lock().unwrap().logins, 3);
    forward(&now, 60);
    let error = pve.version().await.unwrap_err();
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
    forward(&now, 1);
    pve.version().await.unwrap();
}

#[tokio::test]
async fn a_refused_ticket_is_replaced_once() {
    let (server, door) = door().await;
    let pve = Pve::new(server.target(password())).unwrap();
    pve.version().await.unwrap();
    door.lock().unwrap().shut_out = vec![cookie(1)];
    for result in join_all((0..10).map(|_| pve.acl_grant("/", "NoAccess", "bob@pve"))).await {
        result.unwrap();
    }
    assert_eq!(door.lock().unwrap().logins, 2);
    let before = {
        let mut door = door.lock().unwrap();
        door.shut_out = (1..9).map(cookie).collect();
        door.seen.len()
    };
    let error = pve.version().await.unwrap_err();
    assert!(error.is_unauthenticated(), "{error:?}");
    // The call, a login, the call again: no more.
    assert_eq!(door.lock().unwrap().seen.len() - before, 3);
}

#[tokio::test]
async fn a_refused_token_is_not_tried_again() {
    let (server, door) = door().await;
    let error = server.client().version().await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { status: 401, reason, .. } if reason == "Authentication failed!"),
        "{error:?}"
    );
    let door = door.lock().unwrap();
    assert_eq!(door.seen.len(), 1);
    assert_eq!(
        door.seen[0].header("authorization"),
        Some("PVEAPIToken=svc@pve!api=5ec2e7")
    );
}

#[tokio::test]
async fn one_user_logs_in_and_acts() {
    let (server, door) = door().await;
    let nobody = Pve::new(server.target(Auth::None)).unwrap();
    let login = nobody
        .login("alice@pve", &Secret::new("secret123"))
        .await
        .unwrap();
    let Login::Ticket(ticket) = login else {
        panic!("{login:?}");
    };
    assert_eq!(ticket.user, "alice@pve");
    assert!(!format!("{ticket:?}").contains("c2lnbmF0dXJl"));
    nobody.with_ticket(&ticket).version().await.unwrap();
    assert_eq!(
        door.lock().unwrap().seen[1].header("cookie"),
        Some(&*cookie(1))
    );
    // Such a ticket is not ours to renew.
    door.lock().unwrap().shut_out = vec![cookie(1)];
    assert!(
        nobody
            .with_ticket(&ticket)
            .version()
            .await
            .unwrap_err()
            .is_unauthenticated()
    );
    assert_eq!(door.lock().unwrap().logins, 1);
}

#[tokio::test]
async fn a_second_factor_takes_two_steps() {
    let half = r#"PVE:!tfa!{\"totp\"%3Atrue,\"recovery\"%3A[0,1,2]}:6B03F1F5::c2ln"#;
    let first = format!(
        r#"{{"data":{{"NeedTFA":1,"username":"tfa@pve","ticket":"{half}","CSRFPreventionToken":"x:y"}}}}"#
    );
    let second = r#"{"data":{"username":"tfa@pve","ticket":"PVE:tfa@pve:6B03F1F5::c2ln","CSRFPreventionToken":"x:y","cap":{}}}"#;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = seen.clone();
    let server = Server::answering(move |request| {
        let body = if request.body.contains("tfa-challenge") {
            second
        } else {
            first.as_str()
        };
        shared.lock().unwrap().push(request.body.clone());
        answer("200 OK", body)
    })
    .await;
    let nobody = Pve::new(server.target(Auth::None)).unwrap();
    let login = nobody
        .login("tfa@pve", &Secret::new("secret123"))
        .await
        .unwrap();
    let Login::SecondFactor { challenge, kinds } = login else {
        panic!("{login:?}");
    };
    assert_eq!(kinds, ["recovery", "totp"]);
    let login = nobody
        .login_second_factor("tfa@pve", &challenge, &Secret::new("totp:123456"))
        .await
        .unwrap();
    assert!(matches!(login, Login::Ticket(ticket) if ticket.user == "tfa@pve"));
    assert_eq!(
        seen.lock().unwrap()[1],
        "username=tfa%40pve&password=totp%3A123456&tfa-challenge=PVE%3A%21tfa%21%7B%22totp%22%253Atrue%2C%22recovery%22%253A%5B0%2C1%2C2%5D%7D%3A6B03F1F5%3A%3Ac2ln"
    );
    let auth = Auth::Password {
        user: "tfa@pve".to_owned(),
        password: Secret::new("secret123"),
    };
    let error = Pve::new(server.target(auth))
        .unwrap()
        .version()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("use an API token"), "{error}");
}
