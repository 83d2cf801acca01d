//! Memory with thousands of idle event streams open.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::place::Place;

pub(crate) const STREAMS: usize = 5000;
/// A job that no runner takes.
const WAITING: i64 = 2;

/// Opens streams of a job that waits, and says what they cost.
pub(crate) async fn measure(place: &Place, database: &str) {
    let before = place.megabytes();
    let address = place.url.trim_start_matches("http://").to_owned();
    let request = format!(
        "GET /api/stream/{WAITING} HTTP/1.1\r\nHost: {address}\r\nCookie: {}\r\n\r\n",
        place.session
    );
    let mut open = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        open.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let with = place.megabytes();
    println!(
        "| memory with {STREAMS} idle streams open | {database} | {with} MB ({before} MB before) | | | | |"
    );
}
