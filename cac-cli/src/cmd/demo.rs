//! `cac demo`: starts the demo, says where it is and what to try, and ends it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cac_core::config::environment;
use cac_core::reach::Web;
use cac_core::{Core, nginx, program, routes};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::demo::{self, Options};
use crate::print::{self, Failure};

#[derive(Args)]
pub(crate) struct Demo {
    /// Where the portal listens. On an address that others can reach, passwords are random and shell jobs are refused
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))]
    listen: SocketAddr,
    /// Where everything is kept [default: cac/demo in the user's folder for data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// As slow as a small Proxmox VE machine
    #[arg(long)]
    slow: bool,
    /// Start no nginx: containers are reached by their addresses
    #[arg(long)]
    no_nginx: bool,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        program::log(&environment()?, "warn")?;
        let stop = program::stop_on_signals()?;
        let options = Options {
            listen: self.listen,
            data_dir: self.data_dir.unwrap_or_else(data_dir),
            slow: self.slow,
            nginx: !self.no_nginx,
        };
        let demo = demo::Demo::start(options, stop.clone()).await?;
        print::data(&ready(&demo))?;
        if demo.certificate.is_none() {
            tokio::spawn(announce(demo.core.clone(), stop));
        }
        demo.ended().await?;
        print::note("The demo has ended; its data stays for the next start.");
        Ok(ExitCode::SUCCESS)
    }
}

/// By the XDG base directory specification.
fn data_dir() -> PathBuf {
    let named = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    let home = || Some(named("HOME")?.join(".local/share"));
    named("XDG_DATA_HOME")
        .or_else(home)
        .unwrap_or_default()
        .join("cac/demo")
}

fn ready(demo: &demo::Demo) -> String {
    let config = &demo.core.config;
    let reach = config.reach();
    let portal = config.public_url.as_str().trim_end_matches('/');
    let mut text = format!("Create-a-Container, a demo\n\n  Portal       {portal}/\n");
    for account in &demo.accounts {
        let _ = writeln!(
            text,
            "  Login        {} / {}   ({})",
            account.name, account.password, account.what
        );
    }
    let names = match reach.site("NAME") {
        Some(site) => format!("{site}   (nginx with a certificate of its own)"),
        None => {
            "by their addresses, printed here (install nginx and start again for names)".to_owned()
        }
    };
    let _ = writeln!(text, "  Containers   {names}");
    let _ = writeln!(
        text,
        "  Proxmox VE   {}   (simulated, three nodes)",
        demo.simulator.url()
    );
    let _ = writeln!(text, "  Data         {}\n", config.data_dir.display());
    text += "Try it: sign in as alice, ask for a container named hello (debian, web port 8080), watch it being made, open it.\n";
    text += "Or in another terminal:\n\n";
    let _ = writeln!(text, "  cac login {portal}   (as alice)");
    text += "  cac container create hello --os debian --port 8080\n";
    text += "\nOr as a script would:\n\n";
    let alice = &demo.accounts[0].password;
    let _ = writeln!(
        text,
        "  curl -c jar -d username=alice -d password={alice} {portal}/login"
    );
    let _ = writeln!(
        text,
        "  curl -b jar -d init=true -d hostname=hello -d osRelease=debian -d httpPort=8080 {portal}/containers"
    );
    let _ = writeln!(text, "  curl -b jar -N {portal}/api/stream/1");
    if let (Some(site), Some(certificate)) = (reach.site("hello"), &demo.certificate) {
        let _ = writeln!(text, "  curl --cacert {} {site}", certificate.display());
    }
    if matches!(reach.web, Some(Web::Https(_))) {
        let port = config.containers.ssh_ports.start();
        let _ = writeln!(text, "  ssh-keyscan -p {port} {}", config.listen.ip());
    }
    text + "\nCtrl-C ends it.\n"
}

/// Without nginx: where each container is reached, as soon as it has an address.
async fn announce(core: Core, stop: CancellationToken) {
    let mut told = BTreeSet::new();
    let mut changed = core.wake.watch_routes();
    loop {
        if let Ok(table) = routes::newest(&core).await {
            let line = |service: &nginx::Service| match service {
                nginx::Service::Http(site) => {
                    Some(format!("{}: http://{}/\n", site.name, site.upstream))
                }
                nginx::Service::Stream(_) => None,
            };
            let now: BTreeSet<String> = table.served.values().filter_map(line).collect();
            for line in now.difference(&told) {
                if print::data(line).is_err() {
                    return;
                }
            }
            told = now;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
