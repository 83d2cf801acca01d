//! What somebody asked for while he had the right to it does not run once he has not.

use cac_core::job::{self, Status, Wanted, Work};
use cac_core::{Actor, args, testing};
use chrono::{Duration, Utc};

use crate::lab::Lab;

/// The command of a demoted admin ran at its time, with the rights of the runner; so did that of one whose account was gone.
#[tokio::test]
async fn a_command_that_waits_does_not_run_for_whoever_is_no_admin_any_more() {
    for database in testing::databases().await {
        let mut lab = Lab::new(database).await;
        let name = lab.database.name;
        let group = ["administrators"];
        for user in ["demoted", "disabled", "deleted", "returned", "still"] {
            let password = format!("{user}-demo");
            lab.simulator
                .add_user(&format!("{user}@pve"), &password, &group);
        }
        let later = Utc::now() + Duration::days(30);
        let core = lab.core.clone();
        let ask = async |user: &str| {
            let wanted = Wanted {
                work: Work::Shell("echo it runs"),
                start_after: Some(later),
                key: None,
            };
            let asked = job::ask(&core, &Actor::new(user, true), wanted).await;
            asked.unwrap().id
        };
        let (demoted, disabled) = (ask("demoted").await, ask("disabled").await);
        let (deleted, still) = (ask("deleted").await, ask("still").await);
        // Deleted and made again, so perhaps somebody else by now.
        let returned = ask("returned").await;
        let sql =
            r#"INSERT INTO "UserStates" ("username", "state") VALUES ('returned', 'returned')"#;
        lab.core.db.exec(sql, args![]).await.unwrap();
        // By hand, for whomever: as ever.
        let by_hand = ask("demoted").await;
        let sql = r#"UPDATE "Jobs" SET "turn" = 0 WHERE "id" = ?"#;
        lab.core.db.exec(sql, args![by_hand]).await.unwrap();
        lab.simulator.add_user("demoted@pve", "demoted-demo", &[]);
        lab.simulator.set_enabled("disabled@pve", false);
        lab.simulator.remove_user("deleted@pve");
        let sql = r#"UPDATE "Jobs" SET "startAfter" = NULL"#;
        lab.core.db.exec(sql, args![]).await.unwrap();
        lab.runner();
        for id in [demoted, disabled, deleted, returned] {
            let ended = lab.job(id).await;
            assert_eq!(ended.status, Status::Cancelled, "{name}: {ended:?}");
            let reason = ended.reason.unwrap();
            assert!(reason.contains("may not run this any more"), "{reason}");
            assert!(!lab.log(id).await.contains("it runs"), "{name}");
        }
        for id in [still, by_hand] {
            assert_eq!(lab.job(id).await.status, Status::Success, "{name}");
        }
        // Where Proxmox VE cannot say, it counts that the command was allowed when it was asked for.
        lab.simulator.faults().add(cac_simulator::Fault {
            method: None,
            path: "/access/users/demoted@pve".to_owned(),
            count: 0,
            action: cac_simulator::Action::Status {
                code: 403,
                reason: "Permission check failed".to_owned(),
            },
        });
        let id = ask("demoted").await;
        lab.core.db.exec(sql, args![]).await.unwrap();
        assert_eq!(lab.job(id).await.status, Status::Success, "{name}");
        lab.end().await;
    }
}
