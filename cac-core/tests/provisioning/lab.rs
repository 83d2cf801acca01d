//! What every test here stands on: a database, a simulator with a service token, a core with nodes.

use std::collections::BTreeMap;

use cac_core::config::{Config, Program, Vars};
use cac_core::container::{self, Container, Created, NewContainer};
use cac_core::job::{self, Job};
use cac_core::node::{self, NewNode, NodeChange};
use cac_core::pve::NewLxc;
use cac_core::testing::{self, TestDb};
use cac_core::{Actor, Core};
use cac_simulator::Simulator;
use tokio_util::sync::CancellationToken;

pub(crate) use cac_core::testing::{PATIENCE, until};

pub(crate) struct Lab {
    pub(crate) core: Core,
    pub(crate) simulator: Simulator,
    pub(crate) database: TestDb,
    /// Of the token that all nodes are asked with.
    pub(crate) secret: String,
    runners: Vec<CancellationToken>,
}

pub(crate) fn alice() -> Actor {
    Actor::new("alice", false)
}

pub(crate) fn admin() -> Actor {
    Actor::new("admin", true)
}

pub(crate) async fn simulator(delay: cac_simulator::Delay) -> Simulator {
    let config = cac_simulator::Config {
        delay,
        ..cac_simulator::Config::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    simulator.add_user("alice@pve", "alice-demo", &[]);
    simulator.add_user("admin@pve", "admin-demo", &["administrators"]);
    simulator.add_user("cac@pve", "unused-password", &[]);
    simulator
}

pub(crate) fn config(database_url: &str, more: &[(&str, &str)]) -> Config {
    let mut vars = Vars(BTreeMap::new());
    vars.set("DATABASE_URL", database_url);
    vars.set("SESSION_SECRET", "a secret for tests only");
    vars.set("CONTAINER_NETWORKS", "127.0.0.0/8");
    vars.set("CONTAINER_SSH_PORT", "2022");
    vars.set("JOB_RUNNER_POLL_MS", "100");
    vars.set("JOB_RUNNER_LEASE_SECONDS", "3");
    vars.set("JOB_RUNNER_PATIENCE_SECONDS", "3");
    for (name, value) in more {
        vars.set(name, *value);
    }
    Config::load(&vars, Program::Http).unwrap()
}

impl Lab {
    pub(crate) async fn new(database: TestDb) -> Self {
        Self::with(database, cac_simulator::Delay::none(), &[]).await
    }

    pub(crate) async fn with(
        database: TestDb,
        delay: cac_simulator::Delay,
        more: &[(&str, &str)],
    ) -> Self {
        let simulator = simulator(delay).await;
        let core = Core::start(config(&database.url, more)).await.unwrap();
        let secret = simulator.add_token("cac@pve", "web", false);
        simulator.grant("/", "cac@pve", "Administrator");
        for name in ["pve1", "pve2", "pve3"] {
            let new = NewNode {
                name: name.to_owned(),
                api_url: Some(simulator.url()),
                token_id: Some("cac@pve!web".to_owned()),
                secret: Some(secret.clone()),
                tls_fingerprint: Some(simulator.fingerprint()),
                ..NewNode::default()
            };
            node::create(&core, &admin(), new).await.unwrap();
        }
        Self {
            core,
            simulator,
            database,
            secret,
            runners: Vec::new(),
        }
    }

    /// Starts a runner in this process.
    pub(crate) fn runner(&mut self) -> CancellationToken {
        let stop = CancellationToken::new();
        tokio::spawn(job::runner::run(self.core.clone(), stop.clone()));
        self.runners.push(stop.clone());
        stop
    }

    pub(crate) async fn ask(&self, hostname: &str) -> Created {
        container::create(&self.core, &alice(), &new(hostname), None)
            .await
            .unwrap()
    }

    /// A container on a node, 4 GiB large, made by the node's own admin.
    pub(crate) async fn foreign(&self, node: &str, vmid: u32, name: &str) {
        let row = node::find_named(&self.core, &admin(), node).await.unwrap();
        let pve = self.core.pve(&row).unwrap();
        let new = NewLxc {
            vmid,
            hostname: name.to_owned(),
            ostemplate: "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst".to_owned(),
            storage: "local".to_owned(),
            disk_gib: 4,
            cores: 1,
            memory_mib: 256,
            swap_mib: 256,
            bridge: "vmbr0".to_owned(),
            description: "How to use it.\ncac:another-installation:1".to_owned(),
            tags: Vec::new(),
            ssh_public_keys: None,
            onboot: false,
            pool: None,
        };
        let upid = pve.lxc_create(node, &new).await.unwrap();
        let ended = pve.task_wait(&upid, PATIENCE, |_| ()).await.unwrap();
        assert!(ended.is_success(), "{ended}");
    }

    /// A template container, made of such a one.
    pub(crate) async fn template(&self, node: &str, vmid: u32, name: &str, unprivileged: bool) {
        self.foreign(node, vmid, name).await;
        if !unprivileged {
            self.simulator.set_option(vmid, "unprivileged", None);
        }
        self.simulator.make_template(vmid);
    }

    /// Which template an osRelease means on a node.
    pub(crate) async fn prefer(&self, node: &str, templates: &str) {
        let row = node::find_named(&self.core, &admin(), node).await.unwrap();
        let change = NodeChange {
            templates: Some(Some(templates.to_owned())),
            ..NodeChange::default()
        };
        let changed = node::update(&self.core, &admin(), row.id, change).await;
        assert_eq!(changed.unwrap().templates.as_deref(), Some(templates));
    }

    pub(crate) async fn job(&self, id: i64) -> Job {
        testing::ended(&self.core, id).await
    }

    pub(crate) async fn log(&self, id: i64) -> String {
        testing::log(&self.core, id).await
    }

    pub(crate) async fn row(&self, id: i64) -> Option<Container> {
        container::find_any(&self.core, id).await.unwrap()
    }

    /// Everything that must be so when a creation has been undone.
    pub(crate) async fn assert_nothing_left(&self, id: i64) {
        let name = self.database.name;
        assert!(
            self.simulator.containers().is_empty(),
            "{name}: an orphan in Proxmox VE"
        );
        assert!(
            self.row(id).await.is_none(),
            "{name}: the row is still there"
        );
        let services = self
            .core
            .db
            .one(r#"SELECT COUNT(*) AS "n" FROM "Services""#, vec![])
            .await
            .unwrap();
        assert_eq!(
            services.get::<i64>("n").unwrap(),
            0,
            "{name}: services are left"
        );
    }

    pub(crate) async fn end(self) {
        for runner in &self.runners {
            runner.cancel();
        }
        self.core.db.close().await;
        self.simulator.stop().await;
    }
}

pub(crate) fn new(hostname: &str) -> NewContainer {
    NewContainer {
        hostname: hostname.to_owned(),
        os_release: "debian".to_owned(),
        http_port: Some(8080),
        ..NewContainer::default()
    }
}

/// A wish for a clone of a template container.
pub(crate) fn from(hostname: &str, template: &str) -> NewContainer {
    NewContainer {
        template: Some(template.to_owned()),
        ..new(hostname)
    }
}
