//! Secrets in the database, on the three of them: what was written by hand counts, and the key of the proxies lives through every change
//! of the key that seals it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use cac_core::clock::Clock;
use cac_core::config::{Config, Program, Vars};
use cac_core::nginx::{FileOrder, statement};
use cac_core::pve::Secret;
use cac_core::testing::{self, TestDb};
use cac_core::{Actor, Core, args, cipher, node, proxy_key};

const KEY: &str = "aa";

async fn core(database: &TestDb, key: &str) -> Core {
    let mut vars = Vars::default();
    vars.set("DATABASE_URL", &database.url);
    vars.set("SESSION_SECRET", "a secret for tests only");
    if !key.is_empty() {
        vars.set("CAC_SECRET_KEY", key.repeat(32));
    }
    let config = Config::load(&vars, Program::Local).unwrap();
    Core::with(database.db.clone(), config, Clock::System)
        .await
        .unwrap()
}

async fn add_node(core: &Core) -> i64 {
    let new = node::NewNode {
        name: "pve1".to_owned(),
        api_url: Some("https://127.0.0.1:8006".to_owned()),
        token_id: Some("cac@pve!web".to_owned()),
        secret: Some("the old one".to_owned()),
        ..node::NewNode::default()
    };
    node::create(core, &Actor::local(), new).await.unwrap().id
}

async fn secret_of(core: &Core, id: i64) -> String {
    let node = node::find(core, id).await.unwrap();
    node.secret.unwrap().expose().to_owned()
}

/// The operator changes a token as ever, by SQL. `cac secret encrypt` then sealed the old one again, and the new one was lost.
#[tokio::test]
async fn a_secret_written_by_hand_beside_a_sealed_one_is_the_one_that_counts() {
    for database in testing::databases().await {
        let core = core(&database, KEY).await;
        let id = add_node(&core).await;
        assert_eq!(secret_of(&core, id).await, "the old one");
        let by_hand = r#"UPDATE "Nodes" SET "secret" = ? WHERE "id" = ?"#;
        database
            .db
            .exec(by_hand, args!["the new one", id])
            .await
            .unwrap();
        assert_eq!(
            secret_of(&core, id).await,
            "the new one",
            "{}",
            database.name
        );
        assert_eq!(cipher::encrypt(&core, &Actor::local()).await.unwrap(), 1);
        assert_eq!(
            secret_of(&core, id).await,
            "the new one",
            "{}",
            database.name
        );
        // The other two that rewrite secrets.
        database
            .db
            .exec(by_hand, args!["the third", id])
            .await
            .unwrap();
        cipher::export(&core, &Actor::local()).await.unwrap();
        assert_eq!(secret_of(&core, id).await, "the third");
        cipher::encrypt(&core, &Actor::local()).await.unwrap();
        database
            .db
            .exec(by_hand, args!["the fourth", id])
            .await
            .unwrap();
        cipher::rotate(&core, &Actor::local(), &Secret::new("bb".repeat(32)))
            .await
            .unwrap();
        let after = self::core(&database, "bb").await;
        assert_eq!(secret_of(&after, id).await, "the fourth");
    }
}

#[tokio::test]
async fn every_process_signs_with_the_one_key_that_was_made_once() {
    for database in testing::databases().await {
        let cores = futures_util::future::join_all((0..6).map(|_| core(&database, KEY))).await;
        let each = cores
            .iter()
            .map(|core| proxy_key::sign(core, "here", 7, "a file"));
        let signed = futures_util::future::join_all(each).await;
        let admin = Actor::local();
        let key = proxy_key::find(&cores[0], &admin).await.unwrap().current;
        for signed in signed {
            let signed = signed.unwrap();
            let said =
                statement::verify(std::slice::from_ref(&key), "here", "a file", Some(&signed))
                    .unwrap();
            let order = FileOrder {
                epoch: 0,
                revision: 7,
            };
            assert_eq!(said.order, order);
        }
        let stored = r#"SELECT "value" FROM "Settings" WHERE "name" = 'proxy.key'"#;
        let value = async || {
            let row = database.db.one(stored, args![]).await.unwrap();
            row.get::<String>("value").unwrap()
        };
        assert!(value().await.starts_with("v1:"), "it is sealed");
        let alice = Actor::new("alice", false);
        assert!(proxy_key::find(&cores[0], &alice).await.is_err());

        // However it is sealed, it stays the same key.
        let same = async |core: &Core| {
            assert_eq!(proxy_key::find(core, &admin).await.unwrap().current, key);
        };
        cipher::export(&cores[0], &Actor::local()).await.unwrap();
        assert!(!value().await.starts_with("v1:"));
        same(&cores[1]).await;
        cipher::encrypt(&cores[0], &Actor::local()).await.unwrap();
        assert!(value().await.starts_with("v1:"));
        let rotated =
            cipher::rotate(&cores[0], &Actor::local(), &Secret::new("bb".repeat(32))).await;
        assert_eq!(rotated.unwrap(), 1);
        assert!(proxy_key::find(&cores[1], &admin).await.is_err());
        same(&core(&database, "bb").await).await;
    }
}

/// Without a key for secrets it stands in plain text, as they do.
#[tokio::test]
async fn the_keys_of_the_proxies_change_without_a_gap() {
    for database in testing::databases().await {
        let core = core(&database, "").await;
        let admin = Actor::local();
        let (one, early) = (
            proxy_key::find(&core, &admin).await.unwrap(),
            proxy_key::activate_next(&core, &Actor::local()).await,
        );
        assert!(one.next.is_none() && early.is_err());
        let next = proxy_key::create_next(&core, &Actor::local())
            .await
            .unwrap();
        assert_eq!(
            proxy_key::create_next(&core, &Actor::local())
                .await
                .unwrap(),
            next,
            "it is made once"
        );
        let pinned = [one.current.clone(), next.clone()];
        let good = async |keys: &[cac_core::nginx::PinnedKey]| {
            let signed = proxy_key::sign(&core, "here", 7, "a file").await.unwrap();
            statement::verify(keys, "here", "a file", Some(&signed)).map(|said| said.order.epoch)
        };
        assert_eq!(good(&pinned).await, Ok(0));
        assert!(good(&pinned[1..]).await.is_err(), "it does not sign yet");
        assert_eq!(
            proxy_key::activate_next(&core, &Actor::local())
                .await
                .unwrap(),
            next
        );
        assert_eq!(good(&pinned).await, Ok(0));
        assert!(good(&pinned[..1]).await.is_err());
        // A restored backup knows no epoch that began after it.
        let first = proxy_key::begin_epoch(&core, &Actor::local())
            .await
            .unwrap();
        let second = proxy_key::begin_epoch(&core, &Actor::local())
            .await
            .unwrap();
        assert!(second > first && first > 1_700_000_000);
        assert_eq!(good(&pinned).await, Ok(second));
    }
}

#[tokio::test]
async fn machines_that_read_without_a_signature_are_remembered_for_a_day() {
    for database in testing::databases().await {
        let core = core(&database, KEY).await;
        for n in 0..30 {
            let address = format!("192.0.2.{n}");
            proxy_key::note_unsigned(&core, &address).await.unwrap();
        }
        let now = core.clock.now();
        let known = proxy_key::unsigned_readers(&database.db, now).await;
        assert_eq!(known.unwrap().len(), 20);
        let later = now + chrono::TimeDelta::hours(25);
        let known = proxy_key::unsigned_readers(&database.db, later).await;
        assert_eq!(known.unwrap(), []);
    }
}
