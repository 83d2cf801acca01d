//! Running containers as the network sees them: an address of their own with SSH banner, web page and echo services.
//! Not their state in the cluster.
//!
//! Besides SSH a guest serves what its description names, one service a line: `http PORT` a web page, `tcp PORT` and
//! `udp PORT` an echo. Without any `http` line the page is at port 80, if that port may be used.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// A port of a guest and what answers there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Service {
    Ssh(u16),
    Http(u16),
    Tcp(u16),
    Udp(u16),
}

/// What a guest says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) vmid: u32,
    pub(crate) name: String,
    pub(crate) node: String,
}

struct Guest {
    address: Ipv4Addr,
    services: HashMap<Service, JoinSet<()>>,
}

/// The network that guests live in.
pub(crate) struct Network {
    octets: [u8; 2],
    /// Nobody else chooses this network while it listens. Its address is no guest's.
    _claim: Option<std::net::TcpListener>,
}

impl Network {
    pub(crate) fn new(octets: [u8; 2]) -> Self {
        Self {
            octets,
            _claim: None,
        }
    }

    /// One that no other simulator has chosen: guests that meet push each other to other addresses.
    pub(crate) fn free() -> Option<Self> {
        (100..200).find_map(|second| {
            let claim = std::net::TcpListener::bind((Ipv4Addr::new(127, second, 0, 1), 8006));
            Some(Self {
                octets: [127, second],
                _claim: Some(claim.ok()?),
            })
        })
    }
}

/// All running guests.
pub(crate) struct Guests {
    network: Network,
    ssh_port: u16,
    running: Mutex<HashMap<u32, Guest>>,
}

enum Bound {
    Tcp(Service, TcpListener),
    Udp(UdpSocket),
}

impl Guests {
    pub(crate) fn new(network: Network, ssh_port: u16) -> Self {
        Self {
            network,
            ssh_port,
            running: Mutex::default(),
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Guest>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The services a description asks for, SSH included.
    fn services(&self, description: &str) -> BTreeSet<Service> {
        let mut services = BTreeSet::from([Service::Ssh(self.ssh_port)]);
        for line in description.lines() {
            let words: Vec<&str> = line
                .trim_start_matches(['-', '*', ' '])
                .split_whitespace()
                .collect();
            let [kind, port] = words[..] else { continue };
            let Ok(port) = port.parse() else { continue };
            match kind {
                "http" => services.insert(Service::Http(port)),
                "tcp" => services.insert(Service::Tcp(port)),
                "udp" => services.insert(Service::Udp(port)),
                _ => continue,
            };
        }
        if !services.iter().any(|s| matches!(s, Service::Http(_))) {
            services.insert(Service::Http(80));
        }
        services
    }

    /// The address a VMID has by right: the same one every time.
    fn home(&self, vmid: u32, step: u32) -> Ipv4Addr {
        let place = vmid.wrapping_add(step);
        let third = u8::try_from((place / 253) % 256).unwrap_or_default();
        let fourth = u8::try_from(place % 253).unwrap_or_default() + 2;
        let [first, second] = self.network.octets;
        Ipv4Addr::new(first, second, third, fourth)
    }

    /// Brings a guest to life, on the wanted address if it can be had; answers with the address it got.
    pub(crate) async fn start(
        &self,
        card: &Card,
        description: &str,
        wanted: Option<Ipv4Addr>,
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Result<Ipv4Addr, String> {
        let services = self.services(description);
        let homes = (0..2000).map(|step| self.home(card.vmid, step));
        for address in wanted.into_iter().chain(homes) {
            if taken.contains(&address) {
                continue;
            }
            if let Some(bound) = bind_all(address, &services).await {
                let guest = Guest {
                    address,
                    services: bound.into_iter().map(|b| serve(b, card)).collect(),
                };
                let old = self.running().insert(card.vmid, guest);
                drop(old);
                return Ok(address);
            }
        }
        Err(format!(
            "no free address for CT {} in {}.{}.0.0/16",
            card.vmid, self.network.octets[0], self.network.octets[1]
        ))
    }

    /// Opens and closes ports after the description of a running guest was changed.
    pub(crate) async fn follow(&self, card: &Card, description: &str) {
        let wanted = self.services(description);
        let (address, missing) = {
            let mut running = self.running();
            let Some(guest) = running.get_mut(&card.vmid) else {
                return;
            };
            guest.services.retain(|service, _| wanted.contains(service));
            let missing: BTreeSet<Service> = wanted
                .into_iter()
                .filter(|service| !guest.services.contains_key(service))
                .collect();
            (guest.address, missing)
        };
        for service in missing {
            let Some(bound) = bind_all(address, &BTreeSet::from([service])).await else {
                tracing::warn!(%address, ?service, "this port of the container is taken");
                continue;
            };
            if let Some(guest) = self.running().get_mut(&card.vmid) {
                guest
                    .services
                    .extend(bound.into_iter().map(|b| serve(b, card)));
            }
        }
    }

    /// Ends a guest; its ports are free when this returns.
    pub(crate) async fn stop(&self, vmid: u32) {
        let guest = self.running().remove(&vmid);
        for mut set in guest
            .into_iter()
            .flat_map(|guest| guest.services.into_values())
        {
            set.shutdown().await;
        }
    }

    pub(crate) async fn stop_all(&self) {
        let all: Vec<u32> = self.running().keys().copied().collect();
        for vmid in all {
            self.stop(vmid).await;
        }
    }
}

/// All services of a guest on one address; `None` when something else has a port of it.
async fn bind_all(
    address: Ipv4Addr,
    services: &BTreeSet<Service>,
) -> Option<Vec<(Service, Bound)>> {
    let mut bound = Vec::new();
    for service in services {
        let result = match service {
            Service::Udp(port) => UdpSocket::bind((address, *port)).await.map(Bound::Udp),
            Service::Ssh(port) | Service::Http(port) | Service::Tcp(port) => {
                TcpListener::bind((address, *port))
                    .await
                    .map(|listener| Bound::Tcp(*service, listener))
            }
        };
        match result {
            Ok(socket) => bound.push((*service, socket)),
            // A low port without the right to use it: the guest lives on without that service.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                tracing::warn!(%address, ?service, "no right to use this port");
            }
            Err(_) => return None,
        }
    }
    Some(bound)
}

fn serve((service, bound): (Service, Bound), card: &Card) -> (Service, JoinSet<()>) {
    let mut set = JoinSet::new();
    match bound {
        Bound::Udp(socket) => set.spawn(echo_udp(socket)),
        Bound::Tcp(service, listener) => set.spawn(accept(service, listener, card.clone())),
    };
    (service, set)
}

/// Connections live in a set of their own, so that they end with the guest.
async fn accept(service: Service, listener: TcpListener, card: Card) {
    let mut connections = JoinSet::new();
    let card = Arc::new(card);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        match service {
            Service::Ssh(_) => connections.spawn(greet(stream)),
            Service::Http(port) => connections.spawn(page(stream, peer, port, Arc::clone(&card))),
            Service::Tcp(_) | Service::Udp(_) => connections.spawn(echo(stream)),
        };
    }
}

/// The greeting of a Debian 12 SSH server; what a client sends is read and dropped.
async fn greet(mut stream: TcpStream) {
    let banner = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n";
    if stream.write_all(banner).await.is_err() {
        return;
    }
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
}

async fn echo(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    // The peer going away is the normal end.
    tokio::io::copy(&mut reader, &mut writer).await.ok();
}

async fn echo_udp(socket: UdpSocket) {
    let mut buffer = vec![0; 65_536];
    while let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
        // A lost datagram is what UDP allows.
        socket.send_to(&buffer[..count], peer).await.ok();
    }
}

async fn page(stream: TcpStream, peer: SocketAddr, port: u16, card: Arc<Card>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let body = render(&request, peer, port, &card);
        async move {
            let response = Response::builder()
                .header("content-type", "text/html; charset=utf-8")
                .header("server", "simulated-container")
                .body(Full::new(Bytes::from(body)))
                .expect("the headers are constants");
            Ok::<_, Infallible>(response)
        }
    });
    // A broken connection concerns only its peer.
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The page names the container and shows the request as it arrived, which tells what a proxy in between did to it.
fn render(request: &Request<Incoming>, peer: SocketAddr, port: u16, card: &Card) -> String {
    let headers: String = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let request_line = format!(
        "{} {} {:?}",
        request.method(),
        request.uri(),
        request.version()
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title></head>\n\
         <body><h1>{name}</h1>\n<p>Container {vmid} on node {node}, port {port}, asked by {peer}.</p>\n\
         <pre>{line}\n{headers}</pre></body></html>\n",
        name = escape(&card.name),
        vmid = card.vmid,
        node = escape(&card.node),
        peer = peer.ip(),
        line = escape(&request_line),
        headers = escape(&headers),
    )
}
