//! A change that is refused has changed nothing, one that fails leaves the database as Proxmox VE is, and an owner change is carried
//! through.

use std::time::Duration;

use cac_core::container::{self, Changed, Container, ContainerChange};
use cac_core::job::container_change::Change;
use cac_core::job::{self, Status};
use cac_core::node::{self, NodeChange};
use cac_core::quota::{self, Limits};
use cac_core::{Core, Error, args, testing};
use cac_simulator::{Action, Fault};
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, admin, alice, config, until};
use crate::life::may;

const LONG: Duration = Duration::from_secs(40);

async fn made(lab: &Lab, hostname: &str) -> Container {
    let created = lab.ask(hostname).await;
    let job = lab.job(created.job_id).await;
    assert_eq!(job.status, Status::Success, "{job:?}");
    lab.row(created.id).await.unwrap()
}

fn refusal(method: &str, path: &str, count: u32) -> Fault {
    Fault {
        method: Some(method.to_owned()),
        path: path.to_owned(),
        count,
        action: Action::Status {
            code: 500,
            reason: "the storage is not happy".to_owned(),
        },
    }
}

/// The address went before the shutdown was asked for, and never came back: both of its services were out of nginx.
#[tokio::test]
async fn a_refused_stop_or_restart_leaves_the_address() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        for node in node::all(&lab.core).await.unwrap() {
            let change = NodeChange {
                storage: Some(Some("local-btrfs".to_owned())),
                ..NodeChange::default()
            };
            node::update(&lab.core, &admin(), node.id, change)
                .await
                .unwrap();
        }
        lab.runner();
        let before = made(&lab, "steady").await;
        let id = before.id;
        let base = Change::Snapshot {
            name: "base".to_owned(),
            description: String::new(),
        };
        container::change(&lab.core, &alice(), id, base, LONG)
            .await
            .unwrap();
        let roll_back = || Change::RollBack {
            name: "base".to_owned(),
        };
        for change in [Change::Stop, Change::Restart, roll_back()] {
            lab.simulator
                .faults()
                .add(refusal("POST", "/status/shutdown", 1));
            let refused = container::change(&lab.core, &alice(), id, change.clone(), LONG).await;
            assert!(matches!(refused, Err(Error::Upstream(_))), "{refused:?}");
            let row = lab.row(id).await.unwrap();
            assert_eq!(row.ipv4_address, before.ipv4_address, "{change:?}");
            assert_eq!((row.state, row.job_id), (None, None));
            let note = row.change_error.unwrap();
            assert!(note.contains("not happy"), "{note}");
        }
        // Cancelled while the shutdown hangs.
        let hang = Action::HangTask;
        lab.simulator
            .faults()
            .once("POST", "/status/shutdown", hang);
        let going =
            container::change(&lab.core, &alice(), id, Change::Restart, Duration::ZERO).await;
        let Ok(Changed::Going { job_id }) = going else {
            panic!("{going:?}");
        };
        until("the shutdown is asked for", async || {
            lab.log(job_id).await.contains("[2/2]")
        })
        .await;
        job::cancel(&lab.core, &alice(), job_id).await.unwrap();
        assert_eq!(lab.job(job_id).await.status, Status::Cancelled);
        let row = lab.row(id).await.unwrap();
        assert_eq!(row.ipv4_address, before.ipv4_address, "after a cancel");
        // One that has stopped and cannot go on is nowhere.
        lab.simulator.faults().add(refusal("POST", "/rollback", 1));
        let refused = container::change(&lab.core, &alice(), id, roll_back(), LONG).await;
        assert!(matches!(refused, Err(Error::Upstream(_))), "{refused:?}");
        assert_eq!(lab.row(id).await.unwrap().ipv4_address, None);
        let started = container::change(&lab.core, &alice(), id, Change::Start, LONG).await;
        let Ok(Changed::Done(row)) = started else {
            panic!("{started:?}");
        };
        assert!(row.ipv4_address.is_some() && row.change_error.is_none());
        lab.end().await;
    }
}

/// It was 400, and the container was protected and another one's.
#[tokio::test]
async fn a_change_that_is_refused_has_changed_nothing() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        lab.simulator.add_user("bob@pve", "bob-demo", &[]);
        let before = made(&lab, "whole").await;
        let limits = Limits {
            memory: Some(2048),
            ..Limits::default()
        };
        for name in ["alice", "bob"] {
            quota::set(&lab.core, &admin(), name, limits).await.unwrap();
        }
        let wish = ContainerChange {
            protected: Some(true),
            memory: Some(8192),
            ..ContainerChange::default()
        };
        let give = ContainerChange {
            username: Some("bob".to_owned()),
            ..wish.clone()
        };
        for (actor, wish) in [(alice(), wish.clone()), (admin(), give.clone())] {
            let refused = container::update(&lab.core, &actor, before.id, &wish, LONG).await;
            let Err(Error::Invalid(fields)) = refused else {
                panic!("{refused:?}");
            };
            assert!(fields.0.contains_key("memory"), "{fields}");
            let row = lab.row(before.id).await.unwrap();
            assert_eq!((row.protected, row.username.as_str()), (false, "alice"));
            assert_eq!(
                (row.memory, row.updated_at),
                (before.memory, before.updated_at)
            );
        }
        // While something works on it, neither.
        let sql = r#"UPDATE "Containers" SET "state" = 'changing'"#;
        lab.core.db.exec(sql, vec![]).await.unwrap();
        let give = ContainerChange {
            memory: None,
            ..give
        };
        let busy = container::update(&lab.core, &admin(), before.id, &give, LONG).await;
        assert!(matches!(busy, Err(Error::Conflict { .. })), "{busy:?}");
        let row = lab.row(before.id).await.unwrap();
        assert_eq!((row.protected, row.username.as_str()), (false, "alice"));
        lab.end().await;
    }
}

/// The larger sizes were counted for good.
#[tokio::test]
async fn sizes_that_proxmox_never_heard_of_do_not_count() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let before = made(&lab, "small").await;
        let sql = r#"UPDATE "Containers" SET "marker" = ?, "macAddress" = 'BC:24:11:FF:FF:FF'"#;
        lab.core.db.exec(sql, args![false]).await.unwrap();
        let wish = ContainerChange {
            memory: Some(8192),
            cores: Some(8),
            ..ContainerChange::default()
        };
        let refused = container::update(&lab.core, &alice(), before.id, &wish, LONG).await;
        assert!(
            matches!(refused, Err(Error::Conflict { .. })),
            "{refused:?}"
        );
        let row = lab.row(before.id).await.unwrap();
        assert_eq!((row.memory, row.cores), (before.memory, before.cores));
        lab.end().await;
    }
}

fn to_bob() -> ContainerChange {
    ContainerChange {
        username: Some("bob".to_owned()),
        ..ContainerChange::default()
    }
}

/// A revoke that failed was a line in the log, and the former owner kept the console.
#[tokio::test]
async fn a_role_that_proxmox_did_not_take_is_seen_and_taken_later() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        lab.simulator.add_user("bob@pve", "bob-demo", &[]);
        let row = made(&lab, "gift").await;
        let path = format!("/vms/{}", row.container_id.unwrap());
        // The change gives and takes, and the first attempt after it gives.
        lab.simulator.faults().add(refusal("PUT", "/access/acl", 3));
        let half = container::update(&lab.core, &admin(), row.id, &to_bob(), LONG).await;
        assert!(
            matches!(&half, Err(Error::Upstream(reason)) if reason.contains("alice@pve, the former owner")),
            "{half:?}"
        );
        let given = lab.row(row.id).await.unwrap();
        assert_eq!((given.username.as_str(), given.state), ("bob", None));
        until("the roles follow", async || {
            let note = lab.row(row.id).await.unwrap().change_error;
            note.is_none()
        })
        .await;
        assert!(may(&lab, "bob", &path).await && !may(&lab, "alice", &path).await);
        lab.end().await;
    }
}

/// The role was asked for once, in the request; one that Proxmox VE refused then was a line in the log.
#[tokio::test]
async fn an_imported_containers_owner_gets_the_role_that_proxmox_refused_at_first() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        lab.foreign("pve1", 556, "payroll").await;
        lab.simulator.faults().add(refusal("PUT", "/access/acl", 2));
        let nodes = node::all(&lab.core).await.unwrap();
        let pve1 = nodes.iter().find(|node| node.name == "pve1").unwrap();
        let wanted = container::Wanted {
            vmid: 556,
            username: "alice".to_owned(),
            ..container::Wanted::default()
        };
        container::import(&lab.core, &admin(), pve1.id, &wanted)
            .await
            .unwrap();
        until("the role follows", async || {
            may(&lab, "alice", "/vms/556").await
        })
        .await;
        lab.end().await;
    }
}

/// Who owned it kept the role in Proxmox VE when the portal died between the two calls.
#[tokio::test]
async fn an_owner_change_survives_the_runner_that_carries_it_out() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let first = lab.runner();
        lab.simulator.add_user("bob@pve", "bob-demo", &[]);
        let row = made(&lab, "gift").await;
        let path = format!("/vms/{}", row.container_id.unwrap());
        first.cancel();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = config(&lab.database.url, &[]);
        runtime.spawn(async move {
            let core = Core::start(config).await.unwrap();
            job::runner::run(core, CancellationToken::new()).await;
        });
        let slow = Action::Latency { ms: 6_000 };
        lab.simulator.faults().once("PUT", "/access/acl", slow);
        let going = container::update(&lab.core, &admin(), row.id, &to_bob(), Duration::ZERO).await;
        let Ok(Changed::Going { job_id }) = going else {
            panic!("{going:?}");
        };
        assert_eq!(lab.row(row.id).await.unwrap().username, "bob");
        until("the role is being given", async || {
            lab.log(job_id).await.contains("Giving bob@pve the role")
        })
        .await;
        runtime.shutdown_background();
        lab.runner();
        assert_eq!(lab.job(job_id).await.status, Status::Success);
        assert!(may(&lab, "bob", &path).await && !may(&lab, "alice", &path).await);
        lab.end().await;
    }
}
