//! Style and script, embedded and named by their content, so that browsers keep them for good; the specification and its UI.

use std::sync::LazyLock;

use poem::http::{StatusCode, header};
use poem::web::Path;
use poem::{Endpoint, Response, endpoint::make_sync, handler};
use sha2::{Digest as _, Sha256};

use crate::api;

struct Asset {
    /// `style.0123456789abcdef.css`
    name: String,
    kind: &'static str,
    text: &'static str,
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "style",
        "css",
        "text/css; charset=utf-8",
        include_str!("../assets/style.css"),
    )
});
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "status",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("../assets/status.js"),
    )
});

fn asset(stem: &str, end: &str, kind: &'static str, text: &'static str) -> Asset {
    let hash = cac_core::secret::hex(&Sha256::digest(text));
    Asset {
        name: format!("{stem}.{}.{end}", &hash[..16]),
        kind,
        text,
    }
}

/// Where the style sheet is.
pub(crate) fn style() -> String {
    format!("/assets/{}", STYLE.name)
}

/// Where the script of the progress page is.
pub(crate) fn script() -> String {
    format!("/assets/{}", SCRIPT.name)
}

#[handler]
pub(crate) fn file(Path(name): Path<String>) -> poem::Result<Response> {
    let asset = [&*STYLE, &*SCRIPT]
        .into_iter()
        .find(|asset| asset.name == name);
    let asset = asset.ok_or(StatusCode::NOT_FOUND)?;
    Ok(Response::builder()
        .content_type(asset.kind)
        .header(header::CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header(header::VARY, "Accept-Encoding")
        .body(asset.text))
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
                       font-src data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";
    let html = api::service().swagger_ui_html();
    poem::get(make_sync(move |_| {
        Response::builder()
            .content_type("text/html; charset=utf-8")
            .header(header::CONTENT_SECURITY_POLICY, CSP)
            .header(header::CACHE_CONTROL, "no-cache")
            .body(html.clone())
    }))
}
