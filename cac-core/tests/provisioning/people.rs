//! How long tokens last, the password given again, and how many account requests are taken: the same on all three databases.

use std::net::IpAddr;

use cac_core::account_request::{self, NewAccountRequest, Received, Refusal, Selection};
use cac_core::audit::{Origin, Via};
use cac_core::pve::Secret;
use cac_core::session::Client;
use cac_core::token::{self, NewToken};
use cac_core::user::{self, Credentials, Proof, SignIn};
use cac_core::{Core, Error, args, session, testing};
use chrono::{DateTime, Duration, Utc};
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, admin, alice, until};

fn wish(expires: Option<DateTime<Utc>>) -> NewToken {
    NewToken {
        name: "ci".to_owned(),
        scopes: vec!["containers:read".to_owned()],
        expires,
    }
}

async fn expires(core: &Core, id: i64) -> Option<DateTime<Utc>> {
    let sql = r#"SELECT "expires" FROM "Tokens" WHERE "id" = ?"#;
    let row = core.db.one(sql, args![id]).await.unwrap();
    row.get("expires").unwrap()
}

/// A token without an end was made by default, and outlived everything.
#[tokio::test]
async fn every_token_ends() {
    for database in testing::databases().await {
        let name = database.name;
        let more = [("TOKEN_MAX_DAYS", "60")];
        let lab = Lab::with(database, cac_simulator::Delay::none(), &more).await;
        let (core, now) = (&lab.core, Utc::now());
        let days = |token: &token::Token| (token.expires.unwrap() - now).num_days();
        let create = async |at| token::create(core, &alice(), None, &wish(at)).await;
        let (whole, _) = create(None).await.unwrap();
        assert!((59..=60).contains(&days(&whole)), "{name}: {whole:?}");
        let (short, _) = create(Some(now + Duration::days(3))).await.unwrap();
        assert!((2..=3).contains(&days(&short)), "{name}: {short:?}");
        // A client's clock may be a little ahead.
        let ahead = now + Duration::days(60) + Duration::minutes(1);
        let (longest, _) = create(Some(ahead)).await.unwrap();
        assert!(longest.expires.unwrap() < ahead, "{name}");
        for (at, word) in [
            (now + Duration::days(61), "at most 60 days"),
            (now - Duration::days(1), "in the future"),
        ] {
            let Err(Error::Invalid(fields)) = create(Some(at)).await else {
                panic!("{name}: {at}");
            };
            assert!(fields.0["expires"].contains(word), "{name}: {fields:?}");
        }
        // Those of before the upgrade get 365 days from now; whoever has an end keeps it.
        let sql = r#"UPDATE "Tokens" SET "expires" = NULL WHERE "id" = ?"#;
        core.db.exec(sql, args![whole.id]).await.unwrap();
        let stop = CancellationToken::new();
        let looking = tokio::spawn(user::keep_looking_up(core.clone(), stop.clone()));
        until("the token gets an end", async || {
            expires(core, whole.id).await.is_some()
        })
        .await;
        stop.cancel();
        looking.await.unwrap();
        let end = expires(core, whole.id).await.unwrap();
        assert_eq!((end - now).num_days(), 365, "{name}");
        assert_eq!(expires(core, short.id).await, short.expires, "{name}");
        lab.end().await;
    }
}

#[test]
fn a_token_expires_soon_in_its_last_30_days_or_in_the_last_third_of_less() {
    let now = Utc::now();
    for (lifetime, left, soon) in [
        (365, 31, false),
        (365, 30, true),
        (90, 30, true),
        (90, 31, false),
        (9, 4, false),
        (9, 3, true),
        (365, 0, false),
    ] {
        let expires = now + Duration::days(left);
        let created = expires - Duration::days(lifetime);
        let is = token::expires_soon(created, expires, now);
        assert_eq!(is, soon, "{left} of {lifetime} days");
    }
}

/// A stolen token of two minutes made one of a year.
#[tokio::test]
async fn a_token_makes_none_that_outlives_it() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let core = &lab.core;
        let end = Utc::now() + Duration::minutes(2);
        let wish = |expires| NewToken {
            name: "script".to_owned(),
            scopes: vec!["containers:write".to_owned()],
            expires,
        };
        let (_, text) = token::create(core, &alice(), None, &wish(Some(end)))
            .await
            .unwrap();
        let by = token::find(core, &text).await.unwrap().unwrap();
        let longer = wish(Some(end + Duration::minutes(1)));
        let refused = token::create(core, &alice(), Some(&by), &longer).await;
        let Err(Error::Invalid(fields)) = refused else {
            panic!("{refused:?}");
        };
        assert!(fields.to_string().contains("makes none that lasts longer"));
        let (made, _) = token::create(core, &alice(), Some(&by), &wish(None))
            .await
            .unwrap();
        assert_eq!(made.expires, by.expires);
        lab.end().await;
    }
}

/// A session of hours ago did everything that the password protects.
#[tokio::test]
async fn a_password_stands_for_15_minutes_and_can_be_given_again() {
    for database in testing::databases().await {
        let name = database.name;
        let lab = Lab::new(database).await;
        let core = &lab.core;
        let client = Client::default();
        let sign_in = async || {
            let password = Secret::new("alice-demo");
            match user::sign_in(core, "alice", &password, None, &client).await {
                Ok(SignIn::Done { session, .. }) => session,
                other => panic!("{name}: {other:?}"),
            }
        };
        let again = async |session: &str, password: &str| {
            let password = Secret::new(password);
            let credentials = Credentials {
                password: &password,
                second: None,
            };
            user::reauthenticate(core, &alice(), session, credentials, &client).await
        };
        let (one, other) = (sign_in().await, sign_in().await);
        assert!(session::is_proved(core, &one).await.unwrap(), "{name}");
        for (minutes, proved) in [(14, true), (15, false)] {
            let sql = r#"UPDATE "Sessions" SET "provedAt" = ?"#;
            let at = Utc::now() - Duration::minutes(minutes);
            core.db.exec(sql, args![at]).await.unwrap();
            assert_eq!(
                session::is_proved(core, &one).await.unwrap(),
                proved,
                "{name}"
            );
        }
        // Sessions of before the upgrade are asked.
        core.db
            .exec(r#"UPDATE "Sessions" SET "provedAt" = NULL"#, args![])
            .await
            .unwrap();
        assert!(!session::is_proved(core, &one).await.unwrap(), "{name}");
        let wrong = again(&one, "guess").await;
        assert!(matches!(wrong, Err(Error::Invalid(_))), "{name}: {wrong:?}");
        assert!(!session::is_proved(core, &one).await.unwrap(), "{name}");
        let right = again(&one, "alice-demo").await;
        assert!(matches!(right, Ok(Proof::Done)), "{name}: {right:?}");
        assert!(session::is_proved(core, &one).await.unwrap(), "{name}");
        assert!(!session::is_proved(core, &other).await.unwrap(), "{name}");
        // Nobody guesses here what is limited at the login.
        let mut refused = None;
        for _ in 0..12 {
            refused = again(&other, "guess").await.err();
            if matches!(refused, Some(Error::TooMany { .. })) {
                break;
            }
        }
        assert!(
            matches!(refused, Some(Error::TooMany { .. })),
            "{name}: {refused:?}"
        );
        session::discard(core, &one, &Origin::default())
            .await
            .unwrap();
        assert!(!session::is_proved(core, &one).await.unwrap(), "{name}");
        lab.end().await;
    }
}

#[tokio::test]
async fn a_form_is_kept_for_its_own_session_and_path() {
    let lab = Lab::new(testing::sqlite().await).await;
    let form = b"name=pve1&secret=hush-hush";
    let sealed = session::seal_form(&lab.core, "a session", "/nodes/1", form).unwrap();
    assert!(!sealed.contains("hush"), "{sealed}");
    let open =
        |session: &str, path: &str, text: &str| session::open_form(&lab.core, session, path, text);
    assert_eq!(
        open("a session", "/nodes/1", &sealed).as_deref(),
        Some(form.as_slice())
    );
    assert_eq!(open("another", "/nodes/1", &sealed), None);
    assert_eq!(open("a session", "/nodes/2", &sealed), None);
    let broken = sealed.replace(':', ":A");
    assert_eq!(open("a session", "/nodes/1", &broken), None);
    lab.end().await;
}

fn request(number: usize) -> NewAccountRequest {
    NewAccountRequest {
        name: format!("Person {number}"),
        email: format!("person{number}@example.org"),
        username: format!("person{number}"),
        reason: "A seminar.".to_owned(),
    }
}

async fn waiting(core: &Core, status: &str) -> i64 {
    let page = account_request::list(core, &admin(), Some(status), (1, 0)).await;
    page.unwrap().1
}

/// A thousand requests from twelve networks shut registration for everybody.
#[tokio::test]
async fn a_flood_of_account_requests_stops_nobody_else() {
    for database in testing::databases().await {
        let name = database.name;
        let lab = Lab::new(database).await;
        let core = &lab.core;
        let mut taken = 0;
        for number in 0..1000_usize {
            // Six networks of each kind; within one of them the flood changes its address.
            let (net, host) = (number % 12, number / 12);
            let address: IpAddr = match net {
                0..6 => format!("198.51.{net}.{}", host % 250 + 1),
                _ => format!("2001:db8:0:{net}::{host:x}"),
            }
            .parse()
            .unwrap();
            match account_request::create(core, &request(number), &origin(Some(address))).await {
                Ok(Received::Pending) => taken += 1,
                Err(Error::TooMany { after, .. }) => assert!(!after.is_zero()),
                other => panic!("{name}: {other:?}"),
            }
        }
        // 50 wait of each /24; a /64 is one address, which has 20 an hour.
        assert_eq!(taken, 6 * 50 + 6 * 20, "{name}");
        for (number, address) in [
            (2000, "203.0.113.7"),
            (2001, "2001:db8:0:ffff::7"),
            (2002, "198.51.7.1"),
        ] {
            let address = address.parse().unwrap();
            let other =
                account_request::create(core, &request(number), &origin(Some(address))).await;
            assert_eq!(other.unwrap(), Received::Pending, "{name}");
        }
        // The same request again is no further one, also where the network has no room.
        let same =
            account_request::create(core, &request(0), &origin(Some([198, 51, 0, 1].into()))).await;
        assert_eq!(same.unwrap(), Received::Pending, "{name}");
        assert_eq!(waiting(core, "pending").await, taken + 3, "{name}");

        let selection = Selection {
            ids: vec![1, 2, 999_999],
            network: Some("198.51.5.0/24".to_owned()),
        };
        let refusal = Refusal {
            without_mail: true,
            ..Refusal::default()
        };
        let nobody = account_request::decline_all(core, &alice(), &selection, &refusal).await;
        assert!(
            matches!(nobody, Err(Error::Forbidden(_))),
            "{name}: {nobody:?}"
        );
        let declined = account_request::decline_all(core, &admin(), &selection, &refusal).await;
        let declined = declined.unwrap();
        assert_eq!(declined.declined.len(), 52, "{name}");
        assert_eq!(declined.skipped, [999_999], "{name}");
        assert_eq!(waiting(core, "declined").await, 52, "{name}");
        // There is room again.
        let more = Some([198, 51, 5, 251].into());
        let again = account_request::create(core, &request(3000), &origin(more)).await;
        assert_eq!(again.unwrap(), Received::Pending, "{name}");
        for (selection, field) in [
            (Selection::default(), "ids"),
            (
                Selection {
                    network: Some("all of them".to_owned()),
                    ..Selection::default()
                },
                "network",
            ),
        ] {
            let refused = account_request::decline_all(core, &admin(), &selection, &refusal).await;
            let Err(Error::Invalid(fields)) = refused else {
                panic!("{name}: {refused:?}");
            };
            assert!(fields.0.contains_key(field), "{name}: {fields:?}");
        }
        lab.end().await;
    }
}

/// With a mail server a request waits for its person first, and is gone when nobody comes.
#[tokio::test]
async fn an_unconfirmed_request_is_nobodys_business_and_expires() {
    for database in testing::databases().await {
        let name = database.name;
        let more = [
            // Nobody listens there, and no runner works: nothing is sent.
            ("SMTP_URL", "smtp://127.0.0.1:9"),
            ("MAIL_FROM", "portal@example.org"),
            ("MAIL_ADMIN", "root@example.org,ops@example.org"),
        ];
        let lab = Lab::with(database, cac_simulator::Delay::none(), &more).await;
        let core = &lab.core;
        let from = Some([192, 0, 2, 7].into());
        for number in 0..3 {
            let received = account_request::create(core, &request(number), &origin(from)).await;
            assert_eq!(received.unwrap(), Received::Unconfirmed, "{name}");
        }
        let all = account_request::list(core, &admin(), None, (10, 0))
            .await
            .unwrap();
        assert_eq!((all.0.len(), all.1), (0, 0), "{name}");
        assert_eq!(waiting(core, "unconfirmed").await, 3, "{name}");
        let jobs = async || {
            let sql = r#"SELECT COUNT(*) AS "n" FROM "Jobs" WHERE "kind" = 'account_mail'"#;
            let row = core.db.one(sql, args![]).await.unwrap();
            row.get::<i64>("n").unwrap()
        };
        assert_eq!(
            jobs().await,
            3,
            "{name}: one for each person, none for the admins"
        );
        let approved = account_request::approve(core, &admin(), 1, false).await;
        assert!(
            matches!(approved, Err(Error::Conflict { .. })),
            "{name}: {approved:?}"
        );
        // Nobody mails an address that may be a stranger's.
        let refusal = Refusal {
            answer: "No.".to_owned(),
            without_mail: false,
        };
        account_request::decline(core, &admin(), 3, &refusal)
            .await
            .unwrap();
        assert_eq!(jobs().await, 3, "{name}");
        // One e-mail address is not mailed again and again, whatever the user name and the network.
        let mut bomb = request(50);
        for number in 0..4_u8 {
            bomb.username = format!("victim{number}");
            let from = Some([203, 0, number, 7].into());
            let received = account_request::create(core, &bomb, &origin(from)).await;
            assert_eq!(received.is_ok(), number < 3, "{name}: {received:?}");
            // The provider delivers to the same mailbox.
            bomb.email = bomb.email.to_uppercase();
        }
        // Whoever fills the number for somebody else keeps that person out for six hours, not until the requests expire.
        let long_ago = Utc::now() - Duration::hours(6) - Duration::minutes(1);
        let sql = r#"UPDATE "AccountRequests" SET "createdAt" = ? WHERE "username" LIKE 'victim%'"#;
        core.db.exec(sql, args![long_ago]).await.unwrap();
        bomb.username = "the-victim".to_owned();
        let from_home = Some([203, 0, 113, 7].into());
        let received = account_request::create(core, &bomb, &origin(from_home)).await;
        assert_eq!(received.unwrap(), Received::Unconfirmed, "{name}");
        let old = Utc::now() - Duration::hours(account_request::CONFIRM_HOURS + 1);
        let sql = r#"UPDATE "AccountRequests" SET "createdAt" = ? WHERE "id" <= 2"#;
        core.db.exec(sql, args![old]).await.unwrap();
        account_request::create(core, &request(60), &origin(from))
            .await
            .unwrap();
        let row = core
            .db
            .one(
                r#"SELECT COUNT(*) AS "n" FROM "AccountRequests" WHERE "id" <= 2"#,
                args![],
            )
            .await;
        assert_eq!(row.unwrap().get::<i64>("n").unwrap(), 0, "{name}");
        lab.end().await;
    }
}

/// A mail server that takes connections and says nothing had each mail keep a place of the runner for good; eight stopped every creation.
#[tokio::test]
async fn a_silent_mail_server_stops_no_containers() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let more = [
        ("SMTP_URL", url.as_str()),
        ("MAIL_FROM", "portal@example.org"),
        ("JOB_RUNNER_CONCURRENCY", "4"),
    ];
    let delay = cac_simulator::Delay::none();
    let mut lab = Lab::with(testing::sqlite().await, delay, &more).await;
    let asking = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            open.push(connection);
        }
    });
    for number in 0..12 {
        let from = Some([192, 0, 2, number].into());
        let new = request(number.into());
        let asked = account_request::create(&lab.core, &new, &origin(from)).await;
        assert_eq!(asked.unwrap(), Received::Unconfirmed);
    }
    let runner = lab.runner();
    let began = std::time::Instant::now();
    let created = lab.ask("quick").await;
    let status = lab.job(created.job_id).await.status;
    assert_eq!(status, cac_core::job::Status::Success);
    // Before the first of the mails is given up.
    assert!(began.elapsed() < std::time::Duration::from_secs(25));
    runner.cancel();
    asking.abort();
    lab.end().await;
}

/// A request of an anonymous visitor.
fn origin(address: Option<IpAddr>) -> Origin {
    Origin::new(Via::Nothing).at(address)
}
