//! What belongs to the installation itself is never an upstream, whatever a row says.

use std::net::Ipv4Addr;

use cac_core::node::{self, NewNode};
use cac_core::proxy::{self, Report};
use cac_core::service::{self, NewOne, ServiceChange};
use cac_core::testing::{TestDb, databases};
use cac_core::{Actor, Core, Error, args, container, routes};

use super::{container, core, core_with, http};

async fn add_node(core: &Core, url: &str) {
    let new = NewNode {
        name: "pve1".to_owned(),
        api_url: Some(url.to_owned()),
        token_id: Some("cac@pve!web".to_owned()),
        secret: Some("a secret".to_owned()),
        ..NewNode::default()
    };
    node::create(core, &Actor::local(), new).await.unwrap();
}

/// The port of the database's own server on 127.0.0.1, if it has one.
fn server_port(database: &TestDb) -> Option<u16> {
    let url = url::Url::parse(&database.url).ok()?;
    url.port().filter(|_| url.host_str() == Some("127.0.0.1"))
}

/// C1b: nodes, database and portal were published on loopback like any container's port.
#[tokio::test]
async fn rows_that_lead_to_the_portal_a_node_or_the_database_are_not_served() {
    for database in databases().await {
        let core = core_with(
            &database,
            &[
                ("SMTP_URL", "smtp://127.0.0.1:2525"),
                ("MAIL_FROM", "cac@example.org"),
            ],
        )
        .await;
        add_node(&core, "https://127.0.0.1:8006").await;
        let id = container(&core.db, "ssrf", "127.0.0.1").await;
        let mut ours = vec![3000, 8006, 2525, 443];
        ours.extend(server_port(&database));
        for port in ours.iter().chain(&[8080]) {
            http(&core.db, id, &format!("p{port}"), *port).await;
        }
        let mapped = container(&core.db, "mapped", "::ffff:127.0.0.1").await;
        http(&core.db, mapped, "mapped", 3000).await;
        let text = routes::render(&core).await.unwrap().text;
        let troubles = routes::troubles(&core).await.unwrap();
        for port in &ours {
            assert!(
                !text.contains(&format!("127.0.0.1:{port};")),
                "{} {port}: {text}",
                database.name
            );
        }
        assert!(text.contains("p8080.cac.test 127.0.0.1:8080;"), "{text}");
        assert_eq!(troubles.len(), ours.len() + 1, "{troubles:?}");
        assert!(
            troubles
                .values()
                .all(|one| one.reason.contains("belongs to this installation") && !one.kept)
        );
    }
}

/// What was good before a node, proxy or mail server got the address is withdrawn, and not kept in its last good form.
#[tokio::test]
async fn a_served_row_is_withdrawn_when_its_address_becomes_a_node_or_a_proxy() {
    for database in databases().await {
        let core = core_with(&database, &[("CONTAINER_NETWORKS", "192.0.2.0/24")]).await;
        for (name, address) in [
            ("early", "192.0.2.5"),
            ("late", "192.0.2.6"),
            ("fine", "192.0.2.7"),
        ] {
            let id = container(&core.db, name, address).await;
            http(&core.db, id, name, 8080).await;
        }
        let text = routes::render(&core).await.unwrap().text;
        assert!(
            text.contains("192.0.2.5:8080;") && text.contains("192.0.2.6:8080;"),
            "{text}"
        );
        add_node(&core, "https://192.0.2.5:8006").await;
        let report = Report {
            address: Some(Ipv4Addr::new(192, 0, 2, 6).into()),
            ..Report::live("an etag")
        };
        proxy::report(&core, "front", &report).await.unwrap();
        cac_core::testing::until("both are withdrawn", async || {
            let text = routes::render(&core).await.unwrap().text;
            !text.contains("192.0.2.5") && !text.contains("192.0.2.6")
        })
        .await;
        let text = routes::render(&core).await.unwrap().text;
        assert!(text.contains("fine.cac.test 192.0.2.7:8080;"), "{text}");
    }
}

/// Loopback, link-local addresses and the cloud's metadata are in 0.0.0.0/0 without being meant by it.
#[tokio::test]
async fn a_network_of_everything_means_neither_loopback_nor_link_local() {
    for database in databases().await {
        let nets = [
            ("CONTAINER_NETWORKS", "0.0.0.0/0"),
            ("CONTAINER_NETWORKS_EXCEPT", "192.0.2.128/25"),
        ];
        let core = core_with(&database, &nets).await;
        for (name, address) in [
            ("loop", "127.0.0.1"),
            ("meta", "169.254.169.254"),
            ("zero", "0.0.0.0"),
            ("except", "192.0.2.129"),
            ("good", "192.0.2.1"),
        ] {
            let id = container(&core.db, name, address).await;
            http(&core.db, id, name, 8080).await;
        }
        let text = routes::render(&core).await.unwrap().text;
        assert_eq!(
            text.matches(":8080;").count(),
            1,
            "{}: {text}",
            database.name
        );
        assert!(text.contains("good.cac.test 192.0.2.1:8080;"), "{text}");
    }
}

/// C1c: a TCP service that leads to the portal's own port makes a stranger the local machine.
#[tokio::test]
async fn a_service_cannot_get_the_portals_port() {
    for database in databases().await {
        let core = core(&database).await;
        let id = container(&core.db, "mine", "127.0.0.1").await;
        let alice = Actor::new("alice", false);
        let new = |port: i64| NewOne {
            r#type: Some("tcp".to_owned()),
            internal_port: Some(port),
            ..NewOne::default()
        };
        let refused = service::add(&core, &alice, id, &new(3000)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        let good = service::add(&core, &alice, id, &new(3001)).await.unwrap();
        // The same holds for changing one.
        let change = ServiceChange {
            internal_port: Some(3000),
            ..ServiceChange::default()
        };
        let refused = service::update(&core, &alice, id, good.id, &change).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        // What another process published counts here, too.
        let now = chrono::Utc::now();
        let sql = r#"INSERT INTO "OwnAddresses" ("kind", "address", "port", "seenAt", "createdAt", "updatedAt") VALUES ('portal', '127.0.0.1', 3002, NOW_MS(), ?, ?)"#;
        core.db.exec(sql, args![now, now]).await.unwrap();
        let refused = service::add(&core, &alice, id, &new(3002)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        assert_eq!(
            container::find_any(&core, id)
                .await
                .unwrap()
                .unwrap()
                .services
                .len(),
            1
        );
    }
}
