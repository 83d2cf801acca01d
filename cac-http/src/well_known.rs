//! Files that browsers, crawlers and people fetch by themselves from well-known places: icons, `robots.txt`, the manifest,
//! `security.txt` (RFC 9116) and where passwords are changed. They cost nothing, so nobody's budget pays for them.

use cac_core::{Config, Core};
use chrono::{Duration, NaiveTime, SecondsFormat, Utc};
use poem::endpoint::make_sync;
use poem::http::{StatusCode, header};
use poem::{Endpoint, Response, Route};
use serde_json::json;

use crate::{origin, page};

const ICON: &[u8] = include_bytes!("../assets/icon/favicon.ico");
const VECTOR: &str = include_str!("../assets/icon/icon.svg");
const TOUCH: &[u8] = include_bytes!("../assets/icon/apple-touch-icon.png");
const LARGE: &[u8] = include_bytes!("../assets/icon/icon-192.png");

/// What iOS and Android ask for, one after the other, whatever a page names.
const TOUCH_ICONS: [&str; 12] = [
    "/apple-touch-icon.png",
    "/apple-touch-icon-precomposed.png",
    "/apple-touch-icon-76x76.png",
    "/apple-touch-icon-76x76-precomposed.png",
    "/apple-touch-icon-120x120.png",
    "/apple-touch-icon-120x120-precomposed.png",
    "/apple-touch-icon-152x152.png",
    "/apple-touch-icon-152x152-precomposed.png",
    "/apple-touch-icon-167x167.png",
    "/apple-touch-icon-167x167-precomposed.png",
    "/apple-touch-icon-180x180.png",
    "/apple-touch-icon-180x180-precomposed.png",
];
const SECURITY: &str = "/.well-known/security.txt";
const PASSWORD: &str = "/.well-known/change-password";
/// How long browsers keep an icon.
const DAY: &str = "public, max-age=86400";
/// For how long `security.txt` says it holds; RFC 9116 advises less than a year.
const HOLDS: Duration = Duration::days(90);

/// Whether this is one of the files here, or one that browsers look for in vain.
pub(crate) fn is_one(path: &str) -> bool {
    matches!(
        path,
        "/favicon.ico" | "/icon.svg" | "/icon-192.png" | "/robots.txt" | "/manifest.json"
    ) || path.starts_with("/.well-known/")
        || (path.starts_with("/apple-touch-icon") && path.ends_with(".png"))
}

/// Adds the files to the routes.
pub(crate) fn add(routes: Route, core: &Core) -> Route {
    let config = &core.config;
    let mut routes = routes
        .at("/favicon.ico", file("image/x-icon", ICON))
        .at("/icon.svg", file("image/svg+xml", VECTOR.as_bytes()))
        .at("/icon-192.png", file("image/png", LARGE))
        .at(
            "/robots.txt",
            file("text/plain; charset=utf-8", b"User-agent: *\nDisallow: /\n"),
        )
        .at(
            "/manifest.json",
            text("application/manifest+json", manifest()),
        )
        .at(PASSWORD, change_password(config));
    for place in TOUCH_ICONS {
        routes = routes.at(place, file("image/png", TOUCH));
    }
    match config.published_contact() {
        Some(contact) => routes.at(SECURITY, security(config, contact)),
        None => routes,
    }
}

fn file(kind: &'static str, bytes: &'static [u8]) -> impl Endpoint<Output = Response> + 'static {
    poem::get(make_sync(move |_| {
        Response::builder()
            .content_type(kind)
            .header(header::CACHE_CONTROL, DAY)
            .header(header::VARY, "Accept-Encoding")
            .body(bytes)
    }))
}

fn text(kind: &'static str, text: String) -> impl Endpoint<Output = Response> + 'static {
    poem::get(make_sync(move |_| {
        Response::builder()
            .content_type(kind)
            .header(header::CACHE_CONTROL, DAY)
            .header(header::VARY, "Accept-Encoding")
            .body(text.clone())
    }))
}

fn manifest() -> String {
    let icon =
        |src: &str, sizes: &str, kind: &str| json!({"src": src, "sizes": sizes, "type": kind});
    json!({
        "name": "Create-a-Container",
        "short_name": "Containers",
        "start_url": "/containers",
        "display": "browser",
        "theme_color": "#2b4fc4",
        "background_color": "#ffffff",
        "icons": [
            icon("/icon.svg", "any", "image/svg+xml"),
            icon("/icon-192.png", "192x192", "image/png"),
        ],
    })
    .to_string()
}

fn security(config: &Config, contact: String) -> impl Endpoint<Output = Response> + 'static {
    let place = origin::absolute(config, SECURITY);
    poem::get(make_sync(move |_| {
        // A whole day, so that the file does not change with each request.
        let end = (Utc::now() + HOLDS)
            .date_naive()
            .and_time(NaiveTime::MIN)
            .and_utc();
        let end = end.to_rfc3339_opts(SecondsFormat::Secs, true);
        Response::builder()
            .content_type("text/plain; charset=utf-8")
            .header(header::CACHE_CONTROL, DAY)
            .body(format!(
                "Contact: {contact}\nExpires: {end}\nPreferred-Languages: en\nCanonical: {place}\n"
            ))
    }))
}

/// Password managers send people here ([W3C](https://www.w3.org/TR/change-password-url/)). The portal has no passwords of its own.
fn change_password(config: &Config) -> impl Endpoint<Output = Response> + 'static {
    let place = config.change_password_url.clone();
    poem::get(make_sync(move |_| match &place {
        Some(place) => Response::builder()
            .status(StatusCode::SEE_OTHER)
            .header(header::LOCATION, place.as_str())
            .finish(),
        None => Response::builder()
            .content_type("text/html; charset=utf-8")
            .body(page::change_password()),
    }))
}
