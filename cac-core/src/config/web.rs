//! What the web server allows each client, and what it says about itself.

use std::time::Duration;

use url::Url;

use super::reader::Reader;
use super::{OpenLimits, RateLimits, SecurityContact};

pub(super) fn rate_limits(r: &mut Reader<'_>) -> RateLimits {
    let minutes = r.parse("RATE_LIMIT_MINUTES", 15_u32, "a number of minutes");
    let limits = RateLimits {
        strangers: r.parse("RATE_LIMIT", 100, "a number of requests"),
        users: r.parse("RATE_LIMIT_USER", 3000, "a number of requests"),
        window: Duration::from_secs(60 * u64::from(minutes)),
    };
    for (name, value) in [
        ("RATE_LIMIT_MINUTES", minutes),
        ("RATE_LIMIT", limits.strangers),
        ("RATE_LIMIT_USER", limits.users),
    ] {
        if value == 0 {
            r.problem(name, "must be at least 1");
        }
    }
    limits
}

pub(super) fn security_contact(r: &mut Reader<'_>) -> Option<SecurityContact> {
    let text = r.vars.get("SECURITY_CONTACT")?.to_owned();
    if text == "none" {
        return Some(SecurityContact::Nobody);
    }
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "https" | "mailto" | "tel") => {
            Some(SecurityContact::Address(url))
        }
        _ => {
            r.problem(
                "SECURITY_CONTACT",
                "must be `none` or an address such as `mailto:security@example.org` or `https://example.org/security`",
            );
            None
        }
    }
}

pub(super) fn change_password_url(r: &mut Reader<'_>) -> Option<Url> {
    let text = r.vars.get("CHANGE_PASSWORD_URL")?.to_owned();
    let url = text
        .parse::<Url>()
        .ok()
        .filter(|url| url.scheme() == "https");
    if url.is_none() {
        let message = "must begin with `https://`, such as `https://pve.example.org:8006/`";
        r.problem("CHANGE_PASSWORD_URL", message);
    }
    url
}

pub(super) fn open_limits(r: &mut Reader<'_>) -> OpenLimits {
    let mut limit = |name: &str, default: usize, what: &str| {
        let limit = r.parse(name, default, what);
        if limit == 0 {
            r.problem(name, "must be at least 1");
        }
        limit
    };
    OpenLimits {
        connections: limit("CONNECTIONS_PER_ADDRESS", 256, "a number of connections"),
        streams: limit("STREAMS_PER_USER", 20, "a number of event streams"),
        waits: limit("WAITS_PER_PROXY", 8, "a number of waiting requests"),
    }
}
