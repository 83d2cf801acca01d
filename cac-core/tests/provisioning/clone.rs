//! Containers that are cloned from template containers.

use std::collections::BTreeSet;
use std::time::Duration;

use cac_core::container::{self, NewContainer};
use cac_core::job::Status;
use cac_core::{Error, placement, testing};
use cac_simulator::{Action, Delay};

use crate::lab::{Lab, PATIENCE, alice, from, new, until};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk0Zk9d7v3c0mB1m0b1xJb2vQ9sC0Zs5kq8o9rX1p7T alice";

async fn asked(lab: &Lab, wish: &NewContainer) -> container::Created {
    container::create(&lab.core, &alice(), wish, None)
        .await
        .unwrap()
}

/// Pitfall 16: a clone gets only the parameters that its form permits, and what was asked for is set afterwards.
#[tokio::test]
async fn a_clone_is_what_was_asked_for_and_its_template_stays_as_it_was() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.template("pve2", 900, "base-node22", true).await;
        let pattern = lab.simulator.containers().remove(0);
        lab.runner();
        let wish = NewContainer {
            cores: Some(3),
            memory: Some(768),
            disk: Some(6),
            ..from("cloned", "base-node22")
        };
        let created = asked(&lab, &wish).await;
        let job = lab.job(created.job_id).await;
        let log = lab.log(created.job_id).await;
        assert_eq!(job.status, Status::Success, "{log}");
        assert!(log.contains("clone CT 900 as CT "), "{log}");
        assert!(
            log.contains("create full clone of mountpoint rootfs"),
            "{log}"
        );
        let row = lab.row(created.id).await.unwrap();
        let all = lab.simulator.containers();
        let made = all
            .iter()
            .find(|ct| Some(ct.vmid) == row.container_id)
            .unwrap();
        let option = |name: &str| {
            made.config
                .get(name)
                .map(String::as_str)
                .unwrap_or_default()
        };
        assert_eq!(
            (made.node.as_str(), made.status.as_str()),
            ("pve2", "running")
        );
        assert_eq!(
            (
                option("cores"),
                option("memory"),
                option("swap"),
                option("onboot")
            ),
            ("3", "768", "0", "1")
        );
        assert!(option("rootfs").contains("size=6G"), "{}", option("rootfs"));
        assert_eq!(option("template"), "");
        let marker = row.marker_line(&lab.core.installation);
        let lines: Vec<_> = made
            .description
            .iter()
            .flat_map(|text| text.lines())
            .collect();
        assert_eq!(lines.last(), Some(&marker.as_str()));
        assert!(
            !lines
                .iter()
                .any(|line| line.contains("another-installation"))
        );
        let mac = |net: &str| net.split("hwaddr=").nth(1).unwrap()[..17].to_owned();
        assert_ne!(mac(option("net0")), mac(&pattern.config["net0"]));
        assert_eq!(row.mac_address, Some(mac(option("net0"))));
        assert_eq!(row.ipv4_address, made.address.map(|a| a.to_string()));
        // The pattern is as it was, and the clone is deleted like any other.
        let still = all.iter().find(|ct| ct.vmid == 900).unwrap();
        assert_eq!(still.config, pattern.config);
        let deleted = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
        assert_eq!(deleted.unwrap(), container::Deletion::Done);
        assert_eq!(lab.simulator.containers().len(), 1);
        lab.end().await;
    }
}

/// Pitfall 1: Proxmox VE locks a template while it is cloned, so that a second clone of it fails.
#[tokio::test]
async fn clones_of_one_template_are_made_one_after_the_other() {
    for database in testing::databases().await {
        let delay = Delay {
            create: Duration::from_millis(100),
            ..Delay::none()
        };
        let mut lab = Lab::with(database, delay, &[]).await;
        lab.template("pve1", 900, "base-a", true).await;
        lab.template("pve1", 901, "base-b", true).await;
        lab.runner();
        lab.runner();
        let mut jobs = Vec::new();
        for number in 0..8 {
            let template = format!("lxc/{}", 900 + number % 2);
            jobs.push(asked(&lab, &from(&format!("many{number}"), &template)).await);
        }
        let (mut most, mut reasons) = (0, BTreeSet::new());
        until("all are made", async || {
            let sql =
                r#"SELECT COUNT("lane") AS "n", COUNT(DISTINCT "lane") AS "d" FROM "Containers""#;
            let row = lab.core.db.one(sql, vec![]).await.unwrap();
            let (n, d): (i64, i64) = (row.get("n").unwrap(), row.get("d").unwrap());
            assert_eq!(n, d, "two clones of one template at once");
            most = most.max(n);
            let mut over = true;
            for created in &jobs {
                let job = cac_core::job::find(&lab.core, &alice(), created.job_id)
                    .await
                    .unwrap();
                over &= job.status.ended();
                if job.status == Status::Pending {
                    reasons.extend(job.reason);
                }
            }
            over
        })
        .await;
        for created in &jobs {
            let log = lab.log(created.job_id).await;
            assert_eq!(
                lab.job(created.job_id).await.status,
                Status::Success,
                "{log}"
            );
            assert!(!log.contains("CT is locked"), "{log}");
        }
        assert_eq!(most, 2, "the two templates are cloned beside each other");
        assert!(
            reasons
                .iter()
                .any(|reason| reason.contains("one at a time")),
            "{reasons:?}"
        );
        assert_eq!(lab.simulator.containers().len(), 10);
        let sql = r#"SELECT COUNT("lane") AS "n" FROM "Containers""#;
        let row = lab.core.db.one(sql, vec![]).await.unwrap();
        assert_eq!(row.get::<i64>("n").unwrap(), 0);
        lab.end().await;
    }
}

/// A template that somebody else clones or backs up is waited for.
#[tokio::test]
async fn a_template_that_others_lock_is_waited_for() {
    let mut lab = Lab::new(testing::sqlite().await).await;
    lab.template("pve1", 900, "base", true).await;
    lab.simulator.set_option(900, "lock", Some("disk"));
    lab.runner();
    let created = asked(&lab, &from("patient", "base")).await;
    until("it says why it waits", async || {
        let job = cac_core::job::find(&lab.core, &alice(), created.job_id)
            .await
            .unwrap();
        job.reason.is_some_and(|reason| {
            reason.contains("Its template is in use") && reason.contains("CT is locked (disk)")
        })
    })
    .await;
    lab.simulator.set_option(900, "lock", None);
    let log = lab.log(created.job_id).await;
    assert_eq!(
        lab.job(created.job_id).await.status,
        Status::Success,
        "{log}"
    );
    assert_eq!(lab.simulator.containers().len(), 2);
    lab.end().await;
}

/// Pitfall 17: a key can be put into a container only when it is created from an archive.
#[tokio::test]
async fn that_a_clone_carries_no_key_is_said_before_anything_is_made() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.template("pve1", 900, "base", true).await;
        lab.prefer("pve1", "debian=lxc/900").await;
        let with_key = |wish: NewContainer| NewContainer {
            ssh_public_key: Some(KEY.to_owned()),
            ..wish
        };
        let on = |node: &str| NewContainer {
            node: Some(node.to_owned()),
            ..new("keyed")
        };
        for wish in [
            with_key(from("keyed", "lxc/900")),
            with_key(from("keyed", "base")),
            with_key(on("pve1")),
        ] {
            let refused = container::create(&lab.core, &alice(), &wish, None).await;
            let Err(Error::Invalid(fields)) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(fields.0.keys().collect::<Vec<_>>(), [&"sshPublicKey"]);
            let dry = container::preflight(&lab.core, &alice(), &wish).await;
            assert!(
                matches!(&dry, Err(Error::Invalid(f)) if f.0.contains_key("sshPublicKey")),
                "{dry:?}"
            );
        }
        // Elsewhere there is an archive, which takes it.
        let place = container::preflight(&lab.core, &alice(), &with_key(new("keyed")))
            .await
            .unwrap();
        assert_ne!(place.node, "pve1");
        lab.runner();
        let created = asked(&lab, &with_key(new("keyed"))).await;
        let log = lab.log(created.job_id).await;
        assert_eq!(
            lab.job(created.job_id).await.status,
            Status::Success,
            "{log}"
        );
        let log = lab.log(created.job_id).await;
        assert!(
            log.contains("Passed over: pve1: its template is CT 900."),
            "{log}"
        );
        lab.end().await;
    }
}

#[tokio::test]
async fn a_nodes_own_wish_decides_what_an_os_release_means() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.template("pve3", 900, "base", true).await;
        lab.prefer("pve3", "debian=base, node22=lxc/900").await;
        lab.runner();
        let on_3 = NewContainer {
            node: Some("pve3".to_owned()),
            ..new("preferred")
        };
        let own = NewContainer {
            os_release: "Node22".to_owned(),
            ..new("own-name")
        };
        for wish in [&on_3, &own] {
            let place = container::preflight(&lab.core, &alice(), wish)
                .await
                .unwrap();
            assert_eq!(
                (place.node.as_str(), place.template.as_str()),
                ("pve3", "lxc/900")
            );
            let created = asked(&lab, wish).await;
            let log = lab.log(created.job_id).await;
            assert_eq!(
                lab.job(created.job_id).await.status,
                Status::Success,
                "{log}"
            );
        }
        let offered = placement::offered(&lab.core).await.unwrap();
        let container = offered
            .iter()
            .find(|o| o.template.id() == "lxc/900")
            .unwrap();
        assert_eq!(container.os_releases, ["debian", "node22"]);
        for bad in [
            "debian",
            "=lxc/900",
            "debian=",
            "debian=a,debian=b",
            "a=b;c",
        ] {
            let row = cac_core::node::find_named(&lab.core, &crate::lab::admin(), "pve3")
                .await
                .unwrap();
            let change = cac_core::node::NodeChange {
                templates: Some(Some(bad.to_owned())),
                ..Default::default()
            };
            let refused =
                cac_core::node::update(&lab.core, &crate::lab::admin(), row.id, change).await;
            assert!(
                matches!(&refused, Err(Error::Invalid(f)) if f.0.contains_key("templates")),
                "{bad}: {refused:?}"
            );
        }
        lab.end().await;
    }
}

#[tokio::test]
async fn what_cannot_become_of_a_template_is_said() {
    let lab = Lab::new(testing::sqlite().await).await;
    lab.template("pve1", 900, "base", true).await;
    lab.template("pve1", 901, "privileged", false).await;
    let small = NewContainer {
        disk: Some(3),
        ..from("small", "base")
    };
    for (wish, why) in [
        (small, "has 4 GiB, and disks only grow"),
        (from("risky", "privileged"), "is privileged"),
        (from("lost", "lxc/999"), "has no template `lxc/999`"),
    ] {
        let refused = container::preflight(&lab.core, &alice(), &wish)
            .await
            .unwrap_err();
        let Error::Invalid(fields) = &refused else {
            panic!("{refused:?}");
        };
        assert!(fields.0["node"].contains(why), "{fields}");
    }
    lab.end().await;
}

#[tokio::test]
async fn a_clone_whose_answer_was_lost_is_made_once() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.template("pve1", 900, "base", true).await;
        lab.runner();
        for (number, action) in [Action::DropBefore, Action::DropAfter]
            .into_iter()
            .enumerate()
        {
            for (method, path) in [("POST", "/clone"), ("PUT", "/config"), ("PUT", "/resize")] {
                lab.simulator.faults().once(method, path, action.clone());
            }
            let created = asked(&lab, &from(&format!("lost{number}"), "base")).await;
            let job = lab.job(created.job_id).await;
            assert_eq!(
                job.status,
                Status::Success,
                "{action:?}: {}",
                lab.log(created.job_id).await
            );
            assert_eq!(lab.simulator.containers().len(), number + 2, "{action:?}");
            assert!(lab.simulator.faults().pending().is_empty());
        }
        lab.end().await;
    }
}

/// The lane is free again, whatever became of the clone.
#[tokio::test]
async fn a_clone_that_fails_is_undone_and_the_next_one_succeeds() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.template("pve1", 900, "base", true).await;
        lab.runner();
        let text = "no space left on device".to_owned();
        let faults = lab.simulator.faults();
        faults.once("POST", "/clone", Action::FailTask { text });
        let failed = asked(&lab, &from("unlucky", "base")).await;
        let job = lab.job(failed.job_id).await;
        assert_eq!(job.status, Status::Failure);
        assert!(job.reason.unwrap().contains("no space left on device"));
        assert!(lab.row(failed.id).await.is_none());
        assert_eq!(lab.simulator.containers().len(), 1);
        let again = asked(&lab, &from("unlucky", "base")).await;
        let log = lab.log(again.job_id).await;
        assert_eq!(lab.job(again.job_id).await.status, Status::Success, "{log}");
        lab.end().await;
    }
}
