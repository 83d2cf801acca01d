//! What is refused, and what belongs to whom, without a database.

use super::*;

fn known(networks: &[&str], endpoints: &[(Part, &str, u16)]) -> Infrastructure {
    let nets = |texts: &[&str]| {
        texts
            .iter()
            .map(|net| net.parse().expect("a network"))
            .collect()
    };
    Infrastructure {
        networks: nets(networks),
        except: nets(&["192.0.2.128/25"]),
        endpoints: endpoints
            .iter()
            .map(|(part, ip, port)| Endpoint {
                part: *part,
                ip: ip.parse().expect("an address"),
                port: Some(*port).filter(|port| *port > 0),
            })
            .collect(),
    }
}

#[test]
fn a_real_address_of_ours_is_refused_whole_and_loopback_by_port() {
    let ours = [
        (Part::Node, "192.0.2.1", 8006),
        (Part::Machine, "192.0.2.2", 0),
        (Part::Portal, "127.0.0.1", 3000),
        (Part::Proxy, "0.0.0.0", 8443),
        (Part::Proxy, "127.0.0.9", 0),
    ];
    let known = known(&["192.0.2.0/24", "127.0.0.0/8"], &ours);
    let permit = |ip: &str, port| known.permit(ip.parse().expect("an address"), port).is_ok();
    for (ip, port, good) in [
        ("192.0.2.9", None, true),
        ("192.0.2.1", None, false),
        ("192.0.2.1", Some(22), false),
        ("192.0.2.2", Some(80), false),
        ("192.0.2.200", None, false),
        ("198.51.100.1", None, false),
        ("127.0.0.1", None, true),
        ("127.0.0.1", Some(3000), false),
        ("::ffff:127.0.0.1", Some(3000), false),
        ("127.0.0.1", Some(3001), true),
        ("127.80.0.5", Some(3000), true),
        // What listens on every address is reached by all of loopback.
        ("127.80.0.5", Some(8443), false),
        ("127.0.0.9", Some(80), true),
        ("0.0.0.0", None, false),
    ] {
        assert_eq!(permit(ip, port), good, "{ip} {port:?}");
    }
}

#[test]
fn loopback_and_link_local_count_only_where_they_are_listed_themselves() {
    let permit = |networks: &[&str], ip: &str| {
        known(networks, &[])
            .permit(ip.parse().expect("an address"), None)
            .is_ok()
    };
    assert!(permit(&["0.0.0.0/0"], "198.51.100.1"));
    for ip in [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        assert!(!permit(&["0.0.0.0/0", "::/0"], ip), "{ip}");
    }
    for ip in ["::1", "fe80::1", "::", "ff02::1", "::ffff:169.254.169.254"] {
        assert!(!permit(&["0.0.0.0/0", "::/0"], ip), "{ip}");
    }
    assert!(permit(&["127.0.0.0/8"], "127.1.2.3"));
    assert!(permit(&["169.254.0.0/16"], "169.254.3.4"));
    assert!(permit(&["fe80::/10"], "fe80::1"));
}

#[test]
fn hosts_are_found_in_urls_of_every_scheme() {
    let of = |url: &str| Place::of(Part::Database, url, 3306).map(|place| (place.host, place.port));
    let place = |host: &str, port| Some((host.to_owned(), Some(port)));
    assert_eq!(
        of("mariadb://u:p%40@db.example.org/x"),
        place("db.example.org", 3306)
    );
    assert_eq!(
        of("postgres://u@[2001:db8::1]:5432/x"),
        place("2001:db8::1", 5432)
    );
    assert_eq!(of("mysql://u:p@192.0.2.1:3307/x"), place("192.0.2.1", 3307));
    assert_eq!(
        of("https://pve.example.org:8006"),
        place("pve.example.org", 8006)
    );
    assert_eq!(of("sqlite:/var/lib/cac/cac.db"), None);
}
