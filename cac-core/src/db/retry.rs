//! Repeating what a busy database refused: how often, how long to wait in between, and the `transaction!` macro.

use std::time::Duration;

const ATTEMPTS: u32 = 12;

/// Counts the attempts at one transaction.
#[derive(Debug, Default)]
pub struct Retry(u32);

impl Retry {
    /// Waits a little longer each time (with jitter, so that two that met do not meet again);
    /// `false` when it is time to give up.
    pub async fn again(&mut self) -> bool {
        self.0 += 1;
        if self.0 >= ATTEMPTS {
            return false;
        }
        let most = 4u64 << self.0.min(6);
        tokio::time::sleep(Duration::from_millis(rand::random_range(1..=most))).await;
        true
    }
}

/// `transaction!(db, tx => { …; value })`: runs the body in a write transaction and commits.
///
/// The body is an async block inside the caller's future: `?` takes `cac_core::Error` and `db::Error`, its value is
/// the value of the whole, and `tx` is a `&mut Tx`. When a statement or the commit meets a busy database, everything
/// is rolled back and the body runs again, a bounded number of times; so it may only touch the database and its own
/// variables. The whole is a `Result<T, cac_core::Error>`.
#[macro_export]
macro_rules! transaction {
    ($db:expr, $tx:ident => $body:block) => {{
        let mut retry = $crate::db::Retry::default();
        loop {
            let mut transaction = match $db.write().await {
                Ok(transaction) => transaction,
                Err(error) if error.busy() && retry.again().await => continue,
                Err(error) => break Err($crate::Error::from(error)),
            };
            let outcome: ::std::result::Result<_, $crate::Error> = async {
                #[allow(unused_mut, unused_variables)]
                let mut $tx: &mut $crate::db::Tx = &mut transaction;
                #[allow(unused_braces)]
                let value = $body;
                Ok(value)
            }
            .await;
            match outcome {
                Ok(value) => match transaction.commit().await {
                    Ok(()) => break Ok(value),
                    Err(error) if error.busy() && retry.again().await => {}
                    Err(error) => break Err($crate::Error::from(error)),
                },
                Err(error) => {
                    let busy = transaction.busy();
                    transaction.rollback().await;
                    if !(busy && retry.again().await) {
                        break Err(error);
                    }
                }
            }
        }
    }};
}
