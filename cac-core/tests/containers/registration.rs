//! Registration by scripts: all of it or nothing, one name space, one port each.

use std::collections::BTreeSet;

use cac_core::container::{self, Registration};
use cac_core::testing::databases;
use cac_core::{Actor, Core, Error, args, node};
use futures_util::future::join_all;

use crate::lab::{core, core_with, web};

async fn count(core: &Core, table: &str) -> i64 {
    let sql = match table {
        "Containers" => r#"SELECT COUNT(*) AS "n" FROM "Containers""#,
        _ => r#"SELECT COUNT(*) AS "n" FROM "Services""#,
    };
    core.db.one(sql, args![]).await.unwrap().get("n").unwrap()
}

/// J14 of the original: an unknown protocol, a missing port or a name that was taken left half a container behind.
#[tokio::test]
async fn what_is_refused_leaves_nothing() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let actor = Actor::local();
        let first = container::register(&core, &actor, &web(1)).await.unwrap();
        assert_eq!(first.services.len(), 4, "{}", database.name);
        let refused: [(&str, Registration); 10] = [
            (
                "additionalProtocols",
                Registration {
                    additional_protocols: vec!["rdp".to_owned(), "gopher".to_owned()],
                    ..web(2)
                },
            ),
            (
                "httpPort",
                Registration {
                    http_port: None,
                    ..web(2)
                },
            ),
            (
                "hostname",
                Registration {
                    hostname: "web1".to_owned(),
                    ..web(2)
                },
            ),
            (
                "hostname",
                Registration {
                    hostname: "under_score".to_owned(),
                    ..web(2)
                },
            ),
            (
                "ipv4Address",
                Registration {
                    ipv4_address: "127.9.0.1".to_owned(),
                    ..web(2)
                },
            ),
            (
                "ipv4Address",
                Registration {
                    ipv4_address: "198.51.100.1".to_owned(),
                    ..web(2)
                },
            ),
            (
                "macAddress",
                Registration {
                    mac_address: web(1).mac_address,
                    ..web(2)
                },
            ),
            (
                "macAddress",
                Registration {
                    mac_address: "not one".to_owned(),
                    ..web(2)
                },
            ),
            (
                "containerId",
                Registration {
                    container_id: web(1).container_id,
                    ..web(2)
                },
            ),
            (
                "node",
                Registration {
                    node: Some("pve9".to_owned()),
                    ..web(2)
                },
            ),
        ];
        for (field, bad) in refused {
            match container::register(&core, &actor, &bad).await.unwrap_err() {
                Error::Invalid(fields) => assert!(fields.0.contains_key(field), "{fields}"),
                Error::Conflict {
                    field: other,
                    message,
                } => assert_eq!(other, field, "{message}"),
                other => panic!("{field}: {other:?}"),
            }
            assert_eq!(
                count(&core, "Containers").await,
                1,
                "{} {field}",
                database.name
            );
            assert_eq!(
                count(&core, "Services").await,
                4,
                "{} {field}",
                database.name
            );
        }
    }
}

#[tokio::test]
async fn the_same_container_again_changes_its_address_alone() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let actor = Actor::local();
        let first = container::register(&core, &actor, &web(1)).await.unwrap();
        let again = Registration {
            hostname: "WEB1.cac.test".to_owned(),
            ipv4_address: "127.9.0.77".to_owned(),
            username: "mallory".to_owned(),
            mac_address: "bc-24-11-00-00-01".to_owned(),
            additional_protocols: vec![],
            http_port: Some(9090),
            ..web(1)
        };
        let second = container::register(&core, &actor, &again).await.unwrap();
        assert_eq!((second.id, second.username.as_str()), (first.id, "alice"));
        assert_eq!(second.ipv4_address.as_deref(), Some("127.9.0.77"));
        let ports = |services: &[cac_core::service::Service]| -> Vec<_> {
            services
                .iter()
                .map(|s| (s.id, s.internal_port, s.external_port))
                .collect()
        };
        assert_eq!(ports(&second.services), ports(&first.services));
        // Somebody who is no admin registers nothing, for nobody: who owns a row may destroy its container.
        let bob = Actor::new("bob", false);
        let own = |number| Registration {
            username: "bob".to_owned(),
            ..web(number)
        };
        for one in [own(1), own(2), web(2)] {
            let refused = container::register(&core, &bob, &one).await;
            let Err(Error::Forbidden(message)) = refused else {
                panic!("{refused:?}");
            };
            assert!(!message.contains("web1"), "{message}");
        }
    }
}

#[tokio::test]
async fn a_label_or_a_name_says_which_node() {
    for database in databases().await {
        let core = core(
            &database,
            &[("pve1", None), ("pve2", Some("gpu")), ("pve3", Some("gpu"))],
        )
        .await;
        let actor = Actor::local();
        let nodes = node::all(&core).await.unwrap();
        let named = Registration {
            node: Some("pve3".to_owned()),
            ..web(1)
        };
        let named = container::register(&core, &actor, &named).await.unwrap();
        assert_eq!(named.node_id, Some(nodes[2].id));
        for label in ["gpu", "N"] {
            // Two have the label or none has, and nobody can be asked.
            let unclear = Registration {
                ai_container: Some(label.to_owned()),
                ..web(2)
            };
            let refused = container::register(&core, &actor, &unclear)
                .await
                .unwrap_err();
            assert!(
                refused.to_string().contains("pve1, pve2, pve3"),
                "{refused}"
            );
        }
        node::delete(&core, &actor, nodes[1].id).await.unwrap();
        let labelled = Registration {
            ai_container: Some("gpu".to_owned()),
            ..web(2)
        };
        let labelled = container::register(&core, &actor, &labelled).await.unwrap();
        assert_eq!(labelled.node_id, Some(nodes[2].id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_get_a_port_each_and_one_gets_the_name() {
    for database in databases().await {
        let limits = [("QUOTA_PORTS", "1000"), ("QUOTA_SERVICES", "1000")];
        let core = core_with(&database, &[("pve1", None)], &limits).await;
        let actor = Actor::local();
        let all: Vec<_> = (1..=50).map(web).collect();
        let rows = join_all(
            all.iter()
                .map(|one| container::register(&core, &actor, one)),
        )
        .await;
        let ports: Vec<_> = rows
            .into_iter()
            .flat_map(|row| row.unwrap().services)
            .filter_map(|service| Some((service.r#type.as_str(), service.external_port?)))
            .collect();
        let different: BTreeSet<_> = ports.iter().collect();
        assert_eq!(
            (ports.len(), different.len()),
            (150, 150),
            "{}",
            database.name
        );
        let same: Vec<_> = (60..80)
            .map(|n| Registration {
                hostname: "same".to_owned(),
                ..web(n)
            })
            .collect();
        let rows = join_all(
            same.iter()
                .map(|one| container::register(&core, &actor, one)),
        )
        .await;
        let won = rows.iter().filter(|row| row.is_ok()).count();
        assert_eq!(won, 1, "{}: {rows:?}", database.name);
    }
}
