//! Signing in by Proxmox VE: three different answers to three different troubles, and who is an admin.

use cac_core::error::Error;
use cac_core::pve::Secret;
use cac_core::session::Client;
use cac_core::user::{self, SecondFactor, SignIn};
use cac_core::{Actor, args, audit, session, testing};

use crate::lab::Lab;

fn at(address: [u8; 4]) -> Client {
    Client {
        address: Some(address.into()),
        ..Client::default()
    }
}

async fn sign_in(lab: &Lab, name: &str, password: &str) -> cac_core::Result<SignIn> {
    user::sign_in(
        &lab.core,
        name,
        &Secret::new(password),
        None,
        &Client::default(),
    )
    .await
}

#[tokio::test]
async fn the_right_password_opens_a_session_with_the_right_role() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        for (name, password, admin) in [
            ("alice", "alice-demo", false),
            ("admin@pve", "admin-demo", true),
        ] {
            let Ok(SignIn::Done { session, actor, .. }) = sign_in(&lab, name, password).await
            else {
                panic!("{name}")
            };
            assert_eq!(actor.admin, admin, "{name}");
            assert!(
                !actor.username.contains('@'),
                "the default realm is left out"
            );
            assert_eq!(
                session::find(&lab.core, &session).await.unwrap(),
                Some(actor)
            );
            let stored = lab
                .core
                .db
                .opt(
                    r#"SELECT "session_id" FROM "Sessions" WHERE "session_id" = ?"#,
                    args![&session],
                )
                .await
                .unwrap();
            assert!(stored.is_none(), "the id itself must not be stored");
            let origin = audit::Origin::default();
            session::discard(&lab.core, &session, &origin)
                .await
                .unwrap();
            assert_eq!(session::find(&lab.core, &session).await.unwrap(), None);
        }
        lab.end().await;
    }
}

#[tokio::test]
async fn wrong_password_malformed_name_and_proxmox_away_are_three_answers() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let wrong = sign_in(&lab, "alice", "guess").await;
        assert!(matches!(wrong, Err(Error::Unauthenticated(_))), "{wrong:?}");
        for name in ["", "a b", "x:y@pve", "alice@", "a@1", &"n".repeat(70)] {
            let malformed = sign_in(&lab, name, "alice-demo").await;
            assert!(
                matches!(malformed, Err(Error::Invalid(_))),
                "{name}: {malformed:?}"
            );
        }
        lab.core
            .db
            .exec(
                r#"UPDATE "Nodes" SET "apiUrl" = 'https://127.0.0.1:1'"#,
                vec![],
            )
            .await
            .unwrap();
        let away = sign_in(&lab, "alice", "alice-demo").await;
        assert!(matches!(away, Err(Error::Unreachable(_))), "{away:?}");
        lab.end().await;
    }
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_checked() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        lab.simulator.set_totp("alice@pve", Some("123456"));
        let Ok(SignIn::SecondFactor { challenge, kinds }) =
            sign_in(&lab, "alice", "alice-demo").await
        else {
            panic!()
        };
        assert!(kinds.iter().any(|kind| kind == "totp"), "{kinds:?}");
        for (code, good) in [("000000", false), ("123456", true)] {
            let second = SecondFactor {
                challenge: challenge.clone(),
                code: Secret::new(code),
            };
            let answer = user::sign_in(
                &lab.core,
                "alice",
                &Secret::new(""),
                Some(&second),
                &Client::default(),
            )
            .await;
            assert_eq!(
                matches!(answer, Ok(SignIn::Done { .. })),
                good,
                "{code}: {answer:?}"
            );
        }
        lab.end().await;
    }
}

/// Bare names would mean other people after a change of cluster or realm.
#[tokio::test]
async fn a_changed_login_node_is_refused_until_confirmed() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        assert!(sign_in(&lab, "alice", "alice-demo").await.is_ok());
        assert!(user::check_start(&lab.core).await.is_ok());
        let other = crate::lab::simulator(cac_simulator::Delay::none()).await;
        let sql = r#"UPDATE "Nodes" SET "apiUrl" = ?, "tlsFingerprint" = ?"#;
        lab.core
            .db
            .exec(sql, args![other.url(), other.fingerprint()])
            .await
            .unwrap();
        assert!(matches!(
            sign_in(&lab, "alice", "alice-demo").await,
            Err(Error::Unreachable(_))
        ));
        assert!(user::check_start(&lab.core).await.is_err());
        let local = Actor::local();
        user::confirm_login_node(&lab.core, &local).await.unwrap();
        let filter = audit::Filter {
            newest: true,
            limit: 1,
            ..audit::Filter::default()
        };
        let (entries, _) = audit::list(&lab.core, &local, &filter).await.unwrap();
        let entry = entries.last().unwrap();
        assert_eq!(
            (entry.action.as_str(), entry.changes.len()),
            ("login_node_confirm", 1)
        );
        assert!(sign_in(&lab, "alice", "alice-demo").await.is_ok());
        other.stop().await;
        lab.end().await;
    }
}

/// S10 of the original: the admin flag was frozen for a day, and the disabled stayed signed in.
#[tokio::test]
async fn rights_follow_the_group_and_disabled_users_are_signed_out() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let Ok(SignIn::Done { session, .. }) = sign_in(&lab, "admin", "admin-demo").await else {
            panic!()
        };
        // As if the look-up were ten minutes old.
        let old = chrono::Utc::now() - chrono::Duration::minutes(10);
        let age = r#"UPDATE "Sessions" SET "adminCheckedAt" = ?"#;
        lab.simulator.add_user("admin@pve", "admin-demo", &[]);
        lab.core.db.exec(age, args![old]).await.unwrap();
        user::look_up(&lab.core).await.unwrap();
        let actor = session::find(&lab.core, &session).await.unwrap().unwrap();
        assert!(!actor.admin);
        // While nobody can look, admin rights lapse after 15 minutes.
        lab.core
            .db
            .exec(
                r#"UPDATE "Sessions" SET "admin" = ?, "adminCheckedAt" = ?"#,
                args![true, old - chrono::Duration::minutes(6)],
            )
            .await
            .unwrap();
        assert!(
            !session::find(&lab.core, &session)
                .await
                .unwrap()
                .unwrap()
                .admin
        );
        lab.end().await;
    }
}

/// Failed logins count across processes, per name and per address, and a right password in between forgives only its name.
#[tokio::test]
async fn guessing_is_slowed_in_all_processes_together() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let other = cac_core::Core::start(crate::lab::config(&lab.database.url, &[]))
            .await
            .unwrap();
        let try_it = async |core: &cac_core::Core, name: &str, password: &str, from: [u8; 4]| {
            user::sign_in(core, name, &Secret::new(password), None, &at(from)).await
        };
        let wrong =
            |answer: &cac_core::Result<SignIn>| matches!(answer, Err(Error::Unauthenticated(_)));
        for (number, core) in [&lab.core, &other, &lab.core, &other, &lab.core]
            .into_iter()
            .enumerate()
        {
            let answer = try_it(core, "alice", "guess", [192, 0, 2, 1]).await;
            assert!(wrong(&answer), "{number}: {answer:?}");
        }
        for core in [&lab.core, &other] {
            // By any address, and with the right password, too.
            let slowed = try_it(core, "alice@pve", "alice-demo", [192, 0, 2, 9]).await;
            let Err(Error::TooMany { after, message }) = slowed else {
                panic!("{slowed:?}");
            };
            assert!(after <= std::time::Duration::from_secs(3), "{message}");
        }
        assert!(
            try_it(&other, "admin", "admin-demo", [192, 0, 2, 9])
                .await
                .is_ok()
        );
        let back = r#"UPDATE "LoginFailures" SET "lastAt" = ?"#;
        let long_ago = chrono::Utc::now() - chrono::Duration::minutes(5);
        lab.core.db.exec(back, args![long_ago]).await.unwrap();
        assert!(
            try_it(&other, "alice", "alice-demo", [192, 0, 2, 1])
                .await
                .is_ok()
        );
        // Many at once: no more than five are let through.
        let guesses: Vec<_> = (0..40)
            .map(|number: u8| {
                let core = if number.is_multiple_of(2) {
                    lab.core.clone()
                } else {
                    other.clone()
                };
                tokio::spawn(async move {
                    let from = at([192, 0, 2, 100 + number]);
                    loop {
                        match user::sign_in(&core, "alice", &Secret::new("guess"), None, &from)
                            .await
                        {
                            Err(Error::Busy { .. }) => tokio::task::yield_now().await,
                            answer => return answer,
                        }
                    }
                })
            })
            .collect();
        let mut through = 0;
        for guess in guesses {
            through += u32::from(wrong(&guess.await.unwrap()));
        }
        assert!(
            (5..=8).contains(&through),
            "{}: {through}",
            lab.database.name
        );
        // Proxmox VE's silence is nobody's failure.
        lab.simulator.faults().add(cac_simulator::Fault {
            method: None,
            path: "/access/ticket".to_owned(),
            count: 0,
            action: cac_simulator::Action::DropBefore,
        });
        for _ in 0..8 {
            let away = try_it(&lab.core, "bob", "guess", [192, 0, 2, 77]).await;
            assert!(matches!(away, Err(Error::Unreachable(_))), "{away:?}");
        }
        other.db.close().await;
        lab.end().await;
    }
}

/// Nobody looks `local` up, so a leaver of that name kept sessions and tokens.
#[tokio::test]
async fn nobody_has_the_name_of_the_machine_itself() {
    let lab = Lab::new(testing::sqlite().await).await;
    lab.simulator.add_user("local@pve", "local-demo", &[]);
    for name in ["local", "local@pve"] {
        let refused = sign_in(&lab, name, "local-demo").await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    lab.end().await;
}
