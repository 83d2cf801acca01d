//! How containers are reached from outside: what people and clients are told. What a reverse proxy serves is [`crate::routes`]'s
//! matter.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::container::Container;
use crate::service::{Service, ServiceType};

/// How containers are reached from outside. The web server knows it; jobs carry it to runners, which need none of these
/// settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reach {
    pub portal: Url,
    pub domain: String,
    /// The reverse proxy; absent where there is none, so that containers are reached by their addresses.
    pub web: Option<Web>,
    /// The port in the container on which its ssh server listens.
    pub ssh_port: u16,
}

/// The reverse proxy's first port for web pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Web {
    Https(u16),
    Http(u16),
}

impl Reach {
    /// A container's public name, as [`crate::Config::full_name`].
    #[must_use]
    pub fn full_name(&self, name: &str) -> String {
        full_name(name, &self.domain)
    }

    /// The address of a public name's site; absent without a reverse proxy.
    #[must_use]
    pub fn site(&self, name: &str) -> Option<String> {
        let name = self.full_name(name);
        Some(match self.web? {
            Web::Https(443) => format!("https://{name}/"),
            Web::Https(port) => format!("https://{name}:{port}/"),
            Web::Http(80) => format!("http://{name}/"),
            Web::Http(port) => format!("http://{name}:{port}/"),
        })
    }

    /// Where a service is reached: a site's URL, else host and port; absent while nothing leads there.
    #[must_use]
    pub fn service(&self, row: &Container, service: &Service) -> Option<String> {
        // Without an address nothing leads there, whatever its names are.
        let address = row.ipv4_address.as_deref()?;
        let direct = format!("{address}:{}", service.internal_port);
        if let Some(name) = service.external_hostname.as_deref() {
            return Some(self.site(name).unwrap_or(format!("http://{direct}/")));
        }
        match self.web {
            Some(_) => Some(format!(
                "{}:{}",
                self.full_name(&row.hostname),
                service.external_port?
            )),
            None => Some(direct),
        }
    }

    /// The first site of a container.
    #[must_use]
    pub fn url(&self, row: &Container) -> Option<String> {
        let mut sites = row.services.iter();
        let site = sites.find(|service| service.r#type == ServiceType::Http)?;
        self.service(row, site)
    }

    /// The command that opens a shell in a container.
    #[must_use]
    pub fn ssh(&self, row: &Container) -> Option<String> {
        let address = self.shell(row)?;
        let (host, port) = address.rsplit_once(':')?;
        Some(format!("ssh -p {port} root@{host}"))
    }

    /// The link that opens a container in VS Code, over ssh.
    #[must_use]
    pub fn code(&self, row: &Container) -> Option<String> {
        let address = self.shell(row)?;
        Some(format!(
            "vscode://vscode-remote/ssh-remote+root@{address}/root"
        ))
    }

    /// Host and port of a container's ssh server.
    fn shell(&self, row: &Container) -> Option<String> {
        let is_ssh =
            |s: &&Service| s.r#type == ServiceType::Tcp && s.internal_port == self.ssh_port;
        self.service(row, row.services.iter().find(is_ssh)?)
    }
}

/// A public name: a label is under the domain, another name stands for itself.
pub(crate) fn full_name(name: &str, domain: &str) -> String {
    if name.contains('.') {
        name.to_owned()
    } else {
        format!("{name}.{domain}")
    }
}
