//! Who sent a request and to whom: host names we answer for, requests of other sites, addresses behind proxies.
//! Not who is signed in (`auth.rs`).

use std::net::{IpAddr, SocketAddr};

use cac_core::infrastructure::{self, is_single};
use cac_core::{Config, Core, container, one_time_link};
use ipnet::IpNet;
use poem::http::header::{HOST, ORIGIN, REFERER};
use poem::http::{HeaderMap, Method, StatusCode};
use poem::{Addr, Request};
use url::{Host, Url};

use crate::error::{ApiError, Result};

/// Headers by which proxies say for whom they ask.
const FORWARDING: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
];

/// Where a request really comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub ip: Option<IpAddr>,
    /// Whether `ip` is proved, so that it may count as a local machine.
    sure: bool,
    /// Whether the peer is a proxy that we believe.
    trusted: bool,
}

impl Source {
    /// Whether this is the machine itself; a request that a proxy passed on for another never is.
    pub(crate) fn is_here(&self) -> bool {
        self.sure && self.ip.is_some_and(|ip| ip.is_loopback())
    }

    /// Whether its address is proved and in one of the networks; whether it counts as a machine of theirs is [`is_machine`]'s.
    fn is_in(&self, networks: &[IpNet]) -> bool {
        self.sure
            && self
                .ip
                .is_some_and(|ip| networks.iter().any(|net| net.contains(&ip)))
    }
}

/// Whether the request comes from a machine of this allow list.
///
/// A request that arrives through a container's published service must never count as one. Three walls hold that together:
///
/// 1. The portal, the proxies and their machines are never an upstream (`cac_core::infrastructure`), neither when an address is stored nor
///    when routes are made. It is the only wall for loopback, where a proxy's bytes and `curl` on the machine itself look the same, and for a
///    service that leads to nginx itself, which would add the client's own words to `X-Forwarded-For`.
/// 2. A reverse proxy passes TCP services on without a header, so what comes from a proxy or a machine of ours counts only where the list
///    names that very address, as the machine of a proxy that fetches `/nginx.conf` by curl and cron is named.
/// 3. In a container root may relay what visitors send, and take a second address of its network. So an address that a container has or
///    could have (in `CONTAINER_NETWORKS` and not of the installation itself) counts only where the list names it.
///
/// `sure` makes a request with a forwarding header from an unknown peer nobody's.
pub(crate) async fn is_machine(core: &Core, source: Source, networks: &[IpNet]) -> Result<bool> {
    let Some(ip) = source.ip.filter(|_| source.is_in(networks)) else {
        return Ok(false);
    };
    if networks
        .iter()
        .any(|net| is_single(net) && net.contains(&ip))
    {
        return Ok(true);
    }
    let is_proxy = core
        .config
        .trusted_proxies
        .iter()
        .any(|net| net.contains(&ip));
    let known = infrastructure::known(core).await?;
    let machine = Machine {
        ip,
        is_container: container::has_address(core, ip).await?,
        may_be_container: known.permit(ip, None).is_ok(),
        may_relay: is_proxy || known.may_relay(ip),
    };
    Ok(machine.counts())
}

/// A machine of a network that an allow list names as a whole.
struct Machine {
    ip: IpAddr,
    is_container: bool,
    /// Whether the next container may get this address.
    may_be_container: bool,
    /// Whether it passes on what strangers send.
    may_relay: bool,
}

impl Machine {
    fn counts(&self) -> bool {
        // No container of a real network has a loopback address, and in a demo all of them are on this machine.
        !self.is_container && (self.ip.is_loopback() || !(self.may_relay || self.may_be_container))
    }
}

/// Follows `X-Forwarded-For` from right to left as long as trusted proxies speak.
pub(crate) fn source(config: &Config, request: &Request) -> Source {
    let peer = match &request.remote_addr().0 {
        Addr::SocketAddr(address) => Some(address.ip().to_canonical()),
        _ => None,
    };
    locate(&config.trusted_proxies, peer, request.headers())
}

fn locate(proxies: &[IpNet], peer: Option<IpAddr>, headers: &HeaderMap) -> Source {
    let is_proxy = |ip: &IpAddr| proxies.iter().any(|net| net.contains(ip));
    let forwarded = FORWARDING.iter().any(|name| headers.contains_key(*name));
    let trusted = peer.as_ref().is_some_and(is_proxy);
    if !forwarded || !trusted {
        return Source {
            ip: peer,
            sure: !forwarded,
            trusted,
        };
    }
    let chain = headers.get_all("x-forwarded-for").iter();
    let chain: Vec<&str> = chain
        .flat_map(|v| v.to_str().unwrap_or("?").split(','))
        .collect();
    let mut ip = None;
    for hop in chain.into_iter().rev() {
        ip = address(hop.trim());
        if !ip.as_ref().is_some_and(is_proxy) {
            break;
        }
    }
    Source {
        ip: ip.or(peer),
        sure: ip.is_some(),
        trusted,
    }
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
        .map(|ip: IpAddr| ip.to_canonical())
}

/// Refuses a request to a name that is not ours (421) or from a page of another site (403).
pub(crate) fn check(config: &Config, request: &Request, source: Source) -> Result<()> {
    let authority = authority(request, source)?;
    let Some((host, port)) = split(&authority).filter(|(host, _)| accepted(config, host)) else {
        return Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "This portal does not answer for that host name. Use {}, or add the name to CAC_HOSTS.",
                config.public_url
            ),
        ));
    };
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let link = one_time_link::leads_to(request.uri().path());
    if safe
        || link && hides_its_origin(request.headers())
        || same_origin(config, request.headers(), &host, port)
    {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "A page of another site sent this request, so it was refused. Do it on this site's own pages.",
    ))
}

/// `Host`, or what a trusted proxy says it was.
fn authority(request: &Request, source: Source) -> Result<String> {
    let headers = request.headers();
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "Send one Host header.",
        ));
    }
    let forwarded = headers.get("x-forwarded-host").filter(|_| source.trusted);
    let forwarded = forwarded
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.rsplit(',').next());
    let named = request.original_uri().authority().map(|a| a.as_str());
    let host = headers.get(HOST).and_then(|v| v.to_str().ok());
    Ok(forwarded
        .or(named)
        .or(host)
        .unwrap_or_default()
        .trim()
        .to_owned())
}

/// Host in lower case, and the port where one is written.
fn split(authority: &str) -> Option<(Host<String>, Option<u16>)> {
    if authority.is_empty() || authority.contains(['/', '@', '?', '#', '\\']) {
        return None;
    }
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    Some((Host::parse(name).ok()?, port))
}

fn accepted(config: &Config, host: &Host<String>) -> bool {
    let Host::Domain(name) = host else {
        return true;
    };
    name == "localhost"
        || config.public_url.host_str() == Some(name.as_str())
        || config
            .hosts
            .iter()
            .any(|other| other.eq_ignore_ascii_case(name))
}

/// Whether a form of a page with `Referrer-Policy: no-referrer` sent this: browsers then say `Origin: null`. That is accepted for
/// one-time links alone, whose secret path no other site can know; a browser that says the page was another site's is believed.
fn hides_its_origin(headers: &HeaderMap) -> bool {
    let hidden = headers.get(ORIGIN).is_some_and(|origin| origin == "null");
    let site = headers.get("sec-fetch-site");
    hidden && site.is_none_or(|site| site == "same-origin")
}

/// Browsers name the sending page in `Origin`, or at least its relation in `Sec-Fetch-Site`; scripts send neither.
fn same_origin(
    config: &Config,
    headers: &HeaderMap,
    host: &Host<String>,
    port: Option<u16>,
) -> bool {
    let text = |value: &poem::http::HeaderValue| value.to_str().unwrap_or("?").to_owned();
    if let Some(origin) = headers
        .get(ORIGIN)
        .or_else(|| headers.get(REFERER))
        .map(text)
    {
        let Ok(origin) = Url::parse(&origin) else {
            return false;
        };
        let default = if origin.scheme() == "https" { 443 } else { 80 };
        let ours = origin.host().map(|h| h.to_owned()).as_ref() == Some(host)
            && origin.port_or_known_default() == Some(port.unwrap_or(default));
        // The name that is reached over TLS has no business with a page that was not.
        let public = config.public_url.host().map(|h| h.to_owned()).as_ref() == Some(host);
        let downgraded = public && config.secure() && origin.scheme() != "https";
        return ours && !downgraded && matches!(origin.scheme(), "http" | "https");
    }
    headers
        .get("sec-fetch-site")
        .is_none_or(|site| site == "same-origin" || site == "none")
}

/// A path of this site as a whole address, for `Location` and links that leave the browser.
pub(crate) fn absolute(config: &Config, path: &str) -> String {
    config
        .public_url
        .join(path)
        .map_or_else(|_| path.to_owned(), String::from)
}

/// `target` if it is a path of this site, else `/`.
pub(crate) fn local_path(config: &Config, target: Option<&str>) -> String {
    let Some(target) = target.filter(|t| t.starts_with('/')) else {
        return "/".to_owned();
    };
    match config.public_url.join(target) {
        Ok(url) if url.origin() == config.public_url.origin() && !target.contains('\\') => {
            // A second look at what is sent back, since `/.//host` becomes `//host`.
            let path = url[url::Position::BeforePath..].to_owned();
            if path.starts_with("//") {
                "/".to_owned()
            } else {
                path
            }
        }
        _ => "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| (*name, value.parse().expect("a value"));
        HeaderMap::from_iter(
            pairs
                .iter()
                .map(pair)
                .map(|(n, v)| (n.parse().expect("a name"), v)),
        )
    }

    fn net(text: &str) -> Vec<IpNet> {
        vec![text.parse().expect("a network")]
    }

    #[test]
    fn only_trusted_proxies_say_for_whom_they_ask() {
        let proxies = net("127.0.0.1/32");
        let local = net("127.0.0.0/8");
        let all = net("0.0.0.0/0");
        let at = |peer: &str, pairs: &[(&'static str, &str)]| {
            locate(&proxies, peer.parse().ok(), &headers(pairs))
        };
        let xff = "x-forwarded-for";
        assert!(at("127.0.0.1", &[]).is_in(&local));
        assert!(!at("198.51.100.7", &[]).is_in(&local));
        // Behind the proxy, the nearest untrusted hop counts; what it claims itself does not.
        let behind = at("127.0.0.1", &[(xff, "127.0.0.1, 198.51.100.7")]);
        assert!(!behind.is_in(&local) && behind.ip == "198.51.100.7".parse().ok());
        assert!(at("127.0.0.1", &[(xff, "127.0.0.1")]).is_in(&local));
        // A header from somebody else never makes a local machine, nor does an unreadable one.
        for (peer, pairs) in [
            ("127.0.0.2", vec![(xff, "127.0.0.1")]),
            ("127.0.0.2", vec![("forwarded", "for=127.0.0.1")]),
            ("127.0.0.2", vec![("x-real-ip", "127.0.0.1")]),
            ("127.0.0.1", vec![("forwarded", "for=127.0.0.1")]),
            ("127.0.0.1", vec![(xff, "unknown")]),
            ("127.0.0.1", vec![(xff, "")]),
        ] {
            assert!(!at(peer, &pairs).is_in(&all), "{peer} {pairs:?}");
        }
    }

    /// A stranger's bytes came through a published TCP service and counted as the proxy's own (C1c).
    #[test]
    fn what_passes_bytes_on_counts_only_where_it_is_listed_singly() {
        let counts = |ip: &str, is_container, may_relay, may_be_container| {
            let ip = ip.parse().expect("an address");
            Machine {
                ip,
                is_container,
                may_be_container,
                may_relay,
            }
            .counts()
        };
        assert!(counts("192.0.2.9", false, false, false));
        assert!(!counts("192.0.2.9", false, true, false));
        assert!(!counts("192.0.2.9", true, false, false));
        // Root in a container took a second address of its network, which no row knows.
        assert!(!counts("192.0.2.9", false, false, true));
        // On loopback there is no telling; no route leads to the portal there.
        assert!(counts("127.0.0.1", false, true, true));
        assert!(!counts("127.80.0.5", true, false, true));
    }

    #[test]
    fn authorities() {
        for (text, port) in [
            ("Portal.Example.org", None),
            ("localhost:3000", Some(3000)),
            ("[::1]:3000", Some(3000)),
            ("[::1]", None),
        ] {
            assert_eq!(split(text).map(|(_, port)| port), Some(port), "{text}");
        }
        for bad in ["", "a:b", "a/b", "u@h", "h:99999", "a b"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
