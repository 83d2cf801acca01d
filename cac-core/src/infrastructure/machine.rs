//! The addresses of this machine's own network interfaces, read from the kernel's tables. Loopback and link-local ones are left out:
//! every machine has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn addresses() -> Vec<IpAddr> {
    let table = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let v4 = ipv4(&table("/proc/net/fib_trie")).into_iter();
    let v4 = v4
        .filter(|ip| !ip.is_loopback() && !ip.is_link_local())
        .map(IpAddr::V4);
    let v6 = ipv6(&table("/proc/net/if_inet6")).into_iter();
    let v6 = v6
        .filter(|ip| !ip.is_loopback() && !ip.is_unicast_link_local())
        .map(IpAddr::V6);
    v4.chain(v6).collect()
}

/// Leaves of the routing trie that are this host's own. Each is listed in two tables.
fn ipv4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut leaf = None;
    for line in trie.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            leaf = address.trim().parse().ok();
        } else if line.trim_end().ends_with("/32 host LOCAL")
            && let Some(address) = leaf
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// The first field of each line is an address, 32 hexadecimal digits.
fn ipv6(table: &str) -> Vec<Ipv6Addr> {
    let digits = table
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    digits
        .filter_map(|digits| u128::from_str_radix(digits, 16).ok())
        .map(Ipv6Addr::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     +-- 192.0.2.0/24 2 0 2\n        |-- 192.0.2.0\n           /24 link UNICAST\n        \
                    |-- 192.0.2.7\n           /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\n     \
                    |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n        |-- 192.0.2.7\n           /32 host LOCAL\n";
        assert_eq!(
            ipv4(trie),
            [Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::LOCALHOST]
        );
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n20010db8000000000000000000000007 02 40 00 80     eth0\n";
        assert_eq!(
            ipv6(table)[1],
            "2001:db8::7".parse::<Ipv6Addr>().expect("an address")
        );
        // This very machine has loopback, and it is left out.
        assert!(
            !ipv4(&std::fs::read_to_string("/proc/net/fib_trie").expect("a kernel's table"))
                .is_empty()
        );
        assert!(addresses().iter().all(|ip| !ip.is_loopback()));
    }
}
