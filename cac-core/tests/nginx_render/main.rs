//! The configuration file itself: its text, its order, what is left out of it, and what nginx says to it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use cac_core::nginx::{
    ConfigPath, Flavour, Found, HttpOptions, HttpService, Protocol, PublicName, Service, Settings,
    StreamModule, StreamService, UserName, find_nginx, render, self_signed,
};

mod attack;

static NGINX: LazyLock<Found> = LazyLock::new(|| {
    find_nginx().expect("these tests need nginx: apt-get install nginx-light libnginx-mod-stream")
});

fn http(name: &str, upstream: &str) -> HttpService {
    HttpService {
        name: name.parse().unwrap(),
        upstream: upstream.parse().unwrap(),
        options: HttpOptions::default(),
    }
}

fn stream(protocol: Protocol, port: u16, upstream: &str) -> StreamService {
    StreamService {
        protocol,
        port,
        upstream: upstream.parse().unwrap(),
        tls: false,
    }
}

/// Settings that the installed nginx can check without any right.
fn checkable(dir: &Path) -> Settings {
    let certificate = self_signed(&["cac.localhost".parse().unwrap()], dir).unwrap();
    std::fs::create_dir_all(dir.join("temp")).unwrap();
    let mut settings = Settings::private(&NGINX, dir, &certificate).unwrap();
    settings.http_listen = vec!["127.0.0.1:18080".parse().unwrap()];
    settings.http3 = NGINX.http3;
    settings.https_listen = vec!["127.0.0.1:18443".parse().unwrap()];
    settings.stream_listen = vec!["127.0.0.1".parse().unwrap()];
    settings
}

/// `nginx -t`: what it says, as an error where it refuses.
fn check(dir: &Path, text: &str) -> Result<String, String> {
    let path = dir.join("checked.conf");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(&NGINX.binary);
    command.arg("-t").arg("-p").arg(dir).arg("-c").arg(&path);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}

fn small_set() -> (Settings, Vec<HttpService>, Vec<StreamService>) {
    let path = |text: &str| text.parse::<ConfigPath>().unwrap();
    let mut settings = Settings::debian(path("/etc/ssl/cac.pem"), path("/etc/ssl/cac.key"));
    let portal = "cac.example.org".parse().unwrap();
    settings.portal = Some((portal, "127.0.0.1:3000".parse().unwrap()));
    settings.include = Some(path("/etc/nginx/conf.d/*.conf"));
    let services = vec![
        http("web.example.org", "127.1.0.2:8080"),
        http("api.example.org", "[::1]:80"),
    ];
    let streams = vec![
        stream(Protocol::Udp, 10001, "127.1.0.2:53"),
        stream(Protocol::Tcp, 2222, "127.1.0.2:22"),
    ];
    (settings, services, streams)
}

fn compare_with_golden(name: &str, text: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nginx");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
    }
    let golden = std::fs::read_to_string(folder.join(name)).expect("UPDATE_GOLDEN=1 makes it");
    assert_eq!(
        text, golden,
        "{name}: look at the change, then run with UPDATE_GOLDEN=1"
    );
}

#[test]
fn a_small_set_on_each_flavour() {
    let (mut settings, services, streams) = small_set();
    compare_with_golden("debian.conf", &render(&settings, &services, &streams).text);
    settings.flavour = Flavour::V1_25;
    settings.http3 = true;
    settings.stream_module = StreamModule::Builtin;
    settings.https_listen = vec!["0.0.0.0:8443".parse().unwrap()];
    compare_with_golden("quic.conf", &render(&settings, &services, &streams).text);
}

/// Whatever options services have, in a file of 300 of them.
#[test]
fn a_large_set() {
    let (settings, mut services, mut streams) = small_set();
    for number in 0..200_u16 {
        let upstream = format!(
            "127.2.{}.{}:{}",
            number / 100,
            number % 100 + 1,
            3000 + number
        );
        let mut service = http(&format!("app{number}.example.org"), &upstream);
        service.options = HttpOptions {
            timeout: (number % 3 == 0).then_some(60 + u32::from(number)),
            max_body: (number % 5 == 0).then_some(1 + u32::from(number)),
            https: number % 7 == 0,
        };
        services.push(service);
    }
    for number in 0..100_u16 {
        let protocol = match number % 4 {
            0 => Protocol::Udp,
            _ => Protocol::Tcp,
        };
        let upstream = format!("127.3.0.{}:{}", number + 1, 5000 + number);
        let mut service = stream(protocol, 11000 + number, &upstream);
        service.tls = number % 4 == 1;
        streams.push(service);
    }
    compare_with_golden("large.conf", &render(&settings, &services, &streams).text);
}

#[test]
fn the_order_of_the_services_does_not_matter() {
    let (settings, mut services, mut streams) = small_set();
    services.push(http("web.example.org", "127.1.0.9:80"));
    streams.push(stream(Protocol::Tcp, 2222, "127.1.0.9:22"));
    let first = render(&settings, &services, &streams);
    services.reverse();
    streams.reverse();
    streams.push(streams[0].clone());
    assert_eq!(render(&settings, &services, &streams), first);
    assert!(first.etag.starts_with('"') && first.etag.len() == 66);
    services.pop();
    assert_ne!(render(&settings, &services, &streams).etag, first.etag);
}

#[test]
fn what_cannot_stand_beside_the_others_is_left_out_with_a_reason() {
    let (mut settings, mut services, mut streams) = small_set();
    services.push(http("web.example.org", "127.1.0.9:80"));
    services.push(http("cac.example.org", "127.1.0.9:80"));
    services.push(http("zero.example.org", "0.0.0.0:80"));
    services.push(http("port.example.org", "127.1.0.9:0"));
    for port in [0, 80, 443] {
        streams.push(stream(Protocol::Tcp, port, "127.1.0.9:22"));
    }
    streams.push(stream(Protocol::Udp, 10001, "127.1.0.9:53"));
    streams.push(stream(Protocol::Udp, 2222, "127.1.0.9:53"));
    let rendered = render(&settings, &services, &streams);
    let left_out: BTreeMap<String, &str> = rendered
        .left_out
        .iter()
        .map(|left| {
            let what = match &left.service {
                Service::Http(s) => format!("{} {}", s.name, s.upstream),
                Service::Stream(s) => format!("{}/{} {}", s.port, s.protocol, s.upstream),
            };
            (what, left.reason.as_str())
        })
        .collect();
    #[rustfmt::skip]
    let expected = [
        ("0/tcp 127.1.0.9:22", "Port 0 is not a port."),
        ("10001/udp 127.1.0.9:53", "Port 10001/udp already leads to 127.1.0.2:53."),
        ("443/tcp 127.1.0.9:22", "Port 443 is nginx' own port for web pages."),
        ("80/tcp 127.1.0.9:22", "Port 80 is nginx' own port for web pages."),
        ("cac.example.org 127.1.0.9:80", "cac.example.org is the name of the portal."),
        ("port.example.org 127.1.0.9:0", "127.1.0.9:0 is not an address that a container can have."),
        ("web.example.org 127.1.0.9:80", "web.example.org already leads to 127.1.0.2:8080."),
        ("zero.example.org 0.0.0.0:80", "0.0.0.0:80 is not an address that a container can have."),
    ];
    assert_eq!(
        left_out,
        BTreeMap::from(expected.map(|(what, why)| (what.to_owned(), why)))
    );

    settings.stream_module = StreamModule::Missing;
    let rendered = render(&settings, &services, &streams);
    assert!(!rendered.text.contains("\nstream {") && !rendered.text.contains("load_module"));
    let install = |reason: &str| reason.contains("libnginx-mod-stream");
    assert!(rendered.left_out.iter().any(|left| install(&left.reason)));
}

#[test]
fn nginx_takes_every_shape_of_settings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let path = |below: &str| ConfigPath::try_from(dir.join(below).as_path()).unwrap();
    let listens = |port: u16| {
        let v4 = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), port);
        vec![v4, SocketAddr::new("::1".parse().unwrap(), port), v4]
    };
    let (portal, services, streams) = small_set();
    for shape in 0..64_u32 {
        let on = |bit: u32| shape & (1 << bit) != 0;
        let mut settings = checkable(dir);
        settings.http_listen = if on(0) { listens(18080) } else { Vec::new() };
        settings.https_listen = if on(1) { listens(18443) } else { Vec::new() };
        if on(2) {
            settings.stream_listen.clear();
        }
        settings.access_log = on(3).then(|| path("access.log"));
        settings.include = on(4).then(|| path("conf.d/*.conf"));
        settings.portal = portal.portal.clone().filter(|_| on(5));
        let text = render(&settings, &services, &streams).text;
        let said = check(dir, &text).unwrap_or_else(|said| panic!("{said}\n{text}"));
        assert!(!said.contains("[warn]"), "{said}");
    }
}

#[test]
fn nginx_takes_ten_thousand_long_names_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let settings = checkable(dir.path());
    for label in [40_usize, 63] {
        let longest = "x".repeat(label);
        let services: Vec<_> = (0..10_000_u32)
            .map(|n| {
                let name = format!("{longest}.container-{n:05}.a-rather-long-name.example.org");
                let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + n);
                http(&name, &format!("{ip}:80"))
            })
            .collect();
        let rendered = render(&settings, &services, &[]);
        assert!(rendered.left_out.is_empty());
        let said = check(dir.path(), &rendered.text).unwrap();
        assert!(!said.contains("[warn]"), "{said}");
    }
}

#[test]
fn the_longest_name_fits_alone() {
    let dir = tempfile::tempdir().unwrap();
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(name.len(), 253);
    let shared = http(&name, "127.1.0.1:80");
    let mut own = shared.clone();
    own.options.https = true;
    for service in [shared, own] {
        let said = check(
            dir.path(),
            &render(&checkable(dir.path()), &[service], &[]).text,
        );
        let said = said.unwrap();
        assert!(!said.contains("[warn]"), "{said}");
    }
}

#[test]
#[rustfmt::skip]
fn names_that_nginx_or_dns_would_read_otherwise_are_refused() {
    for name in ["a.b", "web.example.org", "xn--bcher-kva.example", "1.example.org", "a-b.c-d.e2"] {
        assert!(name.parse::<PublicName>().is_ok(), "{name}");
    }
    let bad = [
        "", ".", "default", "localhost", "a..b", ".a.b", "a.b.", "*.a.b", "A.b", "a_b.c", "-a.b", "a-.b", "a.b-",
        "a b.c", "a.b;", "a.b\n", "a.b{", "~a.b", "ä.org", "127.0.0.1", "::1", "a.b:80", "a.b/", "$host.b", "a.1",
    ];
    for name in bad {
        let refused = name.parse::<PublicName>().expect_err(name).to_string();
        assert!(refused.contains("is not a public name: ") && refused.ends_with('.'), "{refused}");
    }
    assert!(format!("{}.b", "a".repeat(64)).parse::<PublicName>().is_err());
    assert!(["aa."; 90].concat().parse::<PublicName>().is_err());
}

#[test]
#[rustfmt::skip]
fn paths_that_nginx_would_read_otherwise_are_refused() {
    for path in ["/etc/ssl/a.pem", "tls/a.pem", "/etc/nginx/conf.d/*.conf", "/home/é/a:b.pem", "./off"] {
        assert!(path.parse::<ConfigPath>().is_ok(), "{path}");
    }
    let bad = [
        "", "/a b", "/a;b", "/a\nb", "/a\tb", "/a{b", "/a}b", "/$a", "/a\\b", "/a\"b", "/a'b", "/a\0b", "#a", "off",
        "stderr", "syslog:server=127.0.0.1", "engine:a:b", "/a\u{a0}b", "/a\u{2028}b",
    ];
    for path in bad {
        assert!(path.parse::<ConfigPath>().is_err(), "{path:?}");
    }
    for user in ["www-data", "_nginx", "nobody"] {
        assert!(user.parse::<UserName>().is_ok());
    }
    for user in ["", "a b", "a;", "Root", "-a", "0a"] {
        assert!(user.parse::<UserName>().is_err(), "{user:?}");
    }
}
