//! Reading what people are limited to.

use super::reader::Reader;
use crate::account_request::Limits;

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
