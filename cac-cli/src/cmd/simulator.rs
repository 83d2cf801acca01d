//! `cac simulator`: a simulated Proxmox VE alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use cac_core::config::environment;
use cac_core::program;
use cac_simulator::{Config, Delay};
use clap::Args;
use serde::Serialize;

use super::Common;
use crate::demo::proxmox;
use crate::print::{self, Failure};

#[derive(Args)]
pub(crate) struct Simulator {
    /// Where its API answers over HTTPS; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 8006)))]
    listen: SocketAddr,
    /// A file that keeps its state; left out: everything is forgotten at the end
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// As slow as a small Proxmox VE machine
    #[arg(long)]
    slow: bool,
    /// First two parts of the network in which its containers live; `auto` takes one that no other simulator has
    #[arg(long, value_name = "A.B", default_value = "127.80", value_parser = network)]
    network: Network,
}

/// Everything a client needs to know.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    url: String,
    fingerprint: String,
    nodes: Vec<String>,
    /// `root@pam`
    root_password: String,
    token_id: String,
    token_secret: String,
}

impl Simulator {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        program::log(&environment()?, "warn")?;
        let stop = program::stop_on_signals()?;
        let config = Config {
            listen: self.listen,
            data_file: self.data_file,
            network: self.network.0,
            ssh_port: proxmox::SSH_PORT,
            delay: if self.slow {
                Delay::realistic()
            } else {
                Delay::none()
            },
            ..Config::default()
        };
        let nodes = config.nodes.clone();
        let simulator = cac_simulator::Simulator::start(config).await?;
        let secret = !self.listen.ip().is_loopback();
        let root_password = proxmox::password("simulator", secret);
        simulator.add_user("root@pam", &root_password, &[]);
        let accounts = proxmox::accounts(&simulator, secret);
        let (token_id, token_secret) = proxmox::token(&simulator);
        let ready = Ready {
            url: simulator.url(),
            fingerprint: simulator.fingerprint(),
            nodes,
            root_password,
            token_id,
            token_secret,
        };
        if common.json {
            print::json(&ready)?;
        } else {
            print::data(&told(&ready, &accounts))?;
        }
        stop.cancelled().await;
        simulator.stop().await;
        Ok(ExitCode::SUCCESS)
    }
}

fn told(ready: &Ready, accounts: &[proxmox::Account]) -> String {
    let mut text = format!(
        "A simulated Proxmox VE 8.4 answers at {}\n  certificate  {}\n  token        {}={}\n  root@pam     {}\n",
        ready.url, ready.fingerprint, ready.token_id, ready.token_secret, ready.root_password
    );
    for account in accounts {
        text += &format!(
            "  {}@pve    {}   ({})\n",
            account.name, account.password, account.what
        );
    }
    text + "Ctrl-C ends it.\n"
}

/// `None`: a free one.
#[derive(Debug, Clone, Copy)]
struct Network(Option<[u8; 2]>);

fn network(text: &str) -> Result<Network, String> {
    if text == "auto" {
        return Ok(Network(None));
    }
    let parsed = text
        .split_once('.')
        .and_then(|(a, b)| Some([a.parse().ok()?, b.parse().ok()?]));
    parsed
        .filter(|[first, _]: &[u8; 2]| *first == 127)
        .map(|octets| Network(Some(octets)))
        .ok_or_else(|| {
            "give two numbers of the loopback network, such as 127.80, or auto".to_owned()
        })
}
