//! The crash matrix: the runner is killed, the connection is cut, or the other side is away for a while, before and after each
//! message to Proxmox VE and to the database, in the middle of making, cloning and deleting a container.
//!
//! The gate takes some messages; the README has the command of the long form, which takes all, with everything at its default.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cac_core::config::{Config, Program, Vars};
use cac_core::container::{self, NewContainer};
use cac_core::job::Status;
use cac_core::node::{self, NewNode};
use cac_core::pve::NewLxc;
use cac_core::testing::{self, Passing, Relay, TestDb};
use cac_core::{Actor, Core, args, schema};
use cac_simulator::{Delay, Moment, Simulator};
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Semaphore;

use crate::lab::{Running, until};

/// Cases at once; most of their time is waiting for a lease to lapse.
const AT_ONCE: [usize; 2] = [6, 12];
/// Cases of one row at once.
const BATCH: u64 = 4;
/// Messages from one case of the short form to the next, for Proxmox VE and for the database.
const STRIDES: [u64; 2] = [4, 17];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Create,
    /// A creation from a template container.
    Clone,
    Delete,
}

/// The VMID of the template container.
const TEMPLATE: u32 = 900;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Proxmox,
    Database,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    /// The runner is killed, and another one started.
    Kill,
    /// The connection is cut.
    Cut,
    /// Nothing passes for a while: a daemon that is restarted, a database that is gone.
    Away,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    work: Work,
    side: Side,
    act: Act,
    /// After the message was worked on, else before.
    after: bool,
}

/// What strikes at a message, once.
struct Strike {
    row: Row,
    at: u64,
    /// Counts from here: what came before was set-up.
    from: Mutex<Option<u64>>,
    runner: Mutex<Option<Pid>>,
    struck: Mutex<Option<Instant>>,
    away: Duration,
}

impl Strike {
    /// Whether the message passes.
    fn passes(&self, number: u64, after: bool) -> bool {
        let mut from = self.from.lock().unwrap();
        let Some(first) = *from else {
            return true;
        };
        let first = if first == 0 { number } else { first };
        *from = Some(first);
        let mut struck = self.struck.lock().unwrap();
        match *struck {
            Some(at) => self.row.act != Act::Away || at.elapsed() > self.away,
            None if after == self.row.after && number + 1 >= first + self.at => {
                *struck = Some(Instant::now());
                if self.row.act == Act::Kill
                    && let Some(runner) = *self.runner.lock().unwrap()
                {
                    // The case may just have ended.
                    let _ = kill_process(runner, Signal::KILL);
                }
                false
            }
            None => true,
        }
    }

    fn struck(&self) -> Option<Instant> {
        *self.struck.lock().unwrap()
    }
}

/// Everything of one case.
struct Case {
    database: TestDb,
    core: Core,
    simulator: Simulator,
    strike: Arc<Strike>,
    relay: Option<Relay>,
    vars: Vec<(&'static str, String)>,
}

fn long() -> bool {
    std::env::var("CAC_CRASH").is_ok_and(|text| text == "all")
}

async fn database(side: Side, number: u64) -> TestDb {
    // SQLite has no connection to cut.
    let database = match (side, number % 3) {
        (Side::Proxmox, 0) => testing::sqlite().await,
        (_, 1) => testing::mariadb().await,
        _ => testing::postgres().await,
    };
    // A busy server may let a pool wait too long; what was begun is continued.
    let mut tries = 0;
    while let Err(error) = schema::up(&database.db).await {
        tries += 1;
        assert!(tries < 5, "{}: {error}", database.name);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    database
}

impl Case {
    async fn new(row: Row, at: u64) -> Self {
        let config = cac_simulator::Config {
            delay: Delay::none(),
            ..cac_simulator::Config::default()
        };
        let simulator = Simulator::start(config).await.unwrap();
        simulator.add_user("alice@pve", "alice-demo", &[]);
        simulator.add_user("cac@pve", "unused-password", &[]);
        let secret = simulator.add_token("cac@pve", "web", false);
        simulator.grant("/", "cac@pve", "Administrator");
        let database = database(row.side, at).await;
        let strike = Arc::new(Strike {
            row,
            at,
            from: Mutex::default(),
            runner: Mutex::default(),
            struck: Mutex::default(),
            away: Duration::from_secs(if long() { 10 } else { 2 }),
        });
        let mut url = database.url.clone();
        let mut relay = None;
        let hit = Arc::clone(&strike);
        if row.side == Side::Proxmox {
            simulator
                .faults()
                .watch(move |number, moment| hit.passes(number, moment == Moment::After));
        } else {
            let started = Relay::start(&database.url, move |passing| match passing {
                Passing::Asked(number, _) => hit.passes(number, false),
                Passing::Answered(number) => hit.passes(number, true),
            });
            let started = started.await;
            url.clone_from(&started.url);
            relay = Some(started);
        }
        let mut vars = vec![
            ("CONTAINER_NETWORKS", "127.0.0.0/8".to_owned()),
            ("CONTAINER_SSH_PORT", "2022".to_owned()),
            // So many processes share one server here.
            ("DATABASE_CONNECTIONS", "6".to_owned()),
        ];
        if !long() {
            vars.push(("JOB_RUNNER_LEASE_SECONDS", "2".to_owned()));
            vars.push(("JOB_RUNNER_POLL_MS", "200".to_owned()));
        }
        let mut own = Vars(BTreeMap::new());
        own.set("DATABASE_URL", &database.url);
        own.set("SESSION_SECRET", "a secret for tests only");
        for (name, value) in &vars {
            own.set(name, value);
        }
        let core = Core::start(Config::load(&own, Program::Http).unwrap())
            .await
            .unwrap();
        let new = NewNode {
            name: "pve1".to_owned(),
            api_url: Some(simulator.url()),
            token_id: Some("cac@pve!web".to_owned()),
            secret: Some(secret),
            tls_fingerprint: Some(simulator.fingerprint()),
            ..NewNode::default()
        };
        node::create(&core, &Actor::local(), new).await.unwrap();
        vars.push(("DATABASE_URL", url));
        Self {
            database,
            core,
            simulator,
            strike,
            relay,
            vars,
        }
    }

    fn runner(&self) -> Running {
        let vars: Vec<_> = self
            .vars
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Running::start("cac-runner", &[], &vars)
    }

    /// A small template container, made by the node's own admin.
    async fn template(&self) {
        let nodes = node::all(&self.core).await.unwrap();
        let pve = self.core.pve(&nodes[0]).unwrap();
        let new = NewLxc {
            vmid: TEMPLATE,
            hostname: "base".to_owned(),
            ostemplate: "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst".to_owned(),
            storage: "local".to_owned(),
            disk_gib: 2,
            cores: 1,
            memory_mib: 256,
            swap_mib: 0,
            bridge: "vmbr0".to_owned(),
            description: String::new(),
            tags: Vec::new(),
            ssh_public_keys: None,
            onboot: false,
            pool: None,
        };
        let upid = pve.lxc_create("pve1", &new).await.unwrap();
        let ended = pve.task_wait(&upid, testing::PATIENCE, |_| ()).await;
        assert!(ended.unwrap().is_success());
        self.simulator.make_template(TEMPLATE);
    }

    async fn ask(&self) -> (i64, i64) {
        let cloned = self.strike.row.work == Work::Clone;
        let new = NewContainer {
            hostname: "crash".to_owned(),
            os_release: "debian".to_owned(),
            http_port: Some(8080),
            template: cloned.then(|| format!("lxc/{TEMPLATE}")),
            ..NewContainer::default()
        };
        let made = container::create(&self.core, &Actor::new("alice", false), &new, None)
            .await
            .unwrap();
        (made.id, made.job_id)
    }

    /// From now on messages count.
    fn arm(&self, runner: &Running) {
        *self.strike.runner.lock().unwrap() = Some(runner.pid());
        *self.strike.from.lock().unwrap() = Some(0);
    }

    async fn attempts(&self, job: i64) -> (i64, bool) {
        let sql = r#"SELECT "attempts", "status" FROM "Jobs" WHERE "id" = ?"#;
        let row = self.core.db.one(sql, args![job]).await.unwrap();
        let status: String = row.get("status").unwrap();
        (
            row.get("attempts").unwrap(),
            !matches!(status.as_str(), "pending" | "running"),
        )
    }

    /// Works one case; how long the work stood still, or nothing when there was no such message.
    async fn run(self) -> Option<Duration> {
        let row = self.strike.row;
        let mut runner = self.runner();
        until("the runner is ready", async || {
            runner.err().contains("waiting for jobs").then_some(())
        })
        .await;
        if row.work == Work::Clone {
            self.template().await;
        }
        let (id, job) = if row.work != Work::Delete {
            self.arm(&runner);
            self.ask().await
        } else {
            let (id, job) = self.ask().await;
            let made = testing::ended(&self.core, job).await;
            assert_eq!(made.status, Status::Success);
            self.arm(&runner);
            let alice = Actor::new("alice", false);
            let asked = container::delete(&self.core, &alice, id, Duration::ZERO);
            asked.await.unwrap();
            let sql = r#"SELECT MAX("id") AS "id" FROM "Jobs""#;
            let row = self.core.db.one(sql, args![]).await.unwrap();
            (id, row.get("id").unwrap())
        };
        let mut stood = None;
        if row.act == Act::Kill {
            let before = loop {
                let (attempts, ended) = self.attempts(job).await;
                if ended || self.strike.struck().is_some() {
                    break attempts;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            };
            if let Some(at) = self.strike.struck() {
                runner.ended();
                runner = self.runner();
                loop {
                    let (attempts, ended) = self.attempts(job).await;
                    if ended || attempts > before {
                        break;
                    }
                    assert!(
                        at.elapsed() < Duration::from_secs(60),
                        "{row:?} {}: not taken up",
                        self.strike.at
                    );
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                stood = Some(at.elapsed());
            }
        }
        let ended = testing::ended(&self.core, job).await;
        let log = testing::log(&self.core, job).await;
        let told = format!(
            "{row:?} at {} on {}: {ended:?}\n{log}\n{}",
            self.strike.at,
            self.database.name,
            runner.err()
        );
        assert_eq!(ended.status, Status::Success, "{told}");
        self.check(id, &log, &told).await;
        if row.act != Act::Kill {
            stood = self.strike.struck().map(|_| Duration::ZERO);
        }
        let struck = self.strike.struck();
        drop(runner);
        drop(self.relay);
        self.core.db.close().await;
        self.simulator.stop().await;
        struck.and(stood)
    }

    /// One container or none, and the books agree.
    async fn check(&self, id: i64, log: &str, told: &str) {
        let count = async |sql: &'static str| -> i64 {
            self.core
                .db
                .one(sql, args![])
                .await
                .unwrap()
                .get("n")
                .unwrap()
        };
        let services = count(r#"SELECT COUNT(*) AS "n" FROM "Services""#).await;
        let mut there = self.simulator.containers();
        there.retain(|container| container.vmid != TEMPLATE);
        let row = container::find_any(&self.core, id).await.unwrap();
        let steps: Vec<&str> = log
            .lines()
            .filter_map(|line| {
                line.strip_prefix('[')?
                    .split_once(']')
                    .map(|(step, _)| step)
            })
            .collect();
        if self.strike.row.work != Work::Delete {
            let row = row.unwrap_or_else(|| panic!("no row: {told}"));
            assert_eq!((there.len(), services), (1, 2), "{told}");
            assert_eq!(row.container_id, Some(there[0].vmid), "{told}");
            assert!(row.state.is_none() && row.ipv4_address.is_some(), "{told}");
            // Every step is told; one that was begun twice stands twice, and none is out of order.
            let mut different = steps.clone();
            different.dedup();
            assert_eq!(
                different,
                ["1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"],
                "{told}"
            );
        } else {
            assert!(row.is_none(), "{told}");
            assert_eq!((there.len(), services), (0, 0), "{told}");
        }
        let lanes = count(r#"SELECT COUNT("lane") AS "n" FROM "Containers""#).await;
        assert_eq!(lanes, 0, "{told}");
        let rows =
            count(r#"SELECT COUNT(*) AS "n" FROM "Jobs" WHERE "status" IN ('pending', 'running')"#)
                .await;
        assert_eq!(rows, 0, "{told}");
    }
}

/// All messages of a row of the table, or some.
async fn sweep(row: Row, room: &Semaphore) -> (Row, Vec<Duration>) {
    let (stride, mut at) = match row.side {
        _ if long() => (1, 1),
        Side::Proxmox => (STRIDES[0], 2),
        Side::Database => (STRIDES[1], 2),
    };
    let mut stood = Vec::new();
    loop {
        let some = (0..BATCH).map(|step| async move {
            let _place = room.acquire().await.unwrap();
            Case::new(row, at + step * stride).await.run().await
        });
        let cases = join_all(some).await;
        stood.extend(cases.iter().flatten());
        if cases.iter().any(Option::is_none) {
            return (row, stood);
        }
        at += BATCH * stride;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_anywhere_leaves_one_container_or_none() {
    let room = Semaphore::new(AT_ONCE[usize::from(long())]);
    let mut sweeps = Vec::new();
    for work in [Work::Create, Work::Clone, Work::Delete] {
        for side in [Side::Proxmox, Side::Database] {
            for act in [Act::Kill, Act::Cut, Act::Away] {
                // Of a clone the short form takes what differs from a creation.
                if work == Work::Clone && !long() && (side, act) != (Side::Proxmox, Act::Kill) {
                    continue;
                }
                for after in [false, true] {
                    let row = Row {
                        work,
                        side,
                        act,
                        after,
                    };
                    sweeps.push(sweep(row, &room));
                }
            }
        }
    }
    let mut table = join_all(sweeps).await;
    table.sort();
    println!(
        "| Work | At | What | When | Cases | Lost / double / orphan | Work stood still, median and longest |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (row, mut stood) in table {
        assert!(!stood.is_empty(), "{row:?}: no case");
        stood.sort();
        let time = match row.act {
            Act::Kill => format!(
                "{:.1} s, {:.1} s",
                stood[stood.len() / 2].as_secs_f64(),
                stood[stood.len() - 1].as_secs_f64()
            ),
            _ => String::new(),
        };
        let when = if row.after { "after" } else { "before" };
        println!(
            "| {:?} | {:?} | {:?} | {when} | {} | 0 / 0 / 0 | {time} |",
            row.work,
            row.side,
            row.act,
            stood.len()
        );
        // At the defaults, too: the lease of 15 s and a poll of 2 s.
        assert!(
            stood.iter().all(|time| *time < Duration::from_secs(20)),
            "{row:?}: {stood:?}"
        );
    }
}
