//! What differs between our books and Proxmox VE is shown with its repair; looking changes nothing.

use cac_core::job::Status;
use cac_core::reconcile::{self, Kind};
use cac_core::{Error, args, container, node, testing};

use crate::lab::{Lab, admin, alice};

async fn kinds(lab: &Lab) -> Vec<(Kind, Option<i64>)> {
    let found = reconcile::look(&lab.core, &admin()).await.unwrap();
    found
        .into_iter()
        .map(|one| (one.kind, one.container))
        .collect()
}

#[tokio::test]
async fn every_difference_is_found_and_its_repair_works() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let mut ids = Vec::new();
        for name in ["gone", "strange", "moved", "renumbered", "orphan", "fine"] {
            let created = lab.ask(name).await;
            assert_eq!(lab.job(created.job_id).await.status, Status::Success);
            ids.push(created.id);
        }
        assert_eq!(kinds(&lab).await, []);
        let db = &lab.core.db;
        // Somebody removed it in Proxmox VE.
        let row = lab.row(ids[0]).await.unwrap();
        let nodes = node::all(&lab.core).await.unwrap();
        let home = nodes
            .iter()
            .find(|node| Some(node.id) == row.node_id)
            .unwrap();
        let pve = lab.core.pve(home).unwrap();
        let upid = pve
            .lxc_destroy(&home.name, row.container_id.unwrap())
            .await
            .unwrap();
        pve.task_wait(&upid, testing::PATIENCE, |_| {})
            .await
            .unwrap();
        // The marker is another one's.
        let sql = r#"UPDATE "Containers" SET "marker" = ?, "macAddress" = 'BC:24:11:FF:FF:FF' WHERE "id" = ?"#;
        db.exec(sql, args![false, ids[1]]).await.unwrap();
        // Our books name another node, another address, or nothing.
        let row = lab.row(ids[2]).await.unwrap();
        let other = nodes
            .iter()
            .find(|node| Some(node.id) != row.node_id)
            .unwrap();
        let sql = r#"UPDATE "Containers" SET "nodeId" = ? WHERE "id" = ?"#;
        db.exec(sql, args![other.id, ids[2]]).await.unwrap();
        let sql = r#"UPDATE "Containers" SET "ipv4Address" = '127.1.2.3' WHERE "id" = ?"#;
        db.exec(sql, args![ids[3]]).await.unwrap();
        db.exec(
            r#"DELETE FROM "Services" WHERE "containerId" = ?"#,
            args![ids[4]],
        )
        .await
        .unwrap();
        db.exec(r#"DELETE FROM "Containers" WHERE "id" = ?"#, args![ids[4]])
            .await
            .unwrap();
        let expected = [
            (Kind::Gone, Some(ids[0])),
            (Kind::Stranger, Some(ids[1])),
            (Kind::Moved, Some(ids[2])),
            (Kind::Address, Some(ids[3])),
            (Kind::Orphan, None),
        ];
        assert_eq!(kinds(&lab).await, expected, "{}", lab.database.name);
        assert_eq!(
            lab.simulator.containers().len(),
            5,
            "looking changes nothing"
        );
        // The repairs that are offered.
        let before = lab.row(ids[2]).await.unwrap();
        let moved = reconcile::refresh(&lab.core, &admin(), ids[2])
            .await
            .unwrap();
        assert_ne!(moved.node_id, before.node_id);
        let back = reconcile::refresh(&lab.core, &admin(), ids[3])
            .await
            .unwrap();
        assert_ne!(back.ipv4_address.as_deref(), Some("127.1.2.3"));
        let limit = std::time::Duration::from_secs(20);
        for id in [ids[0], ids[1]] {
            let gone = container::forget(&lab.core, &admin(), id, limit)
                .await
                .unwrap();
            assert_eq!(gone, container::Deletion::Done);
        }
        // Of the two that no row knows now, one was only compared by its MAC and still has our marker.
        assert_eq!(
            kinds(&lab).await,
            [(Kind::Orphan, None), (Kind::Orphan, None)],
            "{}",
            lab.database.name
        );
        let bob = cac_core::Actor::new("bob", false);
        let refused = reconcile::refresh(&lab.core, &bob, ids[5]).await;
        assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
        let refused = reconcile::look(&lab.core, &alice()).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
        lab.end().await;
    }
}

/// An address that another container got is taken from whoever had it in our books, so that no name leads to a stranger.
#[tokio::test]
async fn a_recycled_address_never_leads_to_another_owner() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let (first, second) = (lab.ask("first").await, lab.ask("second").await);
        for created in [first, second] {
            assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        }
        let taken = lab.row(second.id).await.unwrap().ipv4_address.unwrap();
        // As if the first one's lease had ended and the second had got its address.
        let sql = r#"UPDATE "Containers" SET "ipv4Address" = ? WHERE "id" = ?"#;
        lab.core
            .db
            .exec(sql, args![None::<&str>, second.id])
            .await
            .unwrap();
        lab.core
            .db
            .exec(sql, args![&taken, first.id])
            .await
            .unwrap();
        let row = reconcile::refresh(&lab.core, &admin(), second.id)
            .await
            .unwrap();
        assert_eq!(row.ipv4_address, Some(taken));
        assert_eq!(lab.row(first.id).await.unwrap().ipv4_address, None);
        lab.end().await;
    }
}
