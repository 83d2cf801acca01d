//! What the demo's nginx can be: whether there is one, and which ports can be had.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use cac_core::config::Vars;
use cac_core::nginx::{Certificate, Found, Settings, find_nginx, self_signed};

use super::proxmox;
use crate::print::Failure;

/// The domain of a configuration that names none.
const DOMAIN: &str = "cac.localhost";

/// An nginx that can be started.
pub(crate) struct Web {
    pub(crate) found: Found,
    pub(crate) settings: Settings,
    pub(crate) certificate: Certificate,
    listen: Vec<IpAddr>,
    https: u16,
    first_ssh: u16,
}

impl Web {
    /// The installed nginx with ports that are free on `ip`; nothing where none is installed.
    pub(crate) fn find(ip: IpAddr, dir: &Path) -> Result<Option<Self>, Failure> {
        let Some(found) = find_nginx() else {
            return Ok(None);
        };
        // Names below localhost mean these two addresses; any other one is alone, so that demos do not meet.
        let mut listen = vec![ip];
        let second = IpAddr::V6(Ipv6Addr::LOCALHOST);
        if ip == Ipv4Addr::LOCALHOST && TcpListener::bind((second, 0)).is_ok() {
            listen.push(second);
        }
        let https = free(&listen, 8443..=8543)
            .ok_or("None of the ports 8443 to 8543 is free for nginx: stop some program.")?;
        let first_ssh = free(&listen, 2222..=2899)
            .ok_or("None of the ports 2222 to 2899 is free for ssh: stop some program.")?;
        let domain = DOMAIN.parse().expect("a domain name");
        let certificate = self_signed(&[domain], &dir.join("tls"))?;
        let mut settings = Settings::private(&found, &dir.join("nginx"), &certificate)?;
        settings.https_listen = listen
            .iter()
            .map(|ip| SocketAddr::new(*ip, https))
            .collect();
        settings.stream_listen.clone_from(&listen);
        Ok(Some(Self {
            found,
            settings,
            certificate,
            listen,
            https,
            first_ssh,
        }))
    }

    /// The same for the configuration, so that links and `/nginx.conf` say what is true here.
    pub(crate) fn vars(&self, vars: &mut Vars, dir: &Path) {
        let below = |name: &str| dir.join("nginx").join(name).display().to_string();
        let listen: Vec<String> = self.listen.iter().map(IpAddr::to_string).collect();
        vars.set("NGINX_LISTEN", listen.join(","));
        vars.set("NGINX_HTTPS_PORTS", self.https.to_string());
        vars.set(
            "NGINX_CERTIFICATE",
            self.certificate.certificate.display().to_string(),
        );
        vars.set(
            "NGINX_CERTIFICATE_KEY",
            self.certificate.key.display().to_string(),
        );
        vars.set("NGINX_PID", below("nginx.pid"));
        vars.set("NGINX_ERROR_LOG", below("error.log"));
        vars.set("NGINX_ACCESS_LOG", "off");
        vars.set("NGINX_TEMP_DIR", below("temp"));
        vars.set("NGINX_USER", "none");
        vars.set("NGINX_INCLUDE", "none");
        vars.set("SSH_PORTS", format!("{}-2999", self.first_ssh));
    }
}

/// The first port that is free on all these addresses.
fn free(listen: &[IpAddr], mut ports: impl Iterator<Item = u16>) -> Option<u16> {
    ports.find(|port| {
        listen
            .iter()
            .all(|ip| TcpListener::bind((*ip, *port)).is_ok())
    })
}

/// The lowest port that a guest may listen on, and why, where that is not any.
pub(crate) fn lowest_web_port() -> Option<(u16, &'static str)> {
    let refused = |port: u16| {
        TcpListener::bind((proxmox::spare_address(), port))
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    refused(80).then(|| {
        let lowest = (81..=1024).find(|port| !refused(*port)).unwrap_or(1024);
        (lowest, "containers of this demo are parts of an ordinary user's process, which may not listen below it")
    })
}
