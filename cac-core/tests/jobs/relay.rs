//! A way to the database that loses answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use cac_core::testing::{Passing, Relay};

/// Loses the answers to the messages that hold one of the words, each once.
pub(crate) struct Losing {
    pub(crate) relay: Relay,
    words: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Losing {
    pub(crate) async fn start<const N: usize>(url: &str, words: [&'static str; N]) -> Self {
        let words = Arc::new(Mutex::new(BTreeSet::from(words)));
        let left = Arc::clone(&words);
        let lost = Mutex::new(BTreeSet::new());
        let relay = Relay::start(url, move |passing| match passing {
            Passing::Asked(number, bytes) => {
                let mut left = left.lock().unwrap();
                let holds = |word: &&&str| {
                    bytes
                        .windows(word.len())
                        .any(|part| part == word.as_bytes())
                };
                let found = left.iter().find(holds).copied();
                if found.is_some_and(|word| left.remove(word)) {
                    lost.lock().unwrap().insert(number);
                }
                true
            }
            Passing::Answered(number) => !lost.lock().unwrap().contains(&number),
        });
        Self {
            relay: relay.await,
            words,
        }
    }

    /// The words that nobody sent yet.
    pub(crate) fn left(&self) -> BTreeSet<&'static str> {
        self.words.lock().unwrap().clone()
    }
}
