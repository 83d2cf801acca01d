//! What goes wrong in the middle: exactly one container or none, and a true reason.

use std::time::Duration;

use cac_core::job::Status;
use cac_core::{args, testing};
use cac_simulator::{Action, Delay, Fault};

use crate::lab::{Lab, new, until};

#[tokio::test]
async fn a_failed_task_is_undone_and_told_in_proxmoxs_words() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        lab.simulator.faults().once(
            "POST",
            "/lxc",
            Action::FailTask {
                text: "no space left on device".to_owned(),
            },
        );
        let created = lab.ask("unlucky").await;
        let job = lab.job(created.job_id).await;
        assert_eq!(job.status, Status::Failure);
        assert!(
            job.reason
                .as_deref()
                .unwrap()
                .contains("no space left on device"),
            "{job:?}"
        );
        lab.assert_nothing_left(created.id).await;
        // The name and the port are free again.
        let again = lab.ask("unlucky").await;
        assert_eq!(lab.job(again.job_id).await.status, Status::Success);
        lab.end().await;
    }
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_orphan() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        lab.simulator.faults().add(Fault {
            method: Some("POST".to_owned()),
            path: "/status/start".to_owned(),
            count: 0,
            action: Action::FailTask {
                text: "startup for container failed".to_owned(),
            },
        });
        let created = lab.ask("nostart").await;
        let job = lab.job(created.job_id).await;
        assert_eq!(job.status, Status::Failure);
        assert!(
            job.reason
                .as_deref()
                .unwrap()
                .contains("startup for container failed"),
            "{job:?}"
        );
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_makes_no_second_container() {
    for database in testing::databases().await {
        for action in [Action::DropBefore, Action::DropAfter] {
            let path = "/nodes/pve";
            let mut lab = Lab::with(testing_copy(&database).await, Delay::none(), &[]).await;
            lab.simulator.faults().once("POST", path, action.clone());
            lab.runner();
            let created = lab.ask("lost").await;
            let job = lab.job(created.job_id).await;
            assert_eq!(
                job.status,
                Status::Success,
                "{action:?}: {}",
                lab.log(created.job_id).await
            );
            assert_eq!(lab.simulator.containers().len(), 1, "{action:?}");
            lab.end().await;
        }
    }
}

async fn testing_copy(like: &testing::TestDb) -> testing::TestDb {
    testing::databases()
        .await
        .into_iter()
        .find(|db| db.name == like.name)
        .unwrap()
}

#[tokio::test]
async fn without_a_template_the_reason_says_so() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let request = cac_core::container::NewContainer {
            os_release: "gentoo".to_owned(),
            ..new("rare")
        };
        let created = cac_core::container::create(&lab.core, &crate::lab::alice(), &request, None)
            .await
            .unwrap();
        let job = lab.job(created.job_id).await;
        assert_eq!(job.status, Status::Failure);
        assert!(
            job.reason
                .as_deref()
                .unwrap()
                .contains("has no template for `gentoo`"),
            "{job:?}"
        );
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}

#[tokio::test]
async fn a_node_that_is_down_is_passed_over() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let sql = r#"UPDATE "Nodes" SET "apiUrl" = ? WHERE "name" = ?"#;
        // Nobody listens on port 1.
        lab.core
            .db
            .exec(sql, args!["https://127.0.0.1:1", "pve1"])
            .await
            .unwrap();
        lab.core
            .db
            .exec(sql, args!["https://127.0.0.1:1", "pve2"])
            .await
            .unwrap();
        let created = lab.ask("elsewhere").await;
        assert_eq!(
            lab.job(created.job_id).await.status,
            Status::Success,
            "{}",
            lab.log(created.job_id).await
        );
        assert_eq!(lab.simulator.containers()[0].node, "pve3");
        lab.end().await;
    }
}

/// Pitfall 4: 595 and its like are a node that does not answer for a while.
#[tokio::test]
async fn proxmox_away_in_the_middle_is_waited_for() {
    for database in testing::databases().await {
        let mut lab = Lab::with(
            database,
            Delay::none(),
            &[("JOB_RUNNER_PATIENCE_SECONDS", "30")],
        )
        .await;
        for _ in 0..3 {
            lab.simulator.faults().once(
                "GET",
                "/tasks/",
                Action::Status {
                    code: 595,
                    reason: "No route to host".to_owned(),
                },
            );
        }
        lab.simulator.faults().once(
            "POST",
            "/status/start",
            Action::Status {
                code: 595,
                reason: "Connection refused".to_owned(),
            },
        );
        lab.runner();
        let created = lab.ask("patient").await;
        assert_eq!(
            lab.job(created.job_id).await.status,
            Status::Success,
            "{}",
            lab.log(created.job_id).await
        );
        assert_eq!(lab.simulator.containers().len(), 1);
        lab.end().await;
    }
}

/// The undo itself fails: the row stays marked, and a job goes on until nothing is left.
#[tokio::test]
async fn an_undo_that_fails_is_retried_as_a_job() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        lab.simulator.faults().once(
            "POST",
            "/status/start",
            Action::FailTask {
                text: "no init".to_owned(),
            },
        );
        lab.simulator.faults().once(
            "DELETE",
            "/lxc/",
            Action::FailTask {
                text: "storage is away".to_owned(),
            },
        );
        let created = lab.ask("sticky").await;
        let job = lab.job(created.job_id).await;
        assert_eq!(job.status, Status::Failure);
        assert!(
            job.reason.as_deref().unwrap().contains("no init"),
            "{job:?}"
        );
        until("nothing is left", async || {
            lab.row(created.id).await.is_none()
        })
        .await;
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}

/// Pitfall 3: Proxmox VE goes on with a slow task that nobody waits for any more.
///
/// J2 and J3 of the original: a restart in the middle left a container that no row knew, and jobs of a dead runner stayed
/// `running` for ever. Here the runner is cut off as by SIGKILL:
/// it neither renews nor says anything, and another takes over.
#[tokio::test]
async fn a_job_whose_runner_died_is_taken_up_and_finished_once() {
    for database in testing::databases().await {
        let delay = Delay {
            create: Duration::from_secs(2),
            ..Delay::none()
        };
        let mut lab = Lab::with(database, delay, &[]).await;
        let dead = {
            let url = lab.database.url.clone();
            // A runtime of its own that is dropped in the middle: nothing of it runs on.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let (begun, wait) = std::sync::mpsc::channel::<()>();
                runtime.spawn(async move {
                    let core = cac_core::Core::start(crate::lab::config(&url, &[]))
                        .await
                        .unwrap();
                    let _ = begun.send(());
                    cac_core::job::runner::run(core, tokio_util::sync::CancellationToken::new())
                        .await;
                });
                wait.recv().unwrap();
                (runtime, ())
            })
            .join()
            .unwrap()
        };
        let created = lab.ask("twice").await;
        until("the creation has begun", async || {
            !lab.simulator.containers().is_empty()
        })
        .await;
        dead.0.shutdown_background();
        lab.runner();
        let job = lab.job(created.job_id).await;
        assert_eq!(
            job.status,
            Status::Success,
            "{}",
            lab.log(created.job_id).await
        );
        assert_eq!(lab.simulator.containers().len(), 1);
        let log = lab.log(created.job_id).await;
        assert!(log.contains("Going on after an interruption."), "{log}");
        lab.end().await;
    }
}

/// A 403 was taken for "nothing is there": a second container was made, and the first was nobody's.
#[tokio::test]
async fn a_403_after_a_lost_answer_does_not_prove_that_nothing_was_created() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.simulator
            .faults()
            .once("POST", "/nodes/pve", Action::DropAfter);
        lab.simulator.faults().add(Fault {
            method: Some("GET".to_owned()),
            path: "/config".to_owned(),
            count: 2,
            action: Action::Status {
                code: 403,
                reason: "Permission check failed (/vms/100, VM.Audit)".to_owned(),
            },
        });
        lab.runner();
        let created = lab.ask("unseen").await;
        let job = lab.job(created.job_id).await;
        assert_eq!(job.status, Status::Failure);
        let reason = job.reason.unwrap();
        assert!(reason.contains("cannot be seen"), "{reason}");
        // As soon as it is seen it is removed: it was ours.
        until("the row is gone", async || {
            lab.row(created.id).await.is_none()
        })
        .await;
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}
