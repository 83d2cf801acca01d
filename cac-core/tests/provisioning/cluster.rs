//! A VMID belongs to one row per cluster, whichever node a row names.

use std::time::Duration;

use cac_core::container::{self, Deletion, Registration};
use cac_core::job::container_change::Change;
use cac_core::reconcile::{self, Kind};
use cac_core::{Actor, Error, args, node, testing};
use futures_util::future::join_all;

use crate::identity::{claim, exists, mac, reachable};
use crate::lab::{Lab, admin, alice};

const LONG: Duration = Duration::from_secs(30);

/// A row as somebody inserts it by hand, with the documented columns only.
async fn insert(lab: &Lab, node: i64, vmid: u32, name: &str, mac: &str) -> i64 {
    let sql = r#"INSERT INTO "Containers" ("hostname", "ipv4Address", "username", "osRelease", "containerId", "macAddress", "aiContainer",
                                           "nodeId", "createdAt", "updatedAt")
                 VALUES (?, ?, 'alice', 'debian', ?, ?, 'N', ?, ?, ?)"#;
    let now = chrono::Utc::now();
    let address = format!("127.88.{node}.{}", vmid % 250);
    let given = args![name, address, vmid, mac, node, now, now];
    let mut tx = lab.core.db.write().await.unwrap();
    let id = tx.insert(sql, given).await.unwrap();
    tx.commit().await.unwrap();
    id
}

fn on(node: &str, claim: Registration) -> Registration {
    Registration {
        node: Some(node.to_owned()),
        ..claim
    }
}

/// C1a: the pair of node and VMID was unique, so a second claim under another node's name was let through.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_claims_on_one_vmid_at_once_one_is_stored() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        container::verify(&lab.core).await.unwrap();
        // Nobody can say what is true, so the rows alone decide.
        reachable(&lab, false).await;
        for vmid in 900..906_u32 {
            let claims: Vec<_> = (1..=3_u32)
                .map(|n| {
                    let mac = format!("BC:24:11:{n:02X}:00:{:02X}", vmid % 256);
                    let claim = claim(vmid, &format!("claim-{vmid}-{n}"), &mac);
                    let ipv4_address = format!("127.99.{n}.{}", vmid % 256);
                    on(
                        &format!("pve{n}"),
                        Registration {
                            ipv4_address,
                            ..claim
                        },
                    )
                })
                .collect();
            let local = Actor::local();
            let asked = claims.iter().map(|one| async {
                loop {
                    match container::register(&lab.core, &local, one).await {
                        Err(Error::Busy { .. }) => tokio::task::yield_now().await,
                        outcome => return outcome,
                    }
                }
            });
            let outcomes = join_all(asked).await;
            let stored = outcomes.iter().filter(|one| one.is_ok()).count();
            assert_eq!(stored, 1, "{} {outcomes:?}", lab.database.name);
            for refused in outcomes.into_iter().filter_map(Result::err) {
                let conflict =
                    matches!(&refused, Error::Conflict { field, .. } if *field == "containerId");
                assert!(conflict, "{refused:?}");
            }
        }
        lab.end().await;
    }
}

/// What the lock keeps apart on one database the key keeps apart on several nodes of one.
#[tokio::test]
async fn the_key_refuses_what_no_lock_has_seen() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        container::verify(&lab.core).await.unwrap();
        let nodes = node::all(&lab.core).await.unwrap();
        insert(&lab, nodes[0].id, 950, "first", "BC:24:11:00:09:50").await;
        insert(&lab, nodes[1].id, 950, "second", "BC:24:11:00:09:51").await;
        let sql = r#"UPDATE "Containers" SET "cluster" = 'one' WHERE "containerId" = 950"#;
        let both = lab.core.db.exec(sql, args![]).await;
        assert!(both.is_err(), "{}", lab.database.name);
        lab.end().await;
    }
}

#[tokio::test]
async fn a_row_inserted_by_hand_has_its_vmid_in_the_whole_cluster() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.foreign("pve1", 556, "payroll").await;
        let truth = mac(&lab, 556);
        let nodes = node::all(&lab.core).await.unwrap();
        insert(&lab, nodes[1].id, 556, "by-hand", "BC:24:11:00:05:56").await;
        for node in ["pve1", "pve2", "pve3"] {
            let claim = on(node, claim(556, "payroll", &truth));
            let refused = container::register(&lab.core, &Actor::local(), &claim).await;
            let Err(Error::Conflict { field, message }) = refused else {
                panic!("{node}: {refused:?}");
            };
            assert_eq!(field, "containerId");
            assert!(!message.contains(&truth), "{message}");
        }
        let wanted = container::Wanted {
            vmid: 556,
            username: "alice".to_owned(),
            ..container::Wanted::default()
        };
        let refused = container::import(&lab.core, &admin(), nodes[0].id, &wanted).await;
        assert!(
            matches!(refused, Err(Error::Conflict { field: "vmid", .. })),
            "{refused:?}"
        );
        let listed = container::importable(&lab.core, &admin(), nodes[0].id).await;
        assert_eq!(listed.unwrap(), []);
        lab.end().await;
    }
}

#[tokio::test]
async fn of_duplicates_both_stay_nothing_destructive_runs_and_admins_are_told() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        lab.foreign("pve1", 556, "payroll").await;
        let truth = mac(&lab, 556);
        let nodes = node::all(&lab.core).await.unwrap();
        let wrong = insert(&lab, nodes[1].id, 556, "wrong", "BC:24:11:00:05:56").await;
        let right = insert(&lab, nodes[0].id, 556, "payroll", &truth).await;
        container::verify(&lab.core).await.unwrap();
        for id in [right, wrong] {
            for change in [
                Change::Stop,
                Change::Restart,
                Change::Resize {
                    cores: Some(2),
                    memory: None,
                    disk: None,
                },
            ] {
                let refused = container::change(&lab.core, &alice(), id, change, LONG).await;
                let conflict = matches!(refused, Err(Error::Conflict { .. }));
                assert!(conflict, "{} {id}: {refused:?}", lab.database.name);
            }
            let refused = container::delete(&lab.core, &alice(), id, LONG).await;
            let conflict = matches!(refused, Err(Error::Conflict { .. }));
            assert!(conflict, "{} {id}: {refused:?}", lab.database.name);
            assert!(lab.row(id).await.is_some() && exists(&lab, 556));
        }
        let found = reconcile::look(&lab.core, &admin()).await.unwrap();
        let told = found.iter().filter(|one| one.kind == Kind::Duplicate);
        let told: Vec<_> = told.filter_map(|one| one.container).collect();
        assert_eq!(told, [wrong, right]);
        // Once an admin has let go of the wrong one, the owner of the right one is free to go on.
        let forgotten = container::forget(&lab.core, &admin(), wrong, LONG).await;
        assert_eq!(forgotten.unwrap(), Deletion::Done);
        let deleted = container::delete(&lab.core, &alice(), right, LONG).await;
        assert_eq!(deleted.unwrap(), Deletion::Done);
        assert!(!exists(&lab, 556));
        lab.end().await;
    }
}
