//! Network interfaces as seen inside a running container. Before DHCP is done `eth0` has no or only a link-local address.

use std::net::Ipv4Addr;

use serde::Deserialize;

use super::super::wire;

/// One interface. `inet` and `inet6` hold only the last address of their kind; before pve-container 5.2 they were all there was.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub struct Interface {
    pub name: String,
    /// The MAC, in lower case.
    pub hwaddr: Option<String>,
    /// `192.0.2.11/24`.
    pub inet: Option<String>,
    pub inet6: Option<String>,
    pub ip_addresses: Vec<IpAddress>,
}

/// One address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IpAddress {
    #[serde(rename = "ip-address")]
    pub address: String,
    /// `inet` or `inet6`.
    #[serde(rename = "ip-address-type", default)]
    pub kind: String,
    #[serde(default, deserialize_with = "wire::loose")]
    pub prefix: Option<u32>,
}

/// Both spellings of the MAC's name are in use, in 8.4 side by side.
#[derive(Deserialize)]
struct Raw {
    name: String,
    #[serde(default)]
    hwaddr: Option<String>,
    #[serde(default, rename = "hardware-address")]
    hardware_address: Option<String>,
    #[serde(default)]
    inet: Option<String>,
    #[serde(default)]
    inet6: Option<String>,
    #[serde(default, rename = "ip-addresses")]
    ip_addresses: Option<Vec<IpAddress>>,
}

impl From<Raw> for Interface {
    fn from(raw: Raw) -> Self {
        Self {
            name: raw.name,
            hwaddr: raw.hwaddr.or(raw.hardware_address),
            inet: raw.inet,
            inet6: raw.inet6,
            ip_addresses: raw.ip_addresses.unwrap_or_default(),
        }
    }
}

impl Interface {
    /// Its IPv4 addresses in the order in which the guest lists them, link-local ones included.
    pub fn ipv4(&self) -> Vec<Ipv4Addr> {
        let listed = self
            .ip_addresses
            .iter()
            .map(|address| address.address.as_str());
        let short = self.inet.as_deref().and_then(|text| text.split('/').next());
        let mut found: Vec<Ipv4Addr> = Vec::new();
        for address in listed.chain(short).filter_map(|text| text.parse().ok()) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    /// Whether it has this MAC, in any case of letters.
    pub fn has_mac(&self, mac: &str) -> bool {
        let own = self.hwaddr.as_deref();
        own.is_some_and(|own| own.eq_ignore_ascii_case(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_addresses_are_read() {
        let ipv4 = |json: &str| {
            let interface: Interface = serde_json::from_str(json).expect(json);
            interface.ipv4()
        };
        let address = Ipv4Addr::new(192, 0, 2, 11);
        assert_eq!(ipv4(r#"{"name":"eth0","inet":"192.0.2.11/24"}"#), [address]);
        assert!(ipv4(r#"{"name":"eth0","ip-addresses":[]}"#).is_empty());
        let both = r#"{"name":"eth0","hwaddr":"a","hardware-address":"a","inet":"192.0.2.11/24","ip-addresses":
            [{"ip-address":"fe80::1","ip-address-type":"inet6","prefix":"64"},
             {"ip-address":"169.254.3.4","ip-address-type":"inet","prefix":16},
             {"ip-address":"192.0.2.11","ip-address-type":"inet","prefix":"24"}]}"#;
        assert_eq!(ipv4(both), [Ipv4Addr::new(169, 254, 3, 4), address]);
    }
}
