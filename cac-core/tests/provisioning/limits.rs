//! Jobs that somebody ends, and tasks of Proxmox VE that do not end by themselves.

use cac_core::job::{self, Status};
use cac_core::{container, testing};
use cac_simulator::{Action, Delay, Fault};

use crate::lab::{Lab, PATIENCE, alice, until};

const SHORT: [(&str, &str); 4] = [
    ("JOB_CREATE_LIMIT_SECONDS", "1"),
    ("JOB_START_LIMIT_SECONDS", "1"),
    ("JOB_ADDRESS_LIMIT_SECONDS", "1"),
    ("JOB_TASK_LIMIT_SECONDS", "1"),
];

/// How many tasks of the simulator still run.
async fn tasks(lab: &Lab) -> usize {
    let nodes = cac_core::node::all(&lab.core).await.unwrap();
    let pve = lab.core.pve(&nodes[0]).unwrap();
    let mut running = 0;
    for node in &nodes {
        for vmid in 100..105 {
            let tasks = pve.tasks(&node.name, vmid).await.unwrap();
            let going =
                |task: &&cac_core::pve::Task| task.status == cac_core::pve::TaskStatus::Running;
            running += tasks.iter().filter(going).count();
        }
    }
    running
}

#[tokio::test]
async fn a_task_that_hangs_is_stopped_and_told() {
    for database in testing::databases().await {
        let mut lab = Lab::with(database, Delay::none(), &SHORT).await;
        lab.runner();
        for (path, kind) in [("/lxc", "vzcreate"), ("/status/start", "vzstart")] {
            let faults = lab.simulator.faults();
            faults.once("POST", path, Action::HangTask);
            let created = lab.ask("hangs").await;
            let job = lab.job(created.job_id).await;
            assert_eq!(job.status, Status::Failure);
            assert_eq!(
                job.reason.unwrap(),
                format!("The task of Proxmox VE ({kind}) has not ended after 1 s and was stopped.")
            );
            lab.assert_nothing_left(created.id).await;
            assert_eq!(tasks(&lab).await, 0);
        }
        // Of a container that exists nothing is undone, and it can be deleted again.
        let created = lab.ask("stays").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        lab.simulator
            .faults()
            .once("DELETE", "/lxc/", Action::HangTask);
        let failed = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
        let reason = failed.unwrap_err().to_string();
        let expected = "(vzdestroy) has not ended after 1 s and was stopped";
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(tasks(&lab).await, 0);
        let row = lab.row(created.id).await.unwrap();
        assert_eq!((row.state, row.job_id), (None, None));
        let deleted = container::delete(&lab.core, &alice(), created.id, PATIENCE).await;
        assert_eq!(deleted.unwrap(), container::Deletion::Done);
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}

#[tokio::test]
async fn a_container_that_gets_no_address_in_time_is_undone() {
    for database in testing::databases().await {
        let delay = Delay {
            dhcp: std::time::Duration::from_secs(600),
            ..Delay::none()
        };
        let mut lab = Lab::with(database, delay, &SHORT).await;
        lab.runner();
        let created = lab.ask("silent").await;
        let job = lab.job(created.job_id).await;
        assert_eq!(job.status, Status::Failure);
        let reason = job.reason.unwrap();
        assert!(reason.contains("got no IPv4 address in 1 s"), "{reason}");
        lab.assert_nothing_left(created.id).await;
        lab.end().await;
    }
}

/// At every step: before it began, in a task that goes on, and while it waits.
#[tokio::test]
async fn a_cancelled_creation_stops_its_task_and_leaves_nothing() {
    for database in testing::databases().await {
        let delay = Delay {
            dhcp: std::time::Duration::from_secs(600),
            ..Delay::none()
        };
        let mut lab = Lab::with(database, delay, &[]).await;
        let never = async |id: i64| {
            job::cancel(&lab.core, &alice(), id).await.unwrap();
        };
        let pending = lab.ask("early").await;
        never(pending.job_id).await;
        let runner = lab.runner();
        assert_eq!(lab.job(pending.job_id).await.status, Status::Cancelled);
        lab.assert_nothing_left(pending.id).await;
        for (fault, step) in [
            (Some("/lxc"), "[3/7]"),
            (Some("/status/start"), "[5/7]"),
            (None, "[6/7]"),
        ] {
            if let Some(path) = fault {
                lab.simulator.faults().once("POST", path, Action::HangTask);
            }
            let created = lab.ask("late").await;
            until("the step has begun", async || {
                lab.log(created.job_id).await.contains(step)
                    && (fault.is_none() || tasks(&lab).await == 1)
            })
            .await;
            let job = job::cancel(&lab.core, &alice(), created.job_id)
                .await
                .unwrap();
            assert!(!job.status.ended() || job.status == Status::Cancelled);
            let job = lab.job(created.job_id).await;
            let log = lab.log(created.job_id).await;
            assert_eq!(
                (job.status, job.reason.as_deref()),
                (Status::Cancelled, Some("Cancelled.")),
                "{log}"
            );
            lab.assert_nothing_left(created.id).await;
            assert_eq!(tasks(&lab).await, 0, "{step}");
        }
        runner.cancel();
        lab.end().await;
    }
}

/// A node that answers nothing does not keep a creation from being cancelled: what may be there is removed by a job later.
#[tokio::test]
async fn a_cancel_waits_for_no_node_that_is_away() {
    let mut lab = Lab::with(testing::sqlite().await, Delay::none(), &[]).await;
    lab.simulator.faults().add(Fault {
        method: None,
        path: "/status/current".to_owned(),
        count: 0,
        action: Action::Status {
            code: 595,
            reason: "No route to host".to_owned(),
        },
    });
    lab.runner();
    let created = lab.ask("away").await;
    until("it has been created", async || {
        lab.log(created.job_id).await.contains("[5/7]")
    })
    .await;
    job::cancel(&lab.core, &alice(), created.job_id)
        .await
        .unwrap();
    let job = lab.job(created.job_id).await;
    assert_eq!(
        job.status,
        Status::Cancelled,
        "{}",
        lab.log(created.job_id).await
    );
    lab.simulator.faults().clear();
    until("nothing is left", async || {
        lab.row(created.id).await.is_none()
    })
    .await;
    lab.assert_nothing_left(created.id).await;

    lab.end().await;
}
