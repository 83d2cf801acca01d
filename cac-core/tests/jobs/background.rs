//! Background work that panics begins again, and is seen to have failed.

use std::sync::atomic::{AtomicU32, Ordering};

use cac_core::supervise::supervise;
use cac_core::testing;

use crate::lab::Lab;

/// A panic ended the work in silence: nginx kept its file until the next start.
#[tokio::test]
async fn work_that_panics_is_logged_shown_and_begun_again() {
    let lab = Lab::new(testing::sqlite().await).await;
    let begun = AtomicU32::new(0);
    assert!(lab.core.background.failing().is_empty());
    supervise(&lab.core, "tested work", || async {
        let before = begun.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        assert!(before > 0, "the first time it panics");
    })
    .await;
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    assert_eq!(lab.core.background.failing(), ["tested work"]);
}
