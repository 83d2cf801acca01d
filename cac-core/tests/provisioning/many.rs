//! A hundred requests at once.

use std::collections::BTreeSet;

use cac_core::job::Status;
use cac_core::{container, testing};

use crate::lab::{Lab, admin, alice, new};

const REQUESTS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_become_a_hundred_different_containers() {
    for database in testing::databases().await {
        let settings = [
            ("JOB_RUNNER_CONCURRENCY", "16"),
            ("JOB_RUNNER_LEASE_SECONDS", "15"),
        ];
        let mut lab = Lab::with(database, cac_simulator::Delay::none(), &settings).await;
        // Two runners, which must not get in each other's way.
        lab.runner();
        lab.runner();
        let asked: Vec<_> = (0..REQUESTS)
            .map(|number| {
                let core = lab.core.clone();
                tokio::spawn(async move {
                    let wish = new(&format!("many{number}"));
                    loop {
                        match container::create(&core, &alice(), &wish, None).await {
                            Ok(created) => return created,
                            Err(cac_core::Error::Busy { .. }) => tokio::task::yield_now().await,
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        let core = lab.core.clone();
        let watching = tokio::spawn(async move {
            let sql = r#"SELECT COUNT(*) AS "n" FROM "Containers" WHERE "state" = 'creating' AND "containerId" IS NOT NULL
                         GROUP BY "nodeId" ORDER BY 1 DESC LIMIT 1"#;
            let mut most = 0;
            loop {
                let row = core.db.opt(sql, cac_core::args![]).await.unwrap();
                most = most.max(row.map_or(0, |row| row.get::<i64>("n").unwrap()));
                assert!(most <= 4, "{most} at once on one node");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        for one in asked {
            let created = one.await.unwrap();
            let job = lab.job(created.job_id).await;
            assert_eq!(
                job.status,
                Status::Success,
                "{}: {job:?}",
                lab.database.name
            );
        }
        assert!(!watching.is_finished(), "{:?}", watching.await);
        watching.abort();
        let filter = container::Filter {
            all: true,
            limit: 1000,
            ..container::Filter::default()
        };
        let (rows, _) = container::list(&lab.core, &admin(), &filter).await.unwrap();
        let vmids: BTreeSet<_> = rows
            .iter()
            .map(|row| (row.node_id, row.container_id.unwrap()))
            .collect();
        let addresses: BTreeSet<_> = rows
            .iter()
            .map(|row| row.ipv4_address.clone().unwrap())
            .collect();
        let macs: BTreeSet<_> = rows
            .iter()
            .map(|row| row.mac_address.clone().unwrap())
            .collect();
        let ports: BTreeSet<_> = rows
            .iter()
            .flat_map(|row| &row.services)
            .filter_map(|one| one.external_port)
            .collect();
        let counts = [
            rows.len(),
            vmids.len(),
            addresses.len(),
            macs.len(),
            ports.len(),
        ];
        assert_eq!(counts, [REQUESTS; 5], "{}", lab.database.name);
        let there: BTreeSet<_> = lab
            .simulator
            .containers()
            .iter()
            .map(|one| one.vmid)
            .collect();
        assert_eq!(there, vmids.iter().map(|(_, vmid)| *vmid).collect());
        lab.end().await;
    }
}
