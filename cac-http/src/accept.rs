//! HTML or JSON: what the client prefers, and answers that are documented as both.

use poem::http::HeaderMap;
use poem::http::header::ACCEPT;
use poem::{IntoResponse, Response};
use poem_openapi::ResponseContent;
use poem_openapi::payload::{Html, Json, Payload};
use poem_openapi::registry::{MetaMediaType, Registry};
use poem_openapi::types::{ToJSON, Type};

/// Whether `text/html` is named and weighs more than JSON, as every browser's navigation says and no script does.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
    let (html, json) = weights(headers);
    html > json
}

/// Whether JSON is named and weighs at least as much as `text/html`.
pub(crate) fn names_json(headers: &HeaderMap) -> bool {
    let (html, json) = weights(headers);
    json > 0.0 && json >= html
}

fn weights(headers: &HeaderMap) -> (f32, f32) {
    let (mut html, mut json) = (0.0, 0.0);
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok());
    for range in values.flat_map(|v| v.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|p| p.strip_prefix("q="));
        let weight = weight.map_or(1.0, |q| q.parse().unwrap_or(0.0));
        match name.as_str() {
            "text/html" => html = weight,
            "application/json" | "application/problem+json" => json = f32::max(json, weight),
            _ => {}
        }
    }
    (html, json)
}

/// The same thing as JSON and as a page.
pub(crate) enum Both<T: Type + ToJSON> {
    Json(Json<T>),
    Html(Html<String>),
}

impl<T: Type + ToJSON> ResponseContent for Both<T> {
    fn media_types() -> Vec<MetaMediaType> {
        let mut types = <Json<T> as ResponseContent>::media_types();
        types.extend(<Html<String> as ResponseContent>::media_types());
        types
    }

    fn register(registry: &mut Registry) {
        <Json<T> as Payload>::register(registry);
    }
}

impl<T: Type + ToJSON> IntoResponse for Both<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Json(json) => json.into_response(),
            Self::Html(html) => html.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_pages_and_scripts_json() {
        for (accept, html) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                true,
            ),
            ("text/html", true),
            ("*/*", false),
            ("", false),
            ("application/json", false),
            ("application/json, text/html;q=0.5", false),
            ("application/json;q=0.5, text/html", true),
            ("text/html;q=0", false),
            ("text/html;q=nonsense", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a header value"));
            assert_eq!(prefers_html(&headers), html, "{accept}");
        }
    }
}
