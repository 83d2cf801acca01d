//! The simulated cluster of a demo: where it keeps its state, who has an account there, and its nodes in our database.

use std::net::Ipv4Addr;
use std::path::Path;

use cac_core::node::{self, NewNode, NodeChange};
use cac_core::{Actor, Core, user};
use cac_simulator::{Config, Delay, Simulator};
use rand::Rng as _;
use rand::distr::Alphanumeric;

use crate::print::Failure;

/// Where guests greet as ssh servers, since they are processes of an ordinary user.
pub(crate) const SSH_PORT: u16 = 2022;
/// Port 22 of a container would need root, and so would anything below 1024.
pub(crate) const NETWORK: [u8; 2] = [127, 80];

/// Who can sign in.
pub(crate) struct Account {
    pub(crate) name: &'static str,
    pub(crate) password: String,
    pub(crate) what: &'static str,
}

pub(crate) async fn start(dir: &Path, slow: bool) -> Result<Simulator, Failure> {
    let config = Config {
        data_file: Some(dir.join("proxmox/state.json")),
        network: Some(NETWORK),
        ssh_port: SSH_PORT,
        delay: if slow {
            Delay::realistic()
        } else {
            Delay::none()
        },
        ..Config::default()
    };
    Ok(Simulator::start(config).await?)
}

/// A password that everybody knows, or where others than this machine can reach it one that nobody can guess.
pub(crate) fn password(known: &str, secret: bool) -> String {
    if secret {
        let random = rand::rng().sample_iter(Alphanumeric);
        random.take(16).map(char::from).collect()
    } else {
        known.to_owned()
    }
}

/// The demo's accounts.
pub(crate) fn accounts(simulator: &Simulator, secret: bool) -> [Account; 3] {
    let account = |name, known, what| Account {
        name,
        password: password(known, secret),
        what,
    };
    let accounts = [
        account("alice", "alice-demo", "an ordinary user"),
        account("admin", "admin-demo", "an administrator"),
        account(
            "carol",
            "carol-demo",
            "a user with a second factor: code 123456",
        ),
    ];
    let [alice, admin, carol] = &accounts;
    simulator.add_user("alice@pve", &alice.password, &[]);
    simulator.add_user("carol@pve", &carol.password, &[]);
    simulator.set_totp("carol@pve", Some("123456"));
    simulator.add_user("admin@pve", &admin.password, &["administrators"]);
    simulator.grant("/", "@administrators", "Administrator");
    accounts
}

/// A service token with every right; the secret is a new one at each call.
pub(crate) fn token(simulator: &Simulator) -> (String, String) {
    let secret = simulator.add_token("cac@pve", "demo", false);
    simulator.grant("/", "cac@pve", "Administrator");
    ("cac@pve!demo".to_owned(), secret)
}

/// A service token for us, and rows of `Nodes` that say where the cluster answers this time.
pub(crate) async fn nodes(core: &Core, simulator: &Simulator) -> Result<(), Failure> {
    let (token_id, secret) = token(simulator);
    let local = Actor::local();
    let known = node::list(core, &local).await?;
    for name in Config::default().nodes {
        let token_id = token_id.clone();
        let (url, fingerprint) = (simulator.url(), simulator.fingerprint());
        match known.iter().find(|node| node.name == name) {
            Some(node) => {
                let change = NodeChange {
                    api_url: Some(Some(url)),
                    token_id: Some(Some(token_id)),
                    secret: Some(Some(secret.clone())),
                    tls_fingerprint: Some(Some(fingerprint)),
                    ..NodeChange::default()
                };
                node::update(core, &local, node.id, change).await?;
            }
            None => {
                let new = NewNode {
                    name,
                    api_url: Some(url),
                    token_id: Some(token_id),
                    secret: Some(secret.clone()),
                    tls_fingerprint: Some(fingerprint),
                    // The one that takes snapshots.
                    storage: Some("local-btrfs".to_owned()),
                    ..NewNode::default()
                };
                node::create(core, &local, new).await?;
            }
        }
    }
    // It has another port at each start and is the same cluster nevertheless.
    user::confirm_login_node(core, &local).await?;
    Ok(())
}

/// An address of the guests' network that no guest has.
pub(crate) fn spare_address() -> Ipv4Addr {
    Ipv4Addr::new(NETWORK[0], NETWORK[1], 255, 254)
}
