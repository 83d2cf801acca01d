//! What the lists share: pages of rows, and how long something took.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Rows of a page where its address names no other number.
pub(crate) const ROWS: u64 = 100;

/// The address of a list: the conditions that are set, then the page.
pub(super) fn address(path: &str, set: &[(&str, Option<String>)], page: &[(&str, u32)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in set {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    for (name, number) in page {
        query.append_pair(name, &number.to_string());
    }
    let query = query.finish();
    match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{query}"),
    }
}

/// Where a list goes on and where it came from, and what of it is shown.
pub(super) fn pages(
    path: &str,
    set: &[(&str, Option<String>)],
    (limit, offset): (u32, u32),
    (shown, total): (usize, i64),
) -> Value {
    let to = |offset| address(path, set, &[("limit", limit), ("offset", offset)]);
    let end = i64::from(offset) + i64::try_from(shown).unwrap_or(i64::MAX);
    json!({
        "total": total, "first": i64::from(offset) + 1, "last": end, "whole": offset == 0 && end >= total,
        "before": (offset > 0).then(|| to(offset.saturating_sub(limit))),
        "after": (end < total && shown > 0).then(|| to(offset.saturating_add(limit))),
    })
}

/// As a person would say it.
pub(super) fn lasted(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let seconds = (to - from).num_seconds().max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{hours} h {} min", minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;

    #[test]
    fn times_are_said_in_two_units() {
        let begin = DateTime::UNIX_EPOCH;
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3600, "1 h 0 min"),
            (93_780, "26 h 3 min"),
        ] {
            assert_eq!(lasted(begin, begin + Duration::seconds(seconds)), text);
        }
    }

    #[test]
    fn pages_lead_on_and_back_and_keep_what_is_set() {
        let set = [("user", Some("a&b".to_owned())), ("status", None)];
        let middle = pages("/jobs", &set, (10, 10), (10, 25));
        assert_eq!(middle["before"], "/jobs?user=a%26b&limit=10&offset=0");
        assert_eq!(middle["after"], "/jobs?user=a%26b&limit=10&offset=20");
        let all = pages("/jobs", &[], (10, 0), (3, 3));
        assert_eq!(all["whole"], true);
        assert!(all["before"].is_null() && all["after"].is_null(), "{all}");
    }
}
