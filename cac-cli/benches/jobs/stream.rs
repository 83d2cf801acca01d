//! From a print in a job to its event at clients of `/api/stream/{id}`: one of them, and two thousand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cac_core::testing::TestDb;
use reqwest::{Client, Response};

use crate::lab::{Running, answers, own_address, simulator, until};
use crate::place::{add, databases, fresh};
use crate::portal::Portal;

const VIEWERS: usize = 2_000;

/// Prints the moment again and again.
fn moments(number: usize, pause: &str) -> String {
    format!("sleep 1; for i in $(seq {number}); do date +%s%N; sleep {pause}; done")
}

struct Place {
    database: TestDb,
    portal: Portal,
    session: String,
    _programs: [Running; 3],
}

impl Place {
    async fn start(name: &str) -> Self {
        let database = fresh(name).await;
        let (simulator, told) = simulator(&[]);
        let ip = own_address();
        let (listen, url) = (format!("{ip}:3000"), format!("http://{ip}:3000"));
        let text = |field: &str| told[field].as_str().unwrap();
        let vars = [
            ("DATABASE_URL", database.url.as_str()),
            ("SESSION_SECRET", "a secret for measurements only"),
            ("CAC_LISTEN", &listen),
            ("CAC_PUBLIC_URL", &url),
            ("PROXMOX_URL", text("url")),
            ("PROXMOX_TLS", text("fingerprint")),
            ("STREAMS_PER_USER", "10000"),
            ("CAC_LOG", "warn"),
        ];
        let http = Running::start("cac-http", &[], &vars);
        let runner = Running::start("cac-runner", &[], &[("DATABASE_URL", &database.url)]);
        until("the portal answers", async || {
            answers((ip, 3000)).then_some(())
        })
        .await;
        let portal = Portal::new(url);
        let session = portal.login("admin", "admin-demo").await.unwrap();
        Self {
            database,
            portal,
            session,
            _programs: [http, runner, simulator],
        }
    }

    /// Adds a job; there are `before` in the database.
    async fn job(&self, before: usize, command: &str) -> String {
        add(&self.database, 1, command, None).await;
        format!("/api/stream/{}", before + 1)
    }

    /// How many SELECTs (MariaDB) or transactions (PostgreSQL) the server has done.
    async fn reads(&self) -> Option<i64> {
        let db = &self.database.db;
        match self.database.name {
            "mariadb" => {
                let sql = "SELECT CAST(`VARIABLE_VALUE` AS SIGNED) AS `n` FROM `information_schema`.`GLOBAL_STATUS` WHERE `VARIABLE_NAME` = 'COM_SELECT'";
                Some(db.one(sql, vec![]).await.unwrap().get("n").unwrap())
            }
            "postgres" => {
                let sql = r#"SELECT "xact_commit" AS "n" FROM "pg_stat_database" WHERE "datname" = current_database()"#;
                Some(db.one(sql, vec![]).await.unwrap().get("n").unwrap())
            }
            _ => None,
        }
    }
}

/// Reads a stream to its end: the delay of each moment in it.
async fn delays(mut stream: Response) -> Vec<Duration> {
    assert_eq!(stream.status(), 200);
    let mut times = Vec::new();
    let mut rest = String::new();
    while let Some(bytes) = stream.chunk().await.unwrap() {
        rest.push_str(std::str::from_utf8(&bytes).unwrap());
        while let Some(end) = rest.find('\n') {
            let line: String = rest.drain(..=end).collect();
            let data = line.trim_end().strip_prefix("data: ").unwrap_or("");
            // Output is a JSON string; what closes the stream is not.
            let printed = serde_json::from_str::<String>(data).unwrap_or_default();
            times.extend(printed.lines().map(crate::since));
        }
    }
    times
}

pub(crate) async fn measure() {
    for name in databases() {
        let place = Place::start(name).await;
        let path = place.job(0, &moments(300, "0.1")).await;
        let mut times = delays(place.portal.get(&path, &place.session).await).await;
        assert_eq!(times.len(), 300);
        crate::row(
            "print → event at a client",
            name,
            &crate::percentiles(&mut times),
            "",
            "",
        );
    }
}

pub(crate) async fn viewers() {
    const MOMENTS: usize = 40;
    for name in databases() {
        let place = Place::start(name).await;
        let mut reads = Vec::new();
        let mut all = Vec::new();
        for (round, viewers) in [1, VIEWERS].into_iter().enumerate() {
            let command = format!("sleep 8; {}", moments(MOMENTS, "0.5"));
            let path = place.job(round, &command).await;
            let (times, read) = watch(&place, &path, viewers).await;
            assert_eq!(times.len(), viewers * MOMENTS);
            all = times;
            reads.push(read);
        }
        let read = match (reads[0], reads[1]) {
            (Some(one), Some(many)) => {
                format!("reads of the database in 10 s: {one} with 1 viewer, {many} with {VIEWERS}")
            }
            _ => String::new(),
        };
        let what = format!("print → event at each of {VIEWERS} clients");
        crate::row(&what, name, &crate::percentiles(&mut all), &read, "");
    }
}

/// So many clients watch a job to its end: the delays at all of them, and the reads of ten seconds in the middle.
async fn watch(place: &Place, path: &str, viewers: usize) -> (Vec<Duration>, Option<i64>) {
    let opened = Arc::new(AtomicUsize::new(0));
    let client = Client::builder().no_proxy().http1_only().build().unwrap();
    let url = format!("{}{path}", place.portal.url);
    let mut watching = tokio::task::JoinSet::new();
    for _ in 0..viewers {
        let (client, url, session, opened) = (
            client.clone(),
            url.clone(),
            place.session.clone(),
            Arc::clone(&opened),
        );
        watching.spawn(async move {
            let stream = client
                .get(url)
                .header("cookie", session)
                .send()
                .await
                .unwrap();
            opened.fetch_add(1, Ordering::Relaxed);
            delays(stream).await
        });
    }
    until("all watch", async || {
        (opened.load(Ordering::Relaxed) == viewers).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let before = place.reads().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = place.reads().await;
    let read = before.zip(after).map(|(before, after)| after - before);
    (watching.join_all().await.concat(), read)
}
