//! `POST /containers` without `init`: scripts register what they made themselves.

use cac_core::Actor;
use serde_json::json;

use crate::lab::{Lab, expect};

const FORM: &str = "hostname=tool&ipv4Address=127.9.1.1&username=alice&osRelease=debian&containerId=4711\
                    &macAddress=BC:24:11:00:09:01&aiContainer=N&httpPort=8080&additionalProtocols=RDP,dns&node=pve1";
const KIND: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// What the scripts of the original send and read: a form in, the row with its services out.
#[tokio::test]
async fn a_script_registers_by_a_form_and_reads_services_and_row_id() {
    let lab = Lab::idle(&[]).await;
    lab.foreign("pve1", 4711, "tool", "BC:24:11:00:09:01").await;
    let send = |form: String| {
        lab.post("/containers", "")
            .header(KIND.0, KIND.1)
            .body(form)
            .send()
    };
    let first = expect(send(FORM.to_owned()).await.unwrap(), 200).await;
    assert_eq!(first["success"], true);
    assert_eq!(first["containerId"], first["data"]["id"]);
    assert_eq!(first["data"]["containerId"], 4711);
    let services = first["data"]["services"].as_array().unwrap();
    let kinds: Vec<_> = services
        .iter()
        .map(|s| s["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["http", "tcp", "tcp", "udp"]);
    assert_eq!(services[0]["externalHostname"], "tool");
    assert_eq!(services[1]["externalPort"], 2222);
    let conf = lab
        .get("/nginx.conf", "")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(conf.contains("127.9.1.1:8080"), "{conf}");
    let moved = expect(
        send(FORM.replace("127.9.1.1", "127.9.1.2")).await.unwrap(),
        200,
    )
    .await;
    assert_eq!(moved["data"]["services"], first["data"]["services"]);
    let taken = expect(send(FORM.replace("tool", "other")).await.unwrap(), 409).await;
    assert!(
        taken["errors"]["containerId"]
            .as_str()
            .unwrap()
            .contains("`tool`"),
        "{taken}"
    );
}

#[tokio::test]
async fn only_local_machines_and_admins_register() {
    let lab = Lab::idle(&[("REGISTRATION_ALLOW", "127.0.0.9/32")]).await;
    lab.foreign("pve1", 4711, "tool", "BC:24:11:00:09:01").await;
    let body = json!({"hostname": "tool", "ipv4Address": "127.9.1.1", "username": "alice", "osRelease": "debian",
                      "containerId": 4711, "macAddress": "BC:24:11:00:09:01", "httpPort": 8080, "node": "pve1"});
    let ask = |session: &str| lab.post("/containers", session).json(&body).send();
    expect(ask("").await.unwrap(), 401).await;
    // A proxy that says it speaks for a local machine is believed only if it is a trusted one.
    let forged = lab
        .post("/containers", "")
        .header("x-real-ip", "127.0.0.9")
        .json(&body);
    expect(forged.send().await.unwrap(), 401).await;
    let alice = lab.login("alice").await;
    let refused = expect(ask(&alice).await.unwrap(), 403).await;
    assert!(
        refused["detail"].as_str().unwrap().contains("admin"),
        "{refused}"
    );
    let behind = lab
        .post("/containers", "")
        .header("x-forwarded-for", "127.0.0.9")
        .json(&body);
    expect(behind.send().await.unwrap(), 200).await;
    let admin = lab.login("admin").await;
    expect(ask(&admin).await.unwrap(), 200).await;
}

/// Proxmox VE itself says where a VMID is, and whose an address has become.
#[tokio::test]
async fn proxmox_says_which_node_and_whose_address() {
    let lab = Lab::new().await;
    lab.foreign("pve1", 999, "old", "BC:24:11:00:09:09").await;
    let alice = lab.login("alice").await;
    let (id, job) = lab.create(&alice, "made").await;
    assert_eq!(lab.ended(job).await, "success");
    let made = expect(
        lab.get(&format!("/containers/{id}"), &alice)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    let nodes = expect(
        lab.get("/nodes", &lab.login("admin").await)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    // The row goes, its container stays: somebody's script registers it again, without naming the node.
    let forget = r#"DELETE FROM "Containers" WHERE "id" = ?"#;
    lab.core
        .db
        .exec(r#"DELETE FROM "Services""#, vec![])
        .await
        .unwrap();
    lab.core.db.exec(forget, cac_core::args![id]).await.unwrap();
    let address = made["ipv4Address"].as_str().unwrap();
    // Another row has the address, from before.
    let old = json!({"hostname": "old", "ipv4Address": address, "username": "bob", "osRelease": "debian",
                     "containerId": 999, "macAddress": "BC:24:11:00:09:09", "httpPort": 8080, "node": "pve1"});
    let old = expect(
        lab.post("/containers", "").json(&old).send().await.unwrap(),
        200,
    )
    .await;
    let body = json!({"hostname": "made", "ipv4Address": address, "username": "alice", "osRelease": "debian",
                      "containerId": made["containerId"], "macAddress": made["macAddress"], "httpPort": 8080});
    let row = expect(
        lab.post("/containers", "")
            .json(&body)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert!(
        nodes
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["id"] == row["data"]["nodeId"])
    );
    assert_eq!(row["data"]["nodeId"], made["nodeId"]);
    let old = old["containerId"].as_i64().unwrap();
    let old = cac_core::container::find(&lab.core, &Actor::local(), old)
        .await
        .unwrap();
    assert_eq!(old.ipv4_address, None);
}

/// C1: an ordinary user made himself a registrar by a token, and so the owner of anybody's container.
#[tokio::test]
async fn a_user_has_no_token_that_registers() {
    let lab = Lab::idle(&[("REGISTRATION_ALLOW", "198.51.100.0/24")]).await;
    lab.foreign("pve1", 4711, "tool", "BC:24:11:00:09:01").await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let wish = json!({"name": "reg", "scopes": ["containers:register"]});
    let refused = lab.post("/tokens", &alice).json(&wish).send().await;
    let refused = expect(refused.unwrap(), 400).await;
    assert!(
        refused["errors"]["scopes"]
            .as_str()
            .unwrap()
            .contains("Only admins"),
        "{refused}"
    );
    let body = json!({"hostname": "tool", "ipv4Address": "127.9.1.1", "username": "alice", "osRelease": "debian",
                      "containerId": 4711, "macAddress": "BC:24:11:00:09:01", "httpPort": 8080});
    let ask = |token: &str| lab.post("/containers", token).json(&body).send();
    // One that she made before the rule, and an admin's whose owner is none any more.
    let old = lab.token(&alice, &["containers:write"]).await;
    let former = lab.token(&admin, &["containers:register"]).await;
    let db = &lab.core.db;
    let sql = r#"UPDATE "Tokens" SET "scopes" = 'containers:register' WHERE "username" = 'alice'"#;
    db.exec(sql, vec![]).await.unwrap();
    let sql = r#"UPDATE "Tokens" SET "admin" = ? WHERE "username" = 'admin'"#;
    db.exec(sql, cac_core::args![false]).await.unwrap();
    for token in [&old, &former] {
        expect(ask(token).await.unwrap(), 403).await;
    }
    db.exec(sql, cac_core::args![true]).await.unwrap();
    let good = lab.token(&admin, &["containers:register"]).await;
    let made = expect(ask(&good).await.unwrap(), 200).await;
    assert_eq!(made["data"]["username"], "alice");
}

/// What Proxmox VE could not be asked about is stored and shown as such, and a false claim gives nothing away.
#[tokio::test]
async fn an_unverified_registration_is_shown_as_such() {
    let lab = Lab::idle(&[]).await;
    lab.foreign("pve1", 4711, "tool", "BC:24:11:00:09:01").await;
    let alice = lab.login("alice").await;
    lab.simulator.set_online("pve1", false);
    let made = expect(
        lab.post("/containers", "")
            .header(KIND.0, KIND.1)
            .body(FORM)
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    assert!(made["data"]["unverifiedSince"].is_string(), "{made}");
    assert!(
        made["message"]
            .as_str()
            .unwrap()
            .contains("verified as soon"),
        "{made}"
    );
    let at = format!("/containers/{}", made["containerId"]);
    let page = async |path: &str| {
        let page = lab.get(path, &alice).header("accept", crate::lab::HTML);
        page.send().await.unwrap().text().await.unwrap()
    };
    assert!(page(&at).await.contains("unverified"));
    assert!(page("/containers").await.contains("unverified"));
    lab.simulator.set_online("pve1", true);
    cac_core::container::verify(&lab.core).await.unwrap();
    let row = expect(lab.get(&at, &alice).send().await.unwrap(), 200).await;
    assert!(row["unverifiedSince"].is_null(), "{row}");
    assert!(!page(&at).await.contains("unverified"));
    // Somebody else's container has the VMID now.
    lab.simulator.set_option(4711, "hostname", Some("ledger"));
    let net = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:AA:BB:CC,ip=dhcp,type=veth";
    lab.simulator.set_option(4711, "net0", Some(net));
    let refused = lab.get(&format!("{at}/snapshots"), &alice).send().await;
    let refused = expect(refused.unwrap(), 409).await.to_string();
    let row = expect(lab.get(&at, &alice).send().await.unwrap(), 200).await;
    assert!(row["identityMismatchAt"].is_string(), "{row}");
    assert_eq!(row["services"][0]["state"], "refused", "{row}");
    let shown = [
        refused,
        row.to_string(),
        page(&at).await,
        page("/containers").await,
    ];
    assert!(shown[2].contains("another container"));
    for text in shown {
        assert!(
            !text.contains("ledger") && !text.contains("AA:BB:CC"),
            "{text}"
        );
    }
}
