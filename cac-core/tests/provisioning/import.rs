//! Containers that a node had before.

use cac_core::container::{self, Wanted, import, importable};
use cac_core::node;
use cac_core::{Error, testing};

use crate::lab::{Lab, PATIENCE, admin, alice, until};

pub(crate) fn wanted(vmid: u32) -> Wanted {
    Wanted {
        vmid,
        username: "alice".to_owned(),
        http_port: Some(8080),
        additional_protocols: vec!["1883/tcp".to_owned()],
    }
}

#[tokio::test]
async fn a_container_that_exists_is_taken_over_as_it_is() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let ours = lab.ask("ours").await;
        lab.job(ours.job_id).await;
        let node = node::all(&lab.core).await.unwrap().remove(0);
        lab.foreign("pve1", 700, "old-one").await;
        lab.foreign("pve1", 701, "ours").await;
        lab.template("pve1", 702, "base", true).await;
        let pve = lab.core.pve(&node).unwrap();
        let upid = pve.lxc_start("pve1", 700).await.unwrap();
        pve.task_wait(&upid, PATIENCE, |_| ()).await.unwrap();
        let before = lab.simulator.containers();
        let old = before.iter().find(|ct| ct.vmid == 700).unwrap();

        let found = importable(&lab.core, &admin(), node.id).await.unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|one| {
                (
                    one.vmid,
                    one.hostname.as_str(),
                    one.status.as_str(),
                    one.problems.len(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [(700, "old-one", "running", 0), (701, "ours", "stopped", 1)]
        );
        assert!(
            found[1].problems[0].contains("another container's name"),
            "{found:?}"
        );
        assert_eq!(found[0].ipv4_address, old.address.map(|a| a.to_string()));

        let row = import(&lab.core, &admin(), node.id, &wanted(700))
            .await
            .unwrap();
        assert_eq!(
            (row.hostname.as_str(), row.username.as_str()),
            ("old-one", "alice")
        );
        assert_eq!(
            (row.cores, row.memory, row.disk),
            (Some(1), Some(256), Some(4))
        );
        assert_eq!(row.ipv4_address, old.address.map(|a| a.to_string()));
        assert!(row.mac_address.is_some() && row.state.is_none());
        let ports: Vec<_> = row.services.iter().map(|s| s.internal_port).collect();
        assert_eq!(ports, [8080, 2022, 1883]);
        // Nothing changed in Proxmox VE, and it is in no list any more.
        assert_eq!(
            lab.simulator
                .containers()
                .iter()
                .find(|ct| ct.vmid == 700)
                .unwrap()
                .config,
            old.config
        );
        let found = importable(&lab.core, &admin(), node.id).await.unwrap();
        assert_eq!(found.len(), 1);
        let again = import(&lab.core, &admin(), node.id, &wanted(700)).await;
        assert!(
            matches!(again, Err(Error::Invalid(_) | Error::Conflict { .. })),
            "{again:?}"
        );

        // Its new owner may do with it what owners do.
        let stop = cac_core::job::container_change::Change::Stop;
        let stopped = container::change(&lab.core, &alice(), row.id, stop, PATIENCE).await;
        assert!(
            matches!(stopped, Ok(container::Changed::Done(_))),
            "{stopped:?}"
        );
        let deleted = container::delete(&lab.core, &alice(), row.id, PATIENCE).await;
        assert_eq!(deleted.unwrap(), container::Deletion::Done);
        until("it is gone", async || {
            !lab.simulator.containers().iter().any(|ct| ct.vmid == 700)
        })
        .await;
        lab.end().await;
    }
}

#[tokio::test]
async fn what_cannot_be_taken_over_is_said_and_changes_nothing() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let node = node::all(&lab.core).await.unwrap().remove(0);
        lab.foreign("pve1", 700, "Not-A.Label").await;
        lab.template("pve1", 701, "base", true).await;
        lab.foreign("pve1", 702, "locked").await;
        lab.simulator.set_option(702, "lock", Some("backup"));
        for (vmid, why) in [
            (700, "Use 1 to 63 of a-z"),
            (701, "is a template"),
            (702, "(backup); wait"),
            (703, "Node pve1 has no CT 703"),
            (0, "a number from 100"),
        ] {
            let refused = import(&lab.core, &admin(), node.id, &wanted(vmid))
                .await
                .unwrap_err();
            let Error::Invalid(fields) = &refused else {
                panic!("{vmid}: {refused:?}");
            };
            assert!(fields.0["vmid"].contains(why), "{vmid}: {fields}");
        }
        let bad = Wanted {
            username: String::new(),
            http_port: Some(1),
            additional_protocols: vec!["gopher".to_owned()],
            ..wanted(702)
        };
        let refused = import(&lab.core, &admin(), node.id, &bad)
            .await
            .unwrap_err();
        let Error::Invalid(fields) = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            fields.0.keys().copied().collect::<Vec<_>>(),
            ["additionalProtocols", "httpPort", "username", "vmid"]
        );
        for call in [
            import(&lab.core, &alice(), node.id, &wanted(702))
                .await
                .map(drop),
            importable(&lab.core, &alice(), node.id).await.map(drop),
        ] {
            assert!(matches!(call, Err(Error::Forbidden(_))), "{call:?}");
        }
        let rows = lab
            .core
            .db
            .one(r#"SELECT COUNT(*) AS "n" FROM "Containers""#, vec![]);
        assert_eq!(rows.await.unwrap().get::<i64>("n").unwrap(), 0);
        lab.end().await;
    }
}
