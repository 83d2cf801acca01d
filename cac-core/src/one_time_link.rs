//! Where links that work once lead. Their path is a secret: whoever reads it in a log, or in a `Referer`, can use the link. One list
//! for the portal's log and audit, its headers, and the nginx in front of it.

use std::borrow::Cow;

/// What the paths of such links begin with.
pub const PREFIXES: [&str; 2] = ["/account/", "/register/confirm/"];

/// Whether a request for this path carries such a secret.
#[must_use]
pub fn leads_to(path: &str) -> bool {
    PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// A path as logs may have it.
#[must_use]
pub fn without_secret(path: &str) -> Cow<'_, str> {
    match PREFIXES.iter().find(|prefix| path.starts_with(**prefix)) {
        Some(prefix) => Cow::Owned(format!("{prefix}…")),
        None => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_logs_may_have() {
        assert_eq!(without_secret("/account/abc"), "/account/…");
        assert_eq!(
            without_secret("/register/confirm/abc/x"),
            "/register/confirm/…"
        );
        assert_eq!(without_secret("/accounts"), "/accounts");
        assert!(leads_to("/account/abc") && !leads_to("/register"));
    }
}
