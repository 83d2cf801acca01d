//! Reading what people and their tokens are limited to.

use chrono::Duration;

use super::reader::Reader;
use crate::account_request::Limits;

/// The longest lifetime that can be configured: a hundred years.
const LONGEST: u32 = 36_500;

/// `TOKEN_MAX_DAYS`
pub(super) fn token_lifetime(r: &mut Reader<'_>) -> Duration {
    let days = r.parse("TOKEN_MAX_DAYS", 365_u32, "a number of days");
    if !(1..=LONGEST).contains(&days) {
        r.problem(
            "TOKEN_MAX_DAYS",
            format!("must be 1 to {LONGEST}; it is {days}"),
        );
    }
    Duration::days(days.clamp(1, LONGEST).into())
}

/// `REGISTER_LIMIT` and `REGISTER_WAITING`
pub(super) fn account_requests(r: &mut Reader<'_>) -> Limits {
    let limits = Limits {
        per_address: r.parse("REGISTER_LIMIT", 20, "a number of requests"),
        waiting: r.parse("REGISTER_WAITING", 50, "a number of requests"),
    };
    for (name, value) in [
        ("REGISTER_LIMIT", limits.per_address),
        ("REGISTER_WAITING", limits.waiting),
    ] {
        if value == 0 {
            r.problem(name, "must be at least 1");
        }
    }
    limits
}
