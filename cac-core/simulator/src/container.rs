//! What the options of one container mean: its nets, disks, name, address. Not how they are changed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::contract::{self, container_options};
use crate::world::{Container, hex, random_bytes};

/// Keys and values of a property string.
pub(crate) type Keys = BTreeMap<String, String>;

/// Reads a stored or already checked property string of an option.
pub(crate) fn read_keys(option: &str, text: &str) -> Keys {
    contract::property(container_options(), option)
        .and_then(|property| property.keys.as_ref())
        .and_then(|keys| contract::parse_property_string(keys, option, text).ok())
        .unwrap_or_default()
}

/// Writes a property string of an option in the order Proxmox VE stores it.
pub(crate) fn print_keys(option: &str, values: &Keys) -> String {
    contract::property(container_options(), option)
        .and_then(|property| property.keys.as_ref())
        .map(|keys| contract::print_property_string(keys, values))
        .unwrap_or_default()
}

/// A fresh MAC address with the prefix of Proxmox VE.
pub(crate) fn new_mac() -> String {
    let tail: Vec<String> = random_bytes(3).iter().map(|b| format!("{b:02X}")).collect();
    format!("BC:24:11:{}", tail.join(":"))
}

/// Completes a `net[n]` option: MAC and type are always stored.
pub(crate) fn complete_net(option: &str, text: &str) -> String {
    let mut keys = read_keys(option, text);
    let mac = keys
        .remove("hwaddr")
        .map_or_else(new_mac, |mac| mac.to_uppercase());
    keys.insert("hwaddr".to_owned(), mac);
    keys.entry("type".to_owned())
        .or_insert_with(|| "veth".to_owned());
    print_keys(option, &keys)
}

/// Bytes of `8G`, `512M`, `10737418240`.
pub(crate) fn bytes(size: &str) -> u64 {
    let (number, factor) = match size.chars().last() {
        Some('K') => (&size[..size.len() - 1], 10),
        Some('M') => (&size[..size.len() - 1], 20),
        Some('G') => (&size[..size.len() - 1], 30),
        Some('T') => (&size[..size.len() - 1], 40),
        _ => (size, 0),
    };
    scaled(number, factor)
}

/// A decimal number times a power of two, without the rounding of floating point.
pub(crate) fn scaled(number: &str, factor: u32) -> u64 {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().unwrap_or_default();
    let digits = &fraction[..fraction.len().min(6)];
    let part: u64 = digits.parse().unwrap_or_default();
    let unit = 10u64.pow(u32::try_from(digits.len()).unwrap_or_default());
    let scale = 1u64 << factor;
    whole
        .saturating_mul(scale)
        .saturating_add(part * scale / unit)
}

/// `1G`, `1536M`: the biggest unit that gives a whole number.
pub(crate) fn size_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes.is_multiple_of(1u64 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Whether an option is a disk.
pub(crate) fn is_disk(option: &str) -> bool {
    option == "rootfs" || numbered(option, "mp")
}

/// Whether an option is `net0`, `net1`, …
pub(crate) fn is_net(option: &str) -> bool {
    numbered(option, "net")
}

fn numbered(option: &str, base: &str) -> bool {
    option
        .strip_prefix(base)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// A stored option as the API shows it: numbers as numbers.
pub(crate) fn shown(option: &str, text: &str) -> Value {
    let kind = contract::property(container_options(), option).map(|p| p.kind.as_str());
    let number = || {
        text.parse::<i64>()
            .map_or_else(|_| json!(text), |n| json!(n))
    };
    match kind {
        Some("integer" | "boolean") => number(),
        Some("number") => text
            .parse::<i64>()
            .map(|n| json!(n))
            .or_else(|_| text.parse::<f64>().map(|n| json!(n)))
            .unwrap_or_else(|_| json!(text)),
        _ if option == "template" => number(),
        _ if option == "description" => json!(format!("{text}\n")),
        _ => json!(text),
    }
}

impl Container {
    /// Left over from a creation that the end of the simulator cut short.
    pub(crate) fn is_half_made(&self) -> bool {
        self.config.get("lock").is_some_and(|lock| lock == "create")
    }

    pub(crate) fn hostname(&self, vmid: u32) -> String {
        let name = self.config.get("hostname").filter(|_| !self.is_half_made());
        name.cloned().unwrap_or_else(|| format!("CT{vmid}"))
    }

    /// The networks by option name.
    pub(crate) fn nets(&self) -> Vec<(String, Keys)> {
        self.config
            .iter()
            .filter(|(option, _)| is_net(option))
            .map(|(option, text)| (option.clone(), read_keys(option, text)))
            .collect()
    }

    /// The disks by option name.
    pub(crate) fn disks(&self) -> Vec<(String, Keys)> {
        self.config
            .iter()
            .filter(|(option, _)| is_disk(option))
            .map(|(option, text)| (option.clone(), read_keys(option, text)))
            .collect()
    }

    /// A static address of 127.0.0.0/8, which the guest can really have on this machine.
    pub(crate) fn loopback_address(&self) -> Option<Ipv4Addr> {
        self.nets()
            .into_iter()
            .filter_map(|(_, net)| net.get("ip")?.split('/').next()?.parse::<Ipv4Addr>().ok())
            .find(Ipv4Addr::is_loopback)
    }

    pub(crate) fn number(&self, option: &str) -> Option<u64> {
        self.config.get(option)?.parse().ok()
    }

    /// Size of the root disk in bytes; 4 GiB where none is known.
    pub(crate) fn disk_size(&self) -> u64 {
        self.config
            .get("rootfs")
            .map(|text| read_keys("rootfs", text))
            .and_then(|keys| keys.get("size").map(|size| bytes(size)))
            .unwrap_or(4 << 30)
    }

    /// SHA-1 long fingerprint of the configuration that guards against lost updates.
    pub(crate) fn digest(&self) -> String {
        let text: String = self
            .config
            .iter()
            .map(|(k, v)| format!("{k}: {v}\n"))
            .collect();
        let hash = Sha256::digest(text);
        hex(&hash)[..40].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_as_proxmox_does() {
        assert_eq!(bytes("1G"), 1 << 30);
        assert_eq!(size_text(bytes("1G") + bytes("512M")), "1536M");
        assert_eq!(scaled("0.5", 30), 512 << 20);
        assert_eq!(size_text(0), "0T");
    }

    #[test]
    fn net_gets_mac_and_type_in_the_stored_order() {
        let text = complete_net(
            "net0",
            "ip=192.0.2.11/24,bridge=vmbr0,name=eth0,gw=192.0.2.1,hwaddr=bc:24:11:00:00:01",
        );
        assert_eq!(
            text,
            "name=eth0,bridge=vmbr0,gw=192.0.2.1,hwaddr=BC:24:11:00:00:01,ip=192.0.2.11/24,type=veth"
        );
    }
}
