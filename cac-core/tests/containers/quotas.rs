//! Quotas: never exceeded however many ask at once, all breaches told together.

use std::sync::Arc;

use cac_core::container::{self, NewContainer};
use cac_core::quota::{self, Limits};
use cac_core::testing::databases;
use cac_core::{Actor, Error, service};

use crate::lab::{core_with, web};

const REQUESTS: usize = 1000;

fn wanted(hostname: &str) -> NewContainer {
    NewContainer {
        hostname: hostname.to_owned(),
        os_release: "debian".to_owned(),
        http_port: Some(8080),
        cores: Some(2),
        memory: Some(512),
        disk: Some(4),
        ..NewContainer::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_at_once_never_exceed_a_limit() {
    for database in databases().await {
        let core = core_with(&database, &[("pve1", None)], &[("QUOTA_CORES", "30")]).await;
        let alice = Arc::new(Actor::new("alice", false));
        let asked: Vec<_> = (0..REQUESTS)
            .map(|n| {
                let (core, alice) = (core.clone(), Arc::clone(&alice));
                tokio::spawn(async move {
                    loop {
                        match container::create(&core, &alice, &wanted(&format!("c{n}")), None)
                            .await
                        {
                            Ok(_) => return true,
                            Err(Error::Invalid(fields)) => {
                                assert!(
                                    fields.0["cores"].contains("30 cores are allowed"),
                                    "{fields}"
                                );
                                return false;
                            }
                            // So many writers at once: as the answer says, again in a moment.
                            Err(Error::Busy { .. }) => tokio::task::yield_now().await,
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        let mut granted = 0;
        for one in asked {
            granted += usize::from(one.await.unwrap());
        }
        assert_eq!(granted, 15, "{}", database.name);
        let quota = quota::find(&core, &alice, "alice").await.unwrap();
        assert_eq!((quota.used.containers, quota.used.cores), (15, 30));
    }
}

#[tokio::test]
async fn every_breach_is_told_at_once_and_admins_set_the_limits() {
    for database in databases().await {
        let settings = [
            ("QUOTA_CONTAINERS", "1"),
            ("QUOTA_CORES", "3"),
            ("QUOTA_MEMORY", "600"),
            ("QUOTA_DISK", "5"),
        ];
        let core = core_with(&database, &[("pve1", None)], &settings).await;
        let (alice, admin) = (Actor::new("alice", false), Actor::new("root", true));
        // What was registered counts, too.
        container::register(&core, &Actor::local(), &web(1))
            .await
            .unwrap();
        let refused = container::create(&core, &alice, &wanted("second"), None)
            .await
            .unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("containers: 1 containers are allowed, 1 are used"),
            "{refused}"
        );
        let limits = Limits {
            containers: Some(2),
            ..Limits::default()
        };
        let quota = quota::set(&core, &admin, "alice", limits).await.unwrap();
        assert_eq!(
            (quota.limits.containers, quota.limits.cores),
            (Some(2), Some(3))
        );
        container::create(&core, &alice, &wanted("second"), None)
            .await
            .unwrap();
        let refused = container::create(&core, &alice, &wanted("third"), None)
            .await
            .unwrap_err();
        let Error::Invalid(fields) = refused else {
            panic!("{refused:?}");
        };
        let told: Vec<_> = fields.0.keys().copied().collect();
        assert_eq!(
            told,
            ["containers", "cores", "disk", "memory"],
            "{}",
            database.name
        );
        // Nobody's capital letters are somebody else.
        let other = quota::find(&core, &Actor::new("Alice", false), "Alice")
            .await
            .unwrap();
        assert_eq!(other.used.containers, 0, "{}", database.name);
        // An admin is limited by what was set for them alone.
        container::create(&core, &admin, &wanted("fourth"), None)
            .await
            .unwrap();
        quota::set(
            &core,
            &admin,
            "root",
            Limits {
                containers: Some(1),
                ..Limits::default()
            },
        )
        .await
        .unwrap();
        assert!(
            container::create(&core, &admin, &wanted("fifth"), None)
                .await
                .is_err()
        );
        let strange = quota::find(&core, &alice, "bob").await;
        assert!(matches!(strange, Err(Error::NotFound(_))), "{strange:?}");
        let refused = quota::set(&core, &alice, "alice", Limits::default()).await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
        quota::set(&core, &admin, "alice", Limits::default())
            .await
            .unwrap();
        let names: Vec<_> = quota::list(&core, &admin)
            .await
            .unwrap()
            .into_iter()
            .map(|one| one.username)
            .collect();
        assert_eq!(names, ["alice", "root"]);
    }
}

/// C1d: 775 registrations of one user took all ports, and none of them counted.
#[tokio::test]
async fn what_is_registered_counts_and_no_user_takes_all_ports() {
    for database in databases().await {
        let settings = [("QUOTA_PORTS", "7"), ("QUOTA_SERVICES", "9")];
        let core = core_with(&database, &[("pve1", None)], &settings).await;
        let (alice, admin) = (Actor::new("alice", false), Actor::new("root", true));
        // A web service, ssh, rdp and dns each.
        let local = Actor::local();
        let first = container::register(&core, &local, &web(1)).await.unwrap();
        container::register(&core, &local, &web(2)).await.unwrap();
        let refused = container::register(&core, &local, &web(3)).await;
        let Err(Error::Invalid(fields)) = refused else {
            panic!("{}: {refused:?}", database.name);
        };
        let told: Vec<_> = fields.0.keys().copied().collect();
        assert_eq!(told, ["ports", "services"]);
        assert!(fields.0["ports"].contains("7 external ports are allowed, 6 are used"));
        // The same container again takes nothing more.
        container::register(&core, &local, &web(2)).await.unwrap();
        let add = |port| service::NewOne {
            protocol: Some(format!("{port}/tcp")),
            ..service::NewOne::default()
        };
        service::add(&core, &alice, first.id, &add(9000))
            .await
            .unwrap();
        let refused = service::add(&core, &alice, first.id, &add(9001)).await;
        let Err(Error::Invalid(fields)) = refused else {
            panic!("{}: {refused:?}", database.name);
        };
        assert!(fields.0.contains_key("ports"), "{fields}");
        let refused = container::create(&core, &alice, &wanted("another"), None).await;
        let Err(Error::Invalid(fields)) = refused else {
            panic!("{}: {refused:?}", database.name);
        };
        assert!(fields.0.contains_key("ports"), "{fields}");
        // An admin may go beyond, and it shows.
        assert_eq!(
            quota::exceeded(&core, "alice").await.unwrap(),
            Vec::<String>::new()
        );
        container::register(&core, &admin, &web(3)).await.unwrap();
        let exceeded = quota::exceeded(&core, "alice").await.unwrap();
        assert_eq!(exceeded, ["13 of 9 services", "10 of 7 external ports"]);
        // More for one user is set as every other limit.
        let limits = Limits {
            ports: Some(20),
            services: Some(20),
            ..Limits::default()
        };
        let quota = quota::set(&core, &admin, "alice", limits).await.unwrap();
        assert_eq!((quota.limits.ports, quota.used.ports), (Some(20), 10));
        service::add(&core, &alice, first.id, &add(9001))
            .await
            .unwrap();
    }
}
