//! What the proxies report, and how each service stands there.

use std::net::TcpListener;
use std::time::Duration;

use cac_core::proxy::{self, Report};
use cac_core::routes::{self, Standing, State, Variant};
use cac_core::service::{self, NewOne};
use cac_core::testing::databases;
use cac_core::{Actor, Core, args};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{container, core, http, private};

pub(super) async fn standing(core: &Core, id: i64) -> Standing {
    let mut all = routes::standings(core, vec![id]).await.unwrap();
    all.remove(&id).unwrap()
}

/// A puller of this name has the newest file without what would listen on taken ports, and has nginx on it; the file.
async fn pull(core: &Core, proxy: &str, taken: &str) -> String {
    let variant = Variant::parse(core, None, None, None, Some(taken)).unwrap();
    let file = routes::file(core, &variant).await.unwrap();
    let report = Report {
        taken: taken.parse().unwrap(),
        ..Report::live(file.etag.clone())
    };
    proxy::report(core, proxy, &report).await.unwrap();
    file.text.clone()
}

async fn add(core: &Core, container: i64, word: &str) -> service::Service {
    let protocol = Some(word.to_owned());
    let new = NewOne {
        protocol,
        ..NewOne::default()
    };
    let alice = Actor::new("alice", false);
    service::add(core, &alice, container, &new).await.unwrap()
}

async fn service_ids(core: &Core, container: i64) -> Vec<i64> {
    let sql = r#"SELECT "id" FROM "Services" WHERE "containerId" = ? ORDER BY "id""#;
    let rows = core.db.all(sql, args![container]).await.unwrap();
    rows.iter().map(|row| row.get("id").unwrap()).collect()
}

#[tokio::test]
async fn each_service_says_where_it_is_live_since_when_and_why_not() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "one", "127.1.0.2").await;
        http(&core.db, id, "one", 80).await;
        let mut known = service_ids(&core, id).await;
        let one = known.pop().unwrap();
        let standing = async |id: i64| standing(&core, id).await;
        let report = async |proxy: &str, refused: Option<&str>| {
            let report = Report {
                refused: refused.map(ToOwned::to_owned),
                ..Report::live(routes::render(&core).await.unwrap().etag)
            };
            proxy::report(&core, proxy, &report).await.unwrap();
        };
        assert_eq!(standing(one).await.state, State::Pending);
        report("a", None).await;
        let live = standing(one).await;
        assert_eq!(
            (live.state, live.live.len()),
            (State::Live, 1),
            "{}",
            database.name
        );
        let since = live.live[0].since;

        // A change of another service leaves it where it is, since when it was.
        http(&core.db, id, "two", 81).await;
        let two = service_ids(&core, id).await.pop().unwrap();
        core.wake.routes();
        report("b", None).await;
        assert_eq!(
            standing(two).await.state,
            State::Pending,
            "a has the older file"
        );
        report("a", None).await;
        let live = standing(one).await;
        assert_eq!((live.state, live.live[0].since), (State::Live, since));
        assert_eq!(live.live.len(), 2);
        assert_eq!(standing(two).await.state, State::Live);

        // nginx refuses the next one, in its own words.
        let moved = r#"UPDATE "Services" SET "internalPort" = 82 WHERE "id" = ?"#;
        core.db.exec(moved, args![two]).await.unwrap();
        core.wake.routes();
        report("a", Some("unknown directive")).await;
        let refused = standing(two).await;
        assert_eq!(refused.state, State::Refused);
        assert_eq!(refused.reason.unwrap(), "a refused it: unknown directive");
        assert_eq!(standing(one).await.state, State::Live);

        // What cannot be rendered says why, and is served as it was.
        let bad = r#"UPDATE "Services" SET "externalHostname" = 'a b' WHERE "id" = ?"#;
        core.db.exec(bad, args![one]).await.unwrap();
        core.wake.routes();
        let kept = standing(one).await;
        let reason = kept.reason.unwrap();
        assert!(
            reason.contains("is not a public name") && reason.ends_with("served as it was before."),
            "{reason}"
        );
        assert_eq!(kept.live.len(), 2);
    }
}

#[tokio::test]
async fn a_port_that_another_program_has_at_one_proxy_hinders_nobody_else() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "one", "127.1.0.2").await;
        let alice = Actor::new("alice", false);
        let first = add(&core, id, "8081/tcp").await;
        let second = add(&core, id, "8082/tcp").await;
        let port = |one: &service::Service| format!("{}/tcp", one.external_port.unwrap());
        let (taken, other) = (port(&first), port(&second));
        let listen = |port: &str| format!("0.0.0.0:{}", port.strip_suffix("/tcp").unwrap());
        pull(&core, "a", "").await;
        let text = pull(&core, "b", &taken).await;
        assert!(!text.contains(&listen(&taken)) && text.contains(&listen(&other)));
        let refused = standing(&core, first.id).await;
        assert_eq!(refused.state, State::Refused, "{}", database.name);
        let words = format!("Another program has port {taken} on b: ");
        assert!(refused.reason.unwrap().starts_with(&words));
        assert_eq!(refused.live.len(), 1);
        let live = standing(&core, second.id).await;
        assert_eq!((live.state, live.live.len()), (State::Live, 2));

        // Another service gets another port, also when this one is gone and in no file any more.
        service::remove(&core, &alice, id, first.id).await.unwrap();
        core.wake.routes();
        pull(&core, "b", &taken).await;
        let again = port(&add(&core, id, "8081/tcp").await);
        assert!(again != taken && again != other, "{again}");
        core.wake.routes();
        pull(&core, "b", "").await;
        let free = port(&add(&core, id, "8083/tcp").await);
        assert_eq!(free, taken);
    }
}

/// Of one number there is a port of TCP and one of UDP.
#[tokio::test]
async fn a_port_of_tcp_that_is_taken_hinders_no_service_of_udp() {
    let database = cac_core::testing::sqlite().await;
    cac_core::schema::up(&database.db).await.unwrap();
    let core = core(&database).await;
    let id = container(&core.db, "one", "127.1.0.2").await;
    let tcp = add(&core, id, "8081/tcp").await;
    let udp = add(&core, id, "8081/udp").await;
    let same = r#"UPDATE "Services" SET "externalPort" = 10500"#;
    core.db.exec(same, args![]).await.unwrap();
    core.wake.routes();
    let text = pull(&core, "a", "10500/tcp").await;
    assert!(text.contains("listen 0.0.0.0:10500 udp;") && !text.contains("10500 so_keepalive"));
    assert_eq!(standing(&core, udp.id).await.state, State::Live);
    assert_eq!(standing(&core, tcp.id).await.state, State::Refused);
    for bad in ["10500", "1/tcp,70000/udp", "-1/tcp", "0/tcp", "1/sctp"] {
        let error = Variant::parse(&core, None, None, None, Some(bad)).unwrap_err();
        assert!(error.to_string().contains("10001/tcp"), "{bad}: {error}");
    }
}

/// A proxy without the module for TCP and UDP says the same of the same file, whatever else is taken there.
#[tokio::test]
async fn a_service_is_not_live_where_nginx_cannot_serve_it() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "one", "127.1.0.2").await;
        http(&core.db, id, "one", 80).await;
        let [web] = service_ids(&core, id).await[..] else {
            panic!("one service")
        };
        let tcp = add(&core, id, "8081/tcp").await;
        pull(&core, "a", "").await;
        assert_eq!(standing(&core, tcp.id).await.state, State::Live);
        for taken in [None, Some("9/tcp"), None] {
            let variant = Variant::parse(&core, None, None, Some("none"), taken).unwrap();
            let file = routes::file(&core, &variant).await.unwrap();
            let report = Report::live(file.etag.clone());
            proxy::report(&core, "b", &report).await.unwrap();
            let refused = standing(&core, tcp.id).await;
            assert_eq!(refused.state, State::Refused, "{}", database.name);
            assert_eq!(refused.live.len(), 1, "{taken:?}");
            let words = "nginx on b has no stream module";
            assert!(refused.reason.unwrap().starts_with(words));
            assert_eq!(standing(&core, web).await.state, State::Live);
        }
        // Another one has the very same file for another reason.
        let taken = format!("{}/tcp", tcp.external_port.unwrap());
        for (pulls, first) in [(true, "nginx on b has no"), (false, "Another program has")] {
            if pulls {
                pull(&core, "c", &taken).await;
                pull(&core, "a", "").await;
            } else {
                let sql = r#"DELETE FROM "Proxies" WHERE "name" = 'b'"#;
                core.db.exec(sql, args![]).await.unwrap();
            }
            let reason = standing(&core, tcp.id).await.reason.unwrap();
            assert!(reason.starts_with(first), "{}: {reason}", database.name);
        }
    }
}

#[tokio::test]
async fn nothing_is_live_where_nginx_does_not_run() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "one", "127.1.0.2").await;
        http(&core.db, id, "one", 80).await;
        let one = service_ids(&core, id).await.pop().unwrap();
        pull(&core, "a", "").await;
        let first = standing(&core, one).await;
        assert_eq!(first.state, State::Live);
        let report = Report {
            down: true,
            ..Report::live(routes::render(&core).await.unwrap().etag)
        };
        let kept = proxy::report(&core, "a", &report).await.unwrap();
        assert_eq!((kept.revision, kept.live_since), (None, None));
        let down = standing(&core, one).await;
        assert_eq!((down.state, down.live), (State::Refused, vec![]));
        let words = "Nothing is live on a: nginx does not run there: start it.";
        assert_eq!(down.reason.unwrap(), words);
        // What is added now waits for the same.
        http(&core.db, id, "two", 80).await;
        core.wake.routes();
        routes::newest(&core).await.unwrap();
        let two = service_ids(&core, id).await.pop().unwrap();
        assert_eq!(standing(&core, two).await.reason.unwrap(), words);
        pull(&core, "a", "").await;
        let again = standing(&core, one).await;
        assert_eq!(again.state, State::Live, "{}", database.name);
        assert!(again.live[0].since > first.live[0].since);
    }
}

/// Its machine is gone, or the puller on it: what it serves is not known.
#[tokio::test]
async fn a_proxy_that_is_silent_for_long_counts_no_more() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "one", "127.1.0.2").await;
        http(&core.db, id, "one", 80).await;
        let one = service_ids(&core, id).await.pop().unwrap();
        let silent = async |name: &str, minutes: i64| {
            let last = chrono::Utc::now() - chrono::TimeDelta::minutes(minutes);
            let sql = r#"UPDATE "Proxies" SET "reportedAt" = ? WHERE "name" = ?"#;
            core.db.exec(sql, args![last, name]).await.unwrap();
        };
        for proxy in ["a", "b"] {
            pull(&core, proxy, "").await;
        }
        silent("a", 14).await;
        assert_eq!(standing(&core, one).await.live.len(), 2);
        silent("a", 16).await;
        let without = standing(&core, one).await;
        assert_eq!((without.state, without.live.len()), (State::Live, 1));
        // Nor does it hold a new service up.
        http(&core.db, id, "two", 80).await;
        core.wake.routes();
        pull(&core, "b", "").await;
        let two = service_ids(&core, id).await.pop().unwrap();
        assert_eq!(standing(&core, two).await.state, State::Live);
        silent("b", 16).await;
        let nobody = standing(&core, one).await;
        assert_eq!((nobody.state, nobody.live.len()), (State::Refused, 0));
        let reason = nobody.reason.unwrap();
        assert!(
            reason.starts_with("Nothing was heard of a since 2"),
            "{}: {reason}",
            database.name
        );
        let since = without.live[0].since;
        pull(&core, "b", "").await;
        let again = standing(&core, one).await;
        assert_eq!((again.state, again.live[0].since), (State::Live, since));
    }
}

#[tokio::test]
async fn a_service_is_live_since_it_was_the_last_time_it_began_to_be() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "one", "127.1.0.2").await;
        let port = add(&core, id, "8081/tcp").await;
        let other = add(&core, id, "8082/tcp").await;
        let since = async |id: i64| standing(&core, id).await.live.pop().map(|at| at.since);
        pull(&core, "a", "").await;
        let first = since(port.id).await.unwrap();
        let taken = format!("{}/tcp", port.external_port.unwrap());
        pull(&core, "a", &taken).await;
        assert_eq!(since(port.id).await, None);
        tokio::time::sleep(Duration::from_millis(20)).await;
        pull(&core, "a", "").await;
        assert!(
            since(port.id).await.unwrap() > first,
            "{}: since it was freed",
            database.name
        );
        assert_eq!(since(other.id).await, Some(first), "it was never gone");
    }
}

/// The proxy has the same file all the time, and has nothing to report.
#[tokio::test]
async fn a_state_that_comes_back_is_live_without_another_report() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "one", "127.1.0.2").await;
        http(&core.db, id, "one", 80).await;
        let one = service_ids(&core, id).await.pop().unwrap();
        pull(&core, "a", "").await;
        let file = async || {
            core.wake.routes();
            let file = routes::file(&core, &Variant::default()).await.unwrap();
            file.etag.clone()
        };
        let before = file().await;
        let late = super::core(&database).await;
        routes::newest(&late).await.unwrap();
        for (port, state) in [(81, State::Pending), (80, State::Live)] {
            let sql = r#"UPDATE "Services" SET "internalPort" = ? WHERE "id" = ?"#;
            core.db.exec(sql, args![port, one]).await.unwrap();
            let now = file().await;
            assert_eq!(now == before, state == State::Live);
            assert_eq!(standing(&core, one).await.state, state, "{}", database.name);
        }
        // Nor where another process makes its file of what it had read before.
        let variant = Variant::parse(&late, None, Some(false), None, None).unwrap();
        let file = routes::file(&late, &variant).await.unwrap();
        assert_eq!(file.etag, before);
        assert_eq!(standing(&core, one).await.state, State::Live);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_built_in_nginx_does_not_take_is_told() {
    let database = cac_core::testing::sqlite().await;
    cac_core::schema::up(&database.db).await.unwrap();
    let core = core(&database).await;
    let private = private();
    let mut settings = private.settings.clone();
    settings.stream_listen = vec![private.ip.into()];
    let id = container(&core.db, "one", "127.1.0.2").await;
    let tcp = add(&core, id, "8081/tcp").await;
    let stop = CancellationToken::new();
    let kept = routes::serve(core.clone(), settings, private.config, stop.clone());
    let kept = kept.await.unwrap();
    let becomes = async |state| {
        let reached = async {
            loop {
                let now = standing(&core, tcp.id).await;
                if now.state == state {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), reached).await.unwrap()
    };
    becomes(State::Live).await;
    let _taken = TcpListener::bind((private.ip, 10_900)).unwrap();
    let moved = r#"UPDATE "Services" SET "externalPort" = 10900"#;
    core.db.exec(moved, args![]).await.unwrap();
    core.wake.routes();
    let refused = becomes(State::Refused).await;
    let words = format!("built-in refused it: Port 10900 of {} is taken", private.ip);
    let reason = refused.reason.unwrap();
    assert!(reason.starts_with(&words), "{reason}");
    stop.cancel();
    kept.ended().await;
}
