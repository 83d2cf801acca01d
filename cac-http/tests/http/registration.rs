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
