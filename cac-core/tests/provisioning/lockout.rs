//! Nobody is locked out of signing in by somebody who guesses: devices and networks with an earlier success have budgets of their own.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use cac_core::clock::Clock;
use cac_core::error::Error;
use cac_core::pve::Secret;
use cac_core::session::Client;
use cac_core::user::{self, Device, SecondFactor, SignIn};
use cac_core::{Actor, Core, args, login_failure, session, sign_in_origin, testing};
use chrono::{DateTime, Duration, Utc};

use crate::lab::{Lab, config};

/// A lab whose clock the test moves.
struct Timed {
    lab: Lab,
    core: Core,
    time: Arc<Mutex<DateTime<Utc>>>,
}

impl Timed {
    async fn new(database: testing::TestDb) -> Self {
        let lab = Lab::new(database).await;
        let time = Arc::new(Mutex::new(Utc::now()));
        let config = config(&lab.database.url, &[]);
        let clock = Clock::Fixed(Arc::clone(&time));
        let core = Core::with(lab.database.db.clone(), config, clock).await;
        Self {
            core: core.unwrap(),
            lab,
            time,
        }
    }

    fn pass(&self, by: Duration) {
        *self.time.lock().unwrap() += by;
    }

    async fn sign_in(
        &self,
        name: &str,
        password: &str,
        client: &Client,
    ) -> cac_core::Result<SignIn> {
        user::sign_in(&self.core, name, &Secret::new(password), None, client).await
    }

    /// Signs in, which must work.
    async fn device(&self, name: &str, client: &Client) -> Device {
        let password = format!("{name}-demo");
        match self.sign_in(name, &password, client).await {
            Ok(SignIn::Done { device, .. }) => device,
            other => panic!("{}: {other:?}", self.lab.database.name),
        }
    }
}

fn from(address: &str, device: Option<&Secret>) -> Client {
    Client {
        address: Some(address.parse::<IpAddr>().unwrap()),
        device: device.cloned(),
        ..Client::default()
    }
}

fn refused(answer: &cac_core::Result<SignIn>) -> bool {
    matches!(answer, Err(Error::TooMany { after, .. }) if !after.is_zero())
}

/// H2: whoever guessed from 64 networks kept the owner of a name out for as long as they liked, though the password was right.
#[tokio::test]
async fn with_64_networks_guessing_the_right_password_from_a_known_device_works_24_times_of_24() {
    for database in testing::databases().await {
        let timed = Timed::new(database).await;
        let home = from("2001:db8:1:1::7", None);
        let device = timed.device("alice", &home).await;
        assert!(!device.known);
        let elsewhere = from("198.51.100.7", Some(&device.cookie));
        let same_network = from("2001:db8:1:1::9", None);
        let stranger = from("203.0.113.9", None);
        let (mut slowed, mut kept_out) = (0, 0);
        for round in 0..24_u32 {
            for guess in 0..8 {
                let network = (round * 8 + guess) % 64;
                let guesser = from(&format!("2001:db8:2:{network:x}::1"), None);
                slowed += u32::from(refused(&timed.sign_in("alice", "guess", &guesser).await));
            }
            // From an unknown place, and so on the budget that the guesser uses up.
            kept_out += u32::from(refused(
                &timed.sign_in("alice", "alice-demo", &stranger).await,
            ));
            let again = timed.device("alice", &elsewhere).await;
            assert!(again.known, "{round}");
            assert_eq!(again.cookie, device.cookie);
            timed.device("alice", &same_network).await;
            // What these two have made known is forgotten: each round is the first one.
            let sql =
                r#"DELETE FROM "SignInOrigins" WHERE "value" IN ('198.51.100.7', '203.0.113.9')"#;
            timed.core.db.exec(sql, args![]).await.unwrap();
            timed.pass(Duration::seconds(7));
        }
        assert!(slowed > 150, "{}: {slowed}", timed.lab.database.name);
        assert!(kept_out >= 20, "{}: {kept_out}", timed.lab.database.name);
        timed.lab.end().await;
    }
}

#[tokio::test]
async fn a_guesser_in_a_known_network_is_slowed_and_slows_no_known_device() {
    for database in testing::databases().await {
        let timed = Timed::new(database).await;
        timed.lab.simulator.add_user("bob@pve", "bob-demo", &[]);
        let office = from("192.0.2.1", None);
        let device = timed.device("alice", &office).await;
        // Also by names of others, up to the address's own budget.
        let mut through = 0;
        for number in 0..60 {
            let name = if number % 2 == 0 { "alice" } else { "bob" };
            let answer = timed.sign_in(name, "guess", &office).await;
            through += u32::from(matches!(answer, Err(Error::Unauthenticated(_))));
        }
        assert!((8..=12).contains(&through), "{through}");
        let slowed = timed.sign_in("alice", "alice-demo", &office).await;
        let Err(Error::TooMany { message, .. }) = &slowed else {
            panic!("{slowed:?}");
        };
        assert!(message.contains("from this network"), "{message}");
        let known = from("192.0.2.1", Some(&device.cookie));
        assert!(timed.device("alice", &known).await.known);
        // The device's own failures count on the device, and a success forgives them.
        for _ in 0..5 {
            let answer = timed.sign_in("alice", "guess", &known).await;
            assert!(
                matches!(answer, Err(Error::Unauthenticated(_))),
                "{answer:?}"
            );
        }
        assert!(refused(&timed.sign_in("alice", "alice-demo", &known).await));
        timed.pass(Duration::seconds(2));
        timed.device("alice", &known).await;
        // The other one's first sign-in waits until the guessing is over.
        timed.pass(Duration::hours(1));
        timed.device("bob", &office).await;
        timed.lab.end().await;
    }
}

/// A realm that ignores case signs `Alice@ldap` in as `alice@ldap`, and each spelling had five guesses of its own.
#[tokio::test]
async fn every_spelling_of_a_name_has_the_same_budget() {
    for database in testing::databases().await {
        let timed = Timed::new(database).await;
        let spellings = ["alice", "Alice", "aLice", "alIce", "aliCe", "ALICE"];
        let mut through = 0;
        for (number, name) in spellings.iter().cycle().take(60).enumerate() {
            // An address of its own each time, of one network.
            let client = from(&format!("192.0.2.{}", number + 1), None);
            let answer = timed.sign_in(name, "guess", &client).await;
            through += u32::from(matches!(answer, Err(Error::Unauthenticated(_))));
        }
        assert!(through <= 6, "{}: {through}", timed.lab.database.name);
        timed.lab.end().await;
    }
}

/// The second step counts as the first one does.
#[tokio::test]
async fn codes_are_guessed_no_faster_than_passwords_and_do_not_lock_out_a_known_device() {
    for database in testing::databases().await {
        let timed = Timed::new(database).await;
        let device = timed.device("alice", &from("192.0.2.1", None)).await;
        timed.lab.simulator.set_totp("alice@pve", Some("123456"));
        let step = async |client: &Client, code: &str| {
            let first = timed.sign_in("alice", "alice-demo", client).await?;
            let SignIn::SecondFactor { challenge, .. } = first else {
                panic!("{first:?}");
            };
            let code = Secret::new(code);
            let second = SecondFactor { challenge, code };
            user::sign_in(
                &timed.core,
                "alice",
                &Secret::new(""),
                Some(&second),
                client,
            )
            .await
        };
        for network in 0..20 {
            let guesser = from(&format!("198.51.100.{network}"), None);
            let answer = step(&guesser, "000000").await;
            assert_eq!(refused(&answer), network >= 5, "{network}: {answer:?}");
        }
        let known = from("203.0.113.1", Some(&device.cookie));
        assert!(
            matches!(step(&known, "123456").await, Ok(SignIn::Done { device, .. }) if device.known)
        );
        timed.lab.end().await;
    }
}

#[tokio::test]
async fn a_device_is_known_for_the_user_who_signed_in_from_it_and_for_nobody_else() {
    for database in testing::databases().await {
        let timed = Timed::new(database).await;
        timed.lab.simulator.add_user("bob@pve", "bob-demo", &[]);
        let known = async |name: &str, cookie: &Secret| {
            let client = from("198.51.100.1", Some(cookie));
            sign_in_origin::is_known_device(&timed.core, name, &client)
                .await
                .unwrap()
        };
        let planted = timed.device("bob", &from("192.0.2.1", None)).await.cookie;
        // Bob's cookie in alice's browser: alice's device gets a secret that bob has not.
        let both = timed
            .device("alice", &from("192.0.2.2", Some(&planted)))
            .await;
        assert!(!both.known);
        assert!(known("alice", &both.cookie).await && known("bob", &both.cookie).await);
        assert!(
            !known("alice", &planted).await,
            "{}",
            timed.lab.database.name
        );
        // Only hashes are stored, and a made-up secret is none.
        let rows = timed
            .core
            .db
            .all(r#"SELECT "value" FROM "SignInOrigins""#, args![])
            .await;
        for row in rows.unwrap() {
            let value: String = row.get("value").unwrap();
            assert!(!both.cookie.expose().contains(&value));
        }
        let made_up = Secret::new("0".repeat(64));
        let client = from("198.51.100.1", Some(&made_up));
        assert_eq!(sign_in_origin::device_name(&timed.core, &client), None);
        // "Sign out everywhere" forgets the devices of one user, and time forgets everyone's.
        session::delete_all(&timed.core, &Actor::new("alice".to_owned(), false))
            .await
            .unwrap();
        assert!(!known("alice", &both.cookie).await && known("bob", &both.cookie).await);
        timed.pass(sign_in_origin::LIFETIME);
        assert!(!known("bob", &both.cookie).await);
        timed.lab.end().await;
    }
}

/// A script that keeps no cookies made a device with each sign-in, and pushed the browser's out.
#[tokio::test]
async fn of_the_devices_that_came_back_twenty_are_remembered() {
    for database in testing::databases().await {
        let timed = Timed::new(database).await;
        let mut cookies = Vec::new();
        for number in 0..22 {
            let client = from(&format!("192.0.2.{number}"), None);
            let cookie = timed.device("alice", &client).await.cookie;
            timed.pass(Duration::seconds(1));
            let back = from(&format!("192.0.2.{number}"), Some(&cookie));
            assert!(timed.device("alice", &back).await.known);
            timed.pass(Duration::seconds(1));
            cookies.push(cookie);
        }
        for _ in 0..30 {
            timed.device("alice", &from("192.0.2.250", None)).await;
            timed.pass(Duration::seconds(1));
        }
        for (number, cookie) in cookies.iter().enumerate() {
            let client = from("198.51.100.1", Some(cookie));
            let known = sign_in_origin::is_known_device(&timed.core, "alice", &client).await;
            assert_eq!(known.unwrap(), number >= 2, "{number}");
        }
        timed.lab.end().await;
    }
}

#[tokio::test]
async fn failures_are_listed_and_cleared() {
    for database in testing::databases().await {
        let timed = Timed::new(database).await;
        let device = timed.device("alice", &from("192.0.2.1", None)).await.cookie;
        for client in [
            from("192.0.2.1", None),
            from("192.0.2.1", Some(&device)),
            from("198.51.100.1", None),
        ] {
            for _ in 0..6 {
                let _ = timed.sign_in("alice", "guess", &client).await;
            }
        }
        let names = async || -> Vec<String> {
            let all = login_failure::list(&timed.core).await.unwrap();
            all.into_iter()
                .map(|one| format!("{} {}", one.name.split(' ').next().unwrap(), one.failures))
                .collect()
        };
        let all = ["address 5", "address 5", "device 5", "network 5", "user 5"];
        assert_eq!(names().await, all, "{}", timed.lab.database.name);
        let listed = login_failure::list(&timed.core).await.unwrap();
        let user = listed.iter().find(|one| one.name == "user alice").unwrap();
        assert_eq!(user.wait, 1);
        assert_eq!(
            login_failure::clear(&timed.core, &Actor::local(), Some("alice@pve"))
                .await
                .unwrap(),
            3
        );
        assert_eq!(names().await, ["address 5", "address 5"]);
        assert_eq!(
            login_failure::clear(&timed.core, &Actor::local(), Some("192.0.2.1"))
                .await
                .unwrap(),
            1
        );
        assert_eq!(
            login_failure::clear(&timed.core, &Actor::local(), None)
                .await
                .unwrap(),
            1
        );
        assert!(names().await.is_empty());
        assert!(
            login_failure::clear(&timed.core, &Actor::local(), Some("a b"))
                .await
                .is_err()
        );
        timed.lab.end().await;
    }
}
