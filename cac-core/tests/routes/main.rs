//! From rows to the file and to a running nginx, on the three databases.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod infrastructure;
mod standing;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cac_core::config::{Config, Program, Vars};
use cac_core::db::Db;
use cac_core::nginx::{ProxyConfig, Rendered, Settings, find_nginx, self_signed};
use cac_core::proxy::{self, Report};
use cac_core::routes::{State, Variant};
use cac_core::testing::{TestDb, databases};
use cac_core::{Core, args, routes};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The promise: a change of any kind is in the file by then.
const SEEN: Duration = Duration::from_secs(2);

async fn core(database: &TestDb) -> Core {
    core_with(database, &[]).await
}

async fn core_with(database: &TestDb, more: &[(&str, &str)]) -> Core {
    let mut vars = Vars(BTreeMap::new());
    vars.set("DATABASE_URL", &database.url);
    vars.set("SESSION_SECRET", "a secret for tests only");
    vars.set("CONTAINER_NETWORKS", "127.0.0.0/8");
    vars.set("CAC_DOMAIN", "cac.test");
    for (name, value) in more {
        vars.set(name, *value);
    }
    let config = Config::load(&vars, Program::Http).unwrap();
    Core::start(config).await.unwrap()
}

/// A container as somebody at the database's own prompt would add it.
async fn container(db: &Db, hostname: &str, address: &str) -> i64 {
    let now = chrono::Utc::now();
    db.exec(
        r#"INSERT INTO "Containers" ("hostname", "username", "ipv4Address", "createdAt", "updatedAt") VALUES (?, ?, ?, ?, ?)"#,
        args![hostname, "alice", address, now, now],
    )
    .await
    .unwrap();
    let row = db
        .one(
            r#"SELECT "id" FROM "Containers" WHERE "hostname" = ?"#,
            args![hostname],
        )
        .await;
    row.unwrap().get("id").unwrap()
}

async fn http(db: &Db, container: i64, name: &str, port: u16) {
    let now = chrono::Utc::now();
    db.exec(
        r#"INSERT INTO "Services" ("containerId", "type", "internalPort", "externalHostname", "createdAt", "updatedAt") VALUES (?, ?, ?, ?, ?, ?)"#,
        args![container, "http", port, name, now, now],
    )
    .await
    .unwrap();
}

async fn until_seen(
    newest: &mut watch::Receiver<Arc<Rendered>>,
    holds: impl Fn(&str) -> bool,
    what: &str,
) {
    let seen = timeout(SEEN, newest.wait_for(|rendered| holds(&rendered.text))).await;
    drop(
        seen.unwrap_or_else(|_| panic!("{what} was not seen within {SEEN:?}"))
            .unwrap(),
    );
}

#[tokio::test]
async fn changes_by_hand_are_seen_within_two_seconds() {
    for database in databases().await {
        let name = database.name;
        let core = core(&database).await;
        let settings = core.config.nginx.clone();
        let stop = CancellationToken::new();
        let mut newest = routes::follow(core, settings, stop.clone()).await.unwrap();
        let by_hand = Db::connect(&database.url).await.unwrap();
        let id = container(&by_hand, "web", "127.1.0.2").await;
        http(&by_hand, id, "web", 8080).await;
        until_seen(
            &mut newest,
            |text| text.contains("web.cac.test 127.1.0.2:8080;"),
            name,
        )
        .await;
        let moved = r#"UPDATE "Containers" SET "ipv4Address" = ? WHERE "id" = ?"#;
        by_hand.exec(moved, args!["127.1.0.3", id]).await.unwrap();
        until_seen(
            &mut newest,
            |text| text.contains("web.cac.test 127.1.0.3:8080;"),
            name,
        )
        .await;
        let gone = r#"DELETE FROM "Services" WHERE "containerId" = ?"#;
        by_hand.exec(gone, args![id]).await.unwrap();
        until_seen(&mut newest, |text| !text.contains("web.cac.test"), name).await;
        stop.cancel();
    }
}

#[tokio::test]
async fn an_unchanged_state_keeps_its_tag_in_every_process() {
    for database in databases().await {
        let first = core(&database).await;
        for (n, name) in ["c", "a", "b"].into_iter().enumerate() {
            let id = container(&first.db, name, &format!("127.1.0.{}", n + 2)).await;
            http(&first.db, id, name, 80).await;
        }
        let tag = routes::render(&first).await.unwrap();
        assert_eq!(routes::render(&first).await.unwrap(), tag);
        first.db.close().await;
        let second = core(&database).await;
        assert_eq!(
            routes::render(&second).await.unwrap(),
            tag,
            "{}",
            database.name
        );
        let touched = r#"UPDATE "Services" SET "updatedAt" = ?"#;
        second
            .db
            .exec(touched, args![chrono::Utc::now()])
            .await
            .unwrap();
        assert_eq!(routes::render(&second).await.unwrap().etag, tag.etag);
    }
}

#[tokio::test]
async fn rows_that_break_the_rules_are_left_out_and_listed() {
    for database in databases().await {
        let core = core(&database).await;
        let good = container(&core.db, "good", "127.1.0.2").await;
        http(&core.db, good, "good", 80).await;
        #[rustfmt::skip]
        let bad = [
            ("a;b", "127.1.0.3", "semicolon", 80, "`a;b` is not a valid label"),
            ("injected", "127.1.0.4", "x.cac.test; return 200", 80, "is not a public name"),
            ("wild", "127.1.0.5", "*.cac.test", 80, "is not a public name"),
            ("outside", "192.0.2.7", "outside", 80, "is not in CONTAINER_NETWORKS"),
            ("words", "127.0.0.1; evil on", "words", 80, "is not an address"),
            ("zero", "127.1.0.6", "zero", 0, "internal port is not a port number"),
        ];
        for (hostname, address, name, port, _) in bad {
            let id = container(&core.db, hostname, address).await;
            http(&core.db, id, name, port).await;
        }
        let text = routes::render(&core).await.unwrap().text;
        let troubles = routes::troubles(&core).await.unwrap();
        assert_eq!(troubles.len(), bad.len(), "{troubles:?}");
        for ((hostname, address, _, _, reason), trouble) in bad.iter().zip(troubles.values()) {
            assert!(
                trouble.reason.contains(reason) && !trouble.kept,
                "{hostname}: {trouble:?}"
            );
            assert!(
                !text.contains(hostname) && !text.contains(address),
                "{hostname}"
            );
        }
        assert!(text.contains("good.cac.test 127.1.0.2:80;"));
    }
}

/// A3: an adoption darkened every name with capitals. DNS and nginx know no difference, so the original had served them.
#[tokio::test]
async fn names_with_capitals_are_served_in_lower_case_and_keep_their_ports() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "CI-SHOP", "127.1.0.2").await;
        http(&core.db, id, "Ci-Shop", 80).await;
        let now = chrono::Utc::now();
        let sql = r#"INSERT INTO "Services" ("containerId", "type", "internalPort", "externalPort", "createdAt", "updatedAt") VALUES (?, 'tcp', 22, 2222, ?, ?)"#;
        core.db.exec(sql, args![id, now, now]).await.unwrap();
        let text = routes::render(&core).await.unwrap().text;
        assert!(text.contains("ci-shop.cac.test 127.1.0.2:80;"), "{text}");
        assert!(text.contains(":2222 so_keepalive=on;"), "{text}");
        assert!(routes::troubles(&core).await.unwrap().is_empty());
        let violations = cac_core::schema::naming_violations(&core.db).await.unwrap();
        assert_eq!(violations, []);
        let id = container(&core.db, "Bad_Name", "127.1.0.3").await;
        http(&core.db, id, "Other", 80).await;
        assert_eq!(routes::troubles(&core).await.unwrap().len(), 1);
    }
}

/// An nginx of this test's own.
struct Private {
    ip: Ipv4Addr,
    settings: Settings,
    config: ProxyConfig,
    _dir: TempDir,
}

fn private() -> Private {
    let found = find_nginx().expect("nginx is installed");
    let dir = tempfile::tempdir().unwrap();
    let certificate = self_signed(&["cac.test".parse().unwrap()], dir.path()).unwrap();
    let prefix = dir.path().join("nginx");
    let mut settings = Settings::private(&found, &prefix, &certificate).unwrap();
    let [a, b, c] = rand::random::<[u8; 3]>();
    let ip = Ipv4Addr::new(127, 100 + a % 100, b, 1 + c % 250);
    settings.http_listen = vec![SocketAddr::from((ip, 8080))];
    Private {
        ip,
        settings,
        config: ProxyConfig::new(found, prefix),
        _dir: dir,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_change_is_live_in_nginx_in_far_less_than_a_second() {
    let database = cac_core::testing::sqlite().await;
    cac_core::schema::up(&database.db).await.unwrap();
    let core = core(&database).await;
    let private = private();
    let (settings, mut config) = (private.settings, private.config);
    let stop = CancellationToken::new();
    config.min_interval = Duration::ZERO;
    let kept = routes::serve(core.clone(), settings.clone(), config, stop.clone());
    let kept = kept.await.unwrap();
    let mut live = kept.live.clone();
    let mut took = Vec::new();
    for n in 0..9_u16 {
        // A change after a quiet time: nginx takes its next signal 0.1 s after the last at the earliest.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let id = container(&core.db, &format!("web{n}"), &format!("127.1.0.{}", n + 2)).await;
        http(&core.db, id, &format!("web{n}"), 80).await;
        let begun = Instant::now();
        core.wake.routes();
        let wanted = routes::render_with(&core, &settings).await.unwrap().etag;
        let reached = timeout(SEEN, live.wait_for(|live| live.etag == wanted)).await;
        drop(reached.unwrap().unwrap());
        took.push(begun.elapsed());
    }
    stop.cancel();
    kept.ended().await;
    took.sort();
    println!(
        "committed to live: p50 {:?}, longest {:?}",
        took[4], took[8]
    );
    assert!(took[4] < Duration::from_secs(1), "{took:?}");
}

/// What is served of a service, by the text of the file.
async fn serves(core: &Core, what: &str) -> bool {
    routes::render(core).await.unwrap().text.contains(what)
}

#[tokio::test]
async fn a_row_that_becomes_bad_keeps_its_last_good_form_while_nobody_else_has_a_claim() {
    for database in databases().await {
        let core = core(&database).await;
        let one = container(&core.db, "one", "127.1.0.2").await;
        http(&core.db, one, "one", 80).await;
        let two = container(&core.db, "two", "127.1.0.3").await;
        http(&core.db, two, "two", 80).await;
        assert!(serves(&core, "one.cac.test 127.1.0.2:80;").await);
        let set = async |sql: &'static str, value: &str, id: i64| {
            core.db.exec(sql, args![value, id]).await.unwrap();
        };
        let name = r#"UPDATE "Services" SET "externalHostname" = ? WHERE "containerId" = ?"#;
        let address = r#"UPDATE "Containers" SET "ipv4Address" = ? WHERE "id" = ?"#;

        // What cannot be valid stays as it was, in another process as well, and the others go on.
        set(name, "x; return 200", one).await;
        set(address, "127.1.0.4", two).await;
        assert!(serves(&core, "one.cac.test 127.1.0.2:80;").await);
        assert!(serves(&core, "two.cac.test 127.1.0.4:80;").await);
        let other = self::core(&database).await;
        assert!(serves(&other, "one.cac.test 127.1.0.2:80;").await);
        let troubles = routes::troubles(&core).await.unwrap();
        assert!(
            troubles.len() == 1 && troubles.values().all(|t| t.kept),
            "{troubles:?}"
        );
        set(address, "127.1.0.2; evil", one).await;
        assert!(serves(&core, "one.cac.test 127.1.0.2:80;").await);

        // Another one has the name: the bad one has it no more.
        set(name, "one", two).await;
        assert!(serves(&core, "one.cac.test 127.1.0.4:80;").await);
        assert!(!serves(&core, "127.1.0.2").await);
        set(name, "two", two).await;
        assert!(
            !serves(&core, "one.cac.test").await,
            "it is not known any more"
        );

        // Mended, and bad again while another one has the address.
        set(address, "127.1.0.2", one).await;
        set(name, "one", one).await;
        assert!(serves(&core, "one.cac.test 127.1.0.2:80;").await);
        set(name, "$x", one).await;
        set(address, "127.1.0.9", one).await;
        assert!(serves(&core, "one.cac.test 127.1.0.2:80;").await);
        set(address, "127.1.0.2", two).await;
        assert!(!serves(&core, "one.cac.test").await);
        assert!(serves(&core, "two.cac.test 127.1.0.2:80;").await);

        // Without an address, and without its container, it is gone at once.
        set(address, "127.1.0.5", two).await;
        set(address, "127.1.0.2", one).await;
        set(name, "one", one).await;
        assert!(serves(&core, "one.cac.test 127.1.0.2:80;").await);
        set(name, "-", one).await;
        assert!(serves(&core, "one.cac.test 127.1.0.2:80;").await);
        let gone = r#"UPDATE "Containers" SET "ipv4Address" = NULL WHERE "id" = ?"#;
        core.db.exec(gone, args![one]).await.unwrap();
        assert!(!serves(&core, "one.cac.test").await);
        set(address, "127.1.0.2", one).await;
        assert!(!serves(&core, "one.cac.test").await);
        let gone = r#"DELETE FROM "Containers" WHERE "id" = ?"#;
        core.db.exec(gone, args![two]).await.unwrap();
        assert!(!serves(&core, "two.cac.test").await);
    }
}

#[tokio::test]
async fn of_two_that_want_one_name_the_first_keeps_it() {
    for database in databases().await {
        let core = core(&database).await;
        for (n, name) in [(5, "b"), (2, "a")] {
            let id = container(&core.db, name, &format!("127.1.0.{n}")).await;
            http(
                &core.db,
                id,
                if name == "b" { "web" } else { "WEB.cac.test" },
                80,
            )
            .await;
            assert!(
                serves(&core, "web.cac.test 127.1.0.5:80;").await,
                "{}",
                database.name
            );
        }
        let troubles = routes::troubles(&core).await.unwrap();
        let reason = &troubles.values().next().unwrap().reason;
        assert_eq!(reason, "The name web.cac.test is taken by another service.");
    }
}

#[tokio::test]
async fn what_comes_and_goes_between_two_looks_is_seen() {
    for database in databases().await {
        let core = core(&database).await;
        let newest = async || {
            core.wake.routes();
            routes::newest(&core).await.unwrap().served.len()
        };
        assert_eq!(newest().await, 0);
        let id = container(&core.db, "one", "127.1.0.2").await;
        for name in ["one", "two"] {
            http(&core.db, id, name, 80).await;
            assert_eq!(newest().await, 1, "{}", database.name);
            let gone = r#"DELETE FROM "Services" WHERE "containerId" = ?"#;
            core.db.exec(gone, args![id]).await.unwrap();
            assert_eq!(newest().await, 0, "{}", database.name);
        }
    }
}

/// A portal that is held up in the middle of its look does not take another one's number for what it read before.
#[tokio::test]
async fn a_slow_look_ends_with_what_is_there() {
    for database in databases().await {
        if database.name != "postgres" {
            continue;
        }
        let quick = core(&database).await;
        let db = &quick.db;
        let id = container(db, "one", "127.1.0.2").await;
        http(db, id, "one", 80).await;
        http(db, id, "two", 80).await;
        let look = async |core: &Core| {
            core.wake.routes();
            routes::newest(core).await.unwrap().served.len()
        };
        assert_eq!(look(&quick).await, 2);
        let two = db
            .one(r#"SELECT "serviceId", "form" FROM "Routes" WHERE "serviceId" = (SELECT MAX("id") FROM "Services")"#, args![])
            .await
            .unwrap();
        let (service, form): (i64, String) =
            (two.get("serviceId").unwrap(), two.get("form").unwrap());
        let gone = r#"DELETE FROM "Services" WHERE "id" = ?"#;
        db.exec(gone, args![service]).await.unwrap();
        assert_eq!(look(&quick).await, 1);
        let slow = core(&database).await;

        // What the quick one does when the service comes back, at once, while the slow one waits for the number.
        let mut tx = db.write().await.unwrap();
        tx.exec(
            r#"LOCK TABLE "Revisions" IN ACCESS EXCLUSIVE MODE"#,
            args![],
        )
        .await
        .unwrap();
        let looks = tokio::spawn({
            let slow = slow.clone();
            async move { routes::file(&slow, &Variant::default()).await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!looks.is_finished());
        let now = chrono::Utc::now();
        let last = r#"SELECT MAX("revision") AS "n" FROM "Revisions""#;
        let next = tx
            .one(last, args![])
            .await
            .unwrap()
            .get::<i64>("n")
            .unwrap()
            + 1;
        tx.exec(
            r#"INSERT INTO "Services" ("id", "containerId", "type", "internalPort", "externalHostname", "createdAt", "updatedAt") VALUES (?, ?, 'http', 80, 'two', ?, ?)"#,
            args![service, id, now, now],
        )
        .await
        .unwrap();
        tx.exec(
            r#"INSERT INTO "Routes" ("serviceId", "form", "revision", "createdAt", "updatedAt") VALUES (?, ?, ?, ?, ?)"#,
            args![service, form, next, now, now],
        )
        .await
        .unwrap();
        tx.exec(
            r#"UPDATE "Revisions" SET "revision" = ? WHERE "etag" = ''"#,
            args![next],
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let file = looks.await.unwrap();
        let report = Report::live(file.etag.clone());
        proxy::report(&quick, "a", &report).await.unwrap();
        let standing = standing::standing(&quick, service).await;
        let serves = file.text.contains("two.cac.test");
        assert_eq!(serves, standing.state == State::Live, "{standing:?}");
        assert_eq!(look(&slow).await, 2);
        let kept = db
            .one(last, args![])
            .await
            .unwrap()
            .get::<i64>("n")
            .unwrap();
        assert_eq!(kept, next, "nothing changed");
    }
}
