//! Proxmox VE's tasks: their IDs (UPID), state, log and end. An accepted call only means that its task exists; whether
//! it did its work is known when the task has ended.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use super::cluster::Rows;
use super::error::is_lock_text;
use super::http::{Call, Nothing};
use super::wire;
use super::{Error, Pve};

/// Log lines asked for at once; Proxmox's own default is 50.
const LOG_PAGE: u64 = 1000;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A task can be unknown for a moment after the call that started it.
const UNKNOWN_AT_FIRST: Duration = Duration::from_secs(5);

/// The ID of a task, `UPID:node:pid:pstart:starttime:type:id:user:`. It must be asked about at its own node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upid {
    text: String,
    node: String,
    start: u64,
    kind: String,
    id: String,
    user: String,
}

/// Not a UPID; holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the ID of a Proxmox VE task (UPID)")]
pub struct BadUpid(pub String);

impl Upid {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// When the task began, in seconds since 1970.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// `vzcreate`, `vzstart`, `vzdestroy`, …
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What the task is about, mostly the VMID; may be empty.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn vmid(&self) -> Option<u32> {
        self.id.parse().ok()
    }

    /// `user@realm`, of a token `user@realm!name`.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl FromStr for Upid {
    type Err = BadUpid;

    fn from_str(text: &str) -> Result<Self, BadUpid> {
        parse_upid(text).ok_or_else(|| BadUpid(text.to_owned()))
    }
}

/// As the pattern in PVE::UPID: https://git.proxmox.com/?p=pve-common.git;a=blob;f=src/PVE/UPID.pm
fn parse_upid(text: &str) -> Option<Upid> {
    let parts: Vec<&str> = text.split(':').collect();
    let ["UPID", node, pid, pstart, start, kind, id, user, ""] = parts[..] else {
        return None;
    };
    let hex = |part: &str, lengths: &[usize]| {
        lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let plain = |part: &str| !part.contains(|c: char| c == '/' || c.is_whitespace());
    let label = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let good = label(node)
        && hex(pid, &[8])
        && hex(pstart, &[8, 9])
        && hex(start, &[8])
        && !kind.is_empty()
        && !user.is_empty()
        && [kind, id, user].into_iter().all(plain);
    if !good {
        return None;
    }
    Some(Upid {
        text: text.to_owned(),
        node: node.to_owned(),
        start: u64::from_str_radix(start, 16).ok()?,
        kind: kind.to_owned(),
        id: id.to_owned(),
        user: user.to_owned(),
    })
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Upid {
    type Error = BadUpid;

    fn try_from(text: String) -> Result<Self, BadUpid> {
        text.parse()
    }
}

impl From<Upid> for String {
    fn from(upid: Upid) -> Self {
        upid.text
    }
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskStatus {
    Running,
    Ended(ExitStatus),
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    Ok,
    /// The work was done; the log has this many warnings.
    Warnings(u32),
    /// Proxmox's own words. `unexpected status` means that the worker was killed.
    Failed(String),
}

impl ExitStatus {
    fn read(text: &str) -> Self {
        if text == "OK" {
            return Self::Ok;
        }
        match text.strip_prefix("WARNINGS: ").map(str::parse) {
            Some(Ok(count)) => Self::Warnings(count),
            _ => Self::Failed(text.trim_end().to_owned()),
        }
    }

    /// Warnings count as success.
    pub fn is_success(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }

    /// Whether the task failed on a lock, which may be free the next time.
    pub fn is_locked_or_lock_timeout(&self) -> bool {
        matches!(self, Self::Failed(text) if is_lock_text(text))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("OK"),
            Self::Warnings(count) => write!(f, "WARNINGS: {count}"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

/// A row of a node's task list. Times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub upid: Upid,
    pub started: u64,
    pub ended: Option<u64>,
    /// May say `Running` a moment after the end; [`Pve::task_status`] is exact.
    pub status: TaskStatus,
}

#[derive(Deserialize)]
struct StatusReply {
    status: String,
    #[serde(default, deserialize_with = "wire::loose")]
    exitstatus: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default, deserialize_with = "wire::loose")]
    t: Option<String>,
}

/// The log of a missing file is an object on 8.x.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lines {
    Many(Vec<Line>),
    One(Line),
}

#[derive(Deserialize)]
struct Row {
    upid: Upid,
    #[serde(deserialize_with = "wire::loose")]
    starttime: u64,
    #[serde(default, deserialize_with = "wire::loose")]
    endtime: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    status: Option<String>,
}

impl From<Row> for Task {
    fn from(row: Row) -> Self {
        let status = match row.status.as_deref() {
            None | Some("RUNNING") => TaskStatus::Running,
            Some(text) => TaskStatus::Ended(ExitStatus::read(text)),
        };
        Self {
            upid: row.upid,
            started: row.starttime,
            ended: row.endtime,
            status,
        }
    }
}

impl Pve {
    pub async fn task_status(&self, upid: &Upid) -> Result<TaskStatus, Error> {
        let call = Call::get(&["nodes", upid.node(), "tasks", upid.as_str(), "status"])?;
        let reply: StatusReply = self.call(call).await?;
        Ok(match (reply.status.as_str(), reply.exitstatus) {
            (_, Some(text)) => TaskStatus::Ended(ExitStatus::read(&text)),
            ("stopped", None) => TaskStatus::Ended(ExitStatus::Failed(
                "ended without an exit status".to_owned(),
            )),
            _ => TaskStatus::Running,
        })
    }

    /// Up to 1000 log lines after the first `start`, and how many there are in all. The line `no content`, which
    /// stands in for an empty log, is left out.
    pub async fn task_log(&self, upid: &Upid, start: u64) -> Result<(Vec<String>, u64), Error> {
        let call = Call::get(&["nodes", upid.node(), "tasks", upid.as_str(), "log"])?
            .with("start", start)
            .with("limit", LOG_PAGE);
        let reply = self.envelope::<Lines>(call).await?;
        let lines = match reply.data {
            Lines::Many(lines) => lines,
            Lines::One(line) => vec![line],
        };
        let lines: Vec<String> = lines.into_iter().filter_map(|line| line.t).collect();
        let total = reply.total.unwrap_or(0);
        if total <= 1 && lines.iter().all(|line| line == "no content") {
            return Ok((Vec::new(), if lines.is_empty() { total } else { 0 }));
        }
        Ok((lines, total))
    }

    /// Ends a running task, by force after five seconds; of one that has ended nothing changes.
    pub async fn task_stop(&self, upid: &Upid) -> Result<(), Error> {
        let segments = ["nodes", upid.node(), "tasks", upid.as_str()];
        self.call::<Nothing>(Call::new(Method::DELETE, &segments)?)
            .await?;
        Ok(())
    }

    /// The tasks about a VMID, newest first, running ones too. Earlier holders of the number are among them.
    pub async fn tasks(&self, node: &str, vmid: u32) -> Result<Vec<Task>, Error> {
        let call = Call::get(&["nodes", node, "tasks"])?
            .with("source", "all")
            .with("vmid", vmid);
        let rows: Vec<Row> = self.call::<Rows<_>>(call).await?.rows();
        Ok(rows.into_iter().map(Task::from).collect())
    }

    /// Waits until the task has ended, handing each new log line to `line` as it appears. Passing trouble on the way
    /// is retried. After `limit` the task may still run: that is [`Error::MaybeSent`], and waiting again is safe, but
    /// begins the log anew.
    pub async fn task_wait(
        &self,
        upid: &Upid,
        limit: Duration,
        mut line: impl FnMut(String) + Send,
    ) -> Result<ExitStatus, Error> {
        let begun = Instant::now();
        let deadline = begun + limit;
        let mut waiting = Waiting::default();
        let mut pause = FIRST_PAUSE;
        loop {
            let round = timeout_at(deadline, self.task_round(upid, &mut waiting, &mut line)).await;
            match round {
                Ok(Ok(Some(exit))) => return Ok(exit),
                Ok(Ok(None)) => waiting.trouble = None,
                Ok(Err(error)) if error.is_transient() => waiting.trouble = Some(error),
                Ok(Err(error)) if is_unknown(&error) && begun.elapsed() < UNKNOWN_AT_FIRST => {
                    waiting.trouble = Some(error);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return waiting.give_up(upid, limit),
            }
            if Instant::now() + pause >= deadline {
                return waiting.give_up(upid, limit);
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// The state first and the log after it, so that the log of an ended task is whole.
    async fn task_round(
        &self,
        upid: &Upid,
        waiting: &mut Waiting,
        line: &mut (impl FnMut(String) + Send),
    ) -> Result<Option<ExitStatus>, Error> {
        if waiting.exit.is_none()
            && let TaskStatus::Ended(exit) = self.task_status(upid).await?
        {
            waiting.exit = Some(exit);
        }
        loop {
            match self.task_log(upid, waiting.seen).await {
                Ok((lines, total)) => {
                    let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
                    waiting.seen = waiting.seen.saturating_add(count);
                    lines.into_iter().for_each(&mut *line);
                    if count == 0 || waiting.seen >= total {
                        return Ok(waiting.exit.clone());
                    }
                }
                Err(error) if error.is_transient() => return Err(error),
                // The end counts more than its log.
                Err(error) => return waiting.exit.clone().map(Some).ok_or(error),
            }
        }
    }
}

fn is_unknown(error: &Error) -> bool {
    error.status() == Some(400) && error.is_does_not_exist()
}

#[derive(Default)]
struct Waiting {
    seen: u64,
    exit: Option<ExitStatus>,
    trouble: Option<Error>,
}

impl Waiting {
    fn give_up(self, upid: &Upid, limit: Duration) -> Result<ExitStatus, Error> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let trouble = self
            .trouble
            .map_or_else(String::new, |error| format!("; at last: {error}"));
        Err(Error::MaybeSent {
            call: format!("waiting for task {upid}"),
            cause: format!("no end within {} s{trouble}", limit.as_secs_f32()),
            read: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upids() {
        let text = "UPID:pve1:0000012B:00066606:6B03ED54:vzcreate:100:svc@pve!api:";
        let upid: Upid = text.parse().expect("a UPID");
        assert_eq!(upid.node(), "pve1");
        assert_eq!(upid.kind(), "vzcreate");
        assert_eq!(upid.vmid(), Some(100));
        assert_eq!(upid.user(), "svc@pve!api");
        assert_eq!(upid.start(), 0x6B03_ED54);
        assert_eq!(upid.to_string(), text);
        let json = serde_json::to_string(&upid).expect("json");
        assert_eq!(serde_json::from_str::<Upid>(&json).expect("back"), upid);
        for wrong in [
            "",
            "UPID:pve1:0000012B:00066606:6B03ED54:vzcreate:100:svc@pve!api",
            "UPID:pve/1:0000012B:00066606:6B03ED54:vzcreate:100:a@pve:",
            "UPID::0000012B:00066606:6B03ED54:vzcreate:100:a@pve:",
            "UPID:pve1:0000012:00066606:6B03ED54:vzcreate:100:a@pve:",
            "UPID:pve1:0000012B:00066606:6B03ED5X:vzcreate:100:a@pve:",
            "UPID:pve1:0000012B:00066606:6B03ED54:vz/../x:100:a@pve:",
            "UPID:pve1:0000012B:00066606:6B03ED54:vzcreate:100::",
        ] {
            assert_eq!(wrong.parse::<Upid>(), Err(BadUpid(wrong.to_owned())));
        }
        let empty_id = "UPID:pve1:0000012B:000666061:6B03ED54:aptupdate::root@pam:";
        assert_eq!(empty_id.parse::<Upid>().expect("a UPID").vmid(), None);
    }

    #[test]
    fn exit_statuses() {
        assert_eq!(ExitStatus::read("OK"), ExitStatus::Ok);
        assert_eq!(ExitStatus::read("WARNINGS: 12"), ExitStatus::Warnings(12));
        assert!(!ExitStatus::read("WARNINGS: many").is_success());
        assert!(!ExitStatus::read("unexpected status").is_success());
        assert!(ExitStatus::read("CT is locked (backup)").is_locked_or_lock_timeout());
        assert!(!ExitStatus::read("container did not stop").is_locked_or_lock_timeout());
    }
}
