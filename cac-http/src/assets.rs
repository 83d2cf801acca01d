//! Style and script, embedded and named by their content, so that browsers keep them for good; the specification and its UI.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use poem::http::{StatusCode, header};
use poem::web::Path;
use poem::{Endpoint, Response, endpoint::make_sync, handler};
use sha2::{Digest as _, Sha256};

use crate::api;

/// Whether files are read anew each time, so that whoever works on them sees a change at once: in an unoptimised build, where its
/// checkout is. A release has everything in itself.
pub(crate) const RELOAD: bool = cfg!(debug_assertions);

/// A file of this package as it is now, or as it was built in.
pub(crate) fn newest(path: &str, embedded: &str) -> String {
    let checkout = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    match RELOAD {
        true => std::fs::read_to_string(checkout.join(path)).unwrap_or_else(|_| embedded.into()),
        false => embedded.to_owned(),
    }
}

#[derive(Clone)]
struct Asset {
    stem: &'static str,
    /// `style.0123456789abcdef.css`
    name: String,
    kind: &'static str,
    text: String,
}

macro_rules! files {
    ($(($stem:literal, $end:literal, $kind:literal)),+) => {
        [$(($stem, $end, $kind, include_str!(concat!("../assets/", $stem, ".", $end)))),+]
    };
}

/// Stem, ending, media type and text of each.
const FILES: [(&str, &str, &str, &str); 4] = files!(
    ("style", "css", "text/css; charset=utf-8"),
    ("page", "js", "text/javascript; charset=utf-8"),
    ("new", "js", "text/javascript; charset=utf-8"),
    ("status", "js", "text/javascript; charset=utf-8")
);

static EMBEDDED: LazyLock<Vec<Asset>> = LazyLock::new(all);

fn all() -> Vec<Asset> {
    FILES
        .into_iter()
        .map(|(stem, end, kind, embedded)| {
            let text = newest(&format!("assets/{stem}.{end}"), embedded);
            let hash = cac_core::secret::hex(&Sha256::digest(&text));
            let name = format!("{stem}.{}.{end}", &hash[..16]);
            Asset {
                stem,
                name,
                kind,
                text,
            }
        })
        .collect()
}

fn assets() -> Cow<'static, [Asset]> {
    match RELOAD {
        true => Cow::Owned(all()),
        false => Cow::Borrowed(EMBEDDED.as_slice()),
    }
}

/// Where each file is, by its stem.
pub(crate) fn places() -> BTreeMap<&'static str, String> {
    assets()
        .iter()
        .map(|asset| (asset.stem, format!("/assets/{}", asset.name)))
        .collect()
}

#[handler]
pub(crate) fn file(Path(name): Path<String>) -> poem::Result<Response> {
    let all = assets();
    let asset = all.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or(StatusCode::NOT_FOUND)?;
    Ok(Response::builder()
        .content_type(asset.kind)
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header(header::VARY, "Accept-Encoding")
        .body(asset.text.clone()))
}

/// The specification as it stands in the repository.
pub(crate) fn spec(text: String) -> impl Endpoint {
    poem::get(make_sync(move |_| {
        Response::builder()
            .content_type("application/json")
            .header(header::CACHE_CONTROL, "no-cache")
            .body(text.clone())
    }))
}

/// Swagger UI, all of it in one page.
pub(crate) fn docs() -> impl Endpoint {
    // Its script stands inside the page, so this one page needs a policy of its own.
    const CSP: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
                       font-src data:; connect-src 'self'; form-action 'none'; \
                       base-uri 'none'; frame-ancestors 'none'";
    let html = api::service().swagger_ui_html();
    poem::get(make_sync(move |_| {
        Response::builder()
            .content_type("text/html; charset=utf-8")
            .header(header::CONTENT_SECURITY_POLICY, CSP)
            .header(header::CACHE_CONTROL, "no-cache")
            .body(html.clone())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_worked_on_is_read_anew_and_a_release_needs_none() {
        assert_eq!(
            newest("assets/style.css", "built in") == "built in",
            !RELOAD
        );
        assert_eq!(newest("assets/nothing.css", "built in"), "built in");
        assert_eq!(RELOAD, cfg!(debug_assertions));
    }
}
