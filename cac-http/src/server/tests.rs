//! The bounds on connections, with an endpoint of its own on real sockets.

use poem::EndpointExt as _;
use poem::http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

async fn served(bounds: Bounds) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let stop = CancellationToken::new();
    let endpoint = poem::endpoint::make(echo).map_to_response().boxed();
    let task = tokio::spawn(serve(listener, endpoint, bounds, stop.clone()));
    Served {
        address,
        stop,
        task,
    }
}

/// Says `ok`, or sends everything back that comes after an upgrade.
async fn echo(request: Request) -> poem::Result<Response> {
    let Ok(upgrade) = request.take_upgrade() else {
        return Ok("ok".into());
    };
    tokio::spawn(async move {
        let Ok(mut socket) = upgrade.await else {
            return;
        };
        let mut byte = [0];
        while socket.read_exact(&mut byte).await.is_ok() && socket.write_all(&byte).await.is_ok() {}
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .finish())
}

fn bounds(per_address: usize, total: usize) -> Bounds {
    Bounds {
        per_address,
        total,
        exempt: Vec::new(),
    }
}

/// A connection after these bytes were sent on it.
async fn open(address: SocketAddr, sent: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.expect("it listens");
    client.write_all(sent.as_bytes()).await.expect("it reads");
    client
}

/// What comes until the other side closes; absent while it does not.
async fn rest(client: &mut TcpStream, patience: Duration) -> Option<String> {
    let mut answer = Vec::new();
    let read = timeout(patience, client.read_to_end(&mut answer))
        .await
        .ok()?;
    // A connection that was refused may be reset.
    let _ = read;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

const CLOSING: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const UPGRADING: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

#[tokio::test]
async fn one_address_holds_only_so_many_connections() {
    let served = served(bounds(2, 100)).await;
    let mut first = open(served.address, "GET / HT").await;
    let second = open(served.address, "").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut third = open(served.address, "").await;
    assert_eq!(rest(&mut third, PATIENCE).await.as_deref(), Some(""));
    assert!(rest(&mut first, Duration::from_millis(100)).await.is_none());
    drop(second);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut fourth = open(served.address, CLOSING).await;
    let answer = rest(&mut fourth, PATIENCE).await.expect("an answer");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
}

/// Out of descriptors the portal was dead, and its loop took a third of a core: idle connections make room now.
#[tokio::test]
async fn when_every_connection_is_taken_idle_ones_make_room() {
    let served = served(bounds(100, 3)).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(open(served.address, "GET / HT").await);
    }
    let began = Instant::now();
    let mut next = open(served.address, CLOSING).await;
    let answer = rest(&mut next, PATIENCE).await.expect("an answer");
    assert!(answer.ends_with("ok"), "{answer}");
    assert!(began.elapsed() < QUIET / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_upgraded_connection_counts_until_it_ends() {
    let served = served(bounds(1, 100)).await;
    let mut upgraded = open(served.address, UPGRADING).await;
    let mut head = [0; 12];
    upgraded.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101");
    let mut refused = open(served.address, "").await;
    assert_eq!(rest(&mut refused, PATIENCE).await.as_deref(), Some(""));
    upgraded.write_all(b"?").await.expect("it reads");
    let mut last = 0;
    while last != b'?' {
        last = upgraded.read_u8().await.expect("an echo");
    }
    drop(upgraded);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut next = open(served.address, CLOSING).await;
    let answer = rest(&mut next, PATIENCE).await.expect("an answer");
    assert!(answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn a_failing_accept_waits_and_is_logged_once_in_a_while() {
    let mut door = Door::new(bounds(1, 1));
    let began = Instant::now();
    // EMFILE
    let error = io::Error::from_raw_os_error(24);
    door.failed(&error).await;
    assert!(began.elapsed() >= BACK_OFF);
    assert!(door.failing.due().is_none());
    let gone = Instant::now();
    door.failed(&io::Error::from(io::ErrorKind::ConnectionAborted))
        .await;
    assert!(gone.elapsed() < BACK_OFF);
}

#[tokio::test]
async fn half_heads_do_not_hold_the_stop_up() {
    let served = served(bounds(100, 100)).await;
    let _half = open(served.address, "GET / HT").await;
    let mut whole = open(served.address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    whole.read_u8().await.expect("an answer");
    let began = Instant::now();
    served.stop.cancel();
    timeout(PATIENCE, served.task)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("no error");
    assert!(began.elapsed() < GRACE * 4, "{:?}", began.elapsed());
}
