//! What `/nginx.conf` is rendered for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::Config;
use super::reader::Reader;
use crate::nginx::{
    BadValue, ConfigPath, ErrorLog, Flavour, HeaderName, PublicName, Settings, StreamModule,
};

pub(super) fn nginx(r: &mut Reader<'_>, domain: &str) -> Settings {
    let certificate = format!("/etc/ssl/certs/{domain}.crt");
    let key = format!("/etc/ssl/private/{domain}.key");
    // A domain that cannot be is told where it is read.
    let own = |text: String| {
        text.parse()
            .unwrap_or_else(|_| "/".parse().expect("a path"))
    };
    let certificate = value(r, "NGINX_CERTIFICATE").unwrap_or_else(|| own(certificate));
    let key = value(r, "NGINX_CERTIFICATE_KEY").unwrap_or_else(|| own(key));
    let mut settings = Settings::debian(certificate, key);
    let shape = "addresses such as `0.0.0.0` or `::`";
    let listen: Vec<IpAddr> = r.list("NGINX_LISTEN", "", shape);
    if !listen.is_empty() {
        settings.stream_listen = listen;
    }
    let mut sockets = |name: &str, default: &str| -> Vec<SocketAddr> {
        let ports: Vec<u16> = r.list(name, default, "port numbers");
        let each = |ip: &IpAddr| {
            ports
                .iter()
                .map(|port| (*ip, *port).into())
                .collect::<Vec<_>>()
        };
        settings.stream_listen.iter().flat_map(each).collect()
    };
    settings.http_listen = sockets("NGINX_HTTP_PORTS", "80");
    settings.https_listen = sockets("NGINX_HTTPS_PORTS", "443");
    if let Some(pid) = value(r, "NGINX_PID") {
        settings.pid = pid;
    }
    if let Some(log) = value(r, "NGINX_ERROR_LOG") {
        settings.error_log = ErrorLog::File(log);
    }
    unless(r, "NGINX_ACCESS_LOG", "off", &mut settings.access_log);
    unless(r, "NGINX_USER", "none", &mut settings.user);
    unless(r, "NGINX_TEMP_DIR", "none", &mut settings.temp_dir);
    settings.include = Some("/etc/nginx/conf.d/*.conf".parse().expect("a path"));
    unless(r, "NGINX_INCLUDE", "none", &mut settings.include);
    match r.vars.get("NGINX_REMOVED_HEADERS") {
        None => {}
        Some("none") => settings.removed_headers.clear(),
        Some(text) => settings.removed_headers = headers(r, text),
    }
    if let Some(text) = r.vars.get("NGINX_VERSION") {
        match Flavour::of_version(text) {
            Some(flavour) => settings.flavour = flavour,
            None => r.problem(
                "NGINX_VERSION",
                format!("must be a version such as `1.22`; it is `{text}`"),
            ),
        }
    }
    settings.http3 = r.switch("NGINX_HTTP3", false);
    match r.vars.get("NGINX_STREAM_MODULE") {
        None => {}
        Some("builtin") => settings.stream_module = StreamModule::Builtin,
        Some("none") => settings.stream_module = StreamModule::Missing,
        Some(_) => {
            let file: Option<ConfigPath> = value(r, "NGINX_STREAM_MODULE");
            settings.stream_module = file.map_or(StreamModule::Missing, StreamModule::Dynamic);
        }
    }
    settings
}

/// Each name once; what cannot be removed is told.
fn headers(r: &mut Reader<'_>, text: &str) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        match word.parse::<HeaderName>() {
            Ok(name) => {
                let same = |other: &HeaderName| other.to_string().eq_ignore_ascii_case(word);
                if !names.iter().any(same) {
                    names.push(name);
                }
            }
            Err(problem) => {
                let problem = format!("NGINX_REMOVED_HEADERS: {problem}");
                r.problems.push(problem);
            }
        }
    }
    names
}

/// A value, where there is one that can be.
fn value<T: FromStr<Err = BadValue>>(r: &mut Reader<'_>, name: &str) -> Option<T> {
    match r.vars.get(name)?.parse() {
        Ok(value) => Some(value),
        Err(problem) => {
            r.problems.push(format!("{name}: {problem}"));
            None
        }
    }
}

/// A value that a word takes away.
fn unless<T: FromStr<Err = BadValue>>(
    r: &mut Reader<'_>,
    name: &str,
    word: &str,
    set: &mut Option<T>,
) {
    if r.vars.get(name) == Some(word) {
        *set = None;
    } else if let Some(value) = value(r, name) {
        *set = Some(value);
    }
}

/// The portal is served too when its public name is a name that nginx serves.
pub(super) fn portal(r: &mut Reader<'_>, config: &Config) -> Option<(PublicName, SocketAddr)> {
    let mut listen = config.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let shape = "an address and a port such as `192.0.2.7:3000`";
    let address = r.parse("NGINX_PORTAL", listen, shape);
    let name = config.public_url.host_str()?.parse().ok()?;
    config.secure().then_some((name, address))
}
