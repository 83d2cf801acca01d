//! The bare limit: a server of the same framework whose handlers run the same SQL, session look-up included, or answer what they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use cac_core::config::{Config, Program, Vars};
use cac_core::{Core, args, routes};
use poem::http::StatusCode;
use poem::listener::TcpAcceptor;
use poem::web::Data;
use poem::{EndpointExt as _, Request, Response, Route, Server, get, handler};

/// As the first word of this program: serve.
pub(crate) const MODE: &str = "serve-bare";

struct Bare {
    core: Core,
    /// The stored hash.
    session: String,
    list: String,
    show: String,
    page: String,
    file: String,
    etag: String,
}

impl Bare {
    /// What every handler of a signed-in user asks first.
    async fn session(&self) {
        let sql = r#"SELECT "session_id", "username", "admin", "adminCheckedAt" FROM "Sessions"
                     WHERE "session_id" IN ? AND "expires" > ? AND "username" IS NOT NULL"#;
        let given = args![vec![self.session.clone()], chrono::Utc::now()];
        assert_eq!(self.core.db.all(sql, given).await.unwrap().len(), 1);
    }
}

#[handler]
async fn list(bare: Data<&Arc<Bare>>) -> Response {
    bare.session().await;
    let db = &bare.core.db;
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE (? OR "username" = ?)"#;
    db.one(sql, args![false, "alice"]).await.unwrap();
    let sql =
        r#"SELECT * FROM "Containers" WHERE (? OR "username" = ?) ORDER BY "id" LIMIT ? OFFSET ?"#;
    let rows = db
        .all(sql, args![false, "alice", 1000_i64, 0_i64])
        .await
        .unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.get("id").unwrap()).collect();
    services(&bare, ids).await;
    json(&bare.list)
}

#[handler]
async fn show(bare: Data<&Arc<Bare>>) -> Response {
    bare.session().await;
    let sql = r#"SELECT * FROM "Containers" WHERE "id" = ?"#;
    bare.core.db.opt(sql, args![1_i64]).await.unwrap();
    services(&bare, vec![1]).await;
    json(&bare.show)
}

async fn services(bare: &Bare, ids: Vec<i64>) {
    let sql = r#"SELECT "id", "containerId", "type", "internalPort", "externalPort", "tls", "externalHostname", "createdAt", "updatedAt"
                 FROM "Services" WHERE "containerId" IN ? ORDER BY "id""#;
    bare.core.db.all(sql, args![ids]).await.unwrap();
}

#[handler]
async fn page(bare: Data<&Arc<Bare>>) -> Response {
    bare.session().await;
    let sql = r#"SELECT * FROM "Jobs" WHERE "id" = ?"#;
    bare.core.db.opt(sql, args![1_i64]).await.unwrap();
    let sql = r#"SELECT * FROM "JobStatuses" WHERE "jobId" = ? ORDER BY "id" LIMIT ? OFFSET ?"#;
    bare.core
        .db
        .all(sql, args![1_i64, 1000_i64, 0_i64])
        .await
        .unwrap();
    Response::builder()
        .content_type("text/html; charset=utf-8")
        .body(bare.page.clone())
}

#[handler]
fn file(bare: Data<&Arc<Bare>>, request: &Request) -> Response {
    let answer = Response::builder()
        .header("etag", &bare.etag)
        .header("cache-control", "no-cache");
    if request.header("if-none-match").is_some() {
        return answer.status(StatusCode::NOT_MODIFIED).finish();
    }
    answer
        .content_type("text/plain; charset=utf-8")
        .body(bare.file.clone())
}

fn json(text: &str) -> Response {
    Response::builder()
        .content_type("application/json; charset=utf-8")
        .body(text.to_owned())
}

/// With a database's URL and a session: answers of the sizes that the portal's have.
pub(crate) async fn serve(words: &[String]) {
    let mut vars = Vars(BTreeMap::new());
    vars.0.extend(std::env::vars());
    let portal = crate::portal::Portal::new(format!("http://{}", vars.get("CAC_LISTEN").unwrap()));
    let core = Core::start(Config::load(&vars, Program::Http).unwrap())
        .await
        .unwrap();
    let session = format!("cac={}", words[1]);
    let body = async |path: &str, accept: &str| {
        let request = portal
            .request(reqwest::Method::GET, path)
            .header("cookie", &session);
        request
            .header("accept", accept)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let rendered = routes::render(&core).await.unwrap();
    let sql = r#"SELECT "session_id" FROM "Sessions""#;
    let stored = core.db.one(sql, args![]).await.unwrap();
    let bare = Arc::new(Bare {
        session: stored.get("session_id").unwrap(),
        list: body("/containers", "*/*").await,
        show: body("/containers/1", "*/*").await,
        page: body("/status/1", "text/html").await,
        file: rendered.text,
        etag: rendered.etag,
        core,
    });
    let routes = Route::new()
        .at("/containers", get(list))
        .at("/containers/:id", get(show))
        .at("/status/:id", get(page))
        .at("/nginx.conf", get(file))
        .data(bare);
    let listener = tokio::net::TcpListener::bind((crate::lab::own_address(), 0))
        .await
        .unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
    Server::new_with_acceptor(acceptor)
        .run(routes)
        .await
        .unwrap();
}
