//! Every page that is looked at, and a demo that has something to show on each.

use std::fmt::Write as _;

use cac_core::db::Db;
use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::desk::Desk;
use crate::fill;
use crate::portal::{self, Portal};

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Who {
    Nobody,
    Alice,
    Admin,
}
use Who::{Admin, Alice, Nobody};

/// One page: how pictures call it, its path, who looks at it, what must be there.
pub(crate) struct Page {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) who: Who,
    pub(crate) has: &'static str,
    /// Sends the page's form with what is refused, by script since the browser would not send it.
    sends: &'static str,
    /// The status that the browser complains of because it is meant.
    pub(crate) status: u16,
}

const fn page(name: &'static str, path: &'static str, who: Who, has: &'static str) -> Page {
    Page {
        name,
        path,
        who,
        has,
        sends: "",
        status: 0,
    }
}

impl Page {
    const fn answers(self, status: u16) -> Self {
        Self { status, ..self }
    }

    const fn sends(self, sends: &'static str) -> Self {
        Self { sends, ..self }
    }
}

/// In braces: ids that the stage has.
#[rustfmt::skip]
pub(crate) const PAGES: &[Page] = &[
    page("login", "/login", Nobody, "Sign in"),
    page("login-refused", "/login", Nobody, "password is wrong").sends("username=nobody&password=wrong").answers(401),
    page("login-second-factor", "/login", Nobody, "has a second factor").sends("username=carol&password=carol-demo").answers(401),
    page("register", "/register", Nobody, "Ask for an account"),
    page("register-refused", "/register", Nobody, "This was not accepted").sends("username=a&email=none").answers(400),
    page("containers-empty", "/containers", Admin, "There is no container yet"),
    page("containers", "/containers", Alice, "running"),
    page("containers-none-fits", "/containers?search=nothing-like-it", Alice, "No container fits"),
    page("containers-many", "/containers?all=true", Admin, "501 in all"),
    page("containers-new", "/containers/new", Alice, "New container"),
    page("containers-new-refused", "/containers/new", Alice, "This was not accepted").sends("hostname=no_such_name&httpPort=1&cores=0").answers(400),
    page("container", "/containers/{container}", Alice, "Overview"),
    page("container-of-another", "/containers/{container}", Admin, "Give it away"),
    page("container-lost", "/containers/{lost}", Admin, "unknown"),
    page("status", "/status/{job}", Alice, "success"),
    page("status-failed", "/status/{failed}", Admin, "failure"),
    page("status-long", "/status/{long}", Admin, "success"),
    page("status-waits", "/status/{waits}", Admin, "not before"),
    page("jobs", "/jobs", Alice, "Your jobs"),
    page("jobs-all", "/jobs?all=true", Admin, "Jobs"),
    page("tokens", "/tokens", Alice, "ci-of-alice"),
    page("tokens-empty", "/tokens", Admin, "There is no token yet"),
    page("tokens-all", "/tokens?all=true", Admin, "ci-of-alice"),
    page("tokens-refused", "/tokens", Admin, "This was not accepted").sends("name=x&expires=2001-01-01T00:00").answers(400),
    page("sessions", "/sessions", Alice, "Your sessions"),
    page("audit", "/audit", Admin, "Audit log"),
    page("account-requests", "/account-requests", Admin, "Bob Builder"),
    page("account-request", "/account-requests/{request}", Admin, "asks for an account"),
    page("quotas", "/quotas", Admin, "alice"),
    page("nodes", "/nodes", Admin, "pve1"),
    page("node-new", "/nodes/new", Admin, "New node"),
    page("node", "/nodes/{node}", Admin, "Remove"),
    page("importable", "/nodes/{node}/importable", Admin, "Import from"),
    page("reconciliation", "/reconciliation", Admin, "The books and Proxmox VE"),
    page("not-found", "/containers/4000000", Alice, "There is nothing here").answers(404),
    page("forbidden", "/nodes", Alice, "This is not yours to do").answers(403),
];

pub(crate) struct Stage {
    desk: Desk,
    ids: Vec<(&'static str, i64)>,
}

impl Stage {
    /// Alice has a container with names as long as can be, others have 500; jobs fail, wait, and write a lot; Bob asks for an account.
    pub(crate) async fn new() -> Self {
        let desk = Desk::new();
        let portal = Portal::new(&*desk.url);
        let session = portal.login("alice", "alice-demo").await.unwrap();
        let long = "a-name-that-is-as-long-as-people-are-allowed-to-make-it-here";
        let (container, container_job) = portal.create(&session, long).await;
        portal.follow(&session, container_job).await;
        let of = |what: &str| format!("/containers/{container}/{what}");
        for label in [
            "another-name-that-is-as-long-as-people-may-make-it-for-this",
            "docs",
        ] {
            let service = json!({"type": "http", "internalPort": 8080, "externalHostname": label});
            post(&portal, &of("services"), &session, &service).await;
        }
        let snapshot = json!({"name": "before-the-great-upgrade-of-2026", "description": "It works: keep it until the new one does."});
        post(&portal, &of("snapshots"), &session, &snapshot).await;
        let token = json!({"name": "ci-of-alice", "scopes": ["containers:read"]});
        post(&portal, "/tokens", &session, &token).await;
        request_account(&portal, "bob").await;

        let file = desk.data.path().join("cac.db");
        let db = Db::connect(&format!("sqlite:{}", file.display()))
            .await
            .unwrap();
        fill::containers(&db, 0..500, |_| "dora").await;
        let admin = portal.login("admin", "admin-demo").await.unwrap();
        let work = async |command: &str, after: Option<&str>| {
            let asked = json!({"command": command, "startAfter": after});
            let told = post(&portal, "/jobs", &admin, &asked).await;
            told["id"].as_i64().unwrap()
        };
        let failed = work("printf '\\033[1mChecking\\033[0m the \\033[32mgood\\033[0m and the \\033[31mbad\\033[0m: %0300d\\n' 7; exit 3", None).await;
        let lines = work("for n in $(seq 3000); do printf '\\033[3%dm%05d\\033[0m something happened, and this line says what it was\\n' $((n % 8)) $n; done", None).await;
        let waits = work("true", Some("2027-03-01T03:00:00Z")).await;
        for job in [failed, lines] {
            portal.follow(&admin, job).await;
        }
        let first = async |path: &str| {
            let told = portal::json(portal.get(path, &admin).await, 200).await;
            told[0]["id"].as_i64().unwrap()
        };
        let ids = vec![
            ("{container}", container),
            ("{lost}", 500),
            ("{job}", container_job),
            ("{failed}", failed),
            ("{long}", lines),
            ("{waits}", waits),
            ("{request}", first("/account-requests").await),
            ("{node}", first("/nodes").await),
        ];
        Self { desk, ids }
    }

    pub(crate) async fn browser(&self) -> Browser {
        Browser::new(&self.desk.url).await
    }

    /// Somebody else may look from now on.
    pub(crate) async fn enter(&self, browser: &Browser, who: Who) {
        match who {
            Nobody => browser.forget_everything().await,
            Alice => browser.sign_in("alice").await,
            Admin => browser.sign_in("admin").await,
        }
    }

    pub(crate) async fn open(&self, browser: &Browser, page: &Page) {
        let mut path = page.path.to_owned();
        for (name, id) in &self.ids {
            path = path.replace(name, &id.to_string());
        }
        browser.goto(&path).await;
        if !page.sends.is_empty() {
            let mut script = String::from(
                "const form = document.querySelector('main form[method=post]'); form.noValidate = true;",
            );
            for (name, value) in url::form_urlencoded::parse(page.sends.as_bytes()) {
                write!(script, "form.elements['{name}'].value = '{value}';").unwrap();
            }
            browser
                .evaluate(&format!("{{{script} form.submit();}} 0"))
                .await;
        }
        browser.sees(page.has).await;
    }
}

async fn post(portal: &Portal, path: &str, session: &str, body: &Value) -> Value {
    let request = portal.request(Method::POST, path).json(body);
    let answer = request.header("cookie", session).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

/// Somebody without an account asks for one.
pub(crate) async fn request_account(portal: &Portal, name: &str) {
    let body = json!({
        "username": name, "email": format!("{name}@example.org"), "name": "Bob Builder", "reason": "To build things.",
    });
    post(portal, "/register", "", &body).await;
}
