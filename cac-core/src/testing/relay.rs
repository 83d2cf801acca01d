//! Stands between a process and its database server, and cuts connections where a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// What is about to pass; messages of all connections are numbered together, from 1.
#[derive(Debug, Clone, Copy)]
pub enum Passing<'a> {
    /// To the server.
    Asked(u64, &'a [u8]),
    /// The first answer to that message: it is done.
    Answered(u64),
}

type Hook = Arc<dyn Fn(Passing<'_>) -> bool + Send + Sync>;

/// It ends with this value.
pub struct Relay {
    /// The database, by way of here.
    pub url: String,
    _serving: AbortOnDropHandle<()>,
}

impl Relay {
    /// To the server of a URL; where `passes` says no, nothing passes and the connection is cut.
    pub async fn start(
        url: &str,
        passes: impl Fn(Passing<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let mut url = super::url(url);
        let host = url.host_str().expect("a server has a name").to_owned();
        let server = (host, url.port().expect("tests name the port"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        url.set_host(Some("127.0.0.1"))
            .expect("an address is a host");
        url.set_port(Some(port)).expect("it has a port already");
        let (hook, number): (Hook, _) = (Arc::new(passes), Arc::new(AtomicU64::new(1)));
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server.clone()).await else {
                    continue;
                };
                let (hook, number) = (Arc::clone(&hook), Arc::clone(&number));
                tokio::spawn(carry(client, server, hook, number));
            }
        });
        Self {
            url: url.into(),
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, hook: Hook, number: Arc<AtomicU64>) {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut open = None;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let read = read.unwrap_or(0);
                let n = number.fetch_add(1, Ordering::SeqCst);
                if read == 0 || !hook(Passing::Asked(n, &asked[..read])) || server.write_all(&asked[..read]).await.is_err() {
                    return;
                }
                open = Some(n);
            }
            read = server.read(&mut answered) => {
                let read = read.unwrap_or(0);
                let done = open.take();
                if read == 0 || done.is_some_and(|n| !hook(Passing::Answered(n))) || client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
