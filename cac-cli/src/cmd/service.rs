//! `cac service`: what a container offers to the outside.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::container::Named;
use super::{Common, shown};
use crate::api::types;
use crate::portal::{Portal, Told as _};
use crate::print::{self, Exit, Failure};

#[derive(Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Service {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List a container's services
    List(Named),
    /// Add a service
    Add {
        #[command(flatten)]
        container: Named,
        /// A name such as `rdp`, or a port such as `8080/tcp` or `3000/http`
        protocol: String,
        /// Only http: its name; left out, the container's
        #[arg(long, value_name = "NAME")]
        hostname: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Change a service
    Update {
        #[command(flatten)]
        which: Which,
        /// The port in the container
        #[arg(long)]
        port: Option<i64>,
        /// Only http: its name
        #[arg(long, value_name = "NAME")]
        hostname: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Remove a service
    Remove(Which),
}

/// How the reverse proxy treats it, where not as all others.
#[derive(Args, Clone, PartialEq, Eq)]
struct Options {
    /// Only tcp: the reverse proxy ends TLS, with its own certificate
    #[arg(long, value_name = "BOOL")]
    tls: Option<bool>,
    /// Only http: the container speaks HTTPS itself
    #[arg(long, value_name = "BOOL")]
    https: Option<bool>,
    /// Only http: the largest body of a request in MiB; 0: 2048
    #[arg(long, value_name = "MIB")]
    max_body: Option<i64>,
    /// Only http: seconds for which the container may be silent; 0: 3600
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<i64>,
}

impl Options {
    fn none(&self) -> bool {
        self.tls.is_none()
            && self.https.is_none()
            && self.max_body.is_none()
            && self.timeout.is_none()
    }
}

#[derive(Args)]
struct Which {
    #[command(flatten)]
    container: Named,
    /// The service's id
    service: i64,
}

impl Service {
    pub(crate) async fn run(self, common: &Common) -> Result<ExitCode, Failure> {
        let portal = Portal::open(common)?;
        let json = common.json;
        match self.command {
            Command::List(one) => list(&portal.container(&one.name).await?.services, json)?,
            Command::Add {
                container,
                protocol,
                hostname,
                options,
            } => {
                let id = portal.container(&container.name).await?.id;
                let body = wanted(protocol, hostname, &options);
                let request = portal.client.service_create().id(id).body(body);
                one(&request.send().await.told()?, json)?;
            }
            Command::Update {
                which,
                port,
                hostname,
                options,
            } => {
                if port.is_none() && hostname.is_none() && options.none() {
                    return Err(Exit::usage(
                        "Give what is to be changed: --port, --hostname, --tls, --https, --max-body or --timeout.",
                    ));
                }
                let id = portal.container(&which.container.name).await?.id;
                let body = types::ServiceUpdate {
                    internal_port: port,
                    external_hostname: hostname,
                    tls: options.tls,
                    https: options.https,
                    max_body: options.max_body,
                    timeout: options.timeout,
                };
                let request = portal.client.service_update().id(id).sid(which.service);
                one(&request.body(body).send().await.told()?, json)?;
            }
            Command::Remove(which) => {
                let id = portal.container(&which.container.name).await?.id;
                let request = portal.client.service_delete().id(id).sid(which.service);
                request.send().await.told()?;
                print::done("The service is removed.", json)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `3000/http` is the one word that the portal takes in two fields.
fn wanted(protocol: String, hostname: Option<String>, options: &Options) -> types::ServiceRequest {
    let web = protocol
        .strip_suffix("/http")
        .and_then(|port| port.parse::<i64>().ok());
    types::ServiceRequest {
        type_: web.map(|_| types::ServiceRequestType::Http),
        internal_port: web,
        protocol: web.is_none().then_some(protocol),
        external_hostname: hostname,
        tls: options.tls,
        https: options.https,
        max_body: options.max_body,
        timeout: options.timeout,
    }
}

fn one(service: &types::Service, json: bool) -> Result<(), Failure> {
    match json {
        true => print::json(service),
        false => list(std::slice::from_ref(service), false),
    }
}

pub(crate) fn list(services: &[types::Service], json: bool) -> Result<(), Failure> {
    if json {
        return print::json(&services);
    }
    let rows = services.iter().map(|service| {
        [
            service.id.to_string(),
            service.type_.to_string(),
            service.internal_port.to_string(),
            shown(service.address.as_ref()),
            shown(service.state.as_ref()),
            shown(service.reason.as_ref()),
        ]
    });
    print::table(
        ["SERVICE", "TYPE", "PORT", "REACHED AT", "STATE", "REASON"],
        rows,
    )
}
