//! A container's settings: as they are asked for, changed and read. Which values are sensible is decided elsewhere.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;

use super::super::http::Call;
use super::super::wire;
use super::interface::Interface;

/// A container to be made: unprivileged, with nesting (templates with systemd want it; the only feature that others
/// than root@pam may set), one disk and `eth0` with DHCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLxc {
    pub vmid: u32,
    /// Labels of at most 63 characters; Proxmox VE takes longer ones and then cannot start the container.
    pub hostname: String,
    /// A volume ID, `local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst`.
    pub ostemplate: String,
    /// Where the root disk goes.
    pub storage: String,
    /// Not checked against what the storage has left.
    pub disk_gib: u32,
    pub cores: u32,
    pub memory_mib: u32,
    pub swap_mib: u32,
    /// Whether it exists is seen only at the start.
    pub bridge: String,
    pub description: String,
    /// Not sent together with `pool`: with rights from a pool alone Proxmox VE refuses tags here. Set them afterwards.
    pub tags: Vec<String>,
    /// Keys for root, one per line.
    pub ssh_public_keys: Option<String>,
    pub onboot: bool,
    pub pool: Option<String>,
}

impl NewLxc {
    pub(super) fn fill(&self, call: Call) -> Call {
        let tags = Some(self.tags.join(";")).filter(|tags| !tags.is_empty() && self.pool.is_none());
        call.with("vmid", self.vmid)
            .with("hostname", &self.hostname)
            .with("ostemplate", &self.ostemplate)
            .with("rootfs", format!("{}:{}", self.storage, self.disk_gib))
            .with("cores", self.cores)
            .with("memory", self.memory_mib)
            .with("swap", self.swap_mib)
            .with("net0", format!("name=eth0,bridge={},ip=dhcp", self.bridge))
            .with("unprivileged", 1)
            .with("features", "nesting=1")
            .with("description", &self.description)
            .with("onboot", u8::from(self.onboot))
            .with_some("tags", tags)
            .with_some("ssh-public-keys", self.ssh_public_keys.as_ref())
            .with_some("pool", self.pool.as_ref())
    }
}

/// A container that becomes a full copy of another one's current state, on a storage of its own choice: what was set only at the
/// creation of that one (keys, a password) it takes over, everything else can be changed afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClone {
    pub vmid: u32,
    pub hostname: String,
    /// Where the disks go.
    pub storage: String,
    /// Without one the clone would carry the other's, and with it its marker.
    pub description: String,
    pub pool: Option<String>,
}

impl NewClone {
    pub(super) fn fill(&self, call: Call) -> Call {
        // A linked clone would have to stay on the template's storage, and Proxmox VE refuses `storage` for it.
        call.with("newid", self.vmid)
            .with("full", 1)
            .with("storage", &self.storage)
            .with("hostname", &self.hostname)
            .with("description", &self.description)
            .with_some("pool", self.pool.as_ref())
    }
}

/// A change of settings; `None` leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LxcChange {
    pub hostname: Option<String>,
    pub cores: Option<u32>,
    pub memory_mib: Option<u32>,
    pub swap_mib: Option<u32>,
    pub description: Option<String>,
    /// All tags; Proxmox VE sorts and lower-cases them.
    pub tags: Option<Vec<String>>,
    pub onboot: Option<bool>,
    /// Whole, with its `hwaddr`: without one the container gets a new MAC.
    pub net0: Option<Net>,
    /// Settings to unset, by Proxmox's names.
    pub delete: Vec<String>,
    /// Of the configuration that the change is based on; refused if that is no longer the current one.
    pub digest: Option<String>,
}

impl LxcChange {
    pub(super) fn fill(&self, call: Call) -> Call {
        let delete = Some(self.delete.join(",")).filter(|delete| !delete.is_empty());
        call.with_some("hostname", self.hostname.as_ref())
            .with_some("cores", self.cores)
            .with_some("memory", self.memory_mib)
            .with_some("swap", self.swap_mib)
            .with_some("description", self.description.as_ref())
            .with_some("tags", self.tags.as_ref().map(|tags| tags.join(";")))
            .with_some("onboot", self.onboot.map(u8::from))
            .with_some("net0", self.net0.as_ref())
            .with_some("delete", delete)
            .with_some("digest", self.digest.as_ref())
    }
}

/// A container's settings. What was never set is absent; a privileged container has no `unprivileged`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct LxcConfig {
    #[serde(default, deserialize_with = "wire::loose")]
    pub hostname: Option<String>,
    /// Without the line end that Proxmox VE adds.
    #[serde(default, deserialize_with = "description")]
    pub description: Option<String>,
    #[serde(default, deserialize_with = "net")]
    pub net0: Option<Net>,
    /// `create`, `backup`, `disk`, `snapshot`, …
    #[serde(default, deserialize_with = "wire::loose")]
    pub lock: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub digest: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub cores: Option<u32>,
    /// MiB.
    #[serde(default, deserialize_with = "wire::loose")]
    pub memory: Option<u32>,
    /// MiB.
    #[serde(default, deserialize_with = "wire::loose")]
    pub swap: Option<u32>,
    /// `local:300/vm-300-disk-0.raw,size=8G`.
    #[serde(default, deserialize_with = "wire::loose")]
    pub rootfs: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub ostype: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub arch: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub features: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub tags: Vec<String>,
    #[serde(default, deserialize_with = "flag")]
    pub unprivileged: bool,
    #[serde(default, deserialize_with = "flag")]
    pub onboot: bool,
    #[serde(default, deserialize_with = "flag")]
    pub protection: bool,
    #[serde(default, deserialize_with = "flag")]
    pub template: bool,
}

impl LxcConfig {
    /// The MAC of `net0`, as Proxmox VE writes it (upper case).
    pub fn mac(&self) -> Option<&str> {
        self.net0.as_ref().and_then(|net| net.hwaddr.as_deref())
    }

    /// The IPv4 addresses that a running container has on `net0`: the static one of its configuration, else those of the guest's
    /// interface with the MAC of `net0`. The guest may have `docker0`, bridges, tunnels and further network cards beside it, listed in
    /// any order; none of them is where the bridge of the node leads to.
    ///
    /// VLAN interfaces, macvlans and bridges of the guest carry the MAC of what they stand on, so where `net0` has its name in the
    /// guest, that name decides between them.
    pub fn net0_ipv4(&self, interfaces: &[Interface]) -> Vec<Ipv4Addr> {
        let Some(net) = &self.net0 else {
            return Vec::new();
        };
        let fixed = net.ip.as_deref().and_then(|ip| ip.split('/').next());
        if let Some(fixed) = fixed.and_then(|ip| ip.parse().ok()) {
            return vec![fixed];
        }
        let Some(mac) = &net.hwaddr else {
            return Vec::new();
        };
        let own: Vec<&Interface> = interfaces.iter().filter(|one| one.has_mac(mac)).collect();
        let named = own.iter().find(|one| Some(&one.name) == net.name.as_ref());
        named
            .or(own.first())
            .map(|one| one.ipv4())
            .unwrap_or_default()
    }

    /// The size of the root disk in GiB, rounded up.
    pub fn disk_gib(&self) -> Option<u32> {
        let parts = self.rootfs.as_deref()?.split(',');
        let size = parts.filter_map(|part| part.strip_prefix("size=")).next()?;
        let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.parse().ok()?;
        let gib = match &size[digits.len()..] {
            "T" => number.checked_mul(1024)?,
            "G" => number,
            "M" => number.div_ceil(1024),
            "K" => number.div_ceil(1024 * 1024),
            "" => number.div_ceil(1024 * 1024 * 1024),
            _ => return None,
        };
        u32::try_from(gib).ok()
    }
}

/// The network cards of a configuration as Proxmox VE sends it.
pub(super) fn cards(config: &HashMap<String, Value>) -> Vec<Net> {
    let is_card = |key: &str| {
        let number = key.strip_prefix("net");
        number
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let cards = config.iter().filter(|(key, _)| is_card(key));
    cards
        .filter_map(|(_, value)| value.as_str())
        .map(Net::read)
        .collect()
}

/// Every IPv4 address of these cards.
pub(super) fn all_ipv4(cards: &[Net], interfaces: &[Interface]) -> Vec<Ipv4Addr> {
    let fixed = cards.iter().filter_map(|card| card.ip.as_deref());
    let fixed = fixed.filter_map(|ip| ip.split('/').next()?.parse().ok());
    let shown = interfaces.iter().filter(|one| {
        let mut macs = cards.iter().filter_map(|card| card.hwaddr.as_deref());
        macs.any(|mac| one.has_mac(mac))
    });
    let shown = shown.flat_map(Interface::ipv4);
    fixed.chain(shown).collect()
}

fn flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let flag: Option<bool> = wire::loose(deserializer)?;
    Ok(flag.unwrap_or(false))
}

fn description<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text: Option<String> = wire::loose(deserializer)?;
    Ok(text.map(|text| text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)))
}

fn net<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Net>, D::Error> {
    let text: Option<String> = wire::loose(deserializer)?;
    Ok(text.map(|text| Net::read(&text)))
}

/// A network device's line, `name=eth0,bridge=vmbr0,hwaddr=BC:24:11:88:97:B8,ip=dhcp,type=veth`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Net {
    pub name: Option<String>,
    pub bridge: Option<String>,
    /// The MAC.
    pub hwaddr: Option<String>,
    /// `dhcp`, `manual` or an IPv4 address with its prefix length.
    pub ip: Option<String>,
    /// Everything else, in order, to be sent back unchanged.
    pub rest: Vec<(String, String)>,
}

impl Net {
    fn read(text: &str) -> Self {
        let mut net = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.to_owned();
            match key {
                "name" => net.name = Some(value),
                "bridge" => net.bridge = Some(value),
                "hwaddr" => net.hwaddr = Some(value),
                "ip" => net.ip = Some(value),
                _ => net.rest.push((key.to_owned(), value)),
            }
        }
        net
    }
}

impl FromStr for Net {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::read(text))
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            ("name", &self.name),
            ("bridge", &self.bridge),
            ("hwaddr", &self.hwaddr),
            ("ip", &self.ip),
        ];
        let known = known
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_deref()?)));
        let rest = self
            .rest
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        for (index, (key, value)) in known.chain(rest).enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_lines_come_back_whole() {
        let text = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:88:97:B8,ip=dhcp,firewall=1,type=veth";
        let net = Net::read(text);
        assert_eq!(net.hwaddr.as_deref(), Some("BC:24:11:88:97:B8"));
        assert_eq!(net.bridge.as_deref(), Some("vmbr0"));
        assert_eq!(net.to_string(), text);
        assert_eq!(Net::read(""), Net::default());
    }

    #[test]
    fn the_address_is_that_of_net0() {
        let config = |net0: &str| LxcConfig {
            net0: Some(Net::read(net0)),
            ..LxcConfig::default()
        };
        // As a container with Docker and a VLAN looks while DHCP is slow, and afterwards.
        let interface = |name: &str, mac: &str, ip: &str| {
            let json = format!(
                r#"{{"name":"{name}","hwaddr":"{mac}","ip-addresses":[{{"ip-address":"{ip}","ip-address-type":"inet"}}]}}"#
            );
            serde_json::from_str::<Interface>(&json).expect("an interface")
        };
        let mut all = vec![
            interface("lo", "00:00:00:00:00:00", "127.0.0.1"),
            interface("docker0", "02:42:00:00:00:01", "172.17.0.1"),
            interface("eth0.10", "bc:24:11:00:00:01", "192.0.2.210"),
            interface("eth1", "bc:24:11:00:00:02", "192.0.2.99"),
            interface("eth0", "bc:24:11:00:00:01", "fe80::1"),
        ];
        let dhcp = config("name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp,type=veth");
        assert!(dhcp.net0_ipv4(&all).is_empty());
        all[4] = interface("eth0", "bc:24:11:00:00:01", "192.0.2.11");
        assert_eq!(dhcp.net0_ipv4(&all), [Ipv4Addr::new(192, 0, 2, 11)]);
        // Renamed in the guest.
        all.remove(2);
        all[3].name = "lan".to_owned();
        assert_eq!(dhcp.net0_ipv4(&all), [Ipv4Addr::new(192, 0, 2, 11)]);
        let fixed = config("name=eth0,hwaddr=BC:24:11:00:00:01,ip=192.0.2.7/24");
        assert_eq!(fixed.net0_ipv4(&all), [Ipv4Addr::new(192, 0, 2, 7)]);
        assert!(config("name=eth0,ip=dhcp").net0_ipv4(&all).is_empty());
        assert!(LxcConfig::default().net0_ipv4(&all).is_empty());
    }

    #[test]
    fn settings() {
        let config: LxcConfig = serde_json::from_str(
            r#"{"hostname":4711,"memory":"256","onboot":0,"unprivileged":"1","tags":"b;a",
                "description":"one\ntwo\n","rootfs":"local:1/vm-1-disk-0.raw,size=1500M"}"#,
        )
        .expect("a configuration");
        assert_eq!(config.hostname.as_deref(), Some("4711"));
        assert_eq!(config.memory, Some(256));
        assert!(config.unprivileged && !config.onboot);
        assert_eq!(config.tags, ["b", "a"]);
        assert_eq!(config.description.as_deref(), Some("one\ntwo"));
        assert_eq!(config.disk_gib(), Some(2));
        assert_eq!(config.mac(), None);
        for (rootfs, gib) in [
            ("a:b,size=8G", Some(8)),
            ("a:b,size=1T", Some(1024)),
            ("a:b,mountoptions=x,size=8589934592", Some(8)),
            ("a:b,size=8X", None),
            ("a:b,size=", None),
            ("a:b", None),
        ] {
            let rootfs = Some(rootfs.to_owned());
            let config = LxcConfig {
                rootfs,
                ..LxcConfig::default()
            };
            assert_eq!(config.disk_gib(), gib, "{config:?}");
        }
    }
}
