//! Wake-ups between processes. Two cores on one database stand for two processes: they share nothing else. Polls are a minute
//! long, so that what happens in time was not found by one.

use std::time::Duration;

use cac_core::job::{self, Runner, Status};
use cac_core::wake::{Channel, listen};
use cac_core::{args, testing};

use crate::lab::{Lab, PATIENCE, admin, core, until};

const SLOW: [(&str, &str); 1] = [("JOB_RUNNER_POLL_MS", "60000")];

#[tokio::test]
async fn a_job_that_another_process_adds_begins_at_once_and_its_cancel_is_heard() {
    for database in testing::databases().await {
        let lab = Lab::with(database, &SLOW).await;
        let other = core(&lab.database, &SLOW).await;
        lab.run(Runner::new(other.clone()).kind("quick", |_| async { Ok(()) }));
        // It listens before its first look, so a job that ends by that one shows nothing: the next ones do.
        for _ in 0..3 {
            let id = lab.add("quick").await;
            assert_eq!(lab.job(id).await.status, Status::Success);
        }
        let wanted = job::Wanted {
            work: job::Work::Shell("echo begun; sleep 600"),
            start_after: None,
            key: None,
        };
        let id = job::ask(&lab.core, &admin(), wanted).await.unwrap().id;
        until("it has begun", async || lab.log(id).await.contains("begun")).await;
        job::cancel(&lab.core, &admin(), id).await.unwrap();
        assert_eq!(lab.job(id).await.status, Status::Cancelled);
        lab.end().await;
    }
}

#[tokio::test]
async fn output_in_another_process_is_told() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let other = core(&lab.database, &[]).await;
        let listening = listen(&other, Channel::Output).await;
        let mut changed = other.wake.watch_output();
        // Until the other one is known as a listener.
        until("it is told", async || {
            lab.core.wake.output();
            tokio::time::timeout(Duration::from_millis(50), changed.changed())
                .await
                .is_ok()
        })
        .await;
        changed.mark_unchanged();
        tokio::time::sleep(Duration::from_millis(200)).await;
        changed.mark_unchanged();
        lab.core.wake.output();
        tokio::time::timeout(PATIENCE, changed.changed())
            .await
            .expect("nobody told")
            .unwrap();
        listening.end().await;
        lab.end().await;
    }
}

/// Anybody can send datagrams there; they cause looks, and not more than a few.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pokes_causes_few_looks() {
    let lab = Lab::new(testing::databases().await.swap_remove(0)).await;
    let listening = listen(&lab.core, Channel::Jobs).await;
    let sql = r#"SELECT "address" FROM "Listeners" WHERE "channel" = 'jobs'"#;
    let rows = lab.core.db.all(sql, args![]).await.unwrap();
    assert_eq!(rows.len(), 1);
    let address: std::net::SocketAddr = rows[0].get::<String>("address").unwrap().parse().unwrap();
    assert!(address.ip().is_loopback());
    let mut looks = lab.core.wake.watch_jobs();
    let flood = std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let began = std::time::Instant::now();
        let mut sent = 0;
        while began.elapsed() < Duration::from_secs(1) {
            sent += u32::from(socket.send_to(b"anything at all", address).is_ok());
        }
        sent
    });
    let mut seen = 0;
    let began = tokio::time::Instant::now();
    while tokio::time::timeout_at(began + Duration::from_millis(1500), looks.changed())
        .await
        .is_ok()
    {
        looks.mark_unchanged();
        seen += 1;
    }
    let sent = flood.join().unwrap();
    assert!(
        (1..=160).contains(&seen),
        "{seen} looks by {sent} datagrams"
    );
    assert!(sent > 1000, "{sent}");
    listening.end().await;
    assert!(lab.core.db.all(sql, args![]).await.unwrap().is_empty());
    lab.end().await;
}

/// Silent listeners are forgotten; a process that lives says so again and again.
#[tokio::test]
async fn the_silent_are_not_told() {
    for database in testing::databases().await.into_iter().take(2) {
        let lab = Lab::new(database).await;
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        silent
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let now = chrono::Utc::now();
        let address = silent.local_addr().unwrap().to_string();
        let sql = r#"INSERT INTO "Listeners" ("channel", "address", "seenAt", "createdAt", "updatedAt") VALUES ('jobs', ?, NOW_MS() - ?, ?, ?)"#;
        lab.core
            .db
            .exec(sql, args![&address, 31_000, now, now])
            .await
            .unwrap();
        lab.core.wake.jobs();
        assert!(silent.recv(&mut [0]).is_err(), "{}", lab.database.name);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let sql = r#"UPDATE "Listeners" SET "seenAt" = NOW_MS()"#;
        lab.core.db.exec(sql, args![]).await.unwrap();
        lab.core.wake.jobs();
        let heard = tokio::task::spawn_blocking(move || {
            silent.set_read_timeout(Some(PATIENCE)).unwrap();
            silent.recv(&mut [0; 8])
        });
        assert_eq!(heard.await.unwrap().unwrap(), 0, "a poke carries nothing");
        lab.end().await;
    }
}
