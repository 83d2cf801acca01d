//! Services one by one: ports, names, rights.

use cac_core::container;
use cac_core::service::{self, NewOne, ServiceChange};
use cac_core::testing::databases;
use cac_core::{Actor, Error};
use futures_util::future::join_all;

use crate::lab::{core, web};

fn word(protocol: &str) -> NewOne {
    NewOne {
        protocol: Some(protocol.to_owned()),
        ..NewOne::default()
    }
}

fn http(port: i64, name: Option<&str>) -> NewOne {
    NewOne {
        r#type: Some("http".to_owned()),
        internal_port: Some(port),
        external_hostname: name.map(ToOwned::to_owned),
        ..NewOne::default()
    }
}

fn at(r#type: &str, port: i64) -> NewOne {
    NewOne {
        r#type: Some(r#type.to_owned()),
        internal_port: Some(port),
        ..NewOne::default()
    }
}

fn field(error: &Error) -> String {
    match error {
        Error::Invalid(fields) => fields.0.keys().copied().collect::<Vec<_>>().join(" "),
        Error::Conflict { field, .. } => format!("taken {field}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn services_come_and_go_and_leave_their_names_and_ports() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let row = container::register(&core, &Actor::local(), &web(1))
            .await
            .unwrap();
        let alice = Actor::new("alice", false);
        // A container without a web service.
        let first = row.services[0].id;
        service::remove(&core, &alice, row.id, first).await.unwrap();
        // Its own name again, and more of every kind.
        let own = service::add(&core, &alice, row.id, &http(3000, None))
            .await
            .unwrap();
        assert_eq!(own.external_hostname.as_deref(), Some("web1"));
        let more = service::add(&core, &alice, row.id, &http(3001, Some("Second.cac.test.")))
            .await
            .unwrap();
        assert_eq!(more.external_hostname.as_deref(), Some("second"));
        let udp = service::add(&core, &alice, row.id, &at("udp", 5000))
            .await
            .unwrap();
        let tcp = service::add(&core, &alice, row.id, &word("8443/tcp"))
            .await
            .unwrap();
        assert_eq!(
            (udp.external_port, tcp.external_port),
            (Some(10002), Some(10002))
        );
        let change = ServiceChange {
            internal_port: Some(3002),
            external_hostname: Some("third".to_owned()),
            ..ServiceChange::default()
        };
        let changed = service::update(&core, &alice, row.id, more.id, &change)
            .await
            .unwrap();
        assert_eq!(
            (changed.internal_port, changed.external_hostname.as_deref()),
            (3002, Some("third"))
        );
        let again = service::add(&core, &alice, row.id, &http(3003, Some("second")))
            .await
            .unwrap();
        assert_eq!(again.external_hostname.as_deref(), Some("second"));
        // The freed port is the next one's.
        service::remove(&core, &alice, row.id, tcp.id)
            .await
            .unwrap();
        let next = service::add(&core, &alice, row.id, &at("tcp", 9000))
            .await
            .unwrap();
        assert_eq!(next.external_port, Some(10002));
        assert!(next.id > tcp.id, "{}", database.name);
        let gone = service::remove(&core, &alice, row.id, tcp.id).await;
        assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
    }
}

#[tokio::test]
async fn what_is_refused_says_at_which_field() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let row = container::register(&core, &Actor::local(), &web(1))
            .await
            .unwrap();
        let other = container::register(&core, &Actor::local(), &web(2))
            .await
            .unwrap();
        let (alice, bob, admin) = (
            Actor::new("alice", false),
            Actor::new("bob", false),
            Actor::new("root", true),
        );
        let refused = [
            (word("gopher"), "protocol"),
            (
                NewOne {
                    internal_port: Some(1),
                    ..word("rdp")
                },
                "protocol",
            ),
            (at("sctp", 80), "type"),
            (at("tcp", 0), "internalPort"),
            (at("tcp", 70_000), "internalPort"),
            (http(79, Some("free")), "internalPort"),
            (http(8080, Some("-bad-")), "externalHostname"),
            (http(8080, Some("admin")), "externalHostname"),
            (http(8080, Some("shop.example.org")), "externalHostname"),
            (
                NewOne {
                    external_hostname: Some("x".to_owned()),
                    ..at("udp", 53)
                },
                "externalHostname",
            ),
            (word("rdp"), "taken internalPort"),
            (http(8080, Some("web2")), "taken externalHostname"),
            (http(8080, None), "taken externalHostname"),
        ];
        for (new, expected) in refused {
            let error = service::add(&core, &alice, row.id, &new).await.unwrap_err();
            assert_eq!(field(&error), expected, "{}: {new:?}", database.name);
        }
        // A name outside of the domain is an admin's to give, and still only once.
        let shop = http(8080, Some("shop.example.org"));
        service::add(&core, &admin, row.id, &shop).await.unwrap();
        let twice = service::add(&core, &admin, other.id, &shop)
            .await
            .unwrap_err();
        assert_eq!(field(&twice), "taken externalHostname");
        // A public name is nobody's host name either.
        service::add(&core, &alice, row.id, &http(8080, Some("blog")))
            .await
            .unwrap();
        let named = cac_core::container::Registration {
            hostname: "blog".to_owned(),
            ..web(3)
        };
        let named = container::register(&core, &Actor::local(), &named)
            .await
            .unwrap_err();
        assert_eq!(field(&named), "taken hostname");
        // Somebody else's container does not exist.
        for error in [
            service::add(&core, &bob, row.id, &at("tcp", 1)).await.err(),
            service::update(
                &core,
                &bob,
                row.id,
                row.services[0].id,
                &ServiceChange::default(),
            )
            .await
            .err(),
            service::remove(&core, &bob, row.id, row.services[0].id)
                .await
                .err(),
            service::remove(&core, &alice, other.id, row.services[0].id)
                .await
                .err(),
        ] {
            assert!(matches!(error, Some(Error::NotFound(_))), "{error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_given_once_however_many_ask() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let mut rows = Vec::new();
        for n in 1..=10 {
            rows.push(
                container::register(&core, &Actor::local(), &web(n))
                    .await
                    .unwrap()
                    .id,
            );
        }
        let admin = Actor::local();
        let wish = http(8080, Some("wanted"));
        let asked = join_all(
            rows.iter()
                .map(|id| service::add(&core, &admin, *id, &wish)),
        )
        .await;
        assert_eq!(
            asked.iter().filter(|one| one.is_ok()).count(),
            1,
            "{}: {asked:?}",
            database.name
        );
        let port = at("tcp", 4000);
        let asked = join_all(
            rows.iter()
                .map(|id| service::add(&core, &admin, *id, &port)),
        )
        .await;
        let ports: std::collections::BTreeSet<_> = asked
            .into_iter()
            .map(|one| one.unwrap().external_port)
            .collect();
        assert_eq!(ports.len(), 10, "{}", database.name);
    }
}

/// Adding refused a second tcp service on one port, changing one did not.
#[tokio::test]
async fn a_service_is_changed_by_the_rules_of_adding_one() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let row = container::register(&core, &Actor::local(), &web(1))
            .await
            .unwrap();
        let alice = Actor::new("alice", false);
        let one = service::add(&core, &alice, row.id, &at("tcp", 5000)).await;
        let one = one.unwrap();
        let other = service::add(&core, &alice, row.id, &at("tcp", 5001)).await;
        let other = other.unwrap();
        let to = |port| ServiceChange {
            internal_port: Some(port),
            ..ServiceChange::default()
        };
        // However it is asked for.
        let twice = service::add(&core, &alice, row.id, &word("22/tcp")).await;
        assert_eq!(field(&twice.unwrap_err()), "taken internalPort");
        for port in [5000, 22] {
            let refused = service::update(&core, &alice, row.id, other.id, &to(port)).await;
            assert_eq!(field(&refused.unwrap_err()), "taken internalPort", "{port}");
        }
        // Its own port again is no other one's, and udp is another thing.
        service::update(&core, &alice, row.id, one.id, &to(5000))
            .await
            .unwrap();
        let udp = service::add(&core, &alice, row.id, &at("udp", 5002)).await;
        service::update(&core, &alice, row.id, udp.unwrap().id, &to(5000))
            .await
            .unwrap();
        // Without its ssh service, another one does not become it by the way: its external port is of another range.
        let is_ssh = |s: &&service::Service| s.internal_port == 22;
        let ssh = row.services.iter().find(is_ssh).unwrap().id;
        service::remove(&core, &alice, row.id, ssh).await.unwrap();
        let refused = service::update(&core, &alice, row.id, other.id, &to(22)).await;
        assert_eq!(field(&refused.unwrap_err()), "taken internalPort");
    }
}

/// `22/tcp` was a second ssh service on another range.
#[tokio::test]
async fn a_container_begins_with_one_service_on_a_port() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let mut new = web(1);
        new.additional_protocols =
            vec!["22/tcp".to_owned(), "3389/tcp".to_owned(), "rdp".to_owned()];
        let row = container::register(&core, &Actor::local(), &new)
            .await
            .unwrap();
        let mut ports: Vec<u16> = row.services.iter().map(|s| s.internal_port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [22, 3389, 8080]);
    }
}

/// What a change did not carry was written, too, as it had been read before.
#[tokio::test]
async fn two_who_change_one_service_lose_nothing() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let row = container::register(&core, &Actor::local(), &web(1))
            .await
            .unwrap();
        let alice = Actor::new("alice", false);
        let id = row.services[0].id;
        for round in 0..15 {
            let name = format!("site{round}");
            let port = ServiceChange {
                internal_port: Some(9000 + round),
                ..ServiceChange::default()
            };
            let named = ServiceChange {
                external_hostname: Some(name.clone()),
                ..ServiceChange::default()
            };
            let (one, other) = tokio::join!(
                service::update(&core, &alice, row.id, id, &port),
                service::update(&core, &alice, row.id, id, &named),
            );
            one.unwrap();
            other.unwrap();
            let now = container::find_any(&core, row.id).await.unwrap().unwrap();
            let now = now.services.into_iter().find(|s| s.id == id).unwrap();
            assert_eq!(i64::from(now.internal_port), 9000 + round);
            assert_eq!(now.external_hostname, Some(name));
        }
    }
}
