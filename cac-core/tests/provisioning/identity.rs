//! What is done on behalf of a row is done to the row's container and to no other: registrations are compared with Proxmox VE, and
//! identity is proved before anything is read or changed there.

use std::time::Duration;

use cac_core::container::{self, Container, Deletion, Registration};
use cac_core::job::container_change::Change;
use cac_core::node::{self, NodeChange};
use cac_core::reconcile::{self, Kind};
use cac_core::{Actor, Error, args, routes, testing};

use crate::lab::{Lab, admin, alice};

const LONG: Duration = Duration::from_secs(30);

/// The MAC address that a container of the simulator has.
pub(crate) fn mac(lab: &Lab, vmid: u32) -> String {
    let all = lab.simulator.containers();
    let one = all.iter().find(|one| one.vmid == vmid).unwrap();
    let mut parts = one.config["net0"].split(',');
    let mac = parts.find_map(|part| part.strip_prefix("hwaddr=")).unwrap();
    mac.to_owned()
}

pub(crate) fn exists(lab: &Lab, vmid: u32) -> bool {
    lab.simulator
        .containers()
        .iter()
        .any(|one| one.vmid == vmid)
}

pub(crate) fn claim(vmid: u32, hostname: &str, mac: &str) -> Registration {
    Registration {
        hostname: hostname.to_owned(),
        ipv4_address: format!("127.77.{}.{}", vmid / 250, vmid % 250),
        username: "alice".to_owned(),
        os_release: "debian".to_owned(),
        container_id: Some(vmid.into()),
        mac_address: mac.to_owned(),
        http_port: Some(8080),
        ..Registration::default()
    }
}

/// Takes the addresses of all nodes away, so that none can be asked, or gives them back.
pub(crate) async fn reachable(lab: &Lab, reachable: bool) {
    for node in node::all(&lab.core).await.unwrap() {
        let change = NodeChange {
            api_url: Some(reachable.then(|| lab.simulator.url())),
            secret: Some(Some(lab.secret.clone())),
            ..NodeChange::default()
        };
        node::update(&lab.core, &admin(), node.id, change)
            .await
            .unwrap();
    }
}

async fn served(lab: &Lab, row: &Container) -> bool {
    let name = format!("{}.", row.hostname);
    routes::render(&lab.core)
        .await
        .unwrap()
        .text
        .contains(&name)
}

async fn set_mac(lab: &Lab, id: i64, mac: &str) {
    let sql = r#"UPDATE "Containers" SET "macAddress" = ? WHERE "id" = ?"#;
    lab.core.db.exec(sql, args![mac, id]).await.unwrap();
}

/// C1a: a registration with a made-up name was stored, and its refusals gave away what to claim next.
#[tokio::test]
async fn a_false_registration_is_refused_without_the_truth() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.foreign("pve1", 556, "payroll").await;
        lab.template("pve1", 557, "base", true).await;
        let truth = mac(&lab, 556);
        let other = "BC:24:11:00:05:56";
        let base = mac(&lab, 557);
        let on = |claim: Registration, node: &str| Registration {
            node: Some(node.to_owned()),
            ..claim
        };
        for (what, claim) in [
            ("another name", claim(556, "mine", &truth)),
            ("another MAC", claim(556, "payroll", other)),
            ("no such CT", claim(999, "payroll", &truth)),
            ("a template", claim(557, "base", &base)),
            ("another node", on(claim(556, "payroll", &truth), "pve2")),
        ] {
            let mut claim = claim;
            if claim.node.is_none() {
                claim.node = Some("pve1".to_owned());
            }
            let refused = container::register(&lab.core, &Actor::local(), &claim).await;
            let Err(Error::Conflict { field, message }) = refused else {
                panic!("{what}: {refused:?}");
            };
            assert_eq!(field, "containerId", "{what}");
            for secret in ["payroll", truth.as_str()] {
                assert!(!message.contains(secret), "{what}: {message}");
            }
        }
        let user = container::register(&lab.core, &alice(), &claim(556, "payroll", &truth)).await;
        assert!(matches!(user, Err(Error::Forbidden(_))), "{user:?}");

        // The truth is registered where the container is, with the sizes that it has.
        let claim = claim(556, "payroll", &truth.to_lowercase());
        let row = container::register(&lab.core, &Actor::local(), &claim)
            .await
            .unwrap();
        assert_eq!(row.unverified_since, None);
        assert_eq!(
            (row.cores, row.memory, row.disk),
            (Some(1), Some(256), Some(4))
        );
        lab.end().await;
    }
}

/// C1a: snapshots and usage of whatever stood under the number were shown, and refusals named it.
#[tokio::test]
async fn another_container_under_the_vmid_is_neither_read_nor_served() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        lab.foreign("pve1", 556, "payroll").await;
        let truth = mac(&lab, 556);
        let row = container::register(&lab.core, &admin(), &claim(556, "payroll", &truth))
            .await
            .unwrap();
        assert!(served(&lab, &row).await);
        assert!(
            container::snapshots(&lab.core, &alice(), row.id)
                .await
                .is_ok()
        );
        assert_eq!(
            container::live_status(&lab.core, &row).await.as_deref(),
            Some("stopped")
        );

        // The VMID belongs to somebody else's container now.
        set_mac(&lab, row.id, "BC:24:11:FF:FF:FF").await;
        lab.simulator.set_option(556, "hostname", Some("ledger"));
        let now = lab.row(row.id).await.unwrap();
        assert_eq!(container::live_status(&lab.core, &now).await, None);
        let secrets = ["ledger", truth.as_str()];
        let mut told = Vec::new();
        for outcome in [
            container::snapshots(&lab.core, &alice(), row.id)
                .await
                .map(drop),
            container::usage(&lab.core, &alice(), row.id, "hour")
                .await
                .map(drop),
            container::change(&lab.core, &alice(), row.id, Change::Start, LONG)
                .await
                .map(drop),
            container::delete(&lab.core, &alice(), row.id, LONG)
                .await
                .map(drop),
        ] {
            let Err(Error::Conflict { message, .. }) = outcome else {
                panic!("{outcome:?}");
            };
            told.push(message);
        }
        let jobs = lab
            .core
            .db
            .all(r#"SELECT "id" FROM "Jobs""#, args![])
            .await
            .unwrap();
        for job in jobs {
            told.push(lab.log(job.get("id").unwrap()).await);
        }
        for text in &told {
            let found = secrets.iter().find(|secret| text.contains(**secret));
            assert_eq!(found, None, "{text}");
        }
        assert!(exists(&lab, 556));
        let now = lab.row(row.id).await.unwrap();
        assert!(now.identity_mismatch_at.is_some(), "{now:?}");
        assert!(!served(&lab, &row).await, "{}", lab.database.name);
        let found = reconcile::look(&lab.core, &admin()).await.unwrap();
        let stranger = found.iter().find(|one| one.kind == Kind::Stranger).unwrap();
        assert!(stranger.message.contains(&truth), "{stranger:?}");

        // Proved again, it is served again.
        set_mac(&lab, row.id, &truth).await;
        lab.simulator.set_option(556, "hostname", Some("payroll"));
        container::verify(&lab.core).await.unwrap();
        assert_eq!(lab.row(row.id).await.unwrap().identity_mismatch_at, None);
        assert!(served(&lab, &row).await);
        let deleted = container::delete(&lab.core, &alice(), row.id, LONG).await;
        assert_eq!(deleted.unwrap(), Deletion::Done);
        lab.end().await;
    }
}

#[tokio::test]
async fn a_look_that_fails_or_proves_nothing_withdraws_no_route() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.foreign("pve1", 556, "shop").await;
        let truth = mac(&lab, 556);
        let row = container::register(&lab.core, &admin(), &claim(556, "shop", &truth))
            .await
            .unwrap();
        let waits = r#"UPDATE "Containers" SET "cores" = NULL"#;
        // Its node is away, its container is gone, it was renamed, or its MAC address was never written down.
        lab.simulator.set_online("pve1", false);
        container::verify(&lab.core).await.unwrap();
        assert!(served(&lab, &row).await);
        lab.simulator.set_online("pve1", true);
        for (hostname, mac) in [
            ("shop", ""),
            ("shop-2", truth.as_str()),
            ("shop-3", "unknown"),
        ] {
            lab.core.db.exec(waits, args![]).await.unwrap();
            lab.simulator.set_option(556, "hostname", Some(hostname));
            set_mac(&lab, row.id, mac).await;
            container::verify(&lab.core).await.unwrap();
            assert!(served(&lab, &row).await, "{hostname} {mac}");
            // All the same nothing is done to it.
            let read = container::snapshots(&lab.core, &alice(), row.id).await;
            assert!(matches!(read, Err(Error::Conflict { .. })), "{read:?}");
        }
        lab.end().await;
    }
}

#[tokio::test]
async fn an_unverified_registration_destroys_nothing_and_is_verified_when_the_node_answers() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        for (vmid, name) in [(556, "true-one"), (557, "false-one")] {
            lab.foreign("pve1", vmid, name).await;
        }
        let truth = mac(&lab, 556);
        reachable(&lab, false).await;
        let mut ids = Vec::new();
        for (vmid, name, mac) in [
            (556, "true-one", truth.as_str()),
            (557, "made-up", "BC:24:11:00:05:57"),
        ] {
            let claim = Registration {
                node: Some("pve1".to_owned()),
                ..claim(vmid, name, mac)
            };
            let row = container::register(&lab.core, &Actor::local(), &claim)
                .await
                .unwrap();
            assert!(row.unverified_since.is_some());
            assert!(served(&lab, &row).await, "an unverified row is served");
            let refused = container::delete(&lab.core, &alice(), row.id, LONG).await;
            assert!(refused.is_err(), "{refused:?}");
            ids.push(row.id);
        }
        reachable(&lab, true).await;
        // Before anything has verified it, the false one is looked at before it is touched.
        let refused = container::delete(&lab.core, &alice(), ids[1], LONG).await;
        assert!(
            matches!(refused, Err(Error::Conflict { .. })),
            "{refused:?}"
        );
        assert!(exists(&lab, 557));
        container::verify(&lab.core).await.unwrap();
        let (good, bad) = (
            lab.row(ids[0]).await.unwrap(),
            lab.row(ids[1]).await.unwrap(),
        );
        assert_eq!((good.unverified_since, good.memory), (None, Some(256)));
        assert!(bad.unverified_since.is_some() && bad.identity_mismatch_at.is_some());
        assert!(served(&lab, &good).await && !served(&lab, &bad).await);
        let found = reconcile::look(&lab.core, &admin()).await.unwrap();
        let stranger = found
            .iter()
            .find(|one| one.container == Some(bad.id))
            .unwrap();
        assert!(stranger.message.contains("false-one"), "{stranger:?}");
        let deleted = container::delete(&lab.core, &alice(), good.id, LONG).await;
        assert_eq!(deleted.unwrap(), Deletion::Done);
        assert!(!exists(&lab, 556));
        lab.end().await;
    }
}
