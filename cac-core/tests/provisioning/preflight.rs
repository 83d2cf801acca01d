//! What would be refused is said before anything is made.

use cac_core::container::{self, ContainerChange, NewContainer};
use cac_core::job::Status;
use cac_core::quota::{self, Limits};
use cac_core::{Error, placement, testing};

use crate::lab::{Lab, admin, alice, new};

#[tokio::test]
async fn a_dry_run_says_everything_at_once_and_keeps_nothing() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let place = container::preflight(&lab.core, &alice(), &new("possible"))
            .await
            .unwrap();
        assert!(
            place.node.starts_with("pve") && place.template.contains("debian-12"),
            "{place:?}"
        );
        let created = lab.ask("taken").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        quota::set(
            &lab.core,
            &admin(),
            "alice",
            Limits {
                cores: Some(3),
                ..Limits::default()
            },
        )
        .await
        .unwrap();
        let impossible = NewContainer {
            hostname: "taken".to_owned(),
            os_release: "gentoo".to_owned(),
            http_port: Some(1),
            additional_protocols: vec!["gopher".to_owned()],
            disk: Some(16_000),
            ..NewContainer::default()
        };
        let refused = container::preflight(&lab.core, &alice(), &impossible)
            .await
            .unwrap_err();
        let Error::Invalid(fields) = refused else {
            panic!("{refused:?}");
        };
        let told: Vec<_> = fields.0.keys().copied().collect();
        assert_eq!(
            told,
            [
                "additionalProtocols",
                "cores",
                "hostname",
                "httpPort",
                "node"
            ],
            "{}: {fields}",
            lab.database.name
        );
        assert!(
            fields.0["node"].contains("has no template for `gentoo`"),
            "{fields}"
        );
        // Neither of them left a row.
        let filter = container::Filter {
            all: true,
            limit: 10,
            ..container::Filter::default()
        };
        let (rows, total) = container::list(&lab.core, &admin(), &filter).await.unwrap();
        assert_eq!((rows.len(), total), (1, 1));
        lab.end().await;
    }
}

#[tokio::test]
async fn larger_sizes_count_from_the_moment_that_they_are_asked_for() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let created = lab.ask("grows").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        quota::set(
            &lab.core,
            &admin(),
            "alice",
            Limits {
                memory: Some(4000),
                ..Limits::default()
            },
        )
        .await
        .unwrap();
        let memory = |mib| ContainerChange {
            memory: Some(mib),
            ..ContainerChange::default()
        };
        let limit = std::time::Duration::from_secs(20);
        let refused =
            container::update(&lab.core, &alice(), created.id, &memory(4001), limit).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        container::update(&lab.core, &alice(), created.id, &memory(4000), limit)
            .await
            .unwrap();
        let refused = container::create(&lab.core, &alice(), &new("more"), None).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        // What Proxmox VE refuses is not counted for long.
        quota::set(&lab.core, &admin(), "alice", Limits::default())
            .await
            .unwrap();
        let fail = cac_simulator::Action::FailTask {
            text: "no space left".to_owned(),
        };
        lab.simulator.faults().once("PUT", "/resize", fail);
        let disk = ContainerChange {
            disk: Some(50),
            ..ContainerChange::default()
        };
        let failed = container::update(&lab.core, &alice(), created.id, &disk, limit)
            .await
            .unwrap_err();
        assert!(failed.to_string().contains("no space left"), "{failed}");
        let row = lab.row(created.id).await.unwrap();
        assert_eq!(
            (row.disk, row.memory, row.state),
            (Some(8), Some(4000), None)
        );
        lab.end().await;
    }
}

#[tokio::test]
async fn templates_are_what_the_nodes_have() {
    let lab = Lab::new(testing::sqlite().await).await;
    lab.simulator
        .add_template("pve2", "debian-13-standard_13.1-1_amd64.tar.zst", 1000);
    lab.simulator.set_online("pve3", false);
    let offered = placement::offered(&lab.core).await.unwrap();
    assert!(
        offered.iter().all(|offer| offer.node != "pve3"),
        "{offered:?}"
    );
    let newest = offered
        .iter()
        .find(|offer| offer.template.id().contains("debian-13"))
        .unwrap();
    assert_eq!(newest.node, "pve2");
    let systems: Vec<_> = offered
        .iter()
        .filter_map(|offer| offer.template.os_release())
        .collect();
    assert!(
        systems.contains(&"debian-13".to_owned()) && systems.contains(&"rocky-9".to_owned()),
        "{systems:?}"
    );
    // Each of them can be asked for by that word.
    for system in systems {
        let wish = NewContainer {
            os_release: system.clone(),
            ..new("possible")
        };
        let place = container::preflight(&lab.core, &alice(), &wish)
            .await
            .unwrap();
        assert_eq!(placement::os_release(&place.template), Some(system));
    }
    lab.end().await;
}
