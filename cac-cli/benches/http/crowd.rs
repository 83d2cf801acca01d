//! What others notice of one client that opens 300 connections with half a head, and of one user who asks for 3,400 streams: the slowest
//! hundredth of their requests beside the same without that client.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::place::Place;

const HALF_OPEN: usize = 300;
const STREAMS: usize = 3400;
/// How many one user may have, as by default.
pub(crate) const PER_USER: usize = 20;
/// A job that no runner takes.
const WAITING: i64 = 2;

/// Measures others before and during the crowd, and prints both. The p99 during it may be twice the undisturbed one.
pub(crate) async fn measure(place: &Place, database: &str) {
    let quiet = place.load(&place.url, "list");
    let address: SocketAddr = place.url.trim_start_matches("http://").parse().unwrap();
    let crowd = tokio::spawn(crowd(address, place.session.clone()));
    let disturbed = tokio::task::block_in_place(|| place.load(&place.url, "list"));
    let answered = crowd.await.unwrap();
    println!(
        "| list, beside {HALF_OPEN} half-open connections and {STREAMS} streams asked for ({answered} given) | {database} | {:.0}/s | {} | {:.0}/s before | {} | {:.0} % |",
        disturbed.rate,
        disturbed.p99,
        quiet.rate,
        quiet.p99,
        100.0 * disturbed.rate / quiet.rate
    );
}

/// How many streams were answered with 200.
async fn crowd(address: SocketAddr, session: String) -> usize {
    let mut held = Vec::new();
    for _ in 0..HALF_OPEN {
        let mut half = connect(address).await;
        // Those over the limit are closed at once.
        let _ = half.write_all(b"GET /containers HTTP/1.1\r\nX-").await;
        held.push(half);
    }
    let request = format!(
        "GET /api/stream/{WAITING} HTTP/1.1\r\nHost: {address}\r\nCookie: {session}\r\n\r\n"
    );
    let mut given = 0;
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        if &head == b"HTTP/1.1 200" {
            given += 1;
            held.push(stream);
        }
    }
    given
}

/// From an address that is no trusted proxy.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}
