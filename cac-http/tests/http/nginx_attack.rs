//! Arbitrary strings at every field that can reach `/nginx.conf`: through the API, by forms, and by hand in the database. It is always a
//! file that nginx takes, and every line of it is ours. `CASES=100000 cargo test --release -p cac-http --test http nginx_attack` is the
//! long form; `SEED` chooses other strings.

use std::collections::BTreeSet;

use cac_core::args;
use cac_core::nginx::self_signed;
use cac_core::testing::nginx::{check, hostile, plain};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::lab::Lab;

/// Cases between two looks at the file.
const BATCH: u32 = 25;
const CONTAINERS: i64 = 6;

const FIELDS: [&str; 8] = [
    "protocol",
    "type",
    "internalPort",
    "externalHostname",
    "tls",
    "https",
    "maxBody",
    "timeout",
];
const COLUMNS: [(&str, &str); 11] = [
    (
        "hostname",
        r#"UPDATE "Containers" SET "hostname" = ? WHERE "id" = ?"#,
    ),
    (
        "ipv4Address",
        r#"UPDATE "Containers" SET "ipv4Address" = ? WHERE "id" = ?"#,
    ),
    (
        "username",
        r#"UPDATE "Containers" SET "username" = ? WHERE "id" = ?"#,
    ),
    (
        "internalPort",
        r#"UPDATE "Services" SET "internalPort" = ? WHERE "containerId" = ?"#,
    ),
    (
        "externalPort",
        r#"UPDATE "Services" SET "externalPort" = ? WHERE "containerId" = ? AND "type" <> 'http'"#,
    ),
    (
        "externalHostname",
        r#"UPDATE "Services" SET "externalHostname" = ? WHERE "containerId" = ? AND "type" = 'http'"#,
    ),
    (
        "tls",
        r#"UPDATE "Services" SET "tls" = ? WHERE "containerId" = ?"#,
    ),
    (
        "https",
        r#"UPDATE "Services" SET "https" = ? WHERE "containerId" = ?"#,
    ),
    (
        "maxBody",
        r#"UPDATE "Services" SET "maxBody" = ? WHERE "containerId" = ?"#,
    ),
    (
        "timeout",
        r#"UPDATE "Services" SET "timeout" = ? WHERE "containerId" = ?"#,
    ),
    (
        "form",
        r#"UPDATE "Routes" SET "form" = ? WHERE "serviceId" = ?"#,
    ),
];

/// A string, a number, or what is neither.
fn value(random: &mut StdRng) -> Value {
    match random.random_range(0..8) {
        0 => json!(random.random::<i64>()),
        1 => json!(random.random_range(0..70_000)),
        2 => Value::Null,
        3 => json!(random.random::<bool>()),
        4 => json!([hostile(random)]),
        _ => json!(hostile(random)),
    }
}

struct Attack {
    lab: Lab,
    admin: String,
    dir: tempfile::TempDir,
    random: StdRng,
    /// The lines of a file that shows one of everything.
    ours: BTreeSet<String>,
}

impl Attack {
    async fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let below = |name: &str| dir.path().join(name).display().to_string();
        self_signed(&["cac.localhost".parse().unwrap()], &dir.path().join("tls")).unwrap();
        let vars = [
            // nginx opens what it is to listen on also when it only checks.
            (
                "NGINX_LISTEN",
                format!(
                    "127.{}.{}.1",
                    rand::random_range(100..250),
                    rand::random_range(1..250)
                ),
            ),
            ("NGINX_HTTP_PORTS", "8080".to_owned()),
            ("NGINX_HTTPS_PORTS", "8443".to_owned()),
            ("NGINX_CERTIFICATE", below("tls/certificate.pem")),
            ("NGINX_CERTIFICATE_KEY", below("tls/certificate.key")),
            ("NGINX_PID", below("pid")),
            ("NGINX_ERROR_LOG", below("error.log")),
            ("NGINX_ACCESS_LOG", "off".to_owned()),
            ("NGINX_TEMP_DIR", dir.path().display().to_string()),
            ("NGINX_USER", "none".to_owned()),
            ("NGINX_INCLUDE", "none".to_owned()),
            ("RATE_LIMIT", "1000000000".to_owned()),
            ("RATE_LIMIT_USER", "1000000000".to_owned()),
        ];
        let vars: Vec<(&str, &str)> = vars.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let lab = Lab::idle(&vars).await;
        let admin = lab.login("admin").await;
        let mut attack = Self {
            lab,
            admin,
            dir,
            random: StdRng::seed_from_u64(seed),
            ours: BTreeSet::new(),
        };
        attack.fill().await;
        attack.ours = attack.file().await.lines().map(plain).collect();
        assert!(attack.ours.len() > 60, "one of everything");
        attack
    }

    /// As at the beginning: containers with a service of each kind.
    async fn fill(&self) {
        let (db, now) = (&self.lab.core.db, chrono::Utc::now());
        db.exec(r#"DELETE FROM "Containers""#, args![])
            .await
            .unwrap();
        for n in 1..=CONTAINERS {
            let sql = r#"INSERT INTO "Containers" ("id", "hostname", "username", "ipv4Address", "createdAt", "updatedAt") VALUES (?, ?, 'alice', ?, ?, ?)"#;
            let given = args![n, format!("c{n}"), format!("127.77.0.{n}"), now, now];
            db.exec(sql, given).await.unwrap();
            for (at, kind) in ["http", "http", "tcp", "tcp", "udp"]
                .into_iter()
                .enumerate()
            {
                let at = i64::try_from(at).unwrap();
                let name = (kind == "http").then(|| format!("c{n}-{at}"));
                let port = (kind != "http").then_some(20_000 + 10 * n + at);
                let sql = r#"INSERT INTO "Services" ("containerId", "type", "internalPort", "externalPort", "externalHostname", "tls", "https",
                                                     "maxBody", "timeout", "createdAt", "updatedAt") VALUES (?, ?, 80, ?, ?, ?, ?, ?, ?, ?, ?)"#;
                let (own, tls) = (at == 1, at == 3);
                let given = args![
                    n,
                    kind,
                    port,
                    name,
                    tls,
                    own,
                    own.then_some(7_i64),
                    own.then_some(7_i64),
                    now,
                    now
                ];
                db.exec(sql, given).await.unwrap();
            }
        }
    }

    async fn file(&self) -> String {
        self.lab.core.wake.routes();
        let answer = self.lab.get("/nginx.conf", "").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    }

    /// One string at one place; whether it is taken does not matter to the file.
    async fn strike(&mut self) -> (String, bool) {
        let container = self.random.random_range(1..=CONTAINERS);
        let service = 5 * (container - 1) + self.random.random_range(1..=5);
        let path = format!("/containers/{container}/services");
        let random = &mut self.random;
        match random.random_range(0..4) {
            0 => {
                let (column, sql) = *COLUMNS.choose(random).unwrap();
                let text = hostile(random);
                let done = self.lab.core.db.exec(sql, args![&text, container]).await;
                (
                    format!("{column} = {text:?} by hand: {done:?}"),
                    done.is_ok_and(|rows| rows > 0),
                )
            }
            kind => {
                let mut body = Map::new();
                for _ in 0..random.random_range(1..4) {
                    body.insert((*FIELDS.choose(random).unwrap()).to_owned(), value(random));
                }
                let new = random.random::<bool>();
                let (method, path) = match new {
                    true => (Method::POST, path),
                    false => (Method::PUT, format!("{path}/{service}")),
                };
                let request = self.lab.ask(method, &path, &self.admin);
                let request = match kind {
                    1 => {
                        let text =
                            |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
                        let form: Vec<(&String, String)> = body
                            .iter()
                            .map(|(name, value)| (name, text(value)))
                            .collect();
                        request.header("accept", "text/html").form(&form)
                    }
                    _ => request.json(&body),
                };
                let status = request.send().await.unwrap().status();
                let taken = status.is_success() || status.is_redirection();
                (format!("{path} {body:?}: {status}"), taken)
            }
        }
    }

    async fn look(&self, struck: &[String]) {
        let text = self.file().await;
        for line in text.lines() {
            let shape = plain(line);
            assert!(self.ours.contains(&shape), "{line:?} after {struck:#?}");
        }
        if let Err(words) = check(&text, self.dir.path()) {
            panic!("{words} after {struck:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_string_at_any_door_spoils_the_file() {
    let setting = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let seed = setting("SEED").unwrap_or(7);
    let cases = setting("CASES").unwrap_or(500);
    let mut attack = Attack::new(seed.into()).await;
    let (mut struck, mut all_taken) = (Vec::new(), 0);
    for case in 0..cases {
        let (what, taken) = attack.strike().await;
        all_taken += u32::from(taken);
        struck.push(format!("SEED={seed}, case {case}: {what}"));
        if case % BATCH == BATCH - 1 {
            attack.look(&struck).await;
        }
        if case % (4 * BATCH) == 4 * BATCH - 1 {
            attack.fill().await;
            struck.clear();
        }
    }
    assert!(all_taken > cases / 10, "{all_taken} of {cases} were taken");
}
