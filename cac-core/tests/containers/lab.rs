//! A core without Proxmox VE: nodes that are only names, containers that scripts register.

use std::collections::BTreeMap;

use cac_core::config::{Config, Program, Vars};
use cac_core::container::Registration;
use cac_core::node::{self, NewNode};
use cac_core::testing::TestDb;
use cac_core::{Actor, Core};

pub(crate) async fn core(database: &TestDb, nodes: &[(&str, Option<&str>)]) -> Core {
    core_with(database, nodes, &[]).await
}

pub(crate) async fn core_with(
    database: &TestDb,
    nodes: &[(&str, Option<&str>)],
    more: &[(&str, &str)],
) -> Core {
    let mut vars = Vars(BTreeMap::new());
    vars.set("DATABASE_URL", &database.url);
    vars.set("SESSION_SECRET", "a secret for tests only");
    vars.set("CONTAINER_NETWORKS", "127.0.0.0/8");
    vars.set("CAC_DOMAIN", "cac.test");
    for (name, value) in more {
        vars.set(name, *value);
    }
    let config = Config::load(&vars, Program::Http).unwrap();
    let core = Core::start(config).await.unwrap();
    for (name, label) in nodes {
        let new = NewNode {
            name: (*name).to_owned(),
            ai_container: label.map(ToOwned::to_owned),
            ..NewNode::default()
        };
        node::create(&core, &Actor::local(), new).await.unwrap();
    }
    core
}

pub(crate) fn web(number: u8) -> Registration {
    Registration {
        hostname: format!("web{number}"),
        ipv4_address: format!("127.9.0.{number}"),
        username: "alice".to_owned(),
        os_release: "debian".to_owned(),
        container_id: Some(1000 + i64::from(number)),
        mac_address: format!("BC:24:11:00:00:{number:02x}"),
        http_port: Some(8080),
        additional_protocols: vec!["rdp".to_owned(), "DNS".to_owned()],
        ..Registration::default()
    }
}
