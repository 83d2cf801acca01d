//! Pages, styles and scripts go over the wire compressed. Event streams, JSON and the file of nginx do not: the first must not be
//! held back, and the last has a strong `ETag`.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use poem::Response;
use poem::http::HeaderMap;
use poem::http::header::{self, HeaderValue};

/// Below this a packet is a packet.
const WORTH: usize = 1400;

/// Whether the client takes gzip.
pub(crate) fn accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|word| {
        let (name, weight) = word.split_once(';').unwrap_or((word, ""));
        let weight = weight.trim().strip_prefix("q=").map(str::trim);
        let refused = weight.is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// The same answer, smaller where it is a text for browsers.
pub(crate) async fn compress(mut response: Response) -> Response {
    let kind = response.content_type().unwrap_or_default();
    let text = ["text/html", "text/css", "text/javascript"];
    if !text.iter().any(|name| kind.starts_with(name)) {
        return response;
    }
    let Ok(bytes) = response.take_body().into_bytes().await else {
        return response;
    };
    if bytes.len() < WORTH {
        response.set_body(bytes);
        return response;
    }
    let mut gzip = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    match gzip.write_all(&bytes).and_then(|()| gzip.finish()) {
        Ok(small) => {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            response.set_body(small);
        }
        Err(_) => response.set_body(bytes),
    }
    response
}
