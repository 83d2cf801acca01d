//! What is there before any container: version, nodes, free numbers, storages, templates, bridges. Reads only.

use std::net::IpAddr;

use serde::Deserialize;

use super::http::Call;
use super::wire;
use super::{Error, Pve};

/// `release` is like `8.4`, `version` like `8.4.21`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Version {
    pub version: String,
    pub release: String,
    #[serde(default)]
    pub repoid: String,
}

/// A row of `/cluster/resources`. Of containers only those that the caller may audit; figures are up to ten seconds
/// old, and a new container has neither name nor status yet. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Resource {
    /// `lxc/101`, `node/pve1`, `storage/pve1/local`.
    pub id: String,
    /// `lxc`, `qemu`, `node`, `storage`, `pool`, `sdn`, `network`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "wire::loose")]
    pub vmid: Option<u32>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub node: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub name: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub status: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub lock: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub pool: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub storage: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub tags: Vec<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub template: Option<bool>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub uptime: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub cpu: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxcpu: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub mem: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxmem: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub disk: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxdisk: Option<u64>,
}

/// A node. The figures (bytes, `cpu` 0 to 1 over `maxcpu` cores) are absent without `Sys.Audit` and of an offline node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct NodeInfo {
    pub node: String,
    /// `online`, `offline` or `unknown`.
    pub status: String,
    #[serde(default, deserialize_with = "wire::loose")]
    pub cpu: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxcpu: Option<u32>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub mem: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxmem: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub disk: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxdisk: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub uptime: Option<u64>,
    #[serde(default)]
    pub ssl_fingerprint: Option<String>,
}

/// What a storage must be able to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Disks of containers, `rootdir`.
    RootDir,
    /// Container templates, `vztmpl`.
    Templates,
}

impl Content {
    fn word(self) -> &'static str {
        match self {
            Self::RootDir => "rootdir",
            Self::Templates => "vztmpl",
        }
    }
}

/// A storage as one node sees it. Sizes in bytes, 0 while it is not active.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Storage {
    pub storage: String,
    /// `dir`, `lvmthin`, `zfspool`, …
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "wire::loose")]
    pub content: Vec<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub shared: Option<bool>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub active: Option<bool>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub total: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub used: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub avail: Option<u64>,
}

/// A container template; `volid` is what [`super::NewLxc::ostemplate`] takes. `size` in bytes, `ctime` in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Template {
    pub volid: String,
    #[serde(default, deserialize_with = "wire::loose")]
    pub size: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub format: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub ctime: Option<u64>,
}

impl Template {
    /// The file's name: `debian-12-standard_12.7-1_amd64.tar.zst`.
    pub fn file_name(&self) -> &str {
        self.volid
            .rsplit_once('/')
            .map_or(self.volid.as_str(), |(_, name)| name)
    }
}

/// A bridge that a container may be put on; `cidr` is the node's own address there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Bridge {
    pub iface: String,
    /// `bridge`, `OVSBridge` or, for an SDN's network, `vnet`.
    #[serde(rename = "type", default, deserialize_with = "wire::loose")]
    pub kind: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub active: Option<bool>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub cidr: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub comments: Option<String>,
}

/// A row of `/nodes/N/network`.
#[derive(Deserialize)]
struct NodeInterface {
    #[serde(default, deserialize_with = "wire::loose")]
    address: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    address6: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    gateway: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    gateway6: Option<String>,
}

impl NodeInterface {
    fn addresses(&self) -> Vec<IpAddr> {
        let all = [&self.address, &self.address6, &self.gateway, &self.gateway6];
        // An address of IPv6 may come with the length of its prefix.
        let plain = |text: &String| text.split('/').next()?.parse().ok();
        all.into_iter().flatten().filter_map(plain).collect()
    }
}

/// A row of `/cluster/status`; that of the cluster itself has no address.
#[derive(Deserialize)]
struct Member {
    #[serde(default, deserialize_with = "wire::loose")]
    ip: Option<String>,
}

/// A number that comes as text.
#[derive(Deserialize)]
#[serde(transparent)]
struct Vmid(#[serde(deserialize_with = "wire::loose")] u32);

/// Rows of a list whose caller may see none: some of them are then `null`.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Rows<T>(pub Option<Vec<T>>);

impl<T> Rows<T> {
    pub(super) fn rows(self) -> Vec<T> {
        self.0.unwrap_or_default()
    }
}

impl Pve {
    pub async fn version(&self) -> Result<Version, Error> {
        self.call(Call::get(&["version"])?).await
    }

    /// The lowest free VMID of the cluster. It is not reserved: the next caller gets the same one until it is used.
    pub async fn next_vmid(&self) -> Result<u32, Error> {
        let vmid: Vmid = self.call(Call::get(&["cluster", "nextid"])?).await?;
        Ok(vmid.0)
    }

    /// Whether no guest of the cluster, visible or not, has this VMID now.
    pub async fn vmid_is_free(&self, vmid: u32) -> Result<bool, Error> {
        let call = Call::get(&["cluster", "nextid"])?.with("vmid", vmid);
        match self.call::<Vmid>(call).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `kind` is `vm` (containers too), `node`, `storage` or `sdn`; empty for everything.
    pub async fn resources(&self, kind: &str) -> Result<Vec<Resource>, Error> {
        let kind = Some(kind).filter(|kind| !kind.is_empty());
        let call = Call::get(&["cluster", "resources"])?.with_some("type", kind);
        self.call(call).await
    }

    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, Error> {
        self.call(Call::get(&["nodes"])?).await
    }

    /// The addresses of a node and of its gateways, as far as it is configured to have them.
    pub async fn node_addresses(&self, node: &str) -> Result<Vec<IpAddr>, Error> {
        let call = Call::get(&["nodes", node, "network"])?;
        let interfaces: Vec<NodeInterface> = self.call::<Rows<_>>(call).await?.rows();
        Ok(interfaces
            .iter()
            .flat_map(NodeInterface::addresses)
            .collect())
    }

    /// The addresses by which the nodes of the cluster know each other, where the caller may see them.
    pub async fn cluster_addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let members: Vec<Member> = self.call(Call::get(&["cluster", "status"])?).await?;
        let addresses = members.into_iter().filter_map(|member| member.ip);
        Ok(addresses.filter_map(|ip| ip.parse().ok()).collect())
    }

    /// The enabled storages of a node for this content that the caller may use; inactive ones are among them.
    pub async fn storages(&self, node: &str, content: Content) -> Result<Vec<Storage>, Error> {
        let call = Call::get(&["nodes", node, "storage"])?
            .with("content", content.word())
            .with("enabled", 1);
        Ok(self.call::<Rows<_>>(call).await?.rows())
    }

    /// The container templates on one storage, by volume ID.
    pub async fn templates(&self, node: &str, storage: &str) -> Result<Vec<Template>, Error> {
        let call = Call::get(&["nodes", node, "storage", storage, "content"])?
            .with("content", Content::Templates.word());
        let mut templates: Vec<Template> = self.call::<Rows<_>>(call).await?.rows();
        templates.sort_by(|a, b| a.volid.cmp(&b.volid));
        Ok(templates)
    }

    /// The bridges of a node that the caller has SDN rights for; without any the list is empty.
    pub async fn bridges(&self, node: &str) -> Result<Vec<Bridge>, Error> {
        let call = Call::get(&["nodes", node, "network"])?.with("type", "any_bridge");
        let mut bridges: Vec<Bridge> = self.call::<Rows<_>>(call).await?.rows();
        bridges.sort_by(|a, b| a.iface.cmp(&b.iface));
        Ok(bridges)
    }
}
