//! Typed data to text: what stands in the file, in which order, and what is left out of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use minijinja::value::{Object, Serde, ValueKind};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::value::breaks_out;
use super::{
    ErrorLog, Flavour, HttpOptions, HttpService, LeftOut, Protocol, PublicName, Rendered, Service,
    Settings, StreamModule, StreamService,
};
use crate::one_time_link;

/// The entity tag of a file: its quoted SHA-256 in hexadecimal.
pub fn etag(text: &str) -> String {
    format!("\"{:x}\"", Sha256::digest(text.as_bytes()))
}

/// The file for these services, whatever order they come in. Of two services with one name or port the one with the
/// lower address stands; the other is in [`Rendered::left_out`].
pub fn render(settings: &Settings, http: &[HttpService], streams: &[StreamService]) -> Rendered {
    let mut left_out = Vec::new();
    let http = choose_http(settings, http, &mut left_out);
    let streams = choose_streams(settings, streams, &mut left_out);
    let file = File::new(settings, &http, !streams.is_empty());
    let (names, ports) = (Lines::names(&http), Lines::streams(settings, &streams));
    let text = write(&file, names, ports);
    let etag = etag(&text);
    Rendered {
        text,
        etag,
        left_out,
    }
}

/// Why a service cannot stand in a file with these settings, whatever else stands there; a sentence fit for its owner.
pub fn unfit(settings: &Settings, service: &Service) -> Option<String> {
    match service {
        Service::Http(service) => unfit_http(settings, service),
        Service::Stream(service) => unfit_stream(settings, service),
    }
}

fn unfit_http(settings: &Settings, service: &HttpService) -> Option<String> {
    let portal = settings.portal.as_ref();
    if portal.is_some_and(|(name, _)| *name == service.name) {
        return Some(format!("{} is the name of the portal.", service.name));
    }
    unreachable_upstream(service.upstream)
}

fn unfit_stream(settings: &Settings, service: &StreamService) -> Option<String> {
    let port = service.port;
    let mut web = settings.http_listen.iter().chain(&settings.https_listen);
    if settings.stream_module == StreamModule::Missing {
        Some("nginx' stream module is not installed (libnginx-mod-stream on Debian).".to_owned())
    } else if port == 0 {
        Some("Port 0 is not a port.".to_owned())
    } else if web.any(|listen| listen.port() == port) {
        Some(format!("Port {port} is nginx' own port for web pages."))
    } else if settings.stream_listen.is_empty() {
        Some("No address is set on which TCP and UDP services listen.".to_owned())
    } else {
        unreachable_upstream(service.upstream)
    }
}

fn choose_http<'a>(
    settings: &'a Settings,
    services: &'a [HttpService],
    left_out: &mut Vec<LeftOut>,
) -> Web<'a> {
    let mut sorted: Vec<&HttpService> = services.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut chosen: Web = Vec::with_capacity(sorted.len() + 1);
    for service in sorted {
        let taken = chosen
            .last()
            .filter(|(name, _)| *name == &service.name)
            .map(|(name, (other, _))| format!("{name} already leads to {other}."));
        match unfit_http(settings, service).or(taken) {
            None => chosen.push((&service.name, (service.upstream, service.options))),
            Some(reason) => left_out.push(LeftOut {
                service: Service::Http(service.clone()),
                reason,
            }),
        }
    }
    if let Some((name, upstream)) = &settings.portal {
        let at = chosen.partition_point(|(other, _)| *other < name);
        chosen.insert(at, (name, (*upstream, HttpOptions::default())));
    }
    chosen
}

fn choose_streams(
    settings: &Settings,
    services: &[StreamService],
    left_out: &mut Vec<LeftOut>,
) -> Ports {
    let mut sorted: Vec<&StreamService> = services.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut chosen: Ports = Vec::with_capacity(sorted.len());
    for service in sorted {
        let (protocol, port) = (service.protocol, service.port);
        let taken = chosen
            .last()
            .filter(|(key, _)| *key == (protocol, port))
            .map(|(_, (other, _))| format!("Port {port}/{protocol} already leads to {other}."));
        match unfit_stream(settings, service).or(taken) {
            None => {
                let tls = service.tls && protocol == Protocol::Tcp;
                chosen.push(((protocol, port), (service.upstream, tls)));
            }
            Some(reason) => left_out.push(LeftOut {
                service: Service::Stream(service.clone()),
                reason,
            }),
        }
    }
    chosen
}

/// nginx refuses port 0, and reads 0.0.0.0 as itself.
fn unreachable_upstream(upstream: SocketAddr) -> Option<String> {
    let ip = upstream.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let bad = upstream.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast;
    bad.then(|| format!("{upstream} is not an address that a container can have."))
}

/// What the template sees; every text in it comes out of a checked type.
#[derive(Serialize)]
struct File {
    stream_module: Option<String>,
    user: Option<String>,
    worker_shutdown: u64,
    open_files: Option<u32>,
    pid: String,
    error_log: String,
    worker_connections: u32,
    access_log: Option<String>,
    temp_dir: Option<String>,
    /// Port to add to a name, where it is not 443.
    https_suffix: Option<u16>,
    map_hash_max_size: usize,
    map_hash_bucket_size: usize,
    server_names_hash_max_size: usize,
    server_names_hash_bucket_size: usize,
    /// Those with settings of their own.
    own: Vec<Own>,
    /// It has a block of its own, and the pages that tell why a container does not answer.
    portal: Option<Own>,
    /// What the paths of links that work once begin with, at the portal.
    links: [&'static str; 2],
    removed_headers: Vec<String>,
    servers: Vec<Server>,
    http2_directive: bool,
    http3: bool,
    certificate: String,
    certificate_key: String,
    include: Option<String>,
}

#[derive(Serialize)]
struct Own {
    name: String,
    upstream: String,
    https: bool,
    max_body: Option<u32>,
    timeout: Option<u32>,
}

#[derive(Serialize)]
struct Server {
    listen: Vec<String>,
    tls: bool,
    redirect: bool,
}

impl File {
    fn new(settings: &Settings, http: &Web<'_>, streams: bool) -> Self {
        let text = |path: &super::ConfigPath| path.to_string();
        let (map_hash_max_size, map_hash_bucket_size) =
            map_hash(http.iter().map(|(name, _)| *name));
        let has_own = |options: &HttpOptions| *options != HttpOptions::default();
        let own = http.iter().filter(|(_, (_, options))| has_own(options));
        let own_names = own.clone().map(|(name, _)| *name);
        let own_names = own_names.chain(settings.portal.as_ref().map(|(name, _)| name));
        let (server_names_hash_max_size, server_names_hash_bucket_size) = map_hash(own_names);
        let first = settings
            .https_listen
            .iter()
            .find(|listen| listen.port() != 0);
        let stream_module = match &settings.stream_module {
            StreamModule::Dynamic(path) if streams => Some(text(path)),
            _ => None,
        };
        Self {
            stream_module,
            user: settings.user.as_ref().map(ToString::to_string),
            worker_shutdown: settings.worker_shutdown.as_secs().max(1),
            open_files: settings.open_files,
            pid: text(&settings.pid),
            error_log: match &settings.error_log {
                ErrorLog::Stderr => "stderr".to_owned(),
                ErrorLog::File(path) => text(path),
            },
            worker_connections: settings.worker_connections.max(16),
            access_log: settings.access_log.as_ref().map(text),
            temp_dir: settings.temp_dir.as_ref().map(text),
            https_suffix: first.map(SocketAddr::port).filter(|&port| port != 443),
            map_hash_max_size,
            map_hash_bucket_size,
            server_names_hash_max_size,
            server_names_hash_bucket_size,
            own: own
                .map(|(name, (upstream, options))| Own::new(name, *upstream, *options))
                .collect(),
            portal: settings
                .portal
                .as_ref()
                .map(|(name, upstream)| Own::new(name, *upstream, HttpOptions::default())),
            links: one_time_link::PREFIXES,
            removed_headers: settings
                .removed_headers
                .iter()
                .map(ToString::to_string)
                .collect(),
            servers: servers(settings),
            http2_directive: settings.flavour == Flavour::V1_25,
            http3: settings.http3 && settings.flavour == Flavour::V1_25,
            certificate: text(&settings.certificate),
            certificate_key: text(&settings.certificate_key),
            include: settings.include.as_ref().map(text),
        }
    }
}

impl Own {
    fn new(name: &PublicName, upstream: SocketAddr, options: HttpOptions) -> Self {
        Self {
            name: name.to_string(),
            upstream: literal(upstream),
            https: options.https,
            // nginx counts bytes in 63 bits and milliseconds in 32; 0 would mean no limit.
            max_body: options.max_body.map(|mebibytes| mebibytes.max(1)),
            timeout: options.timeout.map(|seconds| seconds.clamp(1, 2_000_000)),
        }
    }
}

/// What is chosen to stand in the file, in its order.
type Web<'a> = Vec<(&'a PublicName, (SocketAddr, HttpOptions))>;
type Ports = Vec<((Protocol, u16), (SocketAddr, bool))>;

/// Thousands of lines, which a template would take its time for. Their words are looked at like all others.
#[derive(Debug)]
struct Lines(String);

impl Object for Lines {}

impl Lines {
    fn word(&mut self, word: &str) {
        // The common case first, which is quickly seen.
        let common = |b: u8| b.is_ascii_alphanumeric() || b".:-[]".contains(&b);
        let good = word.bytes().all(common) || !word.contains(breaks_out);
        assert!(good && !word.is_empty(), "checked types render");
        self.0.push_str(word);
    }

    /// As [`literal`], without the machinery of `fmt`, which takes most of the time of a large file.
    fn address(&mut self, address: SocketAddr) {
        let mut number = itoa::Buffer::new();
        match address.ip() {
            IpAddr::V4(ip) => {
                let [first, rest @ ..] = ip.octets();
                self.0.push_str(number.format(first));
                for octet in rest {
                    self.0.push('.');
                    self.0.push_str(number.format(octet));
                }
            }
            IpAddr::V6(ip) => {
                let _ = write!(self.0, "[{ip}]");
            }
        }
        self.0.push(':');
        self.0.push_str(number.format(address.port()));
    }

    /// The entries of the map from names to addresses.
    fn names(http: &Web<'_>) -> Self {
        let mut lines = Self(String::with_capacity(http.len() * 64));
        for (name, (upstream, _)) in http {
            lines.0.push_str("\n        ");
            lines.word(name.as_str());
            lines.0.push(' ');
            lines.address(*upstream);
            lines.0.push(';');
        }
        lines
    }

    /// The servers of TCP and UDP ports.
    fn streams(settings: &Settings, streams: &Ports) -> Self {
        let listen: BTreeSet<_> = settings.stream_listen.iter().collect();
        let mut lines = Self(String::with_capacity(streams.len() * 200));
        for ((protocol, port), (upstream, tls)) in streams {
            lines.0.push_str("\n\n    server {");
            for ip in &listen {
                lines.0.push_str("\n        listen ");
                lines.address(SocketAddr::new(**ip, *port));
                lines.0.push_str(match (protocol, tls) {
                    (Protocol::Udp, _) => " udp;",
                    (Protocol::Tcp, false) => " so_keepalive=on;",
                    (Protocol::Tcp, true) => " ssl so_keepalive=on;",
                });
            }
            if *tls {
                lines.0.push_str("\n        ssl_certificate ");
                lines.word(settings.certificate.as_str());
                lines.0.push_str(";\n        ssl_certificate_key ");
                lines.word(settings.certificate_key.as_str());
                lines.0.push_str(";\n        ssl_protocols TLSv1.2 TLSv1.3;\n        ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;");
            }
            lines.0.push_str("\n        proxy_pass ");
            lines.address(*upstream);
            lines.0.push_str(match protocol {
                Protocol::Udp => ";\n        proxy_timeout 60s;\n    }",
                Protocol::Tcp => ";\n        proxy_timeout 12h;\n    }",
            });
        }
        lines
    }
}

fn servers(settings: &Settings) -> Vec<Server> {
    let usable = |listen: &&SocketAddr| listen.port() != 0;
    let https: BTreeSet<_> = settings
        .https_listen
        .iter()
        .filter(usable)
        .map(|&a| literal(a))
        .collect();
    let http: BTreeSet<_> = settings
        .http_listen
        .iter()
        .filter(usable)
        .map(|&a| literal(a))
        .collect();
    let redirect = !https.is_empty();
    let http = Server {
        listen: http.difference(&https).cloned().collect(),
        tls: false,
        redirect,
    };
    let https = Server {
        listen: https.into_iter().collect(),
        tls: true,
        redirect: false,
    };
    [http, https]
        .into_iter()
        .filter(|server| !server.listen.is_empty())
        .collect()
}

/// An address as nginx reads it: it knows no IPv6 zone.
fn literal(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => format!("{ip}:{}", address.port()),
        IpAddr::V6(ip) => format!("[{ip}]:{}", address.port()),
    }
}

/// `map_hash_max_size` and `map_hash_bucket_size`, or those for names of servers, that hold these names without a warning and without a long search:
/// twice as many buckets as names, each with room for eight of the longest
/// (an entry is a pointer and the name with its length, aligned; `NGX_HASH_ELT_SIZE` in `ngx_hash.c`).
fn map_hash<'a>(names: impl Iterator<Item = &'a PublicName>) -> (usize, usize) {
    let (count, longest) = names.fold((0, 0), |(count, longest): (usize, usize), name| {
        (count + 1, longest.max(name.as_str().len()))
    });
    let entry = 8 + (longest + 2).next_multiple_of(8);
    let bucket = (entry * 8 + 8).next_multiple_of(64).max(256);
    ((count * 2).next_power_of_two().max(2048), bucket)
}

static TEMPLATE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(plain_words_only);
    environment
        .add_template("nginx.conf", include_str!("../../templates/nginx.conf"))
        .and_then(|()| {
            let text = include_str!("../../templates/location.conf");
            environment.add_template("location.conf", text)
        })
        .and_then(|()| {
            let text = include_str!("../../templates/headers.conf");
            environment.add_template("headers.conf", text)
        })
        .and_then(|()| {
            environment.add_template("proxy.conf", include_str!("../../templates/proxy.conf"))
        })
        .and_then(|()| {
            environment.add_template("tls.conf", include_str!("../../templates/tls.conf"))
        })
        .expect("the embedded templates are well formed");
    environment
});

fn write(file: &File, names: Lines, streams: Lines) -> String {
    let template = TEMPLATE.get_template("nginx.conf").expect("added above");
    // Every text comes out of a type that refuses what the formatter refuses; should one slip through, no file at
    // all is better than a file with somebody's directive in it.
    let mut text = template
        .render(minijinja::context! {
            names => (!names.0.is_empty()).then(|| Value::from_object(names)),
            streams => (!streams.0.is_empty()).then(|| Value::from_object(streams)),
            ..Value::from(Serde(file))
        })
        .expect("checked types render");
    text.push('\n');
    text
}

/// The last line of defence: whatever is put into the file is a number or one bare word.
fn plain_words_only(output: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    let refuse = || {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("{value:?} cannot stand in nginx.conf"),
        )
    };
    if let Some(lines) = value.downcast_object_ref::<Lines>() {
        return output.write_str(&lines.0).map_err(Error::from);
    }
    match (value.kind(), value.as_str()) {
        (ValueKind::Number, _) => write!(output, "{value}").map_err(Error::from),
        (_, Some(word)) if !word.is_empty() && !word.contains(breaks_out) => {
            output.write_str(word).map_err(Error::from)
        }
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formatter_refuses_what_the_types_should_have_refused() {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(plain_words_only);
        let render =
            |value: &str| environment.render_str("a {{ v }};", minijinja::context! { v => value });
        assert_eq!(render("b.example.org").unwrap(), "a b.example.org;");
        for bad in [
            "", "a b", "a;", "a\n", "a{", "a}", "$a", "a\"", "a'", "a\\", "#", "a\0", "a\u{a0}b",
        ] {
            assert!(render(bad).is_err(), "{bad:?}");
        }
        assert!(environment.render_str("a {{ missing }};", ()).is_err());
    }
}
