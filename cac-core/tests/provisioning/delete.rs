//! Ending containers: never the wrong one, never only half.

use cac_core::container::{self, Deletion};
use cac_core::error::Error;
use cac_core::job::Status;
use cac_core::{Actor, args, testing};

use crate::lab::{Lab, PATIENCE, admin, alice, until};

#[tokio::test]
async fn a_container_is_deleted_everywhere() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let created = lab.ask("gone").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        let done = container::delete(&lab.core, &alice(), created.id, PATIENCE)
            .await
            .unwrap();
        assert_eq!(done, Deletion::Done);
        lab.assert_nothing_left(created.id).await;
        let again = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
        assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
        lab.end().await;
    }
}

#[tokio::test]
async fn strangers_may_not_delete_and_admins_may() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let created = lab.ask("mine").await;
        lab.job(created.job_id).await;
        for stranger in ["bob", "Alice", "alice@pam"] {
            let refused = container::delete(
                &lab.core,
                &Actor::new(stranger, false),
                created.id,
                PATIENCE,
            )
            .await;
            assert!(
                matches!(refused, Err(Error::Forbidden(_))),
                "{stranger}: {refused:?}"
            );
        }
        assert_eq!(
            container::delete(&lab.core, &admin(), created.id, PATIENCE)
                .await
                .unwrap(),
            Deletion::Done
        );
        lab.end().await;
    }
}

#[tokio::test]
async fn one_already_gone_in_proxmox_is_no_error() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let created = lab.ask("early").await;
        lab.job(created.job_id).await;
        let row = lab.row(created.id).await.unwrap();
        let nodes = cac_core::node::all(&lab.core).await.unwrap();
        let node = nodes.iter().find(|n| Some(n.id) == row.node_id).unwrap();
        let pve = lab.core.pve(node).unwrap();
        let upid = pve
            .lxc_destroy(&node.name, row.container_id.unwrap())
            .await
            .unwrap();
        pve.task_wait(&upid, PATIENCE, |_| {}).await.unwrap();
        assert_eq!(
            container::delete(&lab.core, &alice(), created.id, PATIENCE)
                .await
                .unwrap(),
            Deletion::Done
        );
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}

/// Pitfall 22: whoever destroys by name or number alone destroys what is not theirs.
///
/// C16 of the original: a reused VMID destroyed somebody else's container.
#[tokio::test]
async fn a_container_without_our_marker_is_not_touched() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let (a, b) = (lab.ask("a").await, lab.ask("b").await);
        lab.job(a.job_id).await;
        lab.job(b.job_id).await;
        let (row_a, row_b) = (lab.row(a.id).await.unwrap(), lab.row(b.id).await.unwrap());
        // The row of a now points at the container of b.
        for (id, vmid, node) in [
            (b.id, None, row_b.node_id),
            (a.id, row_b.container_id, row_b.node_id),
        ] {
            let sql = r#"UPDATE "Containers" SET "containerId" = ?, "nodeId" = ? WHERE "id" = ?"#;
            lab.core.db.exec(sql, args![vmid, node, id]).await.unwrap();
        }
        let refused = container::delete(&lab.core, &alice(), a.id, PATIENCE).await;
        assert!(
            matches!(&refused, Err(Error::Conflict { .. })),
            "{refused:?}"
        );
        assert_eq!(lab.simulator.containers().len(), 2);
        assert_eq!(lab.row(a.id).await.unwrap().state, None);
        assert_ne!(row_a.container_id, row_b.container_id);
        // Only the row goes, and only an admin may let go of it.
        let refused = container::forget(&lab.core, &alice(), a.id, PATIENCE).await;
        assert!(matches!(&refused, Err(Error::Forbidden(_))), "{refused:?}");
        let forgotten = container::forget(&lab.core, &admin(), a.id, PATIENCE).await;
        assert_eq!(forgotten.unwrap(), Deletion::Done);
        assert!(lab.row(a.id).await.is_none());
        assert_eq!(lab.simulator.containers().len(), 2);
        lab.end().await;
    }
}

#[tokio::test]
async fn a_container_that_exists_is_not_forgotten() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let created = lab.ask("kept").await;
        let refused = container::forget(&lab.core, &admin(), created.id, PATIENCE).await;
        assert!(
            matches!(&refused, Err(Error::Conflict { message, .. }) if message.contains("works on")),
            "{refused:?}"
        );
        lab.runner();
        lab.job(created.job_id).await;
        let refused = container::forget(&lab.core, &admin(), created.id, PATIENCE).await;
        assert!(
            matches!(&refused, Err(Error::Conflict { message, .. }) if message.contains("Delete it instead")),
            "{refused:?}"
        );
        let row = lab.row(created.id).await.unwrap();
        assert_eq!((row.state, row.job_id), (None, None));
        assert_eq!(lab.simulator.containers().len(), 1);
        lab.end().await;
    }
}

#[tokio::test]
async fn deleting_while_creating_cancels_the_creation() {
    for database in testing::databases().await {
        let delay = cac_simulator::Delay {
            create: std::time::Duration::from_secs(30),
            ..cac_simulator::Delay::none()
        };
        let mut lab = Lab::with(database, delay, &[]).await;
        lab.runner();
        let created = lab.ask("oops").await;
        until("the creation has begun", async || {
            !lab.simulator.containers().is_empty()
        })
        .await;
        let done = container::delete(&lab.core, &alice(), created.id, PATIENCE)
            .await
            .unwrap();
        assert_eq!(done, Deletion::Done, "{}", lab.log(created.job_id).await);
        assert_eq!(lab.job(created.job_id).await.status, Status::Cancelled);
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}

/// Pitfall 21: a destruction may be refused.
#[tokio::test]
async fn what_proxmox_refuses_keeps_the_row() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let created = lab.ask("kept").await;
        lab.job(created.job_id).await;
        let fail = cac_simulator::Action::FailTask {
            text: "the disk is busy".to_owned(),
        };
        lab.simulator.faults().once("DELETE", "/lxc/", fail);
        let refused = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
        assert!(
            matches!(&refused, Err(Error::Upstream(reason)) if reason.contains("the disk is busy")),
            "{refused:?}"
        );
        let row = lab.row(created.id).await.unwrap();
        assert_eq!((row.state, row.job_id), (None, None));
        assert_eq!(
            container::delete(&lab.core, &alice(), created.id, PATIENCE)
                .await
                .unwrap(),
            Deletion::Done
        );
        lab.end().await;
    }
}
