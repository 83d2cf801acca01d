//! Output that is stored under difficulties: answers that are lost, rows that another claim is about to follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cac_core::job::{Runner, Status};
use cac_core::{args, testing};
use tokio::sync::Semaphore;

use crate::lab::{self, Lab, until};
use crate::relay::Losing;

/// Whoever does not hear that a row is stored must look before it stores it again. SQLite has no answers to lose.
#[tokio::test]
async fn a_chunk_whose_answer_was_lost_is_stored_once() {
    for database in [testing::mariadb().await, testing::postgres().await] {
        let lab = Lab::new(database).await;
        let losing = Losing::start(&lab.database.url, ["<3>", "<7>", "<8>"]).await;
        let afar = lab::core_at(&losing.relay.url, &[("JOB_RUNNER_LEASE_SECONDS", "30")]).await;
        lab.run(Runner::new(afar));
        let id = lab
            .insert("for i in $(seq 1 10); do echo \"<$i>\"; sleep 0.2; done")
            .await;
        assert_eq!(lab.job(id).await.status, Status::Success);
        let expected: String = (1..=10).map(|n| format!("<{n}>\n")).collect();
        assert_eq!(lab.log(id).await, expected, "{}", lab.database.name);
        assert!(losing.left().is_empty(), "{:?}", losing.left());
        lab.end().await;
    }
}

/// A row that is still being written when the lease lapses comes before all that the next claim writes, for those who
/// follow by number, too. SQLite writes one row at a time anyway.
#[tokio::test]
async fn a_takeover_waits_for_the_row_that_is_being_written() {
    for database in [testing::mariadb().await, testing::postgres().await] {
        let lab = Lab::new(database).await;
        lab.database.script(slow_rows(lab.database.name)).await;
        let (tries, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let db = lab.core.db.clone();
        let (count, held) = (Arc::clone(&tries), Arc::clone(&gate));
        let work = move |job: cac_core::job::Running| {
            let (db, count, held) = (db.clone(), Arc::clone(&count), Arc::clone(&held));
            async move {
                if count.fetch_add(1, Ordering::SeqCst) > 0 {
                    job.line("new").await;
                    return Ok(());
                }
                let lapse = r#"UPDATE "Jobs" SET "leaseUntil" = 1"#;
                db.exec(lapse, args![]).await.unwrap();
                job.line("old").await;
                held.acquire().await.unwrap().forget();
                Ok(())
            }
        };
        let long = lab::core(&lab.database, &[("JOB_RUNNER_LEASE_SECONDS", "60")]).await;
        lab.run(Runner::new(long).kind("lapses", work.clone()));
        let id = lab.add("lapses").await;
        until("the first one writes", async || {
            tries.load(Ordering::SeqCst) == 1
        })
        .await;
        // The lease has lapsed by now, and the row takes a second more.
        tokio::time::sleep(Duration::from_millis(500)).await;
        lab.run(Runner::new(lab.core.clone()).kind("lapses", work));
        let (seen, _, end) = crate::follow::all(&lab.core, id, 0).await;
        assert_eq!(seen, "old\nnew\n", "{}", lab.database.name);
        assert_eq!(end, Some(Status::Success));
        gate.add_permits(1);
        lab.end().await;
    }
}

/// The row has its number when the sleep begins, and is seen when it is over.
fn slow_rows(name: &str) -> &'static str {
    match name {
        "mariadb" => {
            "CREATE TRIGGER slow AFTER INSERT ON JobStatuses FOR EACH ROW \
             BEGIN IF NEW.output LIKE 'old%' THEN DO SLEEP(1.5); END IF; END"
        }
        _ => {
            r#"CREATE FUNCTION slow() RETURNS TRIGGER LANGUAGE plpgsql AS
               $$BEGIN IF NEW."output" LIKE 'old%' THEN PERFORM pg_sleep(1.5); END IF; RETURN NULL; END$$;
               CREATE TRIGGER slow AFTER INSERT ON "JobStatuses" FOR EACH ROW EXECUTE FUNCTION slow()"#
        }
    }
}
