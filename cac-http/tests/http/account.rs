//! Account requests, from the form to the first login, with a real mail server (Debian's python3-aiosmtpd).

use cac_core::testing::until;
use cac_core::{args, testing};
use serde_json::{Value, json};

use crate::lab::{HTML, Lab, cookie, expect};
use crate::mail::Conversation;
use crate::maildir::{MailServer, free_port, headers, link};

async fn lab(port: u16) -> Lab {
    Lab::with(&[
        ("SMTP_URL", &format!("smtp://127.0.0.1:{port}")),
        ("MAIL_FROM", "Portal <portal@example.org>"),
        (
            "MAIL_ADMIN",
            "root@example.org, Second <second@example.org>",
        ),
        ("PROXMOX_USER_GROUP", "students"),
    ])
    .await
}

pub(crate) fn carol() -> Value {
    json!({"name": "Carol Müller", "email": "carol@example.org", "username": "carol", "reason": "A seminar.\n.\n<script>alert(1)</script>"})
}

pub(crate) async fn post(lab: &Lab, session: &str, path: &str, body: Value, status: u16) -> Value {
    let sent = lab.post(path, session).json(&body).send();
    expect(sent.await.unwrap(), status).await
}

/// Asks for an account, and follows the link that confirms the address.
async fn ask(lab: &Lab, server: &MailServer, body: Value) {
    post(lab, "", "/register", body, 200).await;
    let confirm = link(&server.mail("Confirm your e-mail address").await);
    post(lab, "", &confirm, json!({}), 200).await;
}

/// An account by an approved request, and its session.
pub(crate) async fn approved_account(lab: &Lab, server: &Conversation, name: &str) -> String {
    let admin = lab.login("admin").await;
    let body = json!({"name": name, "email": format!("{name}@example.org"), "username": name, "reason": "A seminar."});
    lab.simulator.add_group("students");
    post(lab, "", "/register", body, 200).await;
    let confirm = link(&server.mail("Confirm your e-mail address").await);
    post(lab, "", &confirm, json!({}), 200).await;
    post(lab, &admin, "/account-requests/1/approve", json!({}), 200).await;
    let choose = link(&server.mail("choose a password").await);
    let password = format!("{name}s own password");
    post(lab, "", &choose, json!({"password": password}), 201).await;
    let login = json!({"username": name, "password": password});
    let answer = lab.post("/login", "").json(&login).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    cookie(&answer)
}

#[tokio::test]
async fn from_the_form_to_the_first_login() {
    let server = MailServer::start(free_port());
    let lab = lab(server.port).await;
    lab.simulator.add_group("students");
    let admin = lab.login("admin").await;
    let stored = post(&lab, "", "/register", carol(), 200).await;
    assert_eq!(stored["success"], true);
    assert!(
        stored["message"]
            .as_str()
            .unwrap()
            .contains("Follow the link"),
        "{stored}"
    );
    // The same again is the same request.
    post(&lab, "", "/register", carol(), 200).await;
    let mail = server.mail("Confirm your e-mail address").await;
    assert!(
        headers(&mail)
            .iter()
            .any(|line| line.starts_with("To:") && line.contains("carol@example.org"))
    );
    let confirm = link(&mail);
    let none = expect(
        lab.get("/account-requests", &admin).send().await.unwrap(),
        200,
    )
    .await;
    assert_eq!(
        none,
        json!([]),
        "nobody decides before the address is confirmed"
    );
    // Opening the link does nothing yet: programs that check mails do it, too.
    let page = lab
        .get(&confirm, "")
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert!(page.text().await.unwrap().contains("Confirm this address"));
    assert!(
        !server
            .mails()
            .iter()
            .any(|mail| mail.contains("asks for an account"))
    );
    // Eight clicks at once each found the link unused, and seven of them wrote an entry about a change that they had not made.
    let clicks = (0..8).map(|_| lab.post(&confirm, "").json(&json!({})).send());
    let mut confirmed = 0;
    for answer in futures_util::future::join_all(clicks).await {
        match answer.unwrap().status().as_u16() {
            200 => confirmed += 1,
            other => assert_eq!(other, 404),
        }
    }
    assert!(confirmed > 0);
    post(&lab, "", &confirm, json!({}), 404).await;
    let log = lab
        .get("/audit?action=account_request_confirm", &admin)
        .send();
    let log = expect(log.await.unwrap(), 200).await;
    let entries = log.as_array().unwrap().iter();
    assert_eq!(entries.filter(|entry| entry["status"] == 200).count(), 1);
    let mail = server.mail("asks for an account").await;
    let list = expect(
        lab.get("/account-requests", &admin).send().await.unwrap(),
        200,
    )
    .await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(
        (&list[0]["emailConfirmed"], &list[0]["network"]),
        (&json!(true), &json!("127.0.0.0/24"))
    );
    let id = list[0]["id"].as_i64().unwrap();
    let head = headers(&mail);
    let mailed = |who: &str| {
        let mails = server.mails();
        let mut those = mails
            .iter()
            .filter(|mail| mail.contains("asks for an account"));
        those.any(|mail| {
            headers(mail)
                .iter()
                .any(|line| line.starts_with("To:") && line.contains(who))
        })
    };
    until("each admin is mailed", async || {
        mailed("root@example.org") && mailed("second@example.org")
    })
    .await;
    assert!(
        head.iter()
            .any(|line| line.starts_with("Message-ID: <") && line.ends_with("@example.org>")),
        "{head:?}"
    );
    assert!(
        mail.contains("text/plain") && mail.contains("text/html"),
        "{mail}"
    );
    assert!(
        !mail.contains("<script>alert(1)</script></blockquote>"),
        "{mail}"
    );
    // Whoever is no admin decides nothing.
    let alice = lab.login("alice").await;
    for path in ["approve", "decline"] {
        let path = format!("/account-requests/{id}/{path}");
        post(&lab, &alice, &path, json!({"answer": "no"}), 403).await;
    }
    let approve = format!("/account-requests/{id}/approve");
    let approved = post(&lab, &admin, &approve, json!({}), 200).await;
    assert!(
        approved["status"] == "approved" && approved.get("link").is_none(),
        "{approved}"
    );
    let link = link(&server.mail("choose a password").await);
    let secret = link.rsplit('/').next().unwrap();
    // The link is in no row, and in no log of ours.
    let hash: String = lab
        .core
        .db
        .one(r#"SELECT "linkHash" FROM "AccountRequests""#, args![])
        .await
        .unwrap()
        .get("linkHash")
        .unwrap();
    assert_ne!(hash, secret);
    let payloads = lab
        .core
        .db
        .all(r#"SELECT "payload", "checkpoint" FROM "Jobs""#, args![])
        .await
        .unwrap();
    for row in payloads {
        assert!(!row.get::<String>("payload").unwrap().contains(secret));
    }
    let page = lab
        .get(&link, "")
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert!(
        page.text()
            .await
            .unwrap()
            .contains("<strong>carol</strong>")
    );
    let short = post(&lab, "", &link, json!({"password": "short"}), 400).await;
    assert!(short["errors"]["password"].is_string(), "{short}");
    let shown = lab
        .post(&link, "")
        .header("accept", HTML)
        .form(&[("password", "short")]);
    let shown = shown.send().await.unwrap();
    assert_eq!(shown.status(), 400);
    assert!(shown.text().await.unwrap().contains("password-problem"));
    let made = post(
        &lab,
        "",
        &link,
        json!({"password": "carols own password"}),
        201,
    )
    .await;
    assert_eq!(made["success"], true);
    post(
        &lab,
        "",
        &link,
        json!({"password": "carols own password"}),
        404,
    )
    .await;
    assert_eq!(lab.get(&link, "").send().await.unwrap().status(), 404);
    // The user has everything at once: group, name, address.
    let nodes = cac_core::node::all(&lab.core).await.unwrap();
    let user = lab
        .core
        .pve(&nodes[0])
        .unwrap()
        .user("carol@pve")
        .await
        .unwrap();
    assert_eq!(user.groups, ["students"]);
    assert_eq!(
        (user.firstname.as_deref(), user.lastname.as_deref()),
        (Some("Carol"), Some("Müller"))
    );
    assert_eq!(user.email.as_deref(), Some("carol@example.org"));
    let login = json!({"username": "carol", "password": "carols own password"});
    post(&lab, "", "/login", login, 200).await;
    let one = expect(
        lab.get(&format!("/account-requests/{id}"), &admin)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(
        (one["status"].as_str(), one["decidedBy"].as_str()),
        (Some("done"), Some("admin"))
    );
    post(&lab, &admin, &approve, json!({}), 409).await;
    let log = expect(lab.get("/audit", &admin).send().await.unwrap(), 200).await;
    let log = log.to_string();
    for action in [
        "account_request_create",
        "account_request_approve",
        "account_create",
    ] {
        assert!(log.contains(action), "{action}: {log}");
    }
    assert!(
        !log.contains(secret) && !log.contains("carols own"),
        "{log}"
    );
}

#[tokio::test]
async fn a_declined_request_is_answered_with_the_reason() {
    let server = MailServer::start(free_port());
    let lab = lab(server.port).await;
    let admin = lab.login("admin").await;
    // The old form's fields, sent by a browser.
    let form = [
        ("firstName", "Dan"),
        ("lastName", "Doe"),
        ("email", "dan@example.org"),
        ("username", "dan"),
        ("conclusionDate", "2027-01-31"),
        ("reason", "A thesis."),
    ];
    let answer = lab
        .post("/register", "")
        .header("accept", HTML)
        .form(&form)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        answer
            .text()
            .await
            .unwrap()
            .contains("Your request is stored.")
    );
    let confirm = link(&server.mail("Confirm your e-mail address").await);
    post(&lab, "", &confirm, json!({}), 200).await;
    let list = expect(
        lab.get("/account-requests?status=pending", &admin)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert_eq!(list[0]["name"], "Dan Doe");
    assert_eq!(list[0]["reason"], "A thesis.\n(until 2027-01-31)");
    let path = format!("/account-requests/{}/decline", list[0]["id"]);
    let none = post(&lab, &admin, &path, json!({"answer": " "}), 400).await;
    assert!(none["errors"]["answer"].is_string(), "{none}");
    post(
        &lab,
        &admin,
        &path,
        json!({"answer": "Ask your own department."}),
        200,
    )
    .await;
    let mail = server.mail("was declined").await;
    assert!(mail.contains("Ask your own department."), "{mail}");
    assert!(
        headers(&mail)
            .iter()
            .any(|line| line.starts_with("To:") && line.contains("dan@example.org"))
    );
    post(&lab, &admin, &path, json!({"answer": "Again."}), 409).await;
    let approve = path.replace("decline", "approve");
    post(&lab, &admin, &approve, json!({}), 409).await;
}

/// The mail server is away at first: nothing is lost, and nothing comes twice.
#[tokio::test]
async fn a_mail_server_that_is_away_is_waited_for() {
    let port = free_port();
    let lab = lab(port).await;
    post(&lab, "", "/register", carol(), 200).await;
    let state = async || {
        let sql = r#"SELECT "id", "status", "reason", "retries" FROM "Jobs" WHERE "kind" = 'account_mail'"#;
        lab.core.db.one(sql, args![]).await.unwrap()
    };
    until("it is tried again", async || {
        state().await.get::<i64>("retries").unwrap() >= 1
    })
    .await;
    let row = state().await;
    let reason: String = row.get("reason").unwrap();
    assert!(
        reason.contains("The mail server has not taken it"),
        "{reason}"
    );
    let server = MailServer::start(port);
    let job: i64 = row.get("id").unwrap();
    assert_eq!(
        lab.ended(job).await,
        "success",
        "{}",
        testing::log(&lab.core, job).await
    );
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn nobody_writes_headers_or_pages_of_their_own() {
    let server = MailServer::start(free_port());
    let lab = lab(server.port).await;
    for (field, value) in [
        ("name", "Eve\r\nBcc: all@example.org"),
        ("name", ""),
        ("name", &"x".repeat(101)),
        ("name", "Visit http://evil.example now"),
        ("name", "nhoJ \u{202e}John"),
        ("email", "eve@example.org\r\nBcc: all@example.org"),
        ("email", "eve@example.org, all@example.org"),
        ("email", "Eve <eve@example.org>"),
        ("email", "eve"),
        ("username", "eve@pam"),
        ("username", "eve,admin"),
        ("username", "../eve"),
        ("reason", ""),
        ("reason", "x\u{0}y"),
        ("reason", &"x".repeat(2001)),
    ] {
        let mut body = carol();
        body[field] = json!(value);
        let refused = post(&lab, "", "/register", body, 400).await;
        assert!(
            refused["errors"][field].is_string(),
            "{field} {value:?}: {refused}"
        );
    }
    let mut body = carol();
    body["name"] = json!("\"Eve\" <b>, =?utf-8?q?x?= & Söhne");
    body["reason"] = json!("Bcc: all@example.org\n\n--boundary\n.\nQUIT\n</blockquote><img src=x>");
    ask(&lab, &server, body).await;
    let mail = server.mail("for an account on").await;
    let head = headers(&mail);
    assert!(!head.iter().any(|line| line.starts_with("Bcc")), "{head:?}");
    for name in [
        "From:",
        "To:",
        "Subject:",
        "Message-ID:",
        "Date:",
        "MIME-Version:",
    ] {
        let count = head.iter().filter(|line| line.starts_with(name)).count();
        assert_eq!(count, 1, "{name} in {head:?}");
    }
    let html = &mail[mail.find("text/html").unwrap()..];
    assert!(
        html.contains("&lt;img src") && !html.contains("<img"),
        "{html}"
    );
    until("each admin is mailed", async || server.mails().len() == 3).await;
}

#[tokio::test]
async fn without_mail_the_admin_hands_the_link_over() {
    let lab = Lab::with(&[]).await;
    let admin = lab.login("admin").await;
    post(&lab, "", "/register", carol(), 200).await;
    let row = expect(
        lab.get("/account-requests/1", &admin).send().await.unwrap(),
        200,
    )
    .await;
    assert_eq!(
        (&row["status"], &row["emailConfirmed"]),
        (&json!("pending"), &json!(false))
    );
    let page = lab
        .get("/account-requests/1", &admin)
        .header("accept", HTML)
        .send()
        .await
        .unwrap();
    assert!(page.text().await.unwrap().contains("address not confirmed"));
    let approve = "/account-requests/1/approve";
    let first = post(&lab, &admin, approve, json!({}), 200).await;
    let second = post(&lab, &admin, approve, json!({}), 200).await;
    let path = |answer: &Value| {
        let link = answer["link"].as_str().unwrap();
        link.strip_prefix(lab.url.as_str()).unwrap().to_owned()
    };
    // The newest link counts.
    post(
        &lab,
        "",
        &path(&first),
        json!({"password": "carols own password"}),
        404,
    )
    .await;
    // Proxmox VE has such a user already.
    lab.simulator.add_user("carol@pve", "another password", &[]);
    let taken = post(
        &lab,
        "",
        &path(&second),
        json!({"password": "carols own password"}),
        409,
    )
    .await;
    assert!(taken["errors"]["username"].is_string(), "{taken}");
    let sql = r#"UPDATE "AccountRequests" SET "linkExpires" = '2001-01-01 00:00:00'"#;
    lab.core.db.exec(sql, args![]).await.unwrap();
    post(
        &lab,
        "",
        &path(&second),
        json!({"password": "carols own password"}),
        404,
    )
    .await;
}

#[tokio::test]
async fn a_test_mail_goes_to_the_admins_and_only_in_development() {
    let server = MailServer::start(free_port());
    let lab = lab(server.port).await;
    until("the mail server answers", async || {
        std::net::TcpStream::connect(("127.0.0.1", server.port)).is_ok()
    })
    .await;
    let sent = expect(lab.get("/send-test-email", "").send().await.unwrap(), 200).await;
    assert_eq!(
        sent["message"],
        "A test mail was sent to root@example.org, second@example.org."
    );
    assert_eq!(server.mails().len(), 2);
    // Behind a proxy nobody is the machine itself.
    let passed_on = lab
        .get("/send-test-email", "")
        .header("x-forwarded-for", "192.0.2.9");
    expect(passed_on.send().await.unwrap(), 401).await;
    let production = Lab::idle(&[
        ("NODE_ENV", "production"),
        ("CAC_DOMAIN", "apps.example.org"),
    ])
    .await;
    expect(
        production.get("/send-test-email", "").send().await.unwrap(),
        404,
    )
    .await;
}
