//! Work that this process does in the background for as long as it lives. A panic there would end it in silence while everything else
//! goes on, so it is logged, shown by [`Background::failing`] (and with it by `/readyz`), and the work begins again.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use crate::Core;

/// The pause after the first panic; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Work that has gone on for so long since its last panic is well again. Longer than the longest pause.
const RECOVERED: Duration = Duration::from_secs(60);

/// When the background work of this process panicked last, by its name.
#[derive(Debug, Default)]
pub struct Background(Mutex<BTreeMap<&'static str, Instant>>);

impl Background {
    /// The work that panicked within the last minute.
    #[must_use]
    pub fn failing(&self) -> Vec<&'static str> {
        let panics = self
            .0
            .lock()
            .expect("nothing panics while it holds the list");
        let recent = panics.iter().filter(|(_, at)| at.elapsed() < RECOVERED);
        recent.map(|(name, _)| *name).collect()
    }

    fn panicked(&self, name: &'static str) {
        let mut panics = self
            .0
            .lock()
            .expect("nothing panics while it holds the list");
        panics.insert(name, Instant::now());
    }
}

/// Does the work until it returns, and begins it again after a panic.
pub async fn supervise<F: Future<Output = ()>>(
    core: &Core,
    name: &'static str,
    mut work: impl FnMut() -> F,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        if AssertUnwindSafe(work()).catch_unwind().await.is_ok() {
            return;
        }
        core.background.panicked(name);
        tracing::error!(work = name, "background work panicked, beginning again");
        if began.elapsed() >= RECOVERED {
            pause = FIRST_PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
