//! The audit log on all three databases.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use cac_core::audit::{self, Filter, NewEntry, Via};
use cac_core::config::{Config, Program, Vars};
use cac_core::{Actor, Core, Error, testing};
use chrono::{Duration, Utc};

#[tokio::test]
async fn entries_are_found_by_what_they_are_about() {
    for database in testing::databases().await {
        let mut vars = Vars(BTreeMap::new());
        vars.set("DATABASE_URL", &database.url);
        vars.set("SESSION_SECRET", "a secret for tests only");
        let core = Core::start(Config::load(&vars, Program::Http).unwrap())
            .await
            .unwrap();
        for (username, target) in [
            (Some("alice"), "/containers/7"),
            (Some("Alice"), "/containers/7/start"),
            (None, "/containers/77"),
            (Some("alice"), "/quotas/a_b%25"),
            (Some("alice"), "/quotas/axb"),
        ] {
            let entry = NewEntry {
                username: username.map(ToOwned::to_owned),
                via: Via::Token,
                token: Some(3),
                address: Some([192, 0, 2, 1].into()),
                action: "x".repeat(100),
                target: target.to_owned(),
                status: 202,
                detail: Some("\u{1f512}".repeat(2000)),
                request: None,
            };
            audit::record(&core, &entry).await;
        }
        let admin = Actor::new("admin", true);
        let count = async |filter: Filter| {
            let filter = Filter {
                limit: 10,
                ..filter
            };
            let (rows, total) = audit::list(&core, &admin, &filter).await.unwrap();
            assert_eq!(rows.len(), usize::try_from(total).unwrap());
            total
        };
        let target = |text: &str| Filter {
            target: Some(text.to_owned()),
            ..Filter::default()
        };
        let name = database.name;
        assert_eq!(count(Filter::default()).await, 5, "{name}");
        assert_eq!(count(target("/containers/7")).await, 2, "{name}");
        assert_eq!(count(target("/containers/")).await, 3, "{name}");
        assert_eq!(count(target("/quotas/a_b%25")).await, 1, "{name}");
        assert_eq!(count(target("/quotas/a_b")).await, 0, "{name}");
        assert_eq!(count(target("/quot%")).await, 0, "{name}");
        // Byte by byte, as Proxmox VE compares names.
        let alice = Filter {
            username: Some("alice".to_owned()),
            ..Filter::default()
        };
        assert_eq!(count(alice).await, 3, "{name}");
        let now = Utc::now();
        let since = |at| Filter {
            since: Some(at),
            ..Filter::default()
        };
        assert_eq!(count(since(now - Duration::hours(1))).await, 5, "{name}");
        assert_eq!(count(since(now + Duration::hours(1))).await, 0, "{name}");
        let newest = Filter {
            newest: true,
            limit: 1,
            ..Filter::default()
        };
        let (rows, total) = audit::list(&core, &admin, &newest).await.unwrap();
        assert_eq!((rows[0].target.as_str(), total), ("/quotas/axb", 5));
        assert_eq!(rows[0].detail.as_ref().unwrap().chars().count(), 1000);
        assert_eq!(
            (rows[0].via, rows[0].token_id, rows[0].action.len()),
            (Via::Token, Some(3), 64)
        );
        let refused = audit::list(&core, &Actor::new("alice", false), &newest).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
        core.db.close().await;
    }
}
