//! How mail is sent: encrypted where that can be, a password never in clear text, each recipient alone. Against a real SMTP conversation
//! (Debian's python3-aiosmtpd).

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use cac_core::config::{Program, Vars};
use cac_core::doctor;
use cac_core::testing::{self, until};
use serde_json::{Value, json};

use crate::account::approved_account;
use crate::lab::{Lab, expect};
use crate::maildir::{free_port, link};

/// A mail server that tells what it is told.
pub(crate) struct Conversation {
    child: Child,
    pub(crate) port: u16,
    told: Arc<Mutex<Vec<Value>>>,
    /// The certificate in PEM, where it has one.
    authority: tempfile::NamedTempFile,
}

impl Conversation {
    /// With STARTTLS or without, refusing one recipient, with `--auth` taking any password.
    pub(crate) async fn start(tls: bool, more: &[&str]) -> Self {
        let port = free_port();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (authority, key) = (
            tempfile::NamedTempFile::new().unwrap(),
            tempfile::NamedTempFile::new().unwrap(),
        );
        std::fs::write(authority.path(), made.cert.pem()).unwrap();
        std::fs::write(key.path(), made.signing_key.serialize_pem()).unwrap();
        let file = |path: &Path| match tls {
            true => path.display().to_string(),
            false => "-".to_owned(),
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/mail_server.py");
        let mut child = Command::new("/usr/bin/python3")
            .args([script, &port.to_string()])
            .args([file(authority.path()), file(key.path())])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run tests by `.ci/servers`, which installs python3-aiosmtpd");
        let told = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (
            BufReader::new(child.stdout.take().unwrap()).lines(),
            Arc::clone(&told),
        );
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap();
                kept.lock().unwrap().push(line);
            }
        });
        let server = Self {
            child,
            port,
            told,
            authority,
        };
        until("the mail server is ready", async || {
            !server.all("ready").is_empty()
        })
        .await;
        // It has read the key.
        drop(key);
        server
    }

    /// What it told with this word, oldest first.
    pub(crate) fn all(&self, word: &str) -> Vec<Value> {
        let told = self.told.lock().unwrap();
        let those = told.iter().filter(|line| line.get(word).is_some());
        those.cloned().collect()
    }

    /// Waits for the mail that is about this, as text without line breaks of its encoding.
    pub(crate) async fn mail(&self, subject: &str) -> String {
        let find = || {
            let mails = self.all("mail").into_iter();
            let mut texts = mails.map(|mail| mail["mail"].as_str().unwrap().replace("=\r\n", ""));
            texts.find(|text| text.contains(subject))
        };
        until(subject, async || find().is_some()).await;
        find().unwrap()
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn lab(url: &str, more: &[(&str, &str)]) -> Lab {
    let mut all = vec![
        ("SMTP_URL", url),
        ("MAIL_FROM", "Portal <portal@example.org>"),
        ("MAIL_ADMIN", "gone@example.org,ops@example.org"),
    ];
    all.extend(more);
    Lab::with(&all).await
}

async fn test_mail(lab: &Lab, status: u16) -> Value {
    let sent = lab.get("/send-test-email", "").send().await.unwrap();
    expect(sent, status).await
}

/// A password went out in clear text although the server offered STARTTLS.
#[tokio::test]
async fn a_password_is_sent_over_tls_or_not_at_all() {
    let server = Conversation::start(true, &["--auth"]).await;
    let url = format!("smtp://user:hush@127.0.0.1:{}", server.port);
    // The certificate is of nobody that the system trusts: no password.
    let refused = test_mail(&lab(&url, &[]).await, 500).await;
    assert!(
        refused["detail"].as_str().unwrap().contains("certificate"),
        "{refused}"
    );
    assert!(server.all("password").is_empty() && server.all("mail").is_empty());
    // With the authority it goes by STARTTLS.
    let authority = server.authority.path().display().to_string();
    let trusted = lab(&url, &[("SMTP_CA_FILE", &authority)]).await;
    test_mail(&trusted, 200).await;
    let passwords = server.all("password");
    assert!(!passwords.is_empty());
    for told in passwords.iter().chain(&server.all("mail")) {
        assert_eq!(told["tls"], true, "{told}");
    }
    // Somebody between, or an old server, offers none: no password, and no mail.
    let plain = Conversation::start(false, &["--auth"]).await;
    let url = format!("smtp://user:hush@127.0.0.1:{}", plain.port);
    for url in [
        url.clone(),
        format!("{url}?tls=required"),
        format!("{url}?tls=opportunistic"),
    ] {
        test_mail(&lab(&url, &[]).await, 500).await;
        assert!(plain.all("password").is_empty(), "{url}");
    }
    // Unless it is told to.
    test_mail(&lab(&format!("{url}?tls=none"), &[]).await, 200).await;
    assert_eq!(
        plain.all("password")[0],
        json!({"password": "hush", "tls": false})
    );
}

#[tokio::test]
async fn without_a_password_any_certificate_is_better_than_none() {
    let server = Conversation::start(true, &[]).await;
    let url = format!("smtp://127.0.0.1:{}", server.port);
    test_mail(&lab(&url, &[]).await, 200).await;
    let mails = server.all("mail");
    assert_eq!(mails.len(), 2);
    assert!(mails.iter().all(|mail| mail["tls"] == true), "{mails:?}");
    // Whoever asks for verified TLS gets no less.
    test_mail(&lab(&format!("{url}?tls=required"), &[]).await, 500).await;
    let plain = Conversation::start(false, &[]).await;
    let url = format!("smtp://127.0.0.1:{}", plain.port);
    test_mail(&lab(&url, &[]).await, 200).await;
    assert_eq!(plain.all("mail").len(), 2);
}

#[tokio::test]
async fn the_doctor_warns_of_a_certificate_that_cannot_be_verified() {
    let server = Conversation::start(true, &[]).await;
    let mut vars = Vars::default();
    let url = format!("smtp://127.0.0.1:{}", server.port);
    for (name, value) in [
        ("DATABASE_URL", "sqlite:/nonexistent/cac.db"),
        ("SESSION_SECRET", "a secret for tests only"),
        ("SMTP_URL", url.as_str()),
        ("MAIL_FROM", "portal@example.org"),
    ] {
        vars.set(name, value);
    }
    let message = async |vars: &Vars| {
        let findings = doctor::examine(vars).await;
        let found = findings.into_iter().rfind(|one| one.about == "mail");
        found.unwrap().message
    };
    let told = message(&vars).await;
    assert!(told.contains("cannot be verified"), "{told}");
    let authority = server.authority.path().display().to_string();
    vars.set("SMTP_CA_FILE", authority);
    assert_eq!(message(&vars).await, "the mail server answers");
    vars.set("SMTP_CA_FILE", "/nonexistent");
    assert!(cac_core::Config::load(&vars, Program::Http).is_err());
}

/// Strict servers refuse the machine's short name.
#[tokio::test]
async fn a_server_is_greeted_by_the_name_that_is_given() {
    let server = Conversation::start(false, &[]).await;
    let url = format!("smtp://127.0.0.1:{}/portal.example.net", server.port);
    test_mail(&lab(&url, &[]).await, 200).await;
    assert_eq!(server.all("ehlo")[0]["ehlo"], "portal.example.net");
}

/// One address that bounced silenced the mail to all.
#[tokio::test]
async fn one_admin_who_bounces_keeps_the_mail_from_no_other() {
    let server = Conversation::start(false, &["gone@example.org"]).await;
    let lab = lab(&format!("smtp://127.0.0.1:{}", server.port), &[]).await;
    let admin = lab.login("admin").await;
    let asked =
        json!({"name": "Carol", "email": "carol@example.org", "username": "carol", "reason": "r"});
    expect(
        lab.post("/register", "").json(&asked).send().await.unwrap(),
        200,
    )
    .await;
    let link = link(&server.mail("Confirm").await);
    expect(lab.post(&link, "").send().await.unwrap(), 200).await;
    let mail = server.mail("asks for an account").await;
    assert!(
        mail.contains("ops@example.org") && !mail.contains("gone@example.org"),
        "{mail}"
    );
    // The one that bounces is told of, to the admins.
    let job = async || {
        let jobs = expect(lab.get("/jobs", &admin).send().await.unwrap(), 200).await;
        let jobs = jobs.as_array().unwrap().iter();
        let mut failed = jobs.filter(|job| job["command"].as_str().unwrap().contains("gone@"));
        failed.next().cloned().unwrap()
    };
    until("it is given up", async || {
        job().await["status"] == "failure"
    })
    .await;
    assert!(
        job().await["reason"].as_str().unwrap().contains("5.1.1"),
        "{}",
        job().await
    );
    assert_eq!(
        server.all("refused").len(),
        1,
        "an address that is wrong is not tried again"
    );
    let test = test_mail(&lab, 500).await;
    let detail = test["detail"].as_str().unwrap();
    assert!(
        detail.contains("gone@example.org") && !detail.contains("ops@"),
        "{detail}"
    );
    until("the test reached the other one", async || {
        server.all("mail").len() == 3
    })
    .await;
}

#[tokio::test]
async fn a_user_is_mailed_of_new_tokens_and_of_sign_ins_from_new_places() {
    let server = Conversation::start(false, &[]).await;
    let lab = lab(&format!("smtp://127.0.0.1:{}", server.port), &[]).await;
    let carol = approved_account(&lab, &server, "carol").await;
    lab.token(&carol, &["containers:read"]).await;
    let mail = server.mail("A new API token was created").await;
    for piece in ["carol@example.org", "a test", "cac_", "containers:read"] {
        assert!(mail.contains(piece), "{piece}: {mail}");
    }
    // The same place is no news; another one is.
    let login = json!({"username": "carol", "password": "carols own password"});
    for (from, count) in [("127.0.0.1", 0), ("203.0.113.9", 1), ("203.0.113.9", 1)] {
        let request = lab.post("/login", "").header("x-forwarded-for", from);
        expect(request.json(&login).send().await.unwrap(), 200).await;
        if count > 0 {
            server.mail("A sign-in from a new place").await;
        }
        until("all mails are sent", async || {
            testing::open(&lab.core.db).await == 0
        })
        .await;
        let mails = server.all("mail");
        let news = mails
            .iter()
            .filter(|mail| mail["mail"].as_str().unwrap().contains("A sign-in from"));
        assert_eq!(news.count(), count, "{from}");
    }
    assert!(
        server
            .mail("A sign-in from a new place")
            .await
            .contains("203.0.113.9")
    );
    // Once, 30 days before its end.
    let soon = chrono::Utc::now() + chrono::Duration::days(20);
    let long_ago = chrono::Utc::now() - chrono::Duration::days(300);
    let sql = r#"UPDATE "Tokens" SET "expires" = ?, "createdAt" = ?"#;
    lab.core
        .db
        .exec(sql, cac_core::args![soon, long_ago])
        .await
        .unwrap();
    for _ in 0..2 {
        let stop = tokio_util::sync::CancellationToken::new();
        let looking = tokio::spawn(cac_core::user::keep_looking_up(
            lab.core.clone(),
            stop.clone(),
        ));
        server.mail("An API token expires soon").await;
        stop.cancel();
        looking.await.unwrap();
    }
    until("all mails are sent", async || {
        testing::open(&lab.core.db).await == 0
    })
    .await;
    let mails = server.all("mail");
    let ends = mails
        .iter()
        .filter(|mail| mail["mail"].as_str().unwrap().contains("expires soon"));
    assert_eq!(ends.count(), 1);
    let list = expect(lab.get("/tokens", &carol).send().await.unwrap(), 200).await;
    assert_eq!(list[0]["expiresSoon"], true, "{list}");
    // Nobody's address is known here: no mail, and no failure.
    let alice = lab.login("alice").await;
    lab.token(&alice, &["containers:read"]).await;
    until("all jobs have ended", async || {
        testing::open(&lab.core.db).await == 0
    })
    .await;
    let sql = r#"SELECT COUNT(*) AS "n" FROM "Jobs" WHERE "kind" = 'user_mail' AND "status" <> 'success'"#;
    let row = lab.core.db.one(sql, cac_core::args![]).await.unwrap();
    assert_eq!(row.get::<i64>("n").unwrap(), 0);
}
