//! What a browser without script does: it shows pages and sends forms.

use reqwest::Response;

use crate::lab::{HTML, Lab};

/// A page that must be there, with `/` as itself.
pub(crate) async fn page(lab: &Lab, path: &str, session: &str) -> String {
    let answer = lab.get(path, session).header("accept", HTML);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    let kind = answer.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/html"), "{path}: {kind}");
    answer.text().await.unwrap().replace("&#x2f;", "/")
}

/// A form that is sent.
pub(crate) async fn submit(
    lab: &Lab,
    path: &str,
    session: &str,
    form: &[(&str, &str)],
) -> Response {
    let request = lab.post(path, session).header("accept", HTML);
    let request = request.header("origin", &lab.url);
    request.form(form).send().await.unwrap()
}

/// Status and `Location`.
pub(crate) fn location(answer: &Response) -> (u16, &str) {
    let place = answer.headers().get("location");
    let place = place.map_or("", |place| place.to_str().unwrap());
    (answer.status().as_u16(), place)
}

/// Text of a page with these pieces, each.
pub(crate) fn has(page: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(page.contains(piece), "no {piece} in {page}");
    }
}
