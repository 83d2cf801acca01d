//! Secrets in the database, on the three of them: what was written by hand counts.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use cac_core::clock::Clock;
use cac_core::config::{Config, Program, Vars};
use cac_core::pve::Secret;
use cac_core::testing::{self, TestDb};
use cac_core::{Actor, Core, args, cipher, node};

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
        assert_eq!(cipher::encrypt(&core).await.unwrap(), 1);
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
        cipher::export(&core).await.unwrap();
        assert_eq!(secret_of(&core, id).await, "the third");
        cipher::encrypt(&core).await.unwrap();
        database
            .db
            .exec(by_hand, args!["the fourth", id])
            .await
            .unwrap();
        cipher::rotate(&core, &Secret::new("bb".repeat(32)))
            .await
            .unwrap();
        let after = self::core(&database, "bb").await;
        assert_eq!(secret_of(&after, id).await, "the fourth");
    }
}
