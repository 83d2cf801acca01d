//! Output on its way to the database: joined into few rows, in order, bounded in memory, never a torn character.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{self, Claim};
use crate::Core;

/// Well under the 65,535 bytes that MariaDB's `TEXT` holds.
const CHUNK: usize = 16 * 1024;
/// How long a chunk may grow before it is written, once one was written just before.
const GATHER: Duration = Duration::from_millis(60);
/// A database that is away for longer than this loses the job to somebody else anyway.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A piece of output.
#[derive(Debug)]
pub(super) enum Piece {
    /// A line of ours; always kept.
    Ours(String),
    /// What a command printed; cut where it becomes too much.
    Printed(String),
    /// Nothing; dropped once all that came before is stored.
    Flush(oneshot::Sender<()>),
}

/// Where a running job's output goes in.
pub(super) type Sink = mpsc::Sender<Piece>;

/// Lets a command's output through up to a limit, then says once that it was cut.
struct Meter {
    /// Bytes.
    left: u64,
    limit: u64,
    cut: bool,
}

impl Meter {
    fn new(limit: u64) -> Self {
        Self {
            left: limit,
            limit,
            cut: false,
        }
    }

    /// What is to be stored of a piece.
    fn pass(&mut self, piece: Piece) -> String {
        let mut text = match piece {
            Piece::Ours(text) => return text,
            Piece::Printed(_) if self.cut => return String::new(),
            Piece::Flush(_) => return String::new(),
            Piece::Printed(text) => text,
        };
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        if text.len() <= left {
            self.left -= text.len() as u64;
            return text;
        }
        self.cut = true;
        text.truncate(boundary(&text, left));
        let limit = self.limit >> 20;
        format!(
            "{text}\n[The output is cut here: it is longer than {limit} MiB (JOB_OUTPUT_LIMIT_MIB).]\n"
        )
    }
}

/// A running job's way out. The writer behind it is started by the first piece.
#[derive(Debug)]
pub(super) struct Output(Mutex<State>);

#[derive(Debug)]
enum State {
    NotYet(Writer),
    Writes(Sink, JoinHandle<()>),
    Closed,
}

impl Output {
    /// `lost` is cancelled when the job is found to be no longer this claim's.
    pub(super) fn new(core: Core, claim: Arc<Claim>, lost: CancellationToken) -> Self {
        Self(Mutex::new(State::NotYet(Writer {
            core,
            claim,
            lost,
            before: 0,
            written: 0,
        })))
    }

    /// Where pieces go in; absent once it was closed.
    pub(super) fn sink(&self) -> Option<Sink> {
        let mut state = self.state();
        *state = match std::mem::replace(&mut *state, State::Closed) {
            State::NotYet(writer) => {
                let (sink, source) = mpsc::channel(256);
                State::Writes(sink, tokio::spawn(writer.run(source)))
            }
            other => other,
        };
        match &*state {
            State::Writes(sink, _) => Some(sink.clone()),
            _ => None,
        }
    }

    /// Waits until what was said so far is written, or cannot be.
    pub(super) async fn flush(&self) {
        let sink = match &*self.state() {
            State::Writes(sink, _) => sink.clone(),
            _ => return,
        };
        let (done, stored) = oneshot::channel();
        if sink.send(Piece::Flush(done)).await.is_ok() {
            // It is dropped, not sent.
            let _ = stored.await;
        }
    }

    /// Waits until all is written; every sink that was handed out must be dropped. `false` when the writer failed.
    pub(super) async fn close(&self) -> bool {
        let before = std::mem::replace(&mut *self.state(), State::Closed);
        match before {
            State::Writes(sink, writer) => {
                drop(sink);
                writer.await.is_ok()
            }
            _ => true,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds it")
    }
}

/// Joins pieces into rows.
#[derive(Debug)]
struct Writer {
    core: Core,
    claim: Arc<Claim>,
    lost: CancellationToken,
    /// Rows of earlier claims.
    before: i64,
    /// Rows of this one.
    written: i64,
}

impl Writer {
    async fn run(mut self, mut source: mpsc::Receiver<Piece>) {
        let mut meter = Meter::new(self.core.config.runner.output_limit);
        let mut next = Instant::now();
        if self.claim.fence > 1 && !self.count().await {
            return self.give_up(source).await;
        }
        let mut open = true;
        while open {
            let Some(first) = source.recv().await else {
                return;
            };
            let (mut chunk, mut piece, mut flush) = (String::new(), Some(first), None);
            while let Some(one) = piece.take() {
                if let Piece::Flush(done) = one {
                    flush = Some(done);
                    break;
                }
                chunk.push_str(&meter.pass(one));
                if chunk.len() >= CHUNK {
                    break;
                }
                match tokio::time::timeout_at(next, source.recv()).await {
                    Ok(Some(more)) => piece = Some(more),
                    Ok(None) => open = false,
                    Err(_) => {}
                }
            }
            while !chunk.is_empty() {
                let rest = chunk.split_off(cut(&chunk));
                if !self.append(&chunk).await {
                    return self.give_up(source).await;
                }
                chunk = rest;
            }
            drop(flush);
            next = Instant::now() + GATHER;
        }
    }

    /// Lets the senders go on without blocking; nothing they say counts any more.
    async fn give_up(&self, mut source: mpsc::Receiver<Piece>) {
        self.lost.cancel();
        while source.recv().await.is_some() {}
    }

    /// How many rows an earlier claim left.
    async fn count(&mut self) -> bool {
        let claim = Arc::clone(&self.claim);
        let counted = queue::patiently("output", &[claim.id], GIVE_UP, || {
            queue::chunks(&self.core, &claim)
        })
        .await;
        self.before = counted.unwrap_or(0);
        counted.is_some()
    }

    /// Stores a row, once, also when the database goes away in the middle of it.
    async fn append(&mut self, chunk: &str) -> bool {
        let expected = self.before + self.written;
        let (core, claim) = (&self.core, &self.claim);
        let (mut doubt, ids) = (false, [claim.id]);
        let appended = queue::patiently("output", &ids, GIVE_UP, || {
            let doubtful = std::mem::replace(&mut doubt, true);
            async move {
                if doubtful && queue::chunks(core, claim).await? > expected {
                    return Ok(true);
                }
                queue::append(core, claim, chunk).await
            }
        });
        let appended = appended.await == Some(true);
        self.written += i64::from(appended);
        appended
    }
}

/// Where to cut so that the first part is at most [`CHUNK`] bytes of whole characters.
fn cut(text: &str) -> usize {
    boundary(text, CHUNK)
}

/// The last end of a character within the first `most` bytes.
fn boundary(text: &str, most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    (0..=most)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Bytes as text: what is not UTF-8, and NUL (which PostgreSQL cannot store), becomes U+FFFD.
/// A character that is not complete yet stays in `bytes`, unless this is the end.
pub(super) fn decode(bytes: &mut Vec<u8>, end: bool) -> String {
    let mut text = String::new();
    let mut used = 0;
    for part in bytes.utf8_chunks() {
        text.push_str(part.valid());
        used += part.valid().len();
        let bad = part.invalid();
        let unfinished = !end
            && used + bad.len() == bytes.len()
            && bad.len() < 4
            && std::str::from_utf8(bad).is_err_and(|e| e.error_len().is_none());
        if !bad.is_empty() && !unfinished {
            text.push('\u{FFFD}');
            used += bad.len();
        }
    }
    bytes.drain(..used);
    text.replace('\0', "\u{FFFD}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_never_torn() {
        let mut bytes = "ab\u{2705}".as_bytes()[..4].to_vec();
        assert_eq!(decode(&mut bytes, false), "ab");
        bytes.extend(&"\u{2705}c".as_bytes()[2..]);
        assert_eq!(decode(&mut bytes, false), "\u{2705}c");
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_not_text_becomes_a_replacement() {
        let mut bytes = b"a\xff\0b\xe2\x9c".to_vec();
        assert_eq!(decode(&mut bytes, false), "a\u{FFFD}\u{FFFD}b");
        assert_eq!(decode(&mut bytes, true), "\u{FFFD}");
    }

    #[test]
    fn too_much_is_cut_once_and_our_own_lines_stay() {
        let mut meter = Meter::new(7);
        let printed = |text: &str| Piece::Printed(text.to_owned());
        assert_eq!(meter.pass(printed("abcd")), "abcd");
        let cut = meter.pass(printed("e\u{2705}f"));
        assert!(cut.starts_with("e\n[The output is cut here"), "{cut}");
        assert_eq!(meter.pass(printed("more")), "");
        assert_eq!(meter.pass(Piece::Ours("ours".to_owned())), "ours");
    }

    #[test]
    fn chunks_fit_and_end_at_characters() {
        let text = "\u{2705}".repeat(CHUNK);
        let at = cut(&text);
        assert!(at <= CHUNK && at > CHUNK - 4 && text.is_char_boundary(at));
        assert_eq!(cut("short"), 5);
    }
}
