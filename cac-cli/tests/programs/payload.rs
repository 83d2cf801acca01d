//! Text that wants to be something else — SQL, HTML, headers, lines of a log, directives of nginx, terminal codes — in every text field of every
//! operation, of a running portal; then everything that shows what was stored.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::desk::Desk;
use crate::portal::{Portal, json as read};

const HOSTILE: [&str; 9] = [
    "'; DROP TABLE \"Containers\"; --",
    "\" OR 1=1 --",
    "<script>hostile()</script><img src=x onerror=hostile()>\"'>",
    "a\r\nX-Hostile: yes\r\n\r\n<h1>hostile</h1>",
    "a\nhostile INFO line: nobody wrote this",
    "a\u{0}b",
    "; } server { listen 6666; } #",
    "\u{1b}[31mhostile\u{7}\u{202e}",
    "{{ 7 * 191 }}${7*191}../../../../etc/passwd",
];

/// Fields whose text is a program by their very purpose, for admins.
const PROGRAMS: [&str; 1] = ["job_create command"];

struct Attack<'a> {
    portal: &'a Portal,
    session: String,
    sent: usize,
    stored: usize,
}

impl Attack<'_> {
    /// Sends a body; nothing may break, whatever the answer is.
    async fn send(&mut self, method: &Method, path: &str, body: &Value) {
        let request = self.portal.request(method.clone(), path);
        let request = request.header("cookie", &self.session).json(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert!(
            answer.headers().get("x-hostile").is_none(),
            "{method} {path} {body}"
        );
        let kind = answer
            .headers()
            .get("content-type")
            .map(|v| v.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        assert!(status < 500, "{method} {path} {body}: {status} {text}");
        if let Some(kind) = kind {
            assert!(kind.contains("json"), "{method} {path} answers {kind}");
        }
        self.sent += 1;
        self.stored += usize::from((200..300).contains(&status));
    }

    /// The operation's example with each text in turn in each of its text fields.
    async fn operation(&mut self, method: &Method, path: &str, operation: &Value, spec: &Value) {
        let media = &operation["requestBody"]["content"]["application/json"];
        let Some(name) = media["schema"]["$ref"]
            .as_str()
            .and_then(|at| at.rsplit('/').next())
        else {
            return;
        };
        let fields = spec["components"]["schemas"][name]["properties"]
            .as_object()
            .unwrap();
        for (field, schema) in fields {
            let what = format!("{} {field}", operation["operationId"].as_str().unwrap());
            if PROGRAMS.contains(&&*what) {
                continue;
            }
            for (number, hostile) in HOSTILE.into_iter().enumerate() {
                let value = match schema["type"].as_str() {
                    Some("string") => json!(hostile),
                    Some("array") => json!([hostile]),
                    Some("object") => json!({"site": hostile, (hostile): "x"}),
                    _ => continue,
                };
                let mut body = media["example"].clone();
                // Names that are unique, so that the request does not fail for another reason.
                for unique in ["hostname", "name", "username"] {
                    if body[unique].is_string() && path != "/login" {
                        body[unique] = json!(format!("u{}", self.sent));
                    }
                }
                // Nowhere else than here.
                if body["apiUrl"].is_string() {
                    body["apiUrl"] = json!("https://127.0.0.1:9");
                }
                body[field] = value;
                self.send(method, path, &body).await;
                if path == "/containers" {
                    let registration = json!({
                        "hostname": format!("r{}", self.sent), "ipv4Address": format!("127.99.{}.{}", self.sent / 200, self.sent % 200 + 1),
                        "username": "alice", "osRelease": "debian", "containerId": 5000 + self.sent, "httpPort": 8080, "node": "pve1",
                        "macAddress": format!("BC:24:11:01:{:02X}:{number:02X}", self.sent % 256), "additionalProtocols": ["rdp"],
                    });
                    let mut body = registration.clone();
                    body[field] = match schema["type"].as_str() {
                        Some("array") => json!([hostile]),
                        _ => json!(hostile),
                    };
                    self.send(method, path, &body).await;
                }
            }
        }
    }
}

fn filled(path: &str) -> String {
    // The node that is changed is not the one where the containers are.
    let path = match path {
        "/nodes/{id}" => "/nodes/3",
        path => path,
    };
    path.replace("{id}", "1")
        .replace("{sid}", "1")
        .replace("{jobId}", "1")
        .replace("{username}", "alice")
        .replace("{name}", "first")
        .replace("{link}", "none")
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_stays_text_everywhere() {
    let desk = Desk::with(&[("CAC_LOG", "debug,hyper=info,sqlx=info")]);
    let portal = Portal::new(&*desk.url);
    let session = portal.login("admin", "admin-demo").await.unwrap();
    let (id, job) = portal.create(&session, "target").await;
    portal.follow(&session, job).await;
    assert_eq!(id, 1);
    let spec = read(portal.get("/openapi.json", "").await, 200).await;
    let mut attack = Attack {
        portal: &portal,
        session: session.clone(),
        sent: 0,
        stored: 0,
    };
    let paths = spec["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            // It guesses passwords, which gets slower and slower for this address; it is tried below, once.
            if operation["operationId"] != "login_create" {
                attack
                    .operation(&method, &filled(path), operation, &spec)
                    .await;
            }
        }
    }
    for hostile in [HOSTILE[2], HOSTILE[3], HOSTILE[7]] {
        attack
            .send(
                &Method::POST,
                "/login",
                &json!({"username": hostile, "password": hostile}),
            )
            .await;
    }
    // In paths and queries, too.
    for hostile in HOSTILE {
        let escaped: String = url::form_urlencoded::byte_serialize(hostile.as_bytes()).collect();
        for path in [
            "/quotas/",
            "/containers?user=",
            "/audit?target=",
            "/audit?username=",
            "/login?redirect=",
            "/",
            "/proxies/",
        ] {
            let answer = portal
                .get(&format!("{path}{}", escaped.replace('+', "%20")), &session)
                .await;
            assert!(
                answer.status().as_u16() < 500 && answer.headers().get("x-hostile").is_none(),
                "{path}"
            );
        }
    }
    assert!(
        attack.sent > 250 && attack.stored > 40,
        "{} sent, {} stored",
        attack.sent,
        attack.stored
    );

    // Everything that can be read, as a page and as data.
    let mut pages = 0;
    for (path, methods) in paths {
        let operation = &methods["get"]["operationId"];
        if methods["get"].is_null() || path.contains("stream") || operation == "nginx_find" {
            continue;
        }
        let request = portal
            .request(Method::GET, &filled(path))
            .header("cookie", &session);
        let answer = request.header("accept", "text/html").send().await.unwrap();
        assert!(answer.status().as_u16() < 500, "{path}");
        let kind = answer
            .headers()
            .get("content-type")
            .map(|v| v.to_str().unwrap().to_owned());
        let csp = answer.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(!csp.contains("unsafe-inline"), "{path}: {csp}");
        let text = answer.text().await.unwrap();
        if kind.is_some_and(|kind| kind.starts_with("text/html")) {
            for raw in [
                "<script>hostile",
                "<img src=x",
                "<h1>hostile",
                "1337",
                "\u{1b}",
            ] {
                assert!(!text.contains(raw), "{path} shows {raw}");
            }
            pages += 1;
        }
    }
    assert!(pages >= 8, "only {pages} pages");
    let conf = portal
        .get("/nginx.conf", &session)
        .await
        .text()
        .await
        .unwrap();
    let known: BTreeSet<char> = conf.chars().filter(|c| c.is_control()).collect();
    assert!(
        known == BTreeSet::from(['\n']) && !conf.contains("6666") && !conf.contains("hostile"),
        "{conf}"
    );
    let still = read(portal.get("/containers/1", &session).await, 200).await;
    assert_eq!(still["hostname"], "target");
    // One line of the log is one line of ours.
    let log = desk.demo.err();
    assert!(log.lines().count() > 500, "{} lines", log.lines().count());
    for line in log.lines() {
        assert!(
            line.starts_with("20") && line.as_bytes()[10] == b'T',
            "a line that nobody wrote: {line}"
        );
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

/// A body that does not come, and one that is nothing but brackets.
#[tokio::test(flavor = "multi_thread")]
async fn slow_and_deep_bodies_end() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let desk = Desk::with(&[]);
    let listen = desk.url.trim_start_matches("http://");
    let mut slow = tokio::net::TcpStream::connect(listen).await.unwrap();
    let head = format!(
        "POST /register HTTP/1.1\r\nHost: {listen}\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let portal = Portal::new(&*desk.url);
    for deep in ["[".repeat(60_000), "{\"a\":".repeat(12_000)] {
        let request = portal
            .request(Method::POST, "/register")
            .header("content-type", "application/json");
        read(request.body(deep).send().await.unwrap(), 400).await;
    }
    let large = portal
        .request(Method::POST, "/register")
        .header("content-type", "application/json");
    read(large.body("x".repeat(70_000)).send().await.unwrap(), 413).await;
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(crate::lab::PATIENCE, slow.read(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer[..read.unwrap().unwrap()]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}
