//! Names that may not be given newly, and those that exist all the same.

use cac_core::container::{self, Registration};
use cac_core::nginx::Service;
use cac_core::service::{self, NewOne, ServiceChange};
use cac_core::testing::{TestDb, databases};
use cac_core::{Actor, Core, Error, args, hostname, routes};

use crate::lab::{core_with, web};

const SECOND: (&str, &str) = ("CAC_HOSTS", "localhost,Second.cac.test");

async fn core(database: &TestDb, more: &[(&str, &str)]) -> Core {
    core_with(database, &[("pve1", None)], more).await
}

fn public(name: &str) -> NewOne {
    NewOne {
        r#type: Some("http".to_owned()),
        internal_port: Some(8080),
        external_hostname: Some(name.to_owned()),
        ..NewOne::default()
    }
}

fn why(error: Error, field: &str) -> String {
    match error {
        Error::Invalid(mut fields) => fields.0.remove(field).expect("at this field"),
        other => panic!("{other:?}"),
    }
}

/// M6 of the attack: `wpad`, `autodiscover`, `login`, … and the portal's second name were anybody's, and so were homographs.
#[tokio::test]
async fn names_that_mean_something_are_given_to_nobody() {
    for database in databases().await {
        let core = core(&database, &[SECOND]).await;
        let row = container::register(&core, &Actor::local(), &web(1))
            .await
            .unwrap();
        let (alice, admin) = (Actor::new("alice", false), Actor::new("root", true));
        for (name, says) in [
            ("wpad", "reserved"),
            ("WPAD.cac.test.", "reserved"),
            ("isatap", "reserved"),
            ("autodiscover", "reserved"),
            ("autoconfig", "reserved"),
            ("mta-sts", "reserved"),
            ("localhost", "reserved"),
            ("login", "reserved"),
            ("sso", "reserved"),
            ("second", "reserved"),
            ("www", "reserved"),
            ("xn--bcher-kva", "does not allow"),
            ("xn--80ak6aa92e", "does not allow"),
            ("ab--cd", "kept for names"),
        ] {
            for who in [&alice, &admin] {
                let error = service::add(&core, who, row.id, &public(name)).await;
                let why = why(error.unwrap_err(), "externalHostname");
                assert!(why.contains(says), "{name}: {why}");
            }
            let change = ServiceChange {
                external_hostname: Some(name.to_owned()),
                ..ServiceChange::default()
            };
            let web_service = row.services[0].id;
            let error = service::update(&core, &alice, row.id, web_service, &change).await;
            assert!(
                why(error.unwrap_err(), "externalHostname").contains(says),
                "{name}"
            );
            let named = Registration {
                hostname: name.trim_end_matches('.').to_owned(),
                ..web(2)
            };
            let error = container::register(&core, &Actor::local(), &named).await;
            assert!(why(error.unwrap_err(), "hostname").contains(says), "{name}");
        }
        assert_eq!(
            hostname::questionable(&core.db, &core.config)
                .await
                .unwrap(),
            []
        );
    }
}

#[tokio::test]
async fn names_in_other_alphabets_are_a_setting_and_lookalikes_are_not() {
    for database in databases().await {
        let core = core(&database, &[("HOSTNAMES_IDN", "on")]).await;
        let row = container::register(&core, &Actor::local(), &web(1))
            .await
            .unwrap();
        let alice = Actor::new("alice", false);
        let add = async |name: &str| service::add(&core, &alice, row.id, &public(name)).await;
        add("xn--bcher-kva").await.unwrap();
        // How it is written is told to whoever writes it as it reads.
        let written = why(add("B\u{fc}cherei").await.unwrap_err(), "externalHostname");
        assert_eq!(written, "Write it as `xn--bcherei-n2a`.");
        for (name, says) in [
            ("xn--80ak6aa92e", "can be taken for `apple`"),
            ("xn--pypal-4ve", "mixes alphabets"),
            ("xn--a", "no valid"),
        ] {
            let why = why(add(name).await.unwrap_err(), "externalHostname");
            assert!(why.contains(says), "{name}: {why}");
        }
    }
}

#[tokio::test]
async fn names_that_exist_stay_served_and_are_listed() {
    for database in databases().await {
        let core = core(&database, &[SECOND]).await;
        let row = container::register(&core, &Actor::local(), &web(1))
            .await
            .unwrap();
        let alice = Actor::new("alice", false);
        for sql in [
            r#"UPDATE "Containers" SET "hostname" = 'login' WHERE "id" = ?"#,
            r#"UPDATE "Services" SET "externalHostname" = 'second' WHERE "containerId" = ? AND "type" = 'http'"#,
        ] {
            core.db.exec(sql, args![row.id]).await.unwrap();
        }
        // Its script tells its address again.
        let again = Registration {
            hostname: "login".to_owned(),
            ipv4_address: "127.9.0.77".to_owned(),
            ..web(1)
        };
        let again = container::register(&core, &Actor::local(), &again)
            .await
            .unwrap();
        assert_eq!(
            (again.id, again.ipv4_address.as_deref()),
            (row.id, Some("127.9.0.77"))
        );
        // Its form sends the name along with what changes, and its own host name may still be published.
        let change = ServiceChange {
            internal_port: Some(8081),
            external_hostname: Some("second".to_owned()),
            ..ServiceChange::default()
        };
        service::update(&core, &alice, row.id, row.services[0].id, &change)
            .await
            .unwrap();
        service::add(&core, &alice, row.id, &public("login"))
            .await
            .unwrap();
        core.wake.routes();
        let table = routes::newest(&core).await.unwrap();
        let mut served: Vec<&str> = table
            .served
            .values()
            .filter_map(|service| match service {
                Service::Http(service) => Some(service.name.as_str()),
                Service::Stream(_) => None,
            })
            .collect();
        served.sort_unstable();
        assert_eq!(served, ["login.cac.test", "second.cac.test"]);
        let listed = hostname::questionable(&core.db, &core.config)
            .await
            .unwrap();
        let listed: Vec<_> = listed
            .iter()
            .map(|one| (one.container, one.name.as_str()))
            .collect();
        assert_eq!(listed, [(row.id, "login"), (row.id, "second")]);
    }
}
