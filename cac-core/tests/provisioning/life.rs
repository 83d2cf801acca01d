//! What an owner does with a container that exists: power, sizes, snapshots; and what becomes of it when a call goes wrong.

use std::time::Duration;

use cac_core::container::{self, Changed, Container, ContainerChange, live};
use cac_core::job::Status;
use cac_core::job::container_change::Change;
use cac_core::{Actor, Error, testing};
use cac_simulator::Action;

use crate::lab::{Lab, admin, alice};

const LONG: Duration = Duration::from_secs(40);

async fn made(lab: &Lab, hostname: &str) -> i64 {
    let created = lab.ask(hostname).await;
    let job = lab.job(created.job_id).await;
    assert_eq!(
        job.status,
        Status::Success,
        "{}: {job:?}",
        lab.database.name
    );
    created.id
}

async fn done(lab: &Lab, id: i64, change: Change) -> Container {
    let words = change.words();
    match container::change(&lab.core, &alice(), id, change, LONG).await {
        Ok(Changed::Done(row)) => *row,
        other => panic!("{} {words}: {other:?}", lab.database.name),
    }
}

async fn updated(lab: &Lab, actor: &Actor, id: i64, change: ContainerChange) -> Container {
    match container::update(&lab.core, actor, id, &change, LONG).await {
        Ok(Changed::Done(row)) => *row,
        other => panic!("{}: {other:?}", lab.database.name),
    }
}

async fn status(lab: &Lab, row: &Container) -> String {
    let all = live(&lab.core, std::slice::from_ref(row)).await;
    all[&row.id].status.clone()
}

/// Whether Proxmox VE lets somebody open the console of a container.
pub(crate) async fn may(lab: &Lab, name: &str, path: &str) -> bool {
    let target = cac_core::pve::Target {
        api_url: lab.simulator.url(),
        tls: cac_core::pve::Tls::Fingerprint(lab.simulator.fingerprint().parse().unwrap()),
        auth: cac_core::pve::Auth::None,
    };
    let pve = cac_core::pve::Pve::new(target).unwrap();
    let password = cac_core::pve::Secret::new(format!("{name}-demo"));
    let login = pve.login(&format!("{name}@pve"), &password).await.unwrap();
    let cac_core::pve::Login::Ticket(ticket) = login else {
        panic!("a second factor is asked for");
    };
    let rights = pve
        .with_ticket(&ticket)
        .permissions(Some(path))
        .await
        .unwrap();
    rights.has(path, "VM.Console")
}

async fn names(lab: &Lab, id: i64) -> Vec<String> {
    let all = container::snapshots(&lab.core, &alice(), id).await.unwrap();
    all.into_iter().map(|snapshot| snapshot.name).collect()
}

#[tokio::test]
async fn power_is_switched_and_the_address_goes_and_comes() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let id = made(&lab, "power").await;
        let row = lab.row(id).await.unwrap();
        assert_eq!(status(&lab, &row).await, "running");
        let row = done(&lab, id, Change::Stop).await;
        // Its names must not lead to whoever gets the address next.
        assert_eq!((row.ipv4_address.clone(), row.state.clone()), (None, None));
        assert_eq!(
            status(&lab, &row).await,
            "stopped",
            "after an action of ours: its own current state"
        );
        let row = done(&lab, id, Change::Stop).await;
        let row = done(&lab, row.id, Change::Start).await;
        assert!(row.ipv4_address.is_some());
        assert_eq!(status(&lab, &row).await, "running");
        let row = done(&lab, id, Change::Restart).await;
        assert!(row.ipv4_address.is_some() && row.state.is_none());
        lab.end().await;
    }
}

#[tokio::test]
async fn sizes_change_in_proxmox_and_in_the_books() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let id = made(&lab, "sizes").await;
        let before = lab.row(id).await.unwrap();
        let change = ContainerChange {
            cores: Some(3),
            memory: Some(1024),
            disk: Some(i64::from(before.disk.unwrap()) + 4),
            ..ContainerChange::default()
        };
        let row = updated(&lab, &alice(), id, change.clone()).await;
        let disk = before.disk.unwrap() + 4;
        assert_eq!(
            (row.cores, row.memory, row.disk),
            (Some(3), Some(1024), Some(disk))
        );
        let node = cac_core::node::find(&lab.core, row.node_id.unwrap())
            .await
            .unwrap();
        let pve = lab.core.pve(&node).unwrap();
        let config = pve
            .lxc_config(&node.name, row.container_id.unwrap())
            .await
            .unwrap();
        assert_eq!(
            (config.cores, config.memory, config.disk_gib()),
            (Some(3), Some(1024), Some(disk))
        );
        // The same again is no work.
        updated(&lab, &alice(), id, change).await;
        let smaller = ContainerChange {
            disk: Some(1),
            cores: Some(0),
            ..ContainerChange::default()
        };
        let refused = container::update(&lab.core, &alice(), id, &smaller, LONG)
            .await
            .unwrap_err();
        let Error::Invalid(fields) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            fields.0["disk"].contains("only grow") && fields.0.contains_key("cores"),
            "{fields}"
        );
        lab.end().await;
    }
}

#[tokio::test]
async fn snapshots_are_taken_rolled_back_and_deleted() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let nodes = cac_core::node::all(&lab.core).await.unwrap();
        for node in &nodes {
            let storage = cac_core::node::NodeChange {
                storage: Some(Some("local-btrfs".to_owned())),
                ..cac_core::node::NodeChange::default()
            };
            cac_core::node::update(&lab.core, &admin(), node.id, storage)
                .await
                .unwrap();
        }
        lab.runner();
        let id = made(&lab, "snaps").await;
        let take = |name: &str| Change::Snapshot {
            name: name.to_owned(),
            description: "clean".to_owned(),
        };
        done(&lab, id, take("base")).await;
        done(&lab, id, take("second")).await;
        assert_eq!(names(&lab, id).await, ["base", "second"]);
        let twice = container::change(&lab.core, &alice(), id, take("base"), LONG).await;
        assert!(
            matches!(twice, Err(Error::Conflict { field: "name", .. })),
            "{twice:?}"
        );
        let grown = ContainerChange {
            memory: Some(1024),
            ..ContainerChange::default()
        };
        let before = lab.row(id).await.unwrap();
        updated(&lab, &alice(), id, grown).await;
        let row = done(
            &lab,
            id,
            Change::RollBack {
                name: "base".to_owned(),
            },
        )
        .await;
        // It ran before, so it runs again; its sizes are those of then.
        assert!(row.ipv4_address.is_some());
        assert_eq!(row.memory, before.memory);
        assert_eq!(status(&lab, &row).await, "running");
        done(
            &lab,
            id,
            Change::DeleteSnapshot {
                name: "base".to_owned(),
            },
        )
        .await;
        assert_eq!(names(&lab, id).await, ["second"]);
        let gone = Change::RollBack {
            name: "base".to_owned(),
        };
        let gone = container::change(&lab.core, &alice(), id, gone, LONG)
            .await
            .unwrap_err();
        assert!(matches!(gone, Error::NotFound(_)), "{gone}");
        for bad in ["", "1st", "a b", "current", "x"] {
            let refused = container::change(&lab.core, &alice(), id, take(bad), LONG).await;
            assert!(
                matches!(refused, Err(Error::Invalid(_))),
                "{bad}: {refused:?}"
            );
        }
        // Its marker has survived: it can be deleted.
        let gone = container::delete(&lab.core, &alice(), id, LONG)
            .await
            .unwrap();
        assert_eq!(gone, container::Deletion::Done);
        lab.end().await;
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_changes_nothing_twice() {
    for action in [Action::DropBefore, Action::DropAfter] {
        for database in testing::databases().await {
            let mut lab = Lab::new(database).await;
            lab.runner();
            let id = made(&lab, "lost").await;
            let changes = [
                ("POST", "/status/shutdown", Change::Stop),
                ("POST", "/status/start", Change::Start),
                (
                    "PUT",
                    "/config",
                    Change::Resize {
                        cores: Some(4),
                        memory: None,
                        disk: None,
                    },
                ),
                (
                    "PUT",
                    "/resize",
                    Change::Resize {
                        cores: None,
                        memory: None,
                        disk: Some(20),
                    },
                ),
            ];
            for (method, path, change) in changes {
                lab.simulator.faults().once(method, path, action.clone());
                let row = done(&lab, id, change.clone()).await;
                assert_eq!(row.state, None, "{change:?}");
            }
            let row = lab.row(id).await.unwrap();
            assert_eq!((row.cores, row.disk), (Some(4), Some(20)));
            lab.end().await;
        }
    }
}

#[tokio::test]
async fn protection_owner_and_state_are_heeded() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let id = made(&lab, "mine").await;
        let protect = |on| ContainerChange {
            protected: Some(on),
            ..ContainerChange::default()
        };
        assert!(updated(&lab, &alice(), id, protect(true)).await.protected);
        let refused = container::delete(&lab.core, &admin(), id, LONG).await;
        assert!(
            matches!(
                refused,
                Err(Error::Conflict {
                    field: "protected",
                    ..
                })
            ),
            "{refused:?}"
        );
        updated(&lab, &alice(), id, protect(false)).await;
        let give = ContainerChange {
            username: Some("bob".to_owned()),
            ..ContainerChange::default()
        };
        let refused = container::update(&lab.core, &alice(), id, &give, LONG).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        lab.simulator.add_user("bob@pve", "bob-demo", &[]);
        let row = lab.row(id).await.unwrap();
        assert_eq!(updated(&lab, &admin(), id, give).await.username, "bob");
        // In Proxmox VE itself, too.
        let path = format!("/vms/{}", row.container_id.unwrap());
        assert!(may(&lab, "bob", &path).await && !may(&lab, "alice", &path).await);
        let strange = container::change(&lab.core, &alice(), id, Change::Stop, LONG).await;
        assert!(matches!(strange, Err(Error::NotFound(_))), "{strange:?}");
        // While something works on it nothing else may.
        let bob = Actor::new("bob", false);
        let sql = r#"UPDATE "Containers" SET "state" = 'changing'"#;
        lab.core.db.exec(sql, vec![]).await.unwrap();
        let busy = container::change(&lab.core, &bob, id, Change::Stop, LONG).await;
        assert!(matches!(busy, Err(Error::Conflict { .. })), "{busy:?}");
        lab.end().await;
    }
}

#[tokio::test]
async fn a_stranger_under_the_number_is_not_touched() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let id = made(&lab, "swapped").await;
        // As if the number had been given to somebody else's container.
        let sql = r#"UPDATE "Containers" SET "marker" = ?, "macAddress" = 'BC:24:11:FF:FF:FF'"#;
        lab.core.db.exec(sql, cac_core::args![false]).await.unwrap();
        let refused = container::change(&lab.core, &alice(), id, Change::Stop, LONG).await;
        assert!(
            matches!(refused, Err(Error::Conflict { .. })),
            "{refused:?}"
        );
        let row = lab.row(id).await.unwrap();
        assert!(row.state.is_none() && row.ipv4_address.is_some(), "{row:?}");
        // Nor is it told what the stranger does.
        assert_eq!(container::live_status(&lab.core, &row).await, None);
        let vmid = row.container_id.unwrap();
        let all = lab.simulator.containers();
        let stranger = all.iter().find(|one| one.vmid == vmid).unwrap();
        assert_eq!(stranger.status, "running");
        lab.end().await;
    }
}

/// A list of any length, looked at by any number of people, costs one call for each node in five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn many_viewers_of_many_containers_cost_one_call_a_node() {
    let mut lab = Lab::new(testing::sqlite().await).await;
    lab.runner();
    for name in ["one", "two", "three"] {
        made(&lab, name).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let filter = container::Filter {
        all: true,
        limit: 1000,
        ..container::Filter::default()
    };
    let (rows, _) = container::list(&lab.core, &admin(), &filter).await.unwrap();
    live(&lab.core, &rows).await;
    let before = lab.simulator.requests();
    let viewers: Vec<_> = (0..50)
        .map(|_| {
            let (core, rows) = (lab.core.clone(), rows.clone());
            tokio::spawn(async move { live(&core, &rows).await.len() })
        })
        .collect();
    for viewer in viewers {
        assert_eq!(viewer.await.unwrap(), 3);
    }
    assert!(
        lab.simulator.requests() - before <= 3,
        "{}",
        lab.simulator.requests() - before
    );
    lab.end().await;
}

#[tokio::test]
async fn usage_comes_from_proxmoxs_own_series() {
    let mut lab = Lab::new(testing::sqlite().await).await;
    lab.runner();
    let id = made(&lab, "used").await;
    // Proxmox VE has made no round yet.
    assert!(
        container::usage(&lab.core, &alice(), id, "hour")
            .await
            .unwrap()
            .is_empty()
    );
    let bad = container::usage(&lab.core, &alice(), id, "decade").await;
    assert!(matches!(bad, Err(Error::Invalid(_))), "{bad:?}");
    testing::until("Proxmox VE has made its round", async || {
        let samples = container::usage(&lab.core, &alice(), id, "hour")
            .await
            .unwrap();
        samples.last().is_some_and(|last| last.mem.is_some())
    })
    .await;
    lab.end().await;
}
