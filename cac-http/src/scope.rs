//! Which scope of an API token each address needs. What is not listed needs `admin`, everything that the owner may do.

use cac_core::token::Scope;
use poem::http::{Method, StatusCode};

use crate::error::ApiError;

/// One of these is enough.
pub(crate) fn needed(method: &Method, path: &str) -> &'static [Scope] {
    let read = matches!(*method, Method::GET | Method::HEAD);
    let first = path.split('/').nth(1).unwrap_or_default();
    match (first, read) {
        // Two operations share this address; each looks again.
        ("containers", false) if path == "/containers" => {
            &[Scope::ContainersWrite, Scope::ContainersRegister]
        }
        ("containers", false) => &[Scope::ContainersWrite],
        ("containers" | "templates" | "quota", true) => &[Scope::ContainersRead],
        ("jobs" | "status", _) => &[Scope::Jobs],
        ("api", true) if path.starts_with("/api/stream/") => &[Scope::Jobs],
        ("nginx.conf", true) => &[Scope::NginxRead],
        ("proxies", _) if *method == Method::POST => &[Scope::NginxReport],
        _ => &[Scope::Admin],
    }
}

/// The token has none of them.
pub(crate) fn missing(needed: &[Scope]) -> ApiError {
    let names: Vec<String> = needed
        .iter()
        .map(|scope| format!("`{}`", scope.name()))
        .collect();
    ApiError::new(
        StatusCode::FORBIDDEN,
        format!(
            "This API token does not have the scope {}; make one that has (POST /tokens).",
            names.join(" or ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_needs_everything() {
        for (method, path, scope) in [
            (Method::GET, "/containers/7", Scope::ContainersRead),
            (Method::POST, "/containers/7/start", Scope::ContainersWrite),
            (Method::DELETE, "/containers/7", Scope::ContainersWrite),
            (Method::POST, "/jobs", Scope::Jobs),
            (Method::GET, "/api/stream/7", Scope::Jobs),
            (Method::GET, "/nginx.conf", Scope::NginxRead),
            (Method::PUT, "/quotas/alice", Scope::Admin),
            (Method::GET, "/quotas", Scope::Admin),
            (Method::POST, "/tokens", Scope::Admin),
            (Method::GET, "/nodes", Scope::Admin),
            (Method::POST, "/proxies/a/revision", Scope::NginxReport),
            (Method::DELETE, "/proxies/a", Scope::Admin),
            (Method::GET, "/proxies", Scope::Admin),
            (Method::GET, "/containersX", Scope::Admin),
            (Method::POST, "/quota", Scope::Admin),
        ] {
            assert_eq!(needed(&method, path), [scope], "{method} {path}");
        }
    }
}
