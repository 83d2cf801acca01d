//! Asking for containers and getting them.

use std::collections::BTreeSet;

use cac_core::container::{self, NewContainer};
use cac_core::error::Error;
use cac_core::job::Status;
use cac_core::testing;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::lab::{Lab, alice, new};

#[tokio::test]
async fn a_container_is_made_and_alive() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let created = lab.ask("blog").await;
        let job = lab.job(created.job_id).await;
        let log = lab.log(created.job_id).await;
        assert_eq!(job.status, Status::Success, "{log}");

        let row = lab.row(created.id).await.unwrap();
        assert_eq!(row.state, None);
        let in_proxmox = lab.simulator.containers();
        assert_eq!(in_proxmox.len(), 1);
        let ct = &in_proxmox[0];
        assert_eq!(row.container_id, Some(ct.vmid));
        assert_eq!(row.ipv4_address, ct.address.map(|a| a.to_string()));
        let marker = row.marker_line(&lab.core.installation);
        assert!(
            ct.description
                .as_deref()
                .unwrap()
                .lines()
                .any(|line| line == marker)
        );
        assert_eq!(ct.config.get("unprivileged").map(String::as_str), Some("1"));

        // It answers on its web port and greets on its ssh port.
        let address = ct.address.unwrap();
        let mut greeting = [0; 4];
        TcpStream::connect((address, 2022))
            .await
            .unwrap()
            .read_exact(&mut greeting)
            .await
            .unwrap();
        assert_eq!(&greeting, b"SSH-");
        TcpStream::connect((address, 8080)).await.unwrap();

        // The log tells the steps in order, with Proxmox VE's own lines between them.
        let mut at = 0;
        for part in [
            "[1/7]",
            "[2/7]",
            "[3/7]",
            "extracting archive",
            "TASK OK",
            "[4/7]",
            "[5/7]",
            "[6/7]",
            "[7/7]",
            "https://blog.",
        ] {
            at += log[at..]
                .find(part)
                .unwrap_or_else(|| panic!("no `{part}` in order in:\n{log}"));
        }
        let ports: Vec<_> = row
            .services
            .iter()
            .map(|s| (s.r#type.as_str(), s.internal_port, s.external_port))
            .collect();
        assert_eq!(ports, [("http", 8080, None), ("tcp", 2022, Some(2222))]);
        lab.end().await;
    }
}

#[tokio::test]
async fn bad_input_is_told_by_field_and_changes_nothing() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let bad: [(&str, NewContainer); 10] = [
            ("hostname", new("-x")),
            ("hostname", new("a_b")),
            ("hostname", new(&"a".repeat(64))),
            ("hostname", new("")),
            ("hostname", new("www")),
            (
                "osRelease",
                NewContainer {
                    os_release: "windows".into(),
                    ..new("w")
                },
            ),
            (
                "httpPort",
                NewContainer {
                    http_port: Some(79),
                    ..new("w")
                },
            ),
            (
                "httpPort",
                NewContainer {
                    http_port: Some(60001),
                    ..new("w")
                },
            ),
            (
                "aiContainer",
                NewContainer {
                    ai_container: Some("NOWHERE".into()),
                    ..new("w")
                },
            ),
            (
                "additionalProtocols",
                NewContainer {
                    additional_protocols: vec!["gopher".into()],
                    ..new("w")
                },
            ),
        ];
        for (field, request) in bad {
            match container::create(&lab.core, &alice(), &request, None).await {
                Err(Error::Invalid(fields)) => {
                    assert!(fields.0.contains_key(field), "{field}: {fields:?}")
                }
                other => panic!("{field}: {other:?}"),
            }
        }
        let rows = lab
            .core
            .db
            .one(r#"SELECT COUNT(*) AS "n" FROM "Containers""#, vec![])
            .await
            .unwrap();
        assert_eq!(rows.get::<i64>("n").unwrap(), 0);
        lab.end().await;
    }
}

#[tokio::test]
async fn of_two_requests_for_one_name_one_wins() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let ask = || {
            let core = lab.core.clone();
            tokio::spawn(
                async move { container::create(&core, &alice(), &new("same"), None).await },
            )
        };
        let (a, b) = tokio::join!(ask(), ask());
        let results = [a.unwrap(), b.unwrap()];
        assert_eq!(
            results.iter().filter(|r| r.is_ok()).count(),
            1,
            "{results:?}"
        );
        assert!(
            results.iter().any(|r| matches!(
                r,
                Err(Error::Conflict {
                    field: "hostname",
                    ..
                })
            )),
            "{results:?}"
        );
        lab.end().await;
    }
}

/// J13 of the original: a port was read and then inserted, so that two requests took the same one and the second died.
#[tokio::test]
async fn twenty_requests_at_once_get_twenty_ports() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let asked: Vec<_> = (0..20)
            .map(|n| {
                let core = lab.core.clone();
                tokio::spawn(async move {
                    container::create(&core, &alice(), &new(&format!("c{n}")), None).await
                })
            })
            .collect();
        let mut ports = BTreeSet::new();
        for task in asked {
            let created = task.await.unwrap().unwrap();
            let row = lab.row(created.id).await.unwrap();
            ports.extend(row.services.iter().filter_map(|s| s.external_port));
        }
        assert_eq!(ports, (2222..2242).collect());
        lab.end().await;
    }
}

#[tokio::test]
async fn eight_creations_at_once_get_eight_vmids_and_addresses() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let mut asked = Vec::new();
        for n in 0..8 {
            asked.push(lab.ask(&format!("c{n}")).await);
        }
        for created in &asked {
            let job = lab.job(created.job_id).await;
            assert_eq!(
                job.status,
                Status::Success,
                "{}",
                lab.log(created.job_id).await
            );
        }
        let containers = lab.simulator.containers();
        let vmids: BTreeSet<_> = containers.iter().map(|c| c.vmid).collect();
        let addresses: BTreeSet<_> = containers.iter().filter_map(|c| c.address).collect();
        assert_eq!((containers.len(), vmids.len(), addresses.len()), (8, 8, 8));
        lab.end().await;
    }
}

#[tokio::test]
async fn the_same_idempotency_key_makes_one_container() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let first = container::create(&lab.core, &alice(), &new("once"), Some("k1"))
            .await
            .unwrap();
        let again = container::create(&lab.core, &alice(), &new("once"), Some("k1"))
            .await
            .unwrap();
        assert_eq!(first, again);
        let other = container::create(&lab.core, &alice(), &new("twice"), Some("k1")).await;
        assert!(
            matches!(
                other,
                Err(Error::Conflict {
                    field: "Idempotency-Key",
                    ..
                })
            ),
            "{other:?}"
        );
        lab.end().await;
    }
}
