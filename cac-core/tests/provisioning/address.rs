//! Which address a container has: that of `net0`, whatever else its guest shows, and never one that a running container still has.

use std::net::Ipv4Addr;
use std::time::Duration;

use cac_core::container::{self, AddressProblem, Refusal};
use cac_core::job::{Status, container_change::Change};
use cac_core::reconcile::{self, Watcher};
use cac_core::routes;
use cac_core::{Actor, Error, args, audit, node, testing};
use cac_simulator::GuestInterface;

use crate::lab::{Lab, admin, alice};

fn bob() -> Actor {
    Actor::new("bob", false)
}

/// What Docker, a VPN and a VLAN add to a guest; the VLAN carries the MAC of `eth0`.
fn others(mac: &str, number: u8) -> Vec<GuestInterface> {
    let one = |name: &str, mac: &str, address: String| GuestInterface {
        name: name.to_owned(),
        mac: mac.to_owned(),
        address,
    };
    vec![
        one("docker0", "02:42:00:00:00:01", "127.200.17.1/16".to_owned()),
        one(
            "tailscale0",
            "02:00:00:00:00:09",
            format!("127.201.0.{number}/32"),
        ),
        one("eth0.10", mac, format!("127.202.0.{number}/24")),
        one(
            "eth1",
            "BC:24:11:00:99:99",
            format!("127.203.0.{number}/24"),
        ),
    ]
}

fn mac(lab: &Lab, vmid: u32) -> String {
    let all = lab.simulator.containers();
    let found = all.iter().find(|one| one.vmid == vmid).unwrap();
    let net0 = &found.config["net0"];
    net0.split(',')
        .find_map(|part| part.strip_prefix("hwaddr="))
        .unwrap()
        .to_owned()
}

fn own_address(lab: &Lab, vmid: u32) -> Ipv4Addr {
    let all = lab.simulator.containers();
    all.iter()
        .find(|one| one.vmid == vmid)
        .unwrap()
        .address
        .unwrap()
}

async fn restart(lab: &Lab, who: &Actor, id: i64) {
    let limit = Duration::from_secs(30);
    let changed = container::change(&lab.core, who, id, Change::Restart, limit).await;
    changed.unwrap();
}

/// F1: two containers with Docker shared its bridge's address, and each restart gave it to the last one.
#[tokio::test]
async fn docker_bridges_vpns_vlans_and_second_cards_are_never_the_address() {
    for database in testing::databases().await {
        let delay = cac_simulator::Delay {
            dhcp: Duration::from_millis(600),
            ..cac_simulator::Delay::none()
        };
        let mut lab = Lab::with(database, delay, &[]).await;
        lab.runner();
        let mut made = Vec::new();
        for (number, name) in [(1, "dock1"), (2, "dock2")] {
            let created = lab.ask(name).await;
            // As soon as it is there its Docker is up, while DHCP is slow.
            testing::until("the container exists", async || {
                let row = lab.row(created.id).await.unwrap();
                let all = lab.simulator.containers();
                all.iter().any(|one| {
                    Some(one.vmid) == row.container_id && one.config.contains_key("net0")
                })
            })
            .await;
            let vmid = lab.row(created.id).await.unwrap().container_id.unwrap();
            lab.simulator
                .set_interfaces(vmid, &others(&mac(&lab, vmid), number));
            assert_eq!(lab.job(created.job_id).await.status, Status::Success);
            made.push((created.id, vmid));
        }
        for _ in 0..2 {
            for (id, vmid) in &made {
                let row = lab.row(*id).await.unwrap();
                let own = own_address(&lab, *vmid).to_string();
                assert_eq!(row.ipv4_address, Some(own), "{}", lab.database.name);
                assert_eq!(row.address_problem, None);
            }
            // The first one's restart, with the bridge up before DHCP answers.
            restart(&lab, &alice(), made[0].0).await;
        }
        let imported = reconcile::refresh(&lab.core, &alice(), made[1].0)
            .await
            .unwrap();
        assert_eq!(
            imported.ipv4_address,
            Some(own_address(&lab, made[1].1).to_string())
        );
        lab.end().await;
    }
}

/// H1: root in a guest shows another container's address, restarts, and has its site.
#[tokio::test]
async fn an_address_that_another_running_container_shows_is_not_taken() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let (thief, victim) = (lab.ask("thief").await, lab.ask("victim").await);
        for created in [thief, victim] {
            assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        }
        let theirs = r#"UPDATE "Containers" SET "username" = 'bob' WHERE "id" = ?"#;
        lab.core.db.exec(theirs, args![victim.id]).await.unwrap();
        let address = lab.row(victim.id).await.unwrap().ipv4_address.unwrap();
        let vmid = |row: &container::Container| row.container_id.unwrap();
        let (mine, their) = (
            lab.row(thief.id).await.unwrap(),
            lab.row(victim.id).await.unwrap(),
        );
        lab.simulator
            .show_address(vmid(&mine), Some(address.parse().unwrap()));
        restart(&lab, &alice(), thief.id).await;
        let name = lab.database.name;
        let check = async |how: &str| {
            let (mine, theirs) = (
                lab.row(thief.id).await.unwrap(),
                lab.row(victim.id).await.unwrap(),
            );
            assert_eq!(
                theirs.ipv4_address.as_deref(),
                Some(address.as_str()),
                "{name} {how}"
            );
            assert_eq!(mine.ipv4_address, None, "{name} {how}");
            let refused = AddressProblem::Refused {
                address: address.clone(),
                refusal: Refusal::InUse,
            };
            assert_eq!(mine.address_problem, Some(refused), "{name} {how}");
            assert!(
                matches!(
                    theirs.address_problem,
                    Some(AddressProblem::Contested { .. })
                ),
                "{name} {how}"
            );
        };
        check("restart").await;
        let file = routes::render(&lab.core).await.unwrap().text;
        assert!(!file.contains("thief"), "{name}: {file}");
        assert!(
            file.contains(&format!("victim.cac.localhost {address}:8080")),
            "{name}: {file}"
        );
        // By its owner's wish, by an admin's, by the periodic look: it is no different.
        reconcile::refresh(&lab.core, &alice(), thief.id)
            .await
            .unwrap();
        check("refresh").await;
        let mut watcher = Watcher::new(lab.core.clone());
        watcher.look().await.unwrap();
        watcher.read_in_turn().await;
        check("watch").await;
        // Both owners see it in the history of their own container, without the other one's name.
        for (who, id, other) in [(alice(), thief.id, "victim"), (bob(), victim.id, "thief")] {
            let (entries, _) = audit::of_container(&lab.core, &who, id, 10).await.unwrap();
            let told = entries
                .iter()
                .find(|entry| entry.action == "address_refused")
                .unwrap();
            let detail = told.detail.as_deref().unwrap();
            assert!(
                detail.contains(&address) && !detail.contains(other),
                "{detail}"
            );
        }
        // A node that does not answer proves nothing.
        let nodes = node::all(&lab.core).await.unwrap();
        let home = nodes
            .iter()
            .find(|node| Some(node.id) == their.node_id)
            .unwrap();
        let path = format!("/nodes/{}/lxc/{}/interfaces", home.name, vmid(&their));
        lab.simulator.faults().add(cac_simulator::Fault {
            method: None,
            path,
            count: 0,
            action: cac_simulator::Action::Status {
                code: 595,
                reason: "No route to host".to_owned(),
            },
        });
        reconcile::refresh(&lab.core, &alice(), thief.id)
            .await
            .unwrap();
        check("no answer").await;
        lab.simulator.faults().clear();
        // Once the holder no longer shows it, the newcomer is its holder.
        lab.simulator
            .show_address(vmid(&their), Some("127.9.9.9".parse().unwrap()));
        let now = reconcile::refresh(&lab.core, &alice(), thief.id)
            .await
            .unwrap();
        assert_eq!(
            now.ipv4_address.as_deref(),
            Some(address.as_str()),
            "{name}"
        );
        assert_eq!(now.address_problem, None);
        assert_eq!(lab.row(victim.id).await.unwrap().ipv4_address, None);
        lab.end().await;
    }
}

/// The holder was without its address for the second that its restart took, and whoever forged it had it for good.
#[tokio::test]
async fn a_restart_gives_no_address_to_whoever_forges_it() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let name = lab.database.name;
        let (thief, victim) = (lab.ask("thief").await, lab.ask("victim").await);
        for created in [thief, victim] {
            assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        }
        let theirs = r#"UPDATE "Containers" SET "username" = 'bob' WHERE "id" = ?"#;
        lab.core.db.exec(theirs, args![victim.id]).await.unwrap();
        let address = lab.row(victim.id).await.unwrap().ipv4_address.unwrap();
        let vmid = lab.row(thief.id).await.unwrap().container_id.unwrap();
        lab.simulator
            .show_address(vmid, Some(address.parse().unwrap()));
        let change = async |change: Change| {
            let limit = Duration::from_secs(30);
            let changed = container::change(&lab.core, &bob(), victim.id, change, limit).await;
            changed.unwrap();
        };
        let look = async || {
            let row = reconcile::refresh(&lab.core, &alice(), thief.id).await;
            row.unwrap().ipv4_address
        };
        change(Change::Stop).await;
        assert_eq!(look().await, None, "{name}: while it is stopped");
        change(Change::Start).await;
        let before = lab.row(victim.id).await.unwrap();
        let got = look().await;
        let after = lab.row(victim.id).await.unwrap();
        assert_eq!(
            got, None,
            "{name}: when it runs again: {before:?} {after:?}"
        );
        change(Change::Restart).await;
        let row = lab.row(victim.id).await.unwrap();
        assert_eq!(
            row.ipv4_address.as_deref(),
            Some(address.as_str()),
            "{name}"
        );
        // One that stays away for long gives it up: DHCP may have given it to somebody else.
        change(Change::Stop).await;
        let sql = r#"UPDATE "AddressHolds" SET "until" = '2001-01-01 00:00:00'"#;
        lab.core.db.exec(sql, args![]).await.unwrap();
        assert_eq!(look().await, Some(address), "{name}: after an hour");
        lab.end().await;
    }
}

/// A guest that shows the portal's machine, a node or an excepted address gets nothing published.
#[tokio::test]
async fn a_guest_cannot_claim_an_excepted_address() {
    let database = testing::sqlite().await;
    let delay = cac_simulator::Delay::none();
    let mut lab = Lab::with(
        database,
        delay,
        &[("CONTAINER_NETWORKS_EXCEPT", "127.250.0.0/16")],
    )
    .await;
    lab.runner();
    let created = lab.ask("claims").await;
    assert_eq!(lab.job(created.job_id).await.status, Status::Success);
    let vmid = lab.row(created.id).await.unwrap().container_id.unwrap();
    lab.simulator
        .show_address(vmid, Some("127.250.0.1".parse().unwrap()));
    restart(&lab, &alice(), created.id).await;
    let row = lab.row(created.id).await.unwrap();
    assert_eq!(row.ipv4_address, None);
    let problem = row.address_problem.unwrap();
    assert!(
        matches!(
            problem,
            AddressProblem::Refused {
                refusal: Refusal::Infrastructure,
                ..
            }
        ),
        "{problem}"
    );
    // What lies outside of all networks is waited away from, as if there were no address yet.
    lab.simulator
        .show_address(vmid, Some("198.51.100.7".parse().unwrap()));
    let row = reconcile::refresh(&lab.core, &alice(), created.id)
        .await
        .unwrap();
    assert_eq!((row.ipv4_address, row.address_problem), (None, None));
    lab.end().await;
}

/// Rows 14 and 15 of the field reports: a moved container, and one with another address, were known only after an admin's visit.
#[tokio::test]
async fn moves_restarts_and_new_addresses_are_noticed() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let mut ids = Vec::new();
        for name in ["moved", "restarted", "renumbered", "stopped", "calm"] {
            let created = lab.ask(name).await;
            assert_eq!(lab.job(created.job_id).await.status, Status::Success);
            let vmid = lab.row(created.id).await.unwrap().container_id.unwrap();
            lab.simulator.set_uptime(vmid, 3600);
            ids.push((created.id, vmid));
        }
        let name = lab.database.name;
        let mut watcher = Watcher::new(lab.core.clone());
        assert_eq!(watcher.look().await.unwrap(), 0, "{name}: nothing happened");
        let nodes = node::all(&lab.core).await.unwrap();
        let before = lab.row(ids[0].0).await.unwrap();
        let other = nodes
            .iter()
            .find(|node| Some(node.id) != before.node_id)
            .unwrap();
        lab.simulator.migrate(ids[0].1, &other.name);
        lab.simulator.set_uptime(ids[1].1, 3);
        for (at, address) in [(1, "127.77.0.1"), (2, "127.77.0.2")] {
            lab.simulator
                .show_address(ids[at].1, Some(address.parse().unwrap()));
        }
        let requests = lab.simulator.requests();
        assert_eq!(
            watcher.look().await.unwrap(),
            2,
            "{name}: the moved and the restarted one"
        );
        let asked = lab.simulator.requests() - requests;
        // And whether another container shows the new address.
        assert!(
            asked <= 9,
            "{name}: one look at the cluster and two containers took {asked} calls"
        );
        assert_eq!(
            lab.row(ids[0].0).await.unwrap().node_id,
            Some(other.id),
            "{name}"
        );
        assert_eq!(
            lab.row(ids[1].0).await.unwrap().ipv4_address.as_deref(),
            Some("127.77.0.1"),
            "{name}"
        );
        // The other's address changed without a trace; its turn comes.
        let unchanged = lab.row(ids[4].0).await.unwrap().updated_at;
        watcher.read_in_turn().await;
        assert_eq!(
            lab.row(ids[2].0).await.unwrap().ipv4_address.as_deref(),
            Some("127.77.0.2"),
            "{name}"
        );
        assert_eq!(
            lab.row(ids[4].0).await.unwrap().updated_at,
            unchanged,
            "{name}: nothing new is not written"
        );
        // An address that is gone for a moment, or a look that fails, withdraws nothing.
        lab.simulator.set_leased(ids[2].1, false);
        watcher.read_in_turn().await;
        assert_eq!(
            lab.row(ids[2].0).await.unwrap().ipv4_address.as_deref(),
            Some("127.77.0.2"),
            "{name}"
        );
        // Somebody else's container under the same number is nobody's news.
        lab.simulator
            .set_option(ids[3].1, "description", Some("not ours"));
        let strange = lab.row(ids[3].0).await.unwrap();
        lab.simulator
            .show_address(ids[3].1, Some("127.77.0.3".parse().unwrap()));
        lab.simulator.set_uptime(ids[3].1, 1);
        watcher.look().await.unwrap();
        assert_eq!(
            lab.row(ids[3].0).await.unwrap().ipv4_address,
            strange.ipv4_address,
            "{name}"
        );
        lab.end().await;
    }
}

/// A node dies and its containers are started elsewhere: its own row answers nothing any more.
#[tokio::test]
async fn a_container_of_a_dead_node_is_found_on_another_one() {
    let mut lab = Lab::new(testing::sqlite().await).await;
    lab.runner();
    let created = lab.ask("survivor").await;
    assert_eq!(lab.job(created.job_id).await.status, Status::Success);
    let row = lab.row(created.id).await.unwrap();
    let nodes = node::all(&lab.core).await.unwrap();
    let other = nodes
        .iter()
        .find(|node| Some(node.id) != row.node_id)
        .unwrap();
    // Nothing listens where the dead node's address was.
    let change = node::NodeChange {
        api_url: Some(Some("https://127.0.0.1:9".to_owned())),
        secret: Some(Some("another".to_owned())),
        ..node::NodeChange::default()
    };
    node::update(&lab.core, &admin(), row.node_id.unwrap(), change)
        .await
        .unwrap();
    lab.simulator
        .migrate(row.container_id.unwrap(), &other.name);
    let mut watcher = Watcher::new(lab.core.clone());
    watcher.look().await.unwrap();
    assert_eq!(lab.row(created.id).await.unwrap().node_id, Some(other.id));
    // The second look begins with those that answered.
    watcher.look().await.unwrap();
    lab.end().await;
}

#[tokio::test]
async fn one_process_at_a_time_watches() {
    for database in testing::databases().await {
        let lab = Lab::new(database).await;
        let (mut first, mut second) = (
            Watcher::new(lab.core.clone()),
            Watcher::new(lab.core.clone()),
        );
        assert!(first.lead().await.unwrap());
        assert!(!second.lead().await.unwrap(), "{}", lab.database.name);
        assert!(first.lead().await.unwrap(), "it goes on leading");
        // The leader is gone, and its lease lapses.
        let lapsed = r#"UPDATE "Leases" SET "until" = NOW_MS() - 1 WHERE "name" = 'addresses'"#;
        lab.core.db.exec(lapsed, args![]).await.unwrap();
        assert!(second.lead().await.unwrap(), "{}", lab.database.name);
        assert!(!first.lead().await.unwrap(), "{}", lab.database.name);
        lab.end().await;
    }
}

/// The owner could not have it checked: 403 for whoever is no admin.
#[tokio::test]
async fn owners_check_the_address_of_their_own_container() {
    let mut lab = Lab::new(testing::sqlite().await).await;
    lab.runner();
    let created = lab.ask("mine").await;
    assert_eq!(lab.job(created.job_id).await.status, Status::Success);
    let wrong = r#"UPDATE "Containers" SET "ipv4Address" = '127.1.2.3' WHERE "id" = ?"#;
    lab.core.db.exec(wrong, args![created.id]).await.unwrap();
    let refused = reconcile::refresh(&lab.core, &bob(), created.id).await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    let row = reconcile::refresh(&lab.core, &alice(), created.id)
        .await
        .unwrap();
    let vmid = row.container_id.unwrap();
    assert_eq!(row.ipv4_address, Some(own_address(&lab, vmid).to_string()));
    // What stands there instead, only an admin learns.
    lab.simulator
        .set_option(vmid, "description", Some("cac:other:1"));
    let told = reconcile::refresh(&lab.core, &alice(), created.id)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("another one") && !told.contains("with MAC"),
        "{told}"
    );
    let told = reconcile::refresh(&lab.core, &admin(), created.id)
        .await
        .unwrap_err()
        .to_string();
    assert!(told.contains("with MAC"), "{told}");
    lab.end().await;
}
