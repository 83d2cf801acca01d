//! What others stumbled over in Proxmox VE's API, where no other test here shows it. `grep -rn "Pitfall [0-9]" cac-core` finds all.

use cac_core::container::{self, Changed, ContainerChange, Deletion, NewContainer};
use cac_core::job::Status;
use cac_core::job::container_change::Change;
use cac_core::node::{self, NodeChange};
use cac_core::pve::{LxcChange, Pve};
use cac_core::testing;
use cac_simulator::{Action, Delay};

use crate::lab::{Lab, PATIENCE, admin, alice, from, new, until};

/// Pitfall 2: a file lock that somebody holds for longer than Proxmox VE waits is no failure.
#[tokio::test]
async fn a_file_lock_that_is_held_is_waited_for() {
    for database in testing::databases().await {
        let patience = [("JOB_RUNNER_PATIENCE_SECONDS", "30")];
        let mut lab = Lab::with(database, Delay::none(), &patience).await;
        lab.runner();
        lab.template("pve1", 900, "base", true).await;
        // The simulator waits for one second where Proxmox VE waits for ten.
        let hold = || Action::HoldLock { ms: 2500 };
        for (method, path) in [("POST", "/status/start"), ("PUT", "/config")] {
            lab.simulator.faults().once(method, path, hold());
        }
        let wish = from("patient", "lxc/900");
        let created = container::create(&lab.core, &alice(), &wish, None)
            .await
            .unwrap();
        let job = lab.job(created.job_id).await;
        let log = lab.log(created.job_id).await;
        assert_eq!(job.status, Status::Success, "{log}");
        assert!(log.contains("got timeout"), "{log}");
        lab.simulator.faults().once("DELETE", "/lxc/", hold());
        let deleted = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
        let told = lab.log(created.job_id + 1).await;
        assert_eq!(deleted.unwrap(), Deletion::Done, "{told}");
        lab.end().await;
    }
}

/// Pitfalls 8, 9, 10 and 20: a token with a right of its own for everything that it needs, and no other, does all the work. No call
/// is one that tokens may not make, none needs root@pam, and none has a parameter that Proxmox VE does not know.
#[tokio::test]
async fn a_token_with_the_documented_role_does_everything() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.template("pve1", 900, "base", true).await;
        lab.simulator.add_user("small@pve", "unused-password", &[]);
        let secret = lab.simulator.add_token("small@pve", "web", true);
        for node in node::all(&lab.core).await.unwrap() {
            let small = NodeChange {
                token_id: Some(Some("small@pve!web".to_owned())),
                secret: Some(Some(secret.clone())),
                // Where snapshots are possible.
                storage: Some(Some("local-btrfs".to_owned())),
                enabled: Some(node.name == "pve1"),
                ..NodeChange::default()
            };
            node::update(&lab.core, &admin(), node.id, small)
                .await
                .unwrap();
        }
        let id = node::find_named(&lab.core, &admin(), "pve1")
            .await
            .unwrap()
            .id;
        let check = node::test(&lab.core, &admin(), id).await.unwrap();
        assert_eq!(check.can, [""; 0]);
        // As an admin would: the lines that the test prints, and nothing else.
        let readme = std::fs::read_to_string("../README.md").unwrap();
        for problem in &check.problems {
            let Some(line) = problem.split('`').find(|text| text.starts_with("pveum ")) else {
                continue;
            };
            let quoted: Vec<&str> = line.split('\'').collect();
            let words: Vec<&str> = line.split(' ').collect();
            match words[1] {
                "role" => {
                    assert!(readme.contains(line), "{line}");
                    let privileges: Vec<&str> = quoted[1].split(' ').collect();
                    lab.simulator.add_role(words[3], &privileges);
                }
                _ => {
                    for who in [quoted[1], quoted[3]] {
                        lab.simulator.grant(words[3], who, words.last().unwrap());
                    }
                }
            }
        }
        // The template archives are on another storage than the disks.
        for who in ["small@pve", "small@pve!web"] {
            lab.simulator.grant("/storage/local", who, "CAC");
        }
        let check = node::test(&lab.core, &admin(), id).await.unwrap();
        assert_eq!(check.problems, [""; 0]);
        assert_eq!(check.can.len(), 8, "{:?}", check.can);

        lab.runner();
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk0Zk9d7v3c0mB1m0b1xJb2vQ9sC0Zs5kq8o9rX1p7T alice";
        let archive = NewContainer {
            ssh_public_key: Some(key.to_owned()),
            ..new("archive")
        };
        let clone = from("clone", "lxc/900");
        for wish in [archive, clone] {
            let place = container::preflight(&lab.core, &alice(), &wish)
                .await
                .unwrap();
            assert_eq!(place.storage, "local-btrfs");
            let created = container::create(&lab.core, &alice(), &wish, None)
                .await
                .unwrap();
            let job = lab.job(created.job_id).await;
            let log = lab.log(created.job_id).await;
            assert_eq!(job.status, Status::Success, "{log}");
            assert!(!log.contains("Left out"), "{log}");
            let named = |name: &str| name.to_owned();
            for change in [
                Change::Stop,
                Change::Start,
                Change::Restart,
                Change::Snapshot {
                    name: named("before"),
                    description: named("Before it."),
                },
                Change::RollBack {
                    name: named("before"),
                },
                Change::DeleteSnapshot {
                    name: named("before"),
                },
            ] {
                let words = change.words();
                let done =
                    container::change(&lab.core, &alice(), created.id, change, PATIENCE).await;
                assert!(matches!(done, Ok(Changed::Done(_))), "{words}: {done:?}");
            }
            let larger = ContainerChange {
                cores: Some(3),
                memory: Some(1024),
                disk: Some(9),
                ..ContainerChange::default()
            };
            let done = container::update(&lab.core, &alice(), created.id, &larger, PATIENCE).await;
            assert!(matches!(done, Ok(Changed::Done(_))), "{done:?}");
            let deleted = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
            assert_eq!(deleted.unwrap(), Deletion::Done);
        }
        lab.end().await;
    }
}

/// Pitfall 11: the next free VMID is no reservation. Somebody else takes it between our question and our call.
#[tokio::test]
async fn a_vmid_that_somebody_else_takes_first_is_given_up() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.simulator
            .faults()
            .once("POST", "/lxc", Action::Latency { ms: 1500 });
        lab.runner();
        let created = lab.ask("second").await;
        until("the call is on its way", async || {
            lab.simulator.faults().pending().is_empty()
        })
        .await;
        lab.foreign("pve2", 100, "first").await;
        let job = lab.job(created.job_id).await;
        let log = lab.log(created.job_id).await;
        assert_eq!(job.status, Status::Success, "{log}");
        assert!(
            log.contains("VMID 100 is taken; trying the next one."),
            "{log}"
        );
        let there: Vec<_> = lab
            .simulator
            .containers()
            .into_iter()
            .map(|ct| (ct.vmid, ct.name))
            .collect();
        assert_eq!(
            there,
            [(100, "first".to_owned()), (101, "second".to_owned())]
        );
        lab.end().await;
    }
}

/// Pitfall 12: after a lost answer "already exists" is no proof that the container is ours.
#[tokio::test]
async fn a_stranger_under_the_number_is_not_adopted_after_a_lost_answer() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let faults = lab.simulator.faults();
        faults.once("POST", "/lxc", Action::Latency { ms: 1500 });
        faults.once("POST", "/lxc", Action::DropBefore);
        lab.runner();
        let created = lab.ask("mine").await;
        until("the call is on its way", async || {
            lab.simulator.faults().pending().is_empty()
        })
        .await;
        // The same name, too.
        lab.foreign("pve1", 100, "mine").await;
        let job = lab.job(created.job_id).await;
        let log = lab.log(created.job_id).await;
        assert_eq!(job.status, Status::Success, "{log}");
        let row = lab.row(created.id).await.unwrap();
        assert_eq!(row.container_id, Some(101), "{log}");
        let deleted = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
        assert_eq!(deleted.unwrap(), Deletion::Done);
        let left: Vec<_> = lab
            .simulator
            .containers()
            .into_iter()
            .map(|ct| ct.vmid)
            .collect();
        assert_eq!(left, [100]);
        lab.end().await;
    }
}

/// Pitfall 25: a network line is written back whole, so it must be the one that was read.
#[tokio::test]
async fn a_configuration_that_somebody_changes_meanwhile_is_read_again() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.template("pve1", 900, "base", true).await;
        lab.simulator
            .faults()
            .once("PUT", "/config", Action::Latency { ms: 1500 });
        lab.runner();
        let wish = from("clone", "lxc/900");
        let created = container::create(&lab.core, &alice(), &wish, None)
            .await
            .unwrap();
        let vmid = 100;
        until("the call is on its way", async || {
            lab.simulator.faults().pending().is_empty()
        })
        .await;
        let pve: Pve = {
            let row = node::find_named(&lab.core, &admin(), "pve1").await.unwrap();
            lab.core.pve(&row).unwrap()
        };
        let net = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:AA:BB:CC,ip=dhcp"
            .parse()
            .unwrap();
        let theirs = LxcChange {
            net0: Some(net),
            ..LxcChange::default()
        };
        pve.lxc_config_set("pve1", vmid, &theirs).await.unwrap();
        let job = lab.job(created.job_id).await;
        let log = lab.log(created.job_id).await;
        assert_eq!(job.status, Status::Success, "{log}");
        let row = lab.row(created.id).await.unwrap();
        assert_eq!(
            row.mac_address.as_deref(),
            Some("BC:24:11:AA:BB:CC"),
            "{log}"
        );
        assert_eq!((row.cores, row.memory), (Some(2), Some(2048)));
        lab.end().await;
    }
}

/// Pitfall 28: where a container is now, the cluster knows; our books may be behind.
#[tokio::test]
async fn a_container_that_was_moved_is_worked_on_where_it_is() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let created = lab.ask("wanderer").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        let row = lab.row(created.id).await.unwrap();
        let nodes = node::all(&lab.core).await.unwrap();
        let other = nodes.iter().find(|node| Some(node.id) != row.node_id);
        let sql = r#"UPDATE "Containers" SET "nodeId" = ? WHERE "id" = ?"#;
        let args = cac_core::args![other.unwrap().id, created.id];
        lab.core.db.exec(sql, args).await.unwrap();
        let done = container::change(&lab.core, &alice(), created.id, Change::Stop, PATIENCE).await;
        assert!(matches!(done, Ok(Changed::Done(_))), "{done:?}");
        assert_eq!(lab.simulator.containers()[0].status, "stopped");
        let deleted = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
        assert_eq!(deleted.unwrap(), Deletion::Done);
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}
