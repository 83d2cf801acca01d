//! The clock of the program. Lease ends are not its business: those are in the database's own time (`NOW_MS()`).

use chrono::{DateTime, SubsecRound, Utc};

/// Where "now" comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// A fixed time, moved by the test that owns it.
    #[cfg(any(test, feature = "testing"))]
    Fixed(std::sync::Arc<std::sync::Mutex<DateTime<Utc>>>),
}

impl Clock {
    /// UTC, cut to milliseconds, as all three databases keep it.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now().trunc_subsecs(3),
            #[cfg(any(test, feature = "testing"))]
            Self::Fixed(time) => time
                .lock()
                .expect("no test panics while it moves the clock")
                .trunc_subsecs(3),
        }
    }
}
