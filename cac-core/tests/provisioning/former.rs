//! Users that are deleted in Proxmox VE: their tokens end, their containers wait for a new owner, and a new person of the same name
//! inherits nothing.

use std::sync::{Arc, Mutex};

use cac_core::account_request::{self, NewAccountRequest};
use cac_core::audit::{self, Origin};
use cac_core::clock::Clock;
use cac_core::container::{self, ContainerChange, Filter};
use cac_core::error::Error;
use cac_core::pve::Secret;
use cac_core::quota::{self, Limits};
use cac_core::session::Client;
use cac_core::token::{self, NewToken};
use cac_core::user::{self, Person, SignIn, State};
use cac_core::{Actor, Core, args, job, session, testing};
use cac_simulator::{Action, Fault};
use chrono::{DateTime, Duration, Utc};

use crate::lab::{Lab, admin, config, new, until};
use crate::life::may;

/// Frank, with everything that somebody can own, and a clock that the test moves.
struct Frank {
    lab: Lab,
    core: Core,
    time: Arc<Mutex<DateTime<Utc>>>,
    container: i64,
    token: String,
    session: String,
}

fn frank() -> Actor {
    Actor::new("frank", false)
}

async fn sign_in(core: &Core, name: &str) -> cac_core::Result<String> {
    let password = Secret::new(format!("{name}-demo"));
    match user::sign_in(core, name, &password, None, &Client::default()).await? {
        SignIn::Done { session, .. } => Ok(session),
        other => panic!("{other:?}"),
    }
}

impl Frank {
    async fn new(database: testing::TestDb) -> Self {
        let lab = Lab::new(database).await;
        lab.simulator.add_user("frank@pve", "frank-demo", &[]);
        let time = Arc::new(Mutex::new(Utc::now()));
        let clock = Clock::Fixed(Arc::clone(&time));
        let config = config(&lab.database.url, &[]);
        let core = Core::with(lab.database.db.clone(), config, clock)
            .await
            .unwrap();
        let session = sign_in(&core, "frank").await.unwrap();
        let wish = NewToken {
            name: "a script".to_owned(),
            scopes: vec!["containers:write".to_owned()],
            expires: None,
        };
        let (_, token) = token::create(&core, &frank(), None, &wish).await.unwrap();
        let made = container::create(&core, &frank(), &new("franks"), Some("key")).await;
        let limits = Limits {
            containers: Some(7),
            ..Limits::default()
        };
        quota::set(&core, &admin(), "frank", limits).await.unwrap();
        Self {
            container: made.unwrap().id,
            lab,
            core,
            time,
            token,
            session,
        }
    }

    fn pass(&self, by: Duration) {
        *self.time.lock().unwrap() += by;
    }

    /// A round of look-ups, so much later.
    async fn look_up(&self, later: Duration) {
        self.pass(later);
        user::look_up(&self.core).await.unwrap();
    }

    async fn token_works(&self) -> bool {
        token::find(&self.core, &self.token)
            .await
            .unwrap()
            .is_some()
    }

    async fn tokens(&self) -> i64 {
        let sql = r#"SELECT COUNT(*) AS "n" FROM "Tokens" WHERE "username" = 'frank'"#;
        self.core
            .db
            .one(sql, args![])
            .await
            .unwrap()
            .get("n")
            .unwrap()
    }

    async fn owner(&self) -> String {
        let found = container::find_any(&self.core, self.container)
            .await
            .unwrap();
        found.unwrap().username
    }

    /// The audit entries of an action, as `field: before → after` and details.
    async fn entries(&self, action: &str) -> Vec<String> {
        let filter = audit::Filter {
            action: Some(action.to_owned()),
            limit: 100,
            ..audit::Filter::default()
        };
        let (entries, _) = audit::list(&self.core, &admin(), &filter).await.unwrap();
        let lines = entries.iter().map(|entry| entry.lines().join("; "));
        lines.collect()
    }

    async fn state(&self, name: &str) -> State {
        user::find(&self.core, &admin(), name).await.unwrap().state
    }

    /// Whoever has the name now owns nothing.
    async fn owns_nothing(&self) {
        let core = &self.core;
        let filter = Filter {
            limit: 10,
            ..Filter::default()
        };
        assert_eq!(container::list(core, &frank(), &filter).await.unwrap().1, 0);
        let found = container::find(core, &frank(), self.container).await;
        assert!(matches!(found, Err(Error::NotFound(_))), "{found:?}");
        let jobs = job::Filter {
            limit: 10,
            ..job::Filter::default()
        };
        assert_eq!(job::list(core, &frank(), &jobs).await.unwrap().1, 0);
        assert_eq!(
            token::list(core, &frank(), false, (10, 0)).await.unwrap().1,
            0
        );
        let quota = quota::find(core, &frank(), "frank").await.unwrap();
        assert_eq!((quota.own, quota.used.containers), (Limits::default(), 0));
        assert!(!self.token_works().await);
    }
}

/// H3: the next frank's look-up brought the old frank's token to life again, and the next frank owned the old one's containers.
#[tokio::test]
async fn a_new_person_of_the_same_name_inherits_nothing() {
    for database in testing::databases().await {
        let mut frank = Frank::new(database).await;
        let name = frank.lab.database.name;
        // Whoever owns only a row that was inserted by hand is looked up, too.
        let now = Utc::now();
        let sql = r#"INSERT INTO "Containers" ("hostname", "username", "createdAt", "updatedAt") VALUES ('by-hand', 'erin', ?, ?)"#;
        frank.core.db.exec(sql, args![now, now]).await.unwrap();
        frank.look_up(Duration::minutes(6)).await;
        assert!(frank.token_works().await);
        assert_eq!(frank.state("frank").await, State::Active);
        assert_eq!(frank.state("erin").await, State::Missing);
        frank.lab.simulator.remove_user("frank@pve");
        frank.look_up(Duration::minutes(6)).await;
        assert_eq!(
            (frank.token_works().await, frank.tokens().await),
            (false, 1),
            "{name}"
        );
        assert!(
            session::find(&frank.core, &frank.session)
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(frank.owner().await, "frank");
        frank.look_up(Duration::minutes(9)).await;
        // Erin was missing for longer.
        let erin = user::find(&frank.core, &admin(), "former owner erin")
            .await
            .unwrap();
        assert_eq!((erin.state, erin.containers), (State::Former, 1));
        assert_eq!(
            (frank.tokens().await, frank.owner().await.as_str()),
            (1, "frank")
        );
        frank.look_up(Duration::minutes(1)).await;
        assert_eq!(frank.tokens().await, 0, "{name}");
        assert_eq!(frank.owner().await, "former owner frank");
        // Another person gets the name.
        frank.lab.simulator.add_user("frank@pve", "frank-demo", &[]);
        sign_in(&frank.core, "frank").await.unwrap();
        frank.look_up(Duration::minutes(6)).await;
        frank.owns_nothing().await;
        // The same idempotency key is another request.
        let again =
            container::create(&frank.core, &self::frank(), &new("other"), Some("key")).await;
        assert_ne!(again.unwrap().id, frank.container);
        // The job that was asked for by the old one gives the new one no role.
        frank.lab.runner();
        let row = async || frank.lab.row(frank.container).await.unwrap();
        until("the container is made", async || {
            row().await.state.is_none()
        })
        .await;
        let path = format!("/vms/{}", row().await.container_id.unwrap());
        assert!(!may(&frank.lab, "frank", &path).await, "{name}");
        // An admin gives the container to somebody who exists.
        let change = ContainerChange {
            username: Some("alice".to_owned()),
            ..ContainerChange::default()
        };
        container::update(
            &frank.core,
            &admin(),
            frank.container,
            &change,
            std::time::Duration::ZERO,
        )
        .await
        .unwrap();
        assert_eq!(frank.owner().await, "alice");
        until("the new owner gets the role", async || {
            may(&frank.lab, "alice", &path).await
        })
        .await;
        frank.lab.end().await;
    }
}

#[tokio::test]
async fn a_name_that_returns_in_between_stays_suspended_until_an_admin_decides() {
    for database in testing::databases().await {
        let frank = Frank::new(database).await;
        for person in [Person::Same, Person::New] {
            frank.lab.simulator.remove_user("frank@pve");
            frank.look_up(Duration::minutes(6)).await;
            frank.lab.simulator.add_user("frank@pve", "frank-demo", &[]);
            for _ in 0..4 {
                frank.look_up(Duration::minutes(6)).await;
                assert!(!frank.token_works().await, "{person:?}");
                assert_eq!(frank.state("frank").await, State::Returned);
                let refused = sign_in(&frank.core, "frank").await;
                assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
            }
            // Disabled and enabled again is no decision.
            frank.lab.simulator.set_enabled("frank@pve", false);
            frank.look_up(Duration::minutes(6)).await;
            frank.lab.simulator.set_enabled("frank@pve", true);
            frank.look_up(Duration::minutes(6)).await;
            assert_eq!(frank.state("frank").await, State::Returned);
            let other = user::update(&frank.core, &self::frank(), "frank", person).await;
            assert!(matches!(other, Err(Error::Forbidden(_))), "{other:?}");
            let user = user::update(&frank.core, &admin(), "frank", person)
                .await
                .unwrap();
            sign_in(&frank.core, "frank").await.unwrap();
            frank.look_up(Duration::minutes(6)).await;
            if person == Person::Same {
                assert_eq!(user.state, State::Active);
                assert!(frank.token_works().await);
                assert_eq!(frank.owner().await, "frank");
            } else {
                assert_eq!(
                    (user.username.as_str(), user.containers),
                    ("former owner frank", 1)
                );
                frank.owns_nothing().await;
            }
        }
        // It was the same person after all: the container comes back, the token does not.
        let back = user::update(&frank.core, &admin(), "former owner frank", Person::Same).await;
        assert_eq!(back.unwrap().containers, 1);
        // Said again it decides nothing, and nothing is written.
        user::update(&frank.core, &admin(), "frank", Person::Same)
            .await
            .unwrap();
        let entries = frank.entries("user_update").await;
        assert_eq!(entries.len(), 3, "{entries:?}");
        for (entry, pieces) in entries.iter().zip([
            ["person: same", "state: returned → active"],
            ["state: returned → former", "tokens: 1 → none"],
            [
                "username: former owner frank → frank",
                "containers: 1 → none",
            ],
        ]) {
            for piece in pieces {
                assert!(entry.contains(piece), "{piece}: {entry}");
            }
        }
        assert_eq!(frank.owner().await, "frank");
        assert_eq!(
            quota::find(&frank.core, &admin(), "frank")
                .await
                .unwrap()
                .own
                .containers,
            Some(7)
        );
        assert!(!frank.token_works().await);
        frank.lab.end().await;
    }
}

/// Whoever signs in between two look-ups, before it was noticed that the name exists again.
#[tokio::test]
async fn a_sign_in_by_a_missing_name_is_noticed_at_once() {
    for database in testing::databases().await {
        let frank = Frank::new(database).await;
        frank.lab.simulator.remove_user("frank@pve");
        frank.look_up(Duration::minutes(6)).await;
        frank.lab.simulator.add_user("frank@pve", "frank-demo", &[]);
        let refused = sign_in(&frank.core, "frank").await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
        assert_eq!(frank.state("frank").await, State::Returned);
        frank.lab.end().await;
    }
}

#[tokio::test]
async fn a_403_silence_an_empty_list_and_an_unknown_realm_prove_nothing() {
    for database in testing::databases().await {
        let frank = Frank::new(database).await;
        let now = Utc::now();
        // Owners that Proxmox VE cannot be asked about, or would not know in any case.
        for (hostname, owner) in [
            ("a", "dora@gone"),
            ("b", "local"),
            ("c", "Frank Smith"),
            ("d", "former owner zoe"),
        ] {
            let sql = r#"INSERT INTO "Containers" ("hostname", "username", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
            frank
                .core
                .db
                .exec(sql, args![hostname, owner, now, now])
                .await
                .unwrap();
        }
        let blind = frank.lab.simulator.add_token("cac@pve", "blind", true);
        for node in cac_core::node::list(&frank.core, &admin()).await.unwrap() {
            let change = cac_core::node::NodeChange {
                token_id: Some(Some("cac@pve!blind".to_owned())),
                secret: Some(Some(blind.clone())),
                ..cac_core::node::NodeChange::default()
            };
            cac_core::node::update(&frank.core, &admin(), node.id, change)
                .await
                .unwrap();
        }
        // A token without rights gets a list without anybody, and a 403 for each of them.
        for _ in 0..3 {
            frank.look_up(Duration::minutes(11)).await;
            assert!(frank.token_works().await);
        }
        let fault = |path: &str, action: Action| Fault {
            method: Some("GET".to_owned()),
            path: path.to_owned(),
            count: 0,
            action,
        };
        let forbidden = || Action::Status {
            code: 403,
            reason: "Permission check failed".to_owned(),
        };
        frank.lab.simulator.remove_user("frank@pve");
        for action in [forbidden(), Action::DropBefore] {
            frank
                .lab
                .simulator
                .faults()
                .add(fault("/access/users", action));
            for _ in 0..3 {
                frank.pass(Duration::minutes(11));
                // Silence is told as such.
                let _ = user::look_up(&frank.core).await;
                assert!(frank.token_works().await);
            }
            frank.lab.simulator.faults().clear();
        }
        // The login node's realm is not there, such as after a mistake in the configuration.
        frank
            .lab
            .simulator
            .faults()
            .add(fault("/access/domains", forbidden()));
        frank.look_up(Duration::minutes(11)).await;
        frank.look_up(Duration::minutes(11)).await;
        assert!(frank.token_works().await);
        frank.lab.simulator.faults().clear();
        let sql = r#"SELECT "username" FROM "Containers" ORDER BY "hostname""#;
        let rows = frank.core.db.all(sql, args![]).await.unwrap();
        let owners: Vec<String> = rows
            .iter()
            .map(|row| row.get("username").unwrap())
            .collect();
        assert_eq!(
            owners,
            [
                "dora@gone",
                "local",
                "Frank Smith",
                "former owner zoe",
                "frank"
            ]
        );
        frank.lab.end().await;
    }
}

/// Names would mean other people, and nobody would seem to exist.
#[tokio::test]
async fn nobody_is_gone_while_the_login_node_is_not_confirmed() {
    for database in testing::databases().await {
        let frank = Frank::new(database).await;
        let sql = r#"UPDATE "Settings" SET "value" = 'corp' WHERE "name" = 'login.realm'"#;
        frank.core.db.exec(sql, args![]).await.unwrap();
        frank.lab.simulator.remove_user("frank@pve");
        for _ in 0..3 {
            frank.pass(Duration::minutes(11));
            assert!(user::look_up(&frank.core).await.is_err());
        }
        assert!(frank.token_works().await);
        frank.lab.end().await;
    }
}

#[tokio::test]
async fn whoever_approves_a_name_knows_what_exists_under_it() {
    for database in testing::databases().await {
        let frank = Frank::new(database).await;
        let wish = NewAccountRequest {
            name: "Frank the Second".to_owned(),
            email: "frank@example.org".to_owned(),
            username: "frank".to_owned(),
            reason: "A seminar.".to_owned(),
        };
        account_request::create(&frank.core, &wish, &Origin::default())
            .await
            .unwrap();
        let core = &frank.core;
        let request = account_request::find(core, &admin(), 1).await.unwrap();
        let found = account_request::name_use(core, &admin(), std::slice::from_ref(&request)).await;
        let existing = found.unwrap()["frank"];
        assert_eq!(
            (existing.containers, existing.tokens, existing.jobs),
            (1, 1, 1)
        );
        let words = existing.in_words();
        assert!(
            words.starts_with("1 container, 1 API token, 1 job"),
            "{words}"
        );
        let refused = account_request::approve(core, &admin(), 1, false).await;
        assert!(
            matches!(refused, Err(Error::Conflict { .. })),
            "{refused:?}"
        );
        let (_, link) = account_request::approve(core, &admin(), 1, true)
            .await
            .unwrap();
        // The old frank is deleted a moment before the new one chooses a password: no look-up has seen that.
        frank.lab.simulator.remove_user("frank@pve");
        let link = link.unwrap();
        let link = link.rsplit('/').next().unwrap();
        account_request::redeem(core, link, &Secret::new("frank-demo"), &Origin::default())
            .await
            .unwrap();
        sign_in(core, "frank").await.unwrap();
        frank.owns_nothing().await;
        assert_eq!(frank.owner().await, "former owner frank");
        let approved = frank.entries("account_request_approve").await;
        assert_eq!(approved.len(), 1, "{approved:?}");
        assert!(
            approved[0].contains("acceptedExisting: 1 container, 1 API token"),
            "{approved:?}"
        );
        // Once, though the name is taken away again when the account exists.
        let released = frank.entries("user_state").await;
        assert_eq!(released.len(), 1, "{released:?}");
        for piece in [
            "containers: 1 → none",
            "tokens: 1 → none",
            "account request 1",
        ] {
            assert!(released[0].contains(piece), "{piece}: {released:?}");
        }
        frank.lab.end().await;
    }
}

/// Proxmox VE deletes the roles of a user with the account; whoever came back could not open the console any more.
#[tokio::test]
async fn the_same_person_gets_the_roles_in_proxmox_again() {
    for database in testing::databases().await {
        let mut frank = Frank::new(database).await;
        frank.lab.runner();
        let row = async || frank.lab.row(frank.container).await.unwrap();
        until("the container is made", async || {
            row().await.state.is_none()
        })
        .await;
        let path = format!("/vms/{}", row().await.container_id.unwrap());
        assert!(may(&frank.lab, "frank", &path).await);
        for former in [false, true] {
            frank.lab.simulator.remove_user("frank@pve");
            frank.look_up(Duration::minutes(6)).await;
            if former {
                frank.look_up(Duration::minutes(10)).await;
            }
            frank.lab.simulator.add_user("frank@pve", "frank-demo", &[]);
            assert!(!may(&frank.lab, "frank", &path).await, "{former}");
            let name = if former {
                "former owner frank"
            } else {
                "frank"
            };
            user::update(&frank.core, &admin(), name, Person::Same)
                .await
                .unwrap();
            until("the role is given again", async || {
                may(&frank.lab, "frank", &path).await
            })
            .await;
        }
        frank.lab.end().await;
    }
}

/// Two persons of one name left one former owner, and the third one got what both had. What they had asked for to run later still ran.
#[tokio::test]
async fn what_several_persons_of_one_name_left_is_not_mixed_and_nothing_of_theirs_runs() {
    for database in testing::databases().await {
        let frank = Frank::new(database).await;
        let core = &frank.core;
        let made = r#"UPDATE "Containers" SET "state" = NULL, "jobId" = NULL"#;
        core.db.exec(made, args![]).await.unwrap();
        let later = r#"INSERT INTO "Jobs" ("command", "status", "createdBy", "createdAt", "updatedAt") VALUES ('true', 'pending', 'frank', ?, ?)"#;
        let now = Utc::now();
        core.db.exec(later, args![now, now]).await.unwrap();
        let first = user::update(core, &admin(), "frank", Person::New).await;
        assert_eq!(first.unwrap().username, "former owner frank");
        let sql = r#"SELECT "status", "reason" FROM "Jobs" WHERE "command" = 'true'"#;
        let row = core.db.one(sql, args![]).await.unwrap();
        assert_eq!(row.get::<String>("status").unwrap(), "cancelled");
        assert!(row.get::<Option<String>>("reason").unwrap().is_some());
        let second = container::create(core, &self::frank(), &new("second"), None).await;
        let second = second.unwrap().id;
        let left = user::update(core, &admin(), "frank", Person::New).await;
        assert_eq!(left.unwrap().username, "former owner frank (2)");
        let back = user::update(core, &admin(), "former owner frank", Person::Same).await;
        assert_eq!(back.unwrap().containers, 1);
        assert_eq!(frank.owner().await, "frank");
        let other = container::find_any(core, second).await.unwrap().unwrap();
        assert_eq!(other.username, "former owner frank (2)");
        frank.lab.end().await;
    }
}
