//! A guest cannot have somebody else's machine published by showing its address: neither a container that no row knows, nor a node.

use std::net::Ipv4Addr;

use cac_core::container::{self, AddressProblem, Refusal, import};
use cac_core::job::Status;
use cac_core::job::container_change::Change;
use cac_core::reconcile::{self, Watcher};
use cac_core::{node, routes, testing};
use cac_simulator::GuestInterface;

use crate::import::wanted;
use crate::lab::{Lab, PATIENCE, admin, alice};

async fn shown_by(
    lab: &Lab,
    id: i64,
    address: Ipv4Addr,
) -> (Option<String>, Option<AddressProblem>) {
    let vmid = lab.row(id).await.unwrap().container_id.unwrap();
    lab.simulator.show_address(vmid, Some(address));
    let row = reconcile::refresh(&lab.core, &alice(), id).await.unwrap();
    (row.ipv4_address, row.address_problem)
}

fn refused(address: Ipv4Addr, refusal: Refusal) -> (Option<String>, Option<AddressProblem>) {
    let address = address.to_string();
    (None, Some(AddressProblem::Refused { address, refusal }))
}

/// The admins' own container was no row, so its address was free to claim, and was published under the guest's name.
#[tokio::test]
async fn the_address_of_a_container_that_is_not_managed_is_not_claimed() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let name = lab.database.name;
        lab.foreign("pve1", 556, "payroll").await;
        let node = node::find_named(&lab.core, &admin(), "pve1").await.unwrap();
        let pve = lab.core.pve(&node).unwrap();
        let upid = pve.lxc_start("pve1", 556).await.unwrap();
        pve.task_wait(&upid, PATIENCE, |_| ()).await.unwrap();
        let all = lab.simulator.containers();
        let payroll = all.iter().find(|one| one.vmid == 556).unwrap();
        let payroll = payroll.address.unwrap();

        let created = lab.ask("claims").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        let own = lab.row(created.id).await.unwrap().ipv4_address.unwrap();
        let claimed = shown_by(&lab, created.id, payroll).await;
        assert_eq!(claimed, refused(payroll, Refusal::InUse), "{name}");
        let file = routes::render(&lab.core).await.unwrap().text;
        assert!(!file.contains(&payroll.to_string()), "{name}: {file}");
        // Its own address is nobody else's, and comes back.
        let own: Ipv4Addr = own.parse().unwrap();
        let back = shown_by(&lab, created.id, own).await;
        assert_eq!(back, (Some(own.to_string()), None), "{name}");
        // Whoever may import containers knows whose address it is.
        let imported = import(&lab.core, &admin(), node.id, &wanted(556)).await;
        let imported = imported.unwrap();
        assert_eq!(imported.ipv4_address, Some(payroll.to_string()), "{name}");
        lab.end().await;
    }
}

/// Only nodes that were added here counted, by the address of their API.
#[tokio::test]
async fn no_address_of_any_node_of_the_cluster_is_claimed() {
    for database in testing::databases().await {
        let networks = [("CONTAINER_NETWORKS", "127.0.0.0/8,198.51.100.0/24")];
        let mut lab = Lab::with(database, cac_simulator::Delay::none(), &networks).await;
        lab.runner();
        let name = lab.database.name;
        let address = Ipv4Addr::new(198, 51, 100, 3);
        lab.simulator.set_node_address("pve3", address);
        lab.core
            .db
            .exec(r#"DELETE FROM "Nodes" WHERE "name" = 'pve3'"#, vec![])
            .await
            .unwrap();
        Watcher::new(lab.core.clone()).look().await.unwrap();
        let created = lab.ask("claims").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        let claimed = shown_by(&lab, created.id, address).await;
        assert_eq!(claimed, refused(address, Refusal::Infrastructure), "{name}");
        lab.end().await;
    }
}

/// A guest that showed another address at each look had the admins mailed and the log written each time.
#[tokio::test]
async fn refused_addresses_are_told_of_once_an_hour() {
    for database in testing::databases().await {
        let more = [
            ("CONTAINER_NETWORKS_EXCEPT", "127.250.0.0/16"),
            // Nobody listens there.
            ("SMTP_URL", "smtp://127.0.0.1:9"),
            ("MAIL_FROM", "portal@example.org"),
            ("MAIL_ADMIN", "root@example.org"),
        ];
        let mut lab = Lab::with(database, cac_simulator::Delay::none(), &more).await;
        lab.runner();
        let name = lab.database.name;
        let created = lab.ask("flips").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        let own = lab.row(created.id).await.unwrap().ipv4_address.unwrap();
        for number in 1..=10 {
            let address = Ipv4Addr::new(127, 250, 0, number);
            let shown = shown_by(&lab, created.id, address).await;
            assert_eq!(shown, refused(address, Refusal::Infrastructure), "{name}");
            shown_by(&lab, created.id, own.parse().unwrap()).await;
        }
        let count = async |sql: &'static str| {
            let row = lab.core.db.one(sql, vec![]).await.unwrap();
            row.get::<i64>("n").unwrap()
        };
        let entries =
            r#"SELECT COUNT(*) AS "n" FROM "AuditEntries" WHERE "action" = 'address_refused'"#;
        assert_eq!(count(entries).await, 1, "{name}");
        // One for the admin, one for the owner.
        let mails = r#"SELECT COUNT(*) AS "n" FROM "Jobs" WHERE "kind" = 'address_mail'"#;
        assert_eq!(count(mails).await, 2, "{name}");
        lab.end().await;
    }
}

/// Only the address of `net0` of containers without a row counted: a second card of anybody's could be published under another name.
#[tokio::test]
async fn an_address_of_another_containers_second_card_is_not_claimed() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let name = lab.database.name;
        let victim = lab.ask("victim").await;
        assert_eq!(lab.job(victim.job_id).await.status, Status::Success);
        let vmid = lab.row(victim.id).await.unwrap().container_id.unwrap();
        let mac = "BC:24:11:00:99:99";
        let net1 = format!("name=eth1,bridge=vmbr0,hwaddr={mac},ip=manual");
        lab.simulator.set_option(vmid, "net1", Some(&net1));
        let second = Ipv4Addr::new(127, 203, 0, 9);
        let card = GuestInterface {
            name: "eth1".to_owned(),
            mac: mac.to_owned(),
            address: format!("{second}/24"),
        };
        lab.simulator.set_interfaces(vmid, &[card]);
        let thief = lab.ask("thief").await;
        assert_eq!(lab.job(thief.job_id).await.status, Status::Success);
        let claimed = shown_by(&lab, thief.id, second).await;
        assert_eq!(claimed, refused(second, Refusal::InUse), "{name}");
        lab.end().await;
    }
}

/// A container that showed another address before each stop held a whole network for an hour, and new containers got none of it.
#[tokio::test]
async fn a_container_holds_one_address_at_a_time() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let name = lab.database.name;
        let created = lab.ask("greedy").await;
        assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        for number in 1..=3 {
            let address = Ipv4Addr::new(127, 9, 0, number);
            let shown = shown_by(&lab, created.id, address).await;
            assert_eq!(shown.0, Some(address.to_string()), "{name}");
            let limit = std::time::Duration::from_secs(30);
            let restart = Change::Restart;
            let changed = container::change(&lab.core, &alice(), created.id, restart, limit).await;
            changed.unwrap();
        }
        let limit = std::time::Duration::from_secs(30);
        let changed = container::change(&lab.core, &alice(), created.id, Change::Stop, limit).await;
        changed.unwrap();
        let sql = r#"SELECT COUNT(*) AS "n" FROM "AddressHolds""#;
        let held: i64 = lab
            .core
            .db
            .one(sql, vec![])
            .await
            .unwrap()
            .get("n")
            .unwrap();
        assert_eq!(held, 1, "{name}");
        lab.end().await;
    }
}

/// The hold of a first silence was never ended, so at the second one, an hour later, the address was given away at once.
#[tokio::test]
async fn each_silence_of_a_holder_begins_anew() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        lab.runner();
        let name = lab.database.name;
        let (thief, victim) = (lab.ask("thief").await, lab.ask("victim").await);
        for created in [thief, victim] {
            assert_eq!(lab.job(created.job_id).await.status, Status::Success);
        }
        let row = lab.row(victim.id).await.unwrap();
        let (vmid, address) = (row.container_id.unwrap(), row.ipv4_address.unwrap());
        let address: Ipv4Addr = address.parse().unwrap();
        lab.simulator.set_leased(vmid, false);
        let first = shown_by(&lab, thief.id, address).await;
        assert_eq!(first, refused(address, Refusal::InUse), "{name}");
        lab.simulator.set_leased(vmid, true);
        let mut watcher = Watcher::new(lab.core.clone());
        watcher.look().await.unwrap();
        watcher.read_in_turn().await;
        // An hour later.
        let sql = r#"UPDATE "AddressHolds" SET "until" = '2001-01-01 00:00:00'"#;
        lab.core.db.exec(sql, vec![]).await.unwrap();
        lab.simulator.set_leased(vmid, false);
        let second = shown_by(&lab, thief.id, address).await;
        assert_eq!(second, refused(address, Refusal::InUse), "{name}");
        lab.end().await;
    }
}
