//! Testing a node: what its token may do, and whose certificate answers.

use cac_core::node::{self, NewNode, NodeChange};
use cac_core::{Error, testing};

use crate::lab::{Lab, admin, simulator};

/// Pitfall 10: a new token has no right at all until it is named itself.
#[tokio::test]
async fn what_a_token_lacks_comes_with_the_commands_that_give_it() {
    let lab = Lab::new(testing::sqlite().await).await;
    lab.simulator.add_user("small@pve", "unused-password", &[]);
    let secret = lab.simulator.add_token("small@pve", "web", true);
    let new = NewNode {
        name: "pve8".to_owned(),
        api_url: Some(lab.simulator.url()),
        token_id: Some("small@pve!web".to_owned()),
        secret: Some(secret),
        tls_fingerprint: Some(lab.simulator.fingerprint()),
        ..NewNode::default()
    };
    let node = node::create(&lab.core, &admin(), new).await.unwrap();
    let check = node::test(&lab.core, &admin(), node.id).await.unwrap();
    assert_eq!(check.version.as_deref(), Some("8.4.21"));
    let text = check.problems.join("\n");
    for expected in [
        "knows no node `pve8`",
        "pveum role add CAC --privs 'Datastore.AllocateSpace Datastore.Audit SDN.Use",
        "no VM.Allocate, VM.Audit,",
        "pveum acl modify /vms --users 'small@pve' --tokens 'small@pve!web' --roles CAC",
        "no Datastore.AllocateSpace, Datastore.Audit on /storage;",
        "no SDN.Use on /sdn/zones/localnetwork/vmbr0;",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let rights = [
        ("/vms", "PVEVMAdmin"),
        ("/storage", "PVEDatastoreAdmin"),
        ("/sdn", "PVESDNUser"),
        ("/nodes", "PVEAuditor"),
    ];
    for (path, role) in rights {
        lab.simulator.grant(path, "small@pve", role);
        lab.simulator.grant(path, "small@pve!web", role);
    }
    let check = node::test(&lab.core, &admin(), node.id).await.unwrap();
    let text = check.problems.join("\n");
    assert!(!text.contains("pveum acl modify"), "{text}");
    lab.end().await;
}

#[tokio::test]
async fn a_changed_certificate_is_shown_and_gets_nothing() {
    let lab = Lab::new(testing::sqlite().await).await;
    let node = node::all(&lab.core).await.unwrap().remove(0);
    let other = "AB:".repeat(31) + "CD";
    let secret = node.secret.clone().unwrap().expose().to_owned();
    let pin = |print: String| NodeChange {
        tls_fingerprint: Some(Some(print)),
        secret: Some(Some(secret.clone())),
        ..NodeChange::default()
    };
    let set = async |change| {
        let changed = node::update(&lab.core, &admin(), node.id, change).await;
        changed.unwrap()
    };
    set(pin(other.clone())).await;
    let before = lab.simulator.requests();
    let check = node::test(&lab.core, &admin(), node.id).await.unwrap();
    let (now, text) = (lab.simulator.fingerprint(), &check.problems[0]);
    assert_eq!(
        (check.version, check.fingerprint),
        (None, Some(now.clone()))
    );
    assert!(text.contains(&other) && text.contains(&now), "{text}");
    // Nor does any other call reach it: the handshake fails.
    let changed = node::find(&lab.core, node.id).await.unwrap();
    lab.core.pve(&changed).unwrap().version().await.unwrap_err();
    assert_eq!(lab.simulator.requests(), before);
    // Not pinned and not known to the system: the answer has what to pin.
    let open = NodeChange {
        tls_fingerprint: Some(None),
        secret: Some(Some(secret.clone())),
        ..NodeChange::default()
    };
    set(open).await;
    let check = node::test(&lab.core, &admin(), node.id).await.unwrap();
    let text = &check.problems[0];
    assert!(
        text.contains("tlsFingerprint") && text.contains(&now),
        "{text}"
    );
    set(pin(check.fingerprint.unwrap())).await;
    let check = node::test(&lab.core, &admin(), node.id).await.unwrap();
    assert_eq!(check.problems, Vec::<String>::new());
    lab.end().await;
}

/// Each read the whole node and wrote all of it: one change of two was lost.
#[tokio::test]
async fn two_admins_who_change_one_node_lose_nothing() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let id = node::all(&lab.core).await.unwrap()[0].id;
        for round in 0..15 {
            let (storage, bridge) = (format!("storage{round}"), format!("vmbr{round}"));
            let one = NodeChange {
                storage: Some(Some(storage.clone())),
                ..NodeChange::default()
            };
            let other = NodeChange {
                bridge: Some(Some(bridge.clone())),
                ..NodeChange::default()
            };
            let who = admin();
            let (one, other) = tokio::join!(
                node::update(&lab.core, &who, id, one),
                node::update(&lab.core, &who, id, other),
            );
            one.unwrap();
            other.unwrap();
            let node = node::find(&lab.core, id).await.unwrap();
            assert_eq!(node.storage.as_deref(), Some(storage.as_str()));
            assert_eq!(node.bridge.as_deref(), Some(bridge.as_str()));
            assert!(node.secret.is_some());
        }
        lab.end().await;
    }
}

/// The service token left the portal by a change of the address alone.
#[tokio::test]
async fn a_stored_secret_is_sent_only_where_it_was_entered_for() {
    for database in testing::databases().await {
        let name = database.name;
        let lab = Lab::new(database).await;
        let node = node::all(&lab.core).await.unwrap().remove(0);
        let secret = node.secret.clone().unwrap().expose().to_owned();
        let thief = simulator(cac_simulator::Delay::none()).await;
        let elsewhere = || NodeChange {
            api_url: Some(Some(thief.url())),
            ..NodeChange::default()
        };
        let host = lab.simulator.url();
        let changes = [
            ("another port", elsewhere()),
            (
                "another host",
                NodeChange {
                    api_url: Some(Some(host.replace("127.0.0.1", "localhost"))),
                    ..NodeChange::default()
                },
            ),
            (
                "another path",
                NodeChange {
                    api_url: Some(Some(format!("{host}/other"))),
                    ..NodeChange::default()
                },
            ),
            (
                "any certificate",
                NodeChange {
                    tls_verify: Some(Some(false)),
                    tls_fingerprint: Some(None),
                    ..NodeChange::default()
                },
            ),
            (
                "another certificate",
                NodeChange {
                    tls_fingerprint: Some(Some(thief.fingerprint())),
                    ..NodeChange::default()
                },
            ),
            (
                "no pinned certificate",
                NodeChange {
                    tls_fingerprint: Some(None),
                    ..NodeChange::default()
                },
            ),
        ];
        for (what, change) in changes {
            let refused = node::update(&lab.core, &admin(), node.id, change).await;
            let Err(Error::Invalid(fields)) = refused else {
                panic!("{name}, {what}: {refused:?}");
            };
            let text = &fields.0["secret"];
            assert!(text.contains("Enter the token's secret again"), "{text}");
        }
        let now = node::find(&lab.core, node.id).await.unwrap();
        assert_eq!(now.api_url, node.api_url, "{name}");
        node::test(&lab.core, &admin(), node.id).await.unwrap();
        assert_eq!(thief.requests(), 0, "{name}");
        // What sends it nowhere else needs nothing: the same address and certificate written otherwise, and every other field.
        let same = NodeChange {
            api_url: Some(Some(format!("{host}/"))),
            tls_fingerprint: Some(
                node.tls_fingerprint
                    .as_ref()
                    .map(|text| text.to_lowercase()),
            ),
            tls_verify: Some(Some(true)),
            ai_container: Some(Some("lab".to_owned())),
            ..NodeChange::default()
        };
        let changed = node::update(&lab.core, &admin(), node.id, same)
            .await
            .unwrap();
        assert_eq!(changed.ai_container.as_deref(), Some("lab"), "{name}");
        // With the secret it goes where it is entered for, and taking it away sends it nowhere.
        let moved = NodeChange {
            secret: Some(Some(secret.clone())),
            ..elsewhere()
        };
        let moved = node::update(&lab.core, &admin(), node.id, moved)
            .await
            .unwrap();
        assert_eq!(moved.api_url, Some(thief.url()), "{name}");
        let emptied = NodeChange {
            token_id: Some(None),
            secret: Some(None),
            api_url: Some(Some(host)),
            ..NodeChange::default()
        };
        let emptied = node::update(&lab.core, &admin(), node.id, emptied)
            .await
            .unwrap();
        assert!(emptied.secret.is_none(), "{name}");
        lab.end().await;
    }
}
