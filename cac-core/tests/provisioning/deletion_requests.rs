//! A deletion that was requested happens, whatever works on the container and whoever dies, or says why not and can be withdrawn.

use std::time::Duration;

use cac_core::container::{self, Changed, Deletion};
use cac_core::error::Error;
use cac_core::job::container_change::Change;
use cac_core::job::{self, Status};
use cac_core::node::{self, NodeChange};
use cac_core::{Actor, Core, args, testing};
use cac_simulator::{Action, Fault};
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, PATIENCE, admin, alice, config, until};

/// Whoever asks has gone before anything can happen.
const GONE: Duration = Duration::ZERO;
/// Long enough for a request to arrive in the middle.
const SLOW: Action = Action::Latency { ms: 1500 };

async fn made(lab: &Lab, hostname: &str) -> i64 {
    let created = lab.ask(hostname).await;
    let job = lab.job(created.job_id).await;
    assert_eq!(job.status, Status::Success, "{job:?}");
    created.id
}

/// Snapshots are possible.
async fn on_btrfs(lab: &Lab) {
    for node in node::all(&lab.core).await.unwrap() {
        let change = NodeChange {
            storage: Some(Some("local-btrfs".to_owned())),
            ..NodeChange::default()
        };
        node::update(&lab.core, &admin(), node.id, change)
            .await
            .unwrap();
    }
}

/// Begins a change that takes a while; its job.
async fn begun(lab: &Lab, id: i64, change: Change) -> i64 {
    match container::change(&lab.core, &alice(), id, change, GONE).await {
        Ok(Changed::Going { job_id }) => job_id,
        other => panic!("{other:?}"),
    }
}

/// Requests the deletion in a portal that is killed before anything can come of it.
async fn requested_and_killed(lab: &Lab, id: i64) -> (i64, Option<i64>) {
    let portal = Core::start(config(&lab.database.url, &[])).await.unwrap();
    let answer = container::delete(&portal, &alice(), id, GONE).await;
    portal.db.close().await;
    match answer.unwrap() {
        Deletion::Going { job_id, waits_for } => (job_id, waits_for),
        done => panic!("{done:?}"),
    }
}

async fn destroyed(lab: &Lab, id: i64, job: i64) {
    let job = lab.job(job).await;
    assert_eq!(job.status, Status::Success, "{job:?}");
    assert!(job.command.starts_with("# delete container"), "{job:?}");
    lab.assert_nothing_left(id).await;
}

/// It was 202 with the other job's number, and the container ran on for good.
#[tokio::test]
async fn a_deletion_requested_while_a_change_runs_happens_after_it() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        on_btrfs(&lab).await;
        lab.runner();
        let changes = [
            (
                "POST",
                "/snapshot",
                Change::Snapshot {
                    name: "base".to_owned(),
                    description: String::new(),
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
            ("POST", "/status/shutdown", Change::Stop),
            ("POST", "/status/shutdown", Change::Restart),
        ];
        for (method, path, change) in changes {
            let id = made(&lab, "busy").await;
            lab.simulator.faults().once(method, path, SLOW);
            let other = begun(&lab, id, change.clone()).await;
            let (job, waits_for) = requested_and_killed(&lab, id).await;
            assert_eq!(waits_for, Some(other), "{change:?}");
            // The same request again is the same one.
            assert_eq!(requested_and_killed(&lab, id).await, (job, Some(other)));
            let row = lab.row(id).await.unwrap();
            assert_eq!(row.deletion_requested_by.as_deref(), Some("alice"));
            assert_eq!((row.deletion_job_id, row.job_id), (Some(job), Some(other)));
            destroyed(&lab, id, job).await;
            assert!(lab.job(other).await.status.ended());
        }
        lab.end().await;
    }
}

/// The wish lived in the loop of a request, and ended with it.
#[tokio::test]
async fn a_deletion_waits_for_a_change_that_fails() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let id = made(&lab, "failing").await;
        lab.simulator.faults().once("PUT", "/resize", SLOW);
        let fail = Action::FailTask {
            text: "the disk is busy".to_owned(),
        };
        lab.simulator.faults().once("PUT", "/resize", fail);
        let resize = Change::Resize {
            cores: None,
            memory: None,
            disk: Some(20),
        };
        let other = begun(&lab, id, resize).await;
        let (job, _) = requested_and_killed(&lab, id).await;
        destroyed(&lab, id, job).await;
        assert_eq!(lab.job(other).await.status, Status::Failure);
        lab.end().await;
    }
}

#[tokio::test]
async fn a_creation_that_ends_well_just_before_its_cancel_is_deleted_nevertheless() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let created = lab.ask("early").await;
        let (job, waits_for) = requested_and_killed(&lab, created.id).await;
        assert_eq!(waits_for, Some(created.job_id));
        // As if the runner had not seen the cancel in time.
        let sql = r#"UPDATE "Jobs" SET "cancelRequested" = ? WHERE "id" = ?"#;
        let given = args![false, created.job_id];
        lab.core.db.exec(sql, given).await.unwrap();
        lab.runner();
        destroyed(&lab, created.id, job).await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        lab.end().await;
    }
}

#[tokio::test]
async fn a_creation_that_is_cancelled_leaves_nothing_though_nobody_waits() {
    for database in testing::databases().await {
        let delay = cac_simulator::Delay {
            create: Duration::from_secs(30),
            ..cac_simulator::Delay::none()
        };
        let mut lab = Lab::with(database, delay, &[]).await;
        lab.runner();
        let created = lab.ask("oops").await;
        until("the creation has begun", async || {
            !lab.simulator.containers().is_empty()
        })
        .await;
        let (job, _) = requested_and_killed(&lab, created.id).await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Cancelled);
        destroyed(&lab, created.id, job).await;
        lab.end().await;
    }
}

/// A runner whose process is killed: nothing of it goes on, and nothing is handed back.
struct Doomed(tokio::runtime::Runtime);

impl Doomed {
    fn start(lab: &Lab) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = config(&lab.database.url, &[]);
        runtime.spawn(async move {
            let core = Core::start(config).await.unwrap();
            job::runner::run(core, CancellationToken::new()).await;
        });
        Self(runtime)
    }

    fn kill(self) {
        self.0.shutdown_background();
    }
}

#[tokio::test]
async fn a_deletion_survives_the_runner_that_worked_on_the_container() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let first = lab.runner();
        let id = made(&lab, "orphaned").await;
        first.cancel();
        let doomed = Doomed::start(&lab);
        lab.simulator
            .faults()
            .once("POST", "/status/shutdown", Action::Latency { ms: 6_000 });
        let other = begun(&lab, id, Change::Stop).await;
        let (job, waits_for) = requested_and_killed(&lab, id).await;
        assert_eq!(waits_for, Some(other));
        until("the runner works on the change", async || {
            let job = job::find(&lab.core, &alice(), other).await.unwrap();
            job.status == Status::Running
        })
        .await;
        doomed.kill();
        lab.runner();
        destroyed(&lab, id, job).await;
        lab.end().await;
    }
}

/// A job that nobody could read ended, and its container was `changing` for good.
#[tokio::test]
async fn a_container_whose_job_gave_it_up_unread_is_free_again() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let first = lab.runner();
        let (kept, gone) = (made(&lab, "kept").await, made(&lab, "gone").await);
        first.cancel();
        let unread = async |id| {
            let other = begun(&lab, id, Change::Stop).await;
            let sql = r#"UPDATE "Jobs" SET "payload" = '{}' WHERE "id" = ?"#;
            lab.core.db.exec(sql, args![other]).await.unwrap();
        };
        unread(kept).await;
        unread(gone).await;
        let (job, _) = requested_and_killed(&lab, gone).await;
        lab.runner();
        let deleted = lab.job(job).await;
        assert_eq!(deleted.status, Status::Success, "{deleted:?}");
        assert!(lab.row(gone).await.is_none());
        until("the other one is free", async || {
            container::settle(&lab.core).await.unwrap();
            lab.row(kept).await.unwrap().state.is_none()
        })
        .await;
        let row = lab.row(kept).await.unwrap();
        let note = row.change_error.unwrap();
        assert!(note.contains("payload cannot be read"), "{note}");
        lab.end().await;
    }
}

#[tokio::test]
async fn a_deletion_that_failed_says_why_and_is_tried_again_or_withdrawn() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let id = made(&lab, "stubborn").await;
        let fail = || Action::FailTask {
            text: "the disk is busy".to_owned(),
        };
        let refused = async || {
            lab.simulator.faults().once("DELETE", "/lxc/", fail());
            let refused = container::delete(&lab.core, &alice(), id, PATIENCE).await;
            assert!(matches!(refused, Err(Error::Upstream(_))), "{refused:?}");
            let row = lab.row(id).await.unwrap();
            assert_eq!(
                (row.state, row.job_id, row.deletion_job_id),
                (None, None, None)
            );
            assert_eq!(row.deletion_requested_by.as_deref(), Some("alice"));
            let reason = row.deletion_error.unwrap();
            assert!(reason.contains("the disk is busy"), "{reason}");
        };
        refused().await;
        let row = container::keep(&lab.core, &alice(), id).await.unwrap();
        assert_eq!(
            (row.deletion_requested_at, row.deletion_error),
            (None, None)
        );
        refused().await;
        let done = container::delete(&lab.core, &alice(), id, PATIENCE).await;
        assert_eq!(done.unwrap(), Deletion::Done);
        lab.assert_nothing_left(id).await;
        lab.end().await;
    }
}

#[tokio::test]
async fn a_deletion_that_waits_is_withdrawn_and_the_container_stays() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let id = made(&lab, "spared").await;
        lab.simulator
            .faults()
            .once("POST", "/status/shutdown", SLOW);
        let other = begun(&lab, id, Change::Stop).await;
        let (job, _) = requested_and_killed(&lab, id).await;
        let stranger = container::keep(&lab.core, &Actor::new("bob", false), id).await;
        assert!(matches!(stranger, Err(Error::NotFound(_))), "{stranger:?}");
        let row = container::keep(&lab.core, &alice(), id).await.unwrap();
        assert_eq!(
            (row.deletion_requested_at, row.deletion_job_id),
            (None, None)
        );
        assert_eq!(lab.job(job).await.status, Status::Cancelled);
        assert_eq!(lab.job(other).await.status, Status::Success);
        until("nothing works on it", async || {
            lab.row(id).await.unwrap().state.is_none()
        })
        .await;
        assert_eq!(lab.simulator.containers().len(), 1);
        // Kept again it is kept.
        container::keep(&lab.core, &alice(), id).await.unwrap();
        lab.end().await;
    }
}

#[tokio::test]
async fn a_deletion_is_withdrawn_by_whom_it_is_up_to_and_not_once_it_has_begun() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let first = lab.runner();
        let id = made(&lab, "late").await;
        first.cancel();
        // Without a runner it has not begun.
        let asked = container::delete(&lab.core, &admin(), id, GONE).await;
        let Ok(Deletion::Going { job_id, .. }) = asked else {
            panic!("{asked:?}");
        };
        let owner = container::keep(&lab.core, &alice(), id).await;
        assert!(matches!(owner, Err(Error::Forbidden(_))), "{owner:?}");
        let row = container::keep(&lab.core, &admin(), id).await.unwrap();
        assert_eq!(
            (row.state, row.job_id, row.deletion_job_id),
            (None, None, None)
        );
        assert_eq!(lab.job(job_id).await.status, Status::Cancelled);
        lab.simulator.faults().add(Fault {
            method: Some("DELETE".to_owned()),
            path: "/lxc/".to_owned(),
            count: 1,
            action: SLOW,
        });
        let (job, _) = requested_and_killed(&lab, id).await;
        lab.runner();
        until("the deletion has begun", async || {
            testing::log(&lab.core, job).await.contains("[2/2]")
        })
        .await;
        let late = container::keep(&lab.core, &alice(), id).await;
        assert!(
            matches!(&late, Err(Error::Conflict { message, .. }) if message.contains("has begun")),
            "{late:?}"
        );
        destroyed(&lab, id, job).await;
        lab.end().await;
    }
}

/// A protection that came between the look and the request was not seen.
#[tokio::test]
async fn a_requested_deletion_is_not_protected_against_any_more() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let first = lab.runner();
        let id = made(&lab, "guarded").await;
        first.cancel();
        requested_and_killed(&lab, id).await;
        let protect = container::ContainerChange {
            protected: Some(true),
            ..container::ContainerChange::default()
        };
        let late = container::update(&lab.core, &alice(), id, &protect, GONE).await;
        assert!(
            matches!(
                &late,
                Err(Error::Conflict {
                    field: "protected",
                    ..
                })
            ),
            "{late:?}"
        );
        container::keep(&lab.core, &alice(), id).await.unwrap();
        container::update(&lab.core, &alice(), id, &protect, GONE)
            .await
            .unwrap();
        let refused = container::delete(&lab.core, &alice(), id, GONE).await;
        assert!(
            matches!(
                &refused,
                Err(Error::Conflict {
                    field: "protected",
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(lab.row(id).await.unwrap().deletion_requested_at, None);
        lab.end().await;
    }
}
