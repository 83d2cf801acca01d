//! Following a job: its output and states as they come, from any row on. However many follow a job in this process, one reader
//! asks the database for what is new; a follower takes from what that one has, at its own pace, and who has fallen behind
//! reads the older rows by itself.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Job, Output, Status, find_any, output_after};
use crate::db::Db;
use crate::{Core, Result, args};

/// How often output that nobody told of is looked for.
const LOOK: Duration = Duration::from_millis(300);
/// Between two looks at least.
const QUIET: Duration = Duration::from_millis(10);
/// Rows that a look takes at most.
const ROWS: u32 = 500;
/// What is kept for followers, in rows and bytes.
const KEEP: (usize, usize) = (1000, 4 << 20);

/// What happens to a job.
#[derive(Debug, Clone)]
pub enum Happening {
    Output(Arc<Output>),
    /// The job changed its state; sent once at the beginning, too.
    State(Arc<Job>),
    /// The last one.
    End(Arc<Job>),
}

/// The jobs that are being followed in this process.
#[derive(Debug, Default)]
pub(crate) struct Feeds(Mutex<HashMap<i64, Weak<Feed>>>);

/// One reader's view of a job.
#[derive(Debug)]
struct Feed {
    seen: Mutex<Seen>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Absent until the first look, and when the job is gone.
    job: Option<Arc<Job>>,
    rows: VecDeque<Arc<Output>>,
    bytes: usize,
    /// All rows after this one, up to the last look, are in `rows`.
    after: i64,
    /// Nothing more will be seen.
    over: bool,
    /// The database did not answer; followers begin again later.
    failed: bool,
}

/// Somebody who follows a job.
pub struct Follower {
    db: Db,
    id: i64,
    feed: Arc<Feed>,
    changed: watch::Receiver<u64>,
    /// The last row that was taken.
    after: i64,
    state: Option<Status>,
    ended: bool,
}

/// Follows a job from the row after `after` on. Rights: the job was found before.
#[must_use]
pub fn follow(core: &Core, id: i64, after: i64) -> Follower {
    let feed = core.feeds.get(core, id);
    Follower {
        db: core.db.clone(),
        id,
        changed: feed.changed.subscribe(),
        feed,
        after,
        state: None,
        ended: false,
    }
}

impl Feeds {
    fn get(&self, core: &Core, id: i64) -> Arc<Feed> {
        let mut feeds = self
            .0
            .lock()
            .expect("nothing panics while it holds the list");
        let found = feeds.get(&id).and_then(Weak::upgrade);
        if let Some(feed) = found.filter(|feed| feed.current()) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Arc::new(Feed {
            seen: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        feeds.insert(id, Arc::downgrade(&feed));
        let woken = core.wake.watch_output();
        let reading = read(core.db.clone(), id, Arc::downgrade(&feed), woken);
        let read = Arc::downgrade(&feed);
        tokio::spawn(async move {
            if AssertUnwindSafe(reading).catch_unwind().await.is_err()
                && let Some(feed) = read.upgrade()
            {
                // Its followers begin again with another reader.
                tracing::error!(job = id, "the reader of a job's output panicked");
                feed.see(|seen| seen.failed = true);
            }
        });
        feed
    }
}

impl Feed {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it holds it")
    }

    /// Whether its reader still reads, so that somebody new may join.
    fn current(&self) -> bool {
        let seen = self.seen();
        !seen.over && !seen.failed
    }

    fn see(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen());
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Reads for all followers, as long as there is one.
async fn read(db: Db, id: i64, feed: Weak<Feed>, mut woken: watch::Receiver<u64>) {
    let mut last = None;
    loop {
        let began = Instant::now();
        woken.mark_unchanged();
        let looked = look(&db, id, &mut last).await;
        let Some(feed) = feed.upgrade() else { return };
        match looked {
            Ok(Looked {
                job,
                from,
                rows,
                more,
            }) => {
                let over = !more && job.as_ref().is_none_or(|job| job.status.ended());
                let news = over
                    || !rows.is_empty()
                    || feed.seen().state() != job.as_ref().map(|job| job.status);
                if news {
                    feed.see(|seen| seen.add(job, from, rows, over));
                }
                if over {
                    return;
                }
                if more {
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(job = id, %error, "a job cannot be followed now");
                feed.see(|seen| seen.failed = true);
                return;
            }
        }
        drop(feed);
        tokio::time::sleep_until(began + QUIET).await;
        // The other end lives in the core; without one there are no followers either.
        let _ = tokio::time::timeout_at(began + LOOK, woken.changed()).await;
    }
}

struct Looked {
    job: Option<Job>,
    /// All rows after this one, at most [`ROWS`], are `rows`.
    from: i64,
    rows: Vec<Output>,
    more: bool,
}

/// The state is read before the output, so that nothing written before the end is missed.
async fn look(db: &Db, id: i64, last: &mut Option<i64>) -> Result<Looked> {
    let job = find_any(db, id).await?;
    let after = match *last {
        Some(after) => after,
        None => newest(db, id).await?,
    };
    let rows = output_after(db, id, after, ROWS).await?;
    *last = Some(rows.last().map_or(after, |row| row.id));
    Ok(Looked {
        job,
        from: after,
        more: rows.len() == ROWS as usize,
        rows,
    })
}

/// The row before the newest ones, which are enough for those who join.
async fn newest(db: &Db, id: i64) -> Result<i64> {
    let row = db
        .opt(
            r#"SELECT "id" FROM "JobStatuses" WHERE "jobId" = ? ORDER BY "id" DESC LIMIT 1 OFFSET ?"#,
            args![id, ROWS / 2],
        )
        .await?;
    Ok(row.map(|row| row.get("id")).transpose()?.unwrap_or(0))
}

impl Seen {
    fn state(&self) -> Option<Status> {
        self.job.as_ref().map(|job| job.status)
    }

    fn add(&mut self, job: Option<Job>, from: i64, rows: Vec<Output>, over: bool) {
        if self.job.is_none() {
            self.after = from;
        }
        self.job = job.map(Arc::new);
        self.over = over;
        for row in rows {
            self.bytes += row.output.len();
            self.rows.push_back(Arc::new(row));
        }
        while self.rows.len() > KEEP.0 || self.bytes > KEEP.1 {
            let Some(oldest) = self.rows.pop_front() else {
                break;
            };
            self.bytes -= oldest.output.len();
            self.after = oldest.id;
        }
    }
}

impl Follower {
    /// What happened since the last call, at least one thing; absent after the end, and when the job cannot be followed any
    /// longer: begin again after the last row that was seen. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Vec<Happening>> {
        if self.ended {
            return None;
        }
        loop {
            self.changed.mark_unchanged();
            let behind = match self.take() {
                Taken::Happened(happened) => return Some(happened),
                Taken::Gone => return None,
                Taken::Behind => true,
                Taken::Nothing => false,
            };
            if behind {
                let rows = match output_after(&self.db, self.id, self.after, ROWS).await {
                    Ok(rows) => rows,
                    Err(error) => {
                        tracing::warn!(job = self.id, %error, "a job cannot be followed now");
                        return None;
                    }
                };
                // Nothing older is there, as after old output was removed: go on with what the reader has.
                let Some(last) = rows.last() else {
                    self.after = self.feed.seen().after;
                    continue;
                };
                self.after = last.id;
                return Some(
                    rows.into_iter()
                        .map(|row| Happening::Output(Arc::new(row)))
                        .collect(),
                );
            }
            // It cannot fail: the sender is in the feed that is held here.
            let _ = self.changed.changed().await;
        }
    }

    fn take(&mut self) -> Taken {
        let seen = self.feed.seen();
        let Some(job) = &seen.job else {
            return if seen.over || seen.failed {
                Taken::Gone
            } else {
                Taken::Nothing
            };
        };
        let mut happened = Vec::new();
        if self.state != Some(job.status) && !job.status.ended() {
            self.state = Some(job.status);
            happened.push(Happening::State(Arc::clone(job)));
        }
        if self.after < seen.after {
            return if happened.is_empty() {
                Taken::Behind
            } else {
                Taken::Happened(happened)
            };
        }
        let first = seen.rows.partition_point(|row| row.id <= self.after);
        let new = seen.rows.iter().skip(first).take(ROWS as usize);
        happened.extend(new.cloned().map(Happening::Output));
        if let Some(Happening::Output(last)) = happened.last() {
            self.after = last.id;
        }
        let all = seen.rows.back().is_none_or(|row| row.id <= self.after);
        if all && seen.over {
            self.ended = true;
            happened.push(Happening::End(Arc::clone(job)));
        }
        match happened {
            happened if !happened.is_empty() => Taken::Happened(happened),
            _ if seen.failed => Taken::Gone,
            _ => Taken::Nothing,
        }
    }
}

enum Taken {
    Happened(Vec<Happening>),
    /// The reader's rows begin later.
    Behind,
    Nothing,
    Gone,
}
