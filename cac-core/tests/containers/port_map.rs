//! The original's port map: ports that people know stay the same, and every entry that cannot be taken says why.

use cac_core::container::{self, Outcome, Taken};
use cac_core::{Actor, Core, testing};
use serde_json::{Value, json};

use crate::lab::core;

async fn take(core: &Core, file: &Value, dry_run: bool) -> Vec<Taken> {
    let text = file.to_string();
    container::take(core, &Actor::local(), &text, None, dry_run)
        .await
        .unwrap()
}

fn entry(number: u8, ports: &Value) -> Value {
    json!({
        "ip": format!("127.9.0.{number}"), "user": "alice", "os_release": "Debian", "ctid": (1000 + u32::from(number)).to_string(),
        "mac": format!("bc:24:11:00:00:{number:02x}"), "ports": ports,
    })
}

#[tokio::test]
async fn ports_stay_and_what_cannot_be_taken_says_why() {
    for database in testing::databases().await {
        let name = database.name;
        let core = core(&database, &[("pve1", None)]).await;
        let file = json!({
            "Shop": entry(1, &json!({"ssh": 2344, "http": 8080, "dns": "10053", "gopher": 7070})),
            "plain": entry(2, &json!({"ssh": 2345})),
            "same-port": entry(3, &json!({"ssh": 2344})),
            "same-address": {"ip": "127.9.0.1", "user": "bob", "os_release": "debian", "ctid": 1044, "mac": "BC:24:11:00:00:44"},
            "no_name": entry(5, &json!({})),
            "nobody": {"ip": "127.9.0.6", "os_release": "debian", "ctid": 1006, "mac": "BC:24:11:00:00:06"},
            "bad-port": entry(7, &json!({"ssh": 70000})),
            "odd": 7,
            "portals": entry(10, &json!({"app": 443})),
            "outside": {"ip": "198.51.100.7", "user": "alice", "os_release": "debian", "ctid": 1008, "mac": "BC:24:11:00:00:08"},
        });
        let dry = take(&core, &file, true).await;
        let filter = container::Filter {
            all: true,
            user: None,
            search: None,
            limit: 100,
            offset: 0,
        };
        let rows = async || {
            let list = container::list(&core, &Actor::local(), &filter).await;
            list.unwrap().0
        };
        assert!(rows().await.is_empty(), "{name}: a dry run changes nothing");
        let taken = take(&core, &file, false).await;
        let outcomes = |all: &[Taken]| -> Vec<(String, Outcome, Option<String>)> {
            let one = |one: &Taken| (one.hostname.clone(), one.outcome, one.reason.clone());
            all.iter().map(one).collect()
        };
        assert_eq!(outcomes(&dry), outcomes(&taken), "{name}");
        for (hostname, reason) in [
            ("same-port", "the port 2344/tcp, too"),
            ("same-address", "the address 127.9.0.1, too"),
            ("no_name", "a-z, 0-9 and `-`"),
            ("nobody", "username"),
            ("bad-port", "`ssh` is no number from 1 to 65535"),
            ("odd", "not understood"),
            ("portals", "443/tcp is the reverse proxy's"),
            ("outside", "CONTAINER_NETWORKS"),
        ] {
            let one = taken.iter().find(|one| one.hostname == hostname).unwrap();
            assert_eq!(one.outcome, Outcome::Refused, "{name} {one:?}");
            assert!(one.reason.as_ref().unwrap().contains(reason), "{one:?}");
        }
        let rows = rows().await;
        assert_eq!(rows.len(), 2, "{name}");
        let shop = rows.iter().find(|row| row.hostname == "shop").unwrap();
        assert_eq!(
            (shop.container_id, shop.username.as_str()),
            (Some(1001), "alice")
        );
        assert_eq!(shop.mac_address.as_deref(), Some("BC:24:11:00:00:01"));
        let services: Vec<_> = shop
            .services
            .iter()
            .map(|s| (s.r#type.as_str(), s.internal_port, s.external_port))
            .collect();
        assert_eq!(
            services,
            [
                ("http", 8080, None),
                ("udp", 53, Some(10053)),
                ("tcp", 7070, Some(7070)),
                ("tcp", 22, Some(2344)),
            ],
            "{name}"
        );
        // The same file again finds them, and a port of somebody else's stays theirs.
        let again = take(&core, &file, false).await;
        let known = again.iter().filter(|one| one.outcome == Outcome::Known);
        assert_eq!(known.count(), 2, "{name} {again:?}");
        let other = json!({"late": entry(9, &json!({"ssh": 2345}))});
        let late = take(&core, &other, false).await;
        let reason = late[0].reason.as_deref().unwrap();
        assert!(reason.contains("Port 2345/tcp is container"), "{reason}");
        let user = Actor::new("alice", false);
        assert!(
            container::take(&core, &user, "{}", None, true)
                .await
                .is_err()
        );
        assert!(
            container::take(&core, &Actor::local(), "[]", None, true)
                .await
                .is_err()
        );
    }
}
