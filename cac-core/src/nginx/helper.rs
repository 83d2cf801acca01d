//! Between the puller, which talks to the network and has no rights on its machine, and the helper, which has nginx' files and talks to
//! nobody but the puller. One question and one answer a connection, each a JSON document, over a socket of the file system; who may open
//! it is a matter of its folder's rights. The helper trusts nothing that it is sent: it verifies a file as if it came from the network.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use super::guarded::{ApplyResult, GuardedNginx, NginxStatus};
use super::installed::Footing;
use super::verified::SignedFile;

/// Bytes of a question: a file with a hundred thousand services has twenty million.
const LARGEST: u64 = 64 * 1024 * 1024;
/// Connections at once; a puller needs one.
const MOST: usize = 8;
/// How long a question may take to arrive, and an answer to be taken.
const TRANSFER: Duration = Duration::from_secs(30);
/// How long an answer may take: `nginx -t` and a change-over, there and back, have a minute and a half.
const ANSWER: Duration = Duration::from_secs(180);
/// Between two looks at whether something changed.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Question {
    Refresh,
    Status,
    HasChanged(Footing),
    Apply(SignedFile),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Status(NginxStatus),
    Changed(bool),
    Applied(ApplyResult),
}

/// The nginx of this machine, as the puller sees it.
pub enum ProxyNginx {
    /// This process may write nginx' files.
    Own(Box<GuardedNginx>),
    /// The helper that listens there does.
    Helper(PathBuf),
}

impl ProxyNginx {
    pub async fn status(&self) -> io::Result<NginxStatus> {
        match self {
            Self::Own(nginx) => Ok(nginx.status()),
            Self::Helper(socket) => status(socket, &Question::Status).await,
        }
    }

    /// Looks again at what may have changed beside us.
    pub async fn refresh(&mut self) -> io::Result<NginxStatus> {
        match self {
            Self::Own(nginx) => {
                nginx.refresh();
                Ok(nginx.status())
            }
            Self::Helper(socket) => status(socket, &Question::Refresh).await,
        }
    }

    /// Resolves when it stands otherwise than so. A helper that is away is such a change.
    pub async fn changes(&self, footing: &Footing) {
        loop {
            tokio::time::sleep(LOOK).await;
            let changed = match self {
                Self::Own(nginx) => nginx.has_changed(footing),
                Self::Helper(socket) => {
                    let question = Question::HasChanged(footing.clone());
                    !matches!(ask(socket, &question).await, Ok(Answer::Changed(false)))
                }
            };
            if changed {
                return;
            }
        }
    }

    pub async fn apply(&mut self, file: SignedFile) -> io::Result<ApplyResult> {
        match self {
            Self::Own(nginx) => Ok(nginx.apply(file).await),
            Self::Helper(socket) => match ask(socket, &Question::Apply(file)).await? {
                Answer::Applied(result) => Ok(result),
                _ => Err(io::ErrorKind::InvalidData.into()),
            },
        }
    }
}

async fn status(socket: &Path, question: &Question) -> io::Result<NginxStatus> {
    match ask(socket, question).await? {
        Answer::Status(status) => Ok(status),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn ask(socket: &Path, question: &Question) -> io::Result<Answer> {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&serde_json::to_vec(question)?).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(serde_json::from_slice(&answer)?)
    };
    let answer = tokio::time::timeout(ANSWER, asked).await;
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Answers pullers until `stop`; a file that is being put in place is put in place before this ends.
pub async fn serve(nginx: GuardedNginx, socket: &Path, stop: &CancellationToken) -> io::Result<()> {
    // Of a helper that was killed: whoever has the lock of nginx' file is alone.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    // Its folder says who comes this far.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    let nginx = Arc::new(Mutex::new(nginx));
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let permit = Arc::clone(&room).acquire_owned();
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async { (permit.await, listener.accept().await) } => accepted,
        };
        let (permit, stream) = match accepted {
            (Ok(permit), Ok((stream, _))) => (permit, stream),
            (_, Err(error)) => {
                tracing::warn!(%error, "a puller cannot be heard now");
                tokio::time::sleep(LOOK).await;
                continue;
            }
            (Err(_), _) => break,
        };
        let nginx = Arc::clone(&nginx);
        tokio::spawn(async move {
            if let Err(error) = answer(&nginx, stream).await {
                tracing::warn!(%error, "a puller was not answered");
            }
            drop(permit);
        });
    }
    // Whoever is at work has it.
    let _last = nginx.lock().await;
    let _ = std::fs::remove_file(socket);
    Ok(())
}

async fn answer(nginx: &Mutex<GuardedNginx>, mut stream: UnixStream) -> io::Result<()> {
    let mut question = Vec::new();
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let mut limited = (&mut stream).take(LARGEST + 1);
    let read = tokio::time::timeout(TRANSFER, limited.read_to_end(&mut question));
    if read.await.map_err(late)?? as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let question: Question = serde_json::from_slice(&question)?;
    let mut nginx = nginx.lock().await;
    let answer = match question {
        Question::Status => Answer::Status(nginx.status()),
        Question::Refresh => {
            nginx.refresh();
            Answer::Status(nginx.status())
        }
        Question::HasChanged(footing) => Answer::Changed(nginx.has_changed(&footing)),
        Question::Apply(file) => {
            let applied = nginx.apply(file).await;
            match &applied {
                ApplyResult::Live => tracing::info!("nginx is up to date"),
                ApplyResult::Unfit => tracing::info!("another program has a port of the file"),
                ApplyResult::Failed(failure) => {
                    tracing::error!(reason = ?failure.reason, "{}", failure.message)
                }
            }
            Answer::Applied(applied)
        }
    };
    drop(nginx);
    let answer = serde_json::to_vec(&answer)?;
    let sent = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(TRANSFER, sent).await.map_err(late)?
}
