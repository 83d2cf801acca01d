//! Stands between a process and its database server, and loses answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The words whose answer is to be lost, each once.
type Words = Arc<Mutex<BTreeSet<&'static str>>>;

pub(crate) struct Relay {
    /// The database, by way of here.
    pub(crate) url: String,
    left: Words,
    _serving: tokio_util::task::AbortOnDropHandle<()>,
}

impl Relay {
    /// A connection that sends one of the words is cut after the server has done what it was asked.
    pub(crate) async fn losing<const N: usize>(url: &str, words: [&'static str; N]) -> Self {
        let mut url = url::Url::parse(url).unwrap();
        let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
        let left: Words = Arc::new(Mutex::new(words.into()));
        let words = Arc::clone(&left);
        let serving = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(server.clone()).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&words)));
            }
        });
        Self {
            url: url.into(),
            left,
            _serving: tokio_util::task::AbortOnDropHandle::new(serving),
        }
    }

    /// The words that nobody sent yet.
    pub(crate) fn left(&self) -> BTreeSet<&'static str> {
        self.left.lock().unwrap().clone()
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, words: Words) {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let read = read.unwrap_or(0);
                if read == 0 || server.write_all(&asked[..read]).await.is_err() {
                    return;
                }
                if sends(&asked[..read], &words) {
                    // Its answer is the server's word that it is done.
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let read = read.unwrap_or(0);
                if read == 0 || client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn sends(asked: &[u8], words: &Words) -> bool {
    let mut words = words.lock().unwrap();
    let sent = words
        .iter()
        .find(|word| {
            asked
                .windows(word.len())
                .any(|part| part == word.as_bytes())
        })
        .copied();
    sent.is_some_and(|word| words.remove(word))
}
