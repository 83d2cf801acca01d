//! Counts what each client holds open at once, and refuses more than a fixed number. Not how many requests it sends (`limit.rs`).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

/// The open things of each client.
pub(crate) struct Slots<K> {
    most: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// One open thing; it counts until this is dropped.
pub(crate) struct Slot<K: Hash + Eq> {
    slots: Arc<Slots<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Slots<K> {
    /// At most `most` for each key.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
        })
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Absent where this client holds as many as it may.
    pub(crate) fn take(self: &Arc<Self>, key: K) -> Option<Slot<K>> {
        let mut taken = self.lock();
        let count = taken.entry(key.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Slot {
            slots: Arc::clone(self),
            key,
        })
    }
}

impl<K> Slots<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.taken.lock().expect("nothing panics while it holds it")
    }
}

impl<K: Hash + Eq> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            // A client that is gone leaves nothing behind.
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_it_is_dropped_and_nobody_is_remembered() {
        let slots = Slots::new(2);
        let first = slots.take("alice").expect("free");
        let second = slots.take("alice").expect("free");
        assert!(slots.take("alice").is_none());
        assert!(slots.take("bob").is_some());
        drop(first);
        assert!(slots.take("alice").is_some());
        drop(second);
        assert!(slots.lock().is_empty());
    }
}
