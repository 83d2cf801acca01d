//! The named value formats and patterns of the contract, with the texts Proxmox VE answers for a bad value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::params::split_list;

/// Checks a value against a named format; `x-list` checks every part against `x`.
pub(crate) fn check(format: &str, text: &str) -> Result<(), String> {
    match format.strip_suffix("-list") {
        Some(inner) => split_list(text)
            .iter()
            .try_for_each(|part| check(inner, part)),
        None => check_one(format, text),
    }
}

fn check_one(format: &str, text: &str) -> Result<(), String> {
    let looks = |good: bool, what: &str| {
        good.then_some(())
            .ok_or_else(|| format!("value does not look like a valid {what}"))
    };
    let holds = |good: bool, error: String| good.then_some(()).ok_or(error);
    match format {
        "pve-vmid" => looks(is_vmid(text), "VM ID"),
        "pve-node" => looks(is_dns_label(text), "node name"),
        "dns-name" => looks(is_dns_name(text), "DNS name"),
        "ipv4" => looks(text.parse::<Ipv4Addr>().is_ok(), "IPv4 address"),
        "ipv6" => looks(text.parse::<Ipv6Addr>().is_ok(), "IPv6 address"),
        "lxc-ip-with-ll-iface" => {
            let address = text.split('%').next().unwrap_or_default();
            looks(address.parse::<IpAddr>().is_ok(), "IP address")
        }
        "pve-ipv4-config" => looks(is_ipv4_config(text), "ipv4 network configuration"),
        "pve-ipv6-config" => looks(is_ipv6_config(text), "ipv6 network configuration"),
        "mac-addr" => looks(is_mac(text), "unicast MAC address"),
        "email-opt" => looks(text.is_empty() || is_email(text), "email address"),
        "pve-userid" => check_userid(text),
        "pve-tokenid" => {
            let good = text
                .split_once('!')
                .is_some_and(|(user, token)| check_userid(user).is_ok() && is_realm(token));
            holds(
                good,
                format!("value '{text}' does not look like a valid token ID"),
            )
        }
        "pve-configid" => holds(
            is_config_id(text),
            format!("invalid configuration ID '{text}'"),
        ),
        "pve-storage-id" => holds(
            is_storage_id(text),
            format!("storage ID '{text}' contains illegal characters"),
        ),
        "pve-tag" => holds(is_tag(text), "invalid characters in tag".to_owned()),
        "pve-groupid" => holds(is_name(text), illegal("group", text)),
        "pve-roleid" => holds(is_name(text), illegal("role", text)),
        "pve-poolid" => holds(
            text.split('/').count() <= 3 && text.split('/').all(is_name),
            illegal("pool", text),
        ),
        "pve-realm" => holds(
            is_realm(text) && text.len() <= 32,
            format!("realm '{text}' contains invalid characters"),
        ),
        _ => check_rare(format, text),
    }
}

fn check_rare(format: &str, text: &str) -> Result<(), String> {
    let holds = |good: bool, error: String| good.then_some(()).ok_or(error);
    match format {
        "pve-priv" => holds(
            crate::rights::PRIVILEGES.contains(&text),
            format!("invalid privilege '{text}'"),
        ),
        "pve-storage-content" => holds(
            matches!(
                text,
                "images" | "rootdir" | "vztmpl" | "iso" | "backup" | "snippets" | "none" | "import"
            ),
            format!("invalid content type '{text}'"),
        ),
        "pve-startup-order" => holds(
            text.split(',').all(|part| {
                let value = part.split_once('=').map_or(part, |(_, value)| value);
                !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit())
            }),
            "unable to parse startup options".to_owned(),
        ),
        "pve-ct-timezone" => holds(is_timezone(text), format!("invalid time zone '{text}'")),
        "pve-volume-id" => holds(
            text.split_once(':')
                .is_some_and(|(storage, volume)| is_storage_id(storage) && !volume.is_empty()),
            format!("unable to parse volume ID '{text}'"),
        ),
        "pve-task-status-type" => holds(
            matches!(text, "ok" | "error" | "warning" | "unknown"),
            format!("invalid task status type '{text}'"),
        ),
        _ => Ok(()),
    }
}

/// Checks a value against one of the few patterns of the contract, by the name the contract file gives it.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern {
        "keys" => text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!=".contains(&b)),
        "tokenid" => is_realm(text),
        "authid" => {
            let (user, token) = text.split_once('!').unwrap_or((text, "aa"));
            check_userid(user).is_ok() && is_realm(token)
        }
        "mode" => text.len() == 4 && text.starts_with('0') && u32::from_str_radix(text, 8).is_ok(),
        "words" => {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_; ".contains(&b))
        }
        "iface" => {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        }
        "numbers" => text
            .split(';')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())),
        "size" => is_size(text),
        "url" => text.starts_with("http://") || text.starts_with("https://"),
        "mountoptions" => text.split(';').all(|part| {
            matches!(
                part,
                "discard" | "lazytime" | "noatime" | "nodev" | "noexec" | "nosuid"
            )
        }),
        _ => true,
    }
}

fn illegal(what: &str, text: &str) -> String {
    format!("{what} name '{text}' contains invalid characters")
}

fn is_vmid(text: &str) -> bool {
    (3..=9).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && !text.starts_with('0')
}

fn is_dns_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_dns_name(text: &str) -> bool {
    text.split('.').all(is_dns_label)
}

fn is_ipv4_config(text: &str) -> bool {
    matches!(text, "dhcp" | "manual")
        || text.split_once('/').is_some_and(|(address, mask)| {
            address.parse::<Ipv4Addr>().is_ok()
                && mask.parse::<u8>().is_ok_and(|m| (8..=32).contains(&m))
        })
}

fn is_ipv6_config(text: &str) -> bool {
    matches!(text, "auto" | "dhcp" | "manual")
        || text.split_once('/').is_some_and(|(address, mask)| {
            address.parse::<Ipv6Addr>().is_ok()
                && mask.parse::<u8>().is_ok_and(|m| (8..=128).contains(&m))
        })
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
        && u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 0)
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, domain)| {
        !name.is_empty() && !domain.is_empty() && !text.contains([' ', '<', '>'])
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

fn is_realm(text: &str) -> bool {
    text.len() >= 2 && is_name(text) && text.as_bytes()[0].is_ascii_alphabetic()
}

fn is_config_id(text: &str) -> bool {
    text.len() >= 2
        && text.as_bytes()[0].is_ascii_alphabetic()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn is_storage_id(text: &str) -> bool {
    text.len() >= 2
        && text.as_bytes()[0].is_ascii_alphabetic()
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_tag(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-+.".contains(&b))
}

fn is_timezone(text: &str) -> bool {
    let area = text.split('/').next().unwrap_or_default();
    matches!(
        area,
        "host"
            | "UTC"
            | "Africa"
            | "America"
            | "Antarctica"
            | "Arctic"
            | "Asia"
            | "Atlantic"
            | "Australia"
            | "Europe"
            | "Indian"
            | "Pacific"
    )
}

fn is_size(text: &str) -> bool {
    let text = text.strip_prefix('+').unwrap_or(text);
    let number = text.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(text);
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match number.split_once('.') {
        Some((whole, rest)) => digits(whole) && digits(rest),
        None => digits(number),
    }
}

/// Checks `name@realm`.
pub(crate) fn check_userid(text: &str) -> Result<(), String> {
    if text.len() < 3 {
        return Err(format!("user name '{text}' is too short"));
    }
    let good = text.len() <= 64
        && text.rsplit_once('@').is_some_and(|(name, realm)| {
            !name.is_empty() && !name.contains([':', '/', ' ', '\t', '\n']) && is_realm(realm)
        });
    good.then_some(())
        .ok_or_else(|| format!("value '{text}' does not look like a valid user name"))
}
