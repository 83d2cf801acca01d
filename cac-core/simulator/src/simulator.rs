//! The simulator as its users hold it: start, stop, set up people, look inside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::certificate::Identity;
use crate::core::{Core, Fixed};
use crate::faults::Faults;
use crate::guest::{Guests, Network};
use crate::world::{
    AclEntry, AclKind, GuestInterface, Token, User, World, hash_password, now, random_uuid,
};
use crate::{Config, Error, api, server, store, task};

/// A running simulator; it ends with `stop`.
pub struct Simulator {
    core: Arc<Core>,
    address: SocketAddr,
}

/// A container as tests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Node it lives on.
    pub node: String,
    /// Its VMID.
    pub vmid: u32,
    /// `running` or `stopped`.
    pub status: String,
    /// Host name.
    pub name: String,
    /// Description as stored, without the newline the API adds.
    pub description: Option<String>,
    /// Pool it is a member of.
    pub pool: Option<String>,
    /// Where the running guest answers.
    pub address: Option<Ipv4Addr>,
    /// The whole configuration.
    pub config: BTreeMap<String, String>,
}

impl Simulator {
    /// Loads or makes the cluster, listens, and wakes the containers that ran before.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let saved = config.data_file.as_deref().map(store::load).transpose()?;
        let mut world = saved
            .flatten()
            .unwrap_or_else(|| World::new(&config.nodes, &config.root_password));
        task::end_lost(&mut world);
        world.containers.retain(|_, c| !c.is_half_made());
        let identity = Identity::load(config.data_file.as_deref())?;
        let listen_error = |error: std::io::Error| Error::Listen {
            address: config.listen,
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let network = match config.network {
            Some(octets) => Network::new(octets),
            None => Network::free().ok_or(Error::NoNetwork)?,
        };
        let core = Arc::new(Core::new(
            world,
            Fixed {
                delay: config.delay,
                data_file: config.data_file.clone(),
                fingerprint: identity.fingerprint.clone(),
                guests: Guests::new(network, config.ssh_port),
            },
        ));
        core.save().map_err(|error| Error::Data {
            file: config.data_file.unwrap_or_default(),
            reason: error.to_string(),
        })?;
        api::power::wake_all(&core).await;
        core.jobs.spawn(Arc::clone(&core).keep_saved());
        let acceptor = TlsAcceptor::from(identity.config);
        core.jobs
            .spawn(server::run(Arc::clone(&core), listener, acceptor));
        Ok(Self { core, address })
    }

    /// `https://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// SHA-256 of the certificate as Proxmox VE shows it, `AB:CD:…`.
    pub fn fingerprint(&self) -> String {
        self.core.fingerprint.clone()
    }

    /// Requests to the API so far.
    pub fn requests(&self) -> u64 {
        let count = &self.core.requests;
        count.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Faults to order.
    pub fn faults(&self) -> &Faults {
        &self.core.faults
    }

    /// Ends everything in less than a second; the state is saved and all ports are free.
    pub async fn stop(self) {
        self.core.stop.cancel();
        self.core.jobs.close();
        let patience = Duration::from_millis(600);
        if tokio::time::timeout(patience, self.core.jobs.wait())
            .await
            .is_err()
        {
            tracing::warn!("some work of the simulator did not end in time");
        }
        self.core.guests.stop_all().await;
        if let Err(error) = self.core.save() {
            tracing::error!(%error, "the state of the simulator could not be saved");
        }
    }

    /// Adds a user, or changes its password and groups; missing groups are made. `name` is `user@realm`.
    pub fn add_user(&self, name: &str, password: &str, groups: &[&str]) {
        let mut world = self.core.change();
        for group in groups {
            world.groups.entry((*group).to_owned()).or_default();
        }
        let user = world.users.entry(name.to_owned()).or_default();
        user.enable = true;
        user.password = Some(hash_password(password));
        user.groups = groups.iter().map(|group| (*group).to_owned()).collect();
    }

    /// Deletes a user with its tokens and access rights, as `DELETE /access/users/{userid}` does.
    pub fn remove_user(&self, name: &str) {
        api::users::delete(&mut self.core.change(), name);
    }

    /// Adds a group when there is none of that name.
    pub fn add_group(&self, name: &str) {
        self.core
            .change()
            .groups
            .entry(name.to_owned())
            .or_default();
    }

    /// Disables a user, or enables it again.
    pub fn set_enabled(&self, name: &str, enabled: bool) {
        if let Some(user) = self.core.change().users.get_mut(name) {
            user.enable = enabled;
        }
    }

    /// Makes a one-time code the second factor of a user; `None` takes it away.
    pub fn set_totp(&self, name: &str, code: Option<&str>) {
        if let Some(user) = self.core.change().users.get_mut(name) {
            user.totp = code.map(str::to_owned);
        }
    }

    /// Adds an API token to a user and answers with its secret; the user is made when there is none.
    pub fn add_token(&self, name: &str, token: &str, privsep: bool) -> String {
        let secret = random_uuid();
        let mut world = self.core.change();
        let user = world.users.entry(name.to_owned()).or_insert_with(|| User {
            enable: true,
            ..User::default()
        });
        user.tokens.insert(
            token.to_owned(),
            Token {
                secret: secret.clone(),
                privsep,
                expire: 0,
                comment: None,
            },
        );
        secret
    }

    /// Gives a role on a path, propagating. `who` is `user@realm`, `user@realm!token`, or `@group`.
    pub fn grant(&self, path: &str, who: &str, role: &str) {
        let (kind, who) = match who.strip_prefix('@') {
            Some(group) => (AclKind::Group, group),
            None if who.contains('!') => (AclKind::Token, who),
            None => (AclKind::User, who),
        };
        let entry = AclEntry {
            path: path.to_owned(),
            kind,
            who: who.to_owned(),
            role: role.to_owned(),
            propagate: true,
        };
        let mut world = self.core.change();
        if !world.acl.contains(&entry) {
            world.acl.push(entry);
        }
    }

    /// Adds a role, or changes its privileges.
    pub fn add_role(&self, name: &str, privileges: &[&str]) {
        let privileges = privileges.iter().map(|one| (*one).to_owned()).collect();
        self.core.change().roles.insert(name.to_owned(), privileges);
    }

    /// Adds a pool when there is none of that name.
    pub fn add_pool(&self, name: &str) {
        let mut world = self.core.change();
        world.pools.entry(name.to_owned()).or_default();
    }

    /// Adds a template file to the storage `local` of a node.
    pub fn add_template(&self, node: &str, file: &str, size: u64) {
        if let Some(node) = self.core.change().nodes.get_mut(node) {
            node.templates.push(crate::world::Template {
                file: file.to_owned(),
                size,
                ctime: now(),
            });
        }
    }

    /// Sets an option of a container, or takes it away, past all checks.
    pub fn set_option(&self, vmid: u32, option: &str, text: Option<&str>) {
        if let Some(container) = self.core.change().containers.get_mut(&vmid) {
            match text {
                Some(text) => container.config.insert(option.to_owned(), text.to_owned()),
                None => container.config.remove(option),
            };
        }
    }

    /// Gives a guest further interfaces, as Docker or a VPN in it does; none takes them away.
    pub fn set_interfaces(&self, vmid: u32, interfaces: &[GuestInterface]) {
        if let Some(container) = self.core.change().containers.get_mut(&vmid) {
            container.network.interfaces = interfaces.to_vec();
        }
    }

    /// Makes `net0` of a guest with DHCP show this address, whoever has it too, as root in the guest can; `None`: its own one again.
    pub fn show_address(&self, vmid: u32, address: Option<Ipv4Addr>) {
        if let Some(container) = self.core.change().containers.get_mut(&vmid) {
            container.network.shown = address;
        }
    }

    /// Withholds the lease of a guest with DHCP, or gives it.
    pub fn set_leased(&self, vmid: u32, leased: bool) {
        if let Some(container) = self.core.change().containers.get_mut(&vmid) {
            container.network.without_lease = !leased;
        }
    }

    /// Moves a container to another node as a migration does, without a task; its uptime begins anew, as after a restart migration.
    pub fn migrate(&self, vmid: u32, node: &str) {
        if let Some(container) = self.core.change().containers.get_mut(&vmid) {
            node.clone_into(&mut container.node);
        }
        self.set_uptime(vmid, 0);
    }

    /// Makes a running container look as if it had started so many seconds ago.
    pub fn set_uptime(&self, vmid: u32, seconds: u64) {
        let mut world = self.core.change();
        let running = world.containers.get_mut(&vmid);
        if let Some(running) = running.and_then(|container| container.running.as_mut()) {
            running.since = crate::world::now_ms().saturating_sub(seconds * 1000);
        }
    }

    /// Makes a stopped container a template.
    pub fn make_template(&self, vmid: u32) {
        if let Some(container) = self.core.change().containers.get_mut(&vmid) {
            api::clone::become_template(container);
        }
    }

    /// Takes a node off the network, or brings it back. Its containers live on unseen.
    pub fn set_online(&self, node: &str, online: bool) {
        if let Some(node) = self.core.change().nodes.get_mut(node) {
            node.online = online;
        }
    }

    /// Gives a node another address than 127.0.0.1, in words only: nothing answers there.
    pub fn set_node_address(&self, node: &str, address: Ipv4Addr) {
        if let Some(node) = self.core.change().nodes.get_mut(node) {
            node.address = Some(address);
        }
    }

    /// All containers of the cluster, by VMID.
    pub fn containers(&self) -> Vec<ContainerView> {
        let world = self.core.world();
        let view = |(vmid, container): (&u32, &crate::world::Container)| {
            let option = |name: &str| container.config.get(name).cloned();
            let running = container.running.is_some();
            ContainerView {
                node: container.node.clone(),
                vmid: *vmid,
                status: if running { "running" } else { "stopped" }.to_owned(),
                name: option("hostname").unwrap_or_else(|| format!("CT{vmid}")),
                description: option("description"),
                pool: world.pool_of(*vmid).map(str::to_owned),
                address: container.address.filter(|_| running),
                config: container.config.clone(),
            }
        };
        world.containers.iter().map(view).collect()
    }
}
