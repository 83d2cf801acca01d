//! Wake-ups between processes: by PostgreSQL's own notices; on other databases by an empty UDP datagram to each address in the
//! table `Listeners`. Either may be lost, come twice or from anybody: it causes one early look, and looks are rate-limited.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Channel;
use crate::db::{Db, Notices};
use crate::{Core, Error, Result, args, transaction};

/// Between two looks that others cause, and between two notices to others.
const QUIET: Duration = Duration::from_millis(10);
/// How long the addresses of others are remembered.
const REMEMBER: Duration = Duration::from_secs(1);
/// How often a listener says that it is still there.
const SAY: Duration = Duration::from_secs(10);
/// After this long without a word a listener is told nothing more, in milliseconds.
const SILENT: i64 = 30_000;
/// After this long without a word its row goes, in milliseconds.
const FORGET: i64 = 600_000;
/// Between two attempts where the server is away.
const AGAIN: Duration = Duration::from_secs(1);

impl Channel {
    /// As it stands in `Listeners`.
    fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Output => "output",
        }
    }

    /// As PostgreSQL knows it; channels of one server's database have one name space.
    fn notice(self) -> &'static str {
        match self {
            Self::Jobs => "cac_jobs",
            Self::Output => "cac_output",
        }
    }
}

/// Starts the task that tells others; it ends when the sender is dropped.
pub(super) fn teller(
    db: Db,
    channel: Channel,
    own: Arc<Mutex<HashSet<SocketAddr>>>,
) -> mpsc::Sender<()> {
    let (sender, mut asked) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut others = Others {
            db,
            channel,
            own,
            known: None,
        };
        while asked.recv().await.is_some() {
            if let Err(error) = others.tell().await {
                // They find it at their next poll.
                tracing::debug!(?channel, %error, "other processes are not told");
            }
            tokio::time::sleep(QUIET).await;
        }
    });
    sender
}

struct Others {
    db: Db,
    channel: Channel,
    own: Arc<Mutex<HashSet<SocketAddr>>>,
    known: Option<(Instant, Vec<SocketAddr>)>,
}

impl Others {
    async fn tell(&mut self) -> Result<()> {
        if let Some(notices) = self.db.notices() {
            return Ok(notices.tell(self.channel.notice()).await?);
        }
        let known = match self.known.take() {
            Some(known) if known.0.elapsed() < REMEMBER => known,
            _ => (Instant::now(), self.addresses().await?),
        };
        for address in &known.1 {
            poke(*address).await;
        }
        // Nobody may become somebody at any moment.
        self.known = Some(known).filter(|known| !known.1.is_empty());
        Ok(())
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let rows = self
            .db
            .all(
                r#"SELECT "address" FROM "Listeners" WHERE "channel" = ? AND "seenAt" > NOW_MS() - ?"#,
                args![self.channel.name(), SILENT],
            )
            .await?;
        let mut addresses = Vec::new();
        for row in rows {
            addresses.extend(row.get::<String>("address")?.parse::<SocketAddr>().ok());
        }
        let own = self.own.lock().expect("nothing panics while it holds it");
        addresses.retain(|address| !own.contains(address));
        Ok(addresses)
    }
}

async fn poke(address: SocketAddr) {
    let from: SocketAddr = if address.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let sent = async {
        UdpSocket::bind(from).await?.send_to(&[], address).await?;
        std::io::Result::Ok(())
    };
    if let Err(error) = sent.await {
        tracing::debug!(%address, %error, "a process is not woken");
    }
}

/// Hearing others; dropped, it hears no more.
pub struct Listening {
    db: Db,
    task: Option<JoinHandle<()>>,
    /// What stands in `Listeners`.
    address: Option<SocketAddr>,
}

impl Listening {
    /// Takes the address away, so that nobody pokes a port that another program may get.
    pub async fn end(mut self) {
        self.stop();
        if let Some(address) = self.address {
            let sql = r#"DELETE FROM "Listeners" WHERE "address" = ?"#;
            if let Err(error) = self.db.exec(sql, args![address.to_string()]).await {
                tracing::debug!(%error, "the address stays until it is forgotten");
            }
        }
    }

    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets other processes wake this one on `channel`. Where that cannot be, it is logged: polling still finds everything.
pub async fn listen(core: &Core, channel: Channel) -> Listening {
    let mut listening = Listening {
        db: core.db.clone(),
        task: None,
        address: None,
    };
    if let Some(notices) = core.db.notices() {
        listening.task = Some(tokio::spawn(hear_notices(core.clone(), channel, notices)));
        return listening;
    }
    match bind(core, channel).await {
        Ok((socket, address)) => {
            let hearing = hear_pokes(core.clone(), channel, socket, address);
            listening.task = Some(tokio::spawn(hearing));
            listening.address = Some(address);
        }
        Err(error) => {
            tracing::warn!(%error, "other processes cannot wake this one; it finds what is new by polling");
        }
    }
    listening
}

/// A socket whose address others know.
async fn bind(core: &Core, channel: Channel) -> Result<(UdpSocket, SocketAddr)> {
    let refused = |error: std::io::Error| {
        let wanted = core.config.wake_listen;
        Error::Upstream(format!(
            "Nothing can listen on the UDP port {wanted} ({error}): choose an address of this machine with CAC_WAKE_LISTEN."
        ))
    };
    let socket = UdpSocket::bind(core.config.wake_listen)
        .await
        .map_err(refused)?;
    let address = socket.local_addr().map_err(refused)?;
    core.wake.listens_at(address);
    publish(core, channel, address).await?;
    Ok((socket, address))
}

async fn hear_notices(core: Core, channel: Channel, notices: Notices) {
    loop {
        let hearing: Result<(), crate::db::Error> = async {
            let mut heard = notices.hear(channel.notice()).await?;
            loop {
                // What came before is looked for, too.
                core.wake.heard(channel);
                tokio::time::sleep(QUIET).await;
                heard.next().await?;
            }
        }
        .await;
        if let Err(error) = hearing {
            tracing::debug!(?channel, %error, "notices are not heard; trying again");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn hear_pokes(core: Core, channel: Channel, socket: UdpSocket, address: SocketAddr) {
    let mut say = tokio::time::interval(SAY);
    say.tick().await;
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            _ = socket.recv_from(&mut nothing) => {
                // What came with it causes no look more; a flood is not worth more work than this.
                for _ in 0..1000 {
                    if socket.try_recv_from(&mut nothing).is_err() {
                        break;
                    }
                }
                core.wake.heard(channel);
                tokio::time::sleep(QUIET).await;
            }
            _ = say.tick() => {
                if let Err(error) = publish(&core, channel, address).await {
                    tracing::debug!(%error, "this process is not announced");
                }
            }
        }
    }
}

async fn publish(core: &Core, channel: Channel, address: SocketAddr) -> Result<()> {
    let (now, address) = (core.clock.now(), address.to_string());
    transaction!(core.db, tx => {
        let known = tx
            .exec(
                r#"UPDATE "Listeners" SET "channel" = ?, "seenAt" = NOW_MS(), "updatedAt" = ? WHERE "address" = ?"#,
                args![channel.name(), now, &address],
            )
            .await?;
        if known == 0 {
            tx.exec(r#"DELETE FROM "Listeners" WHERE "seenAt" < NOW_MS() - ?"#, args![FORGET]).await?;
            tx.insert(
                r#"INSERT INTO "Listeners" ("channel", "address", "seenAt", "createdAt", "updatedAt") VALUES (?, ?, NOW_MS(), ?, ?)"#,
                args![channel.name(), &address, now, now],
            )
            .await?;
        }
    })
}
