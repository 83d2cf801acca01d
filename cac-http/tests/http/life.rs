//! What an owner does with a container, and what admins do with nodes and quotas, over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, expect};

async fn put(lab: &Lab, session: &str, path: &str, body: Value, status: u16) -> Value {
    let sent = lab
        .ask(reqwest::Method::PUT, path, session)
        .json(&body)
        .send();
    expect(sent.await.unwrap(), status).await
}

async fn post(lab: &Lab, session: &str, path: &str, body: Value, status: u16) -> Value {
    let sent = lab.post(path, session).json(&body).send();
    expect(sent.await.unwrap(), status).await
}

async fn get(lab: &Lab, session: &str, path: &str, status: u16) -> Value {
    expect(lab.get(path, session).send().await.unwrap(), status).await
}

#[tokio::test]
async fn the_whole_life_of_a_container() {
    let lab = Lab::new().await;
    let (alice, bob, admin) = (
        lab.login("alice").await,
        lab.login("bob").await,
        lab.login("admin").await,
    );
    let dry = post(
        &lab,
        &alice,
        "/containers?init=true&dryRun=true",
        crate::lab::wanted("life"),
        200,
    )
    .await;
    assert!(dry["node"].as_str().unwrap().starts_with("pve"), "{dry}");
    let (id, job) = lab.create(&alice, "life").await;
    assert_eq!(lab.ended(job).await, "success");
    let at = format!("/containers/{id}");
    let taken = post(
        &lab,
        &bob,
        "/containers?init=true&dryRun=true",
        crate::lab::wanted("life"),
        400,
    )
    .await;
    assert!(
        taken["errors"]["hostname"]
            .as_str()
            .unwrap()
            .contains("taken"),
        "{taken}"
    );
    // Power.
    let stopped = post(&lab, &alice, &format!("{at}/stop"), json!({}), 200).await;
    assert_eq!(
        (&stopped["success"], stopped["container"].get("ipv4Address")),
        (&json!(true), None)
    );
    assert_eq!(
        get(&lab, &alice, "/containers", 200).await[0]["status"],
        "stopped"
    );
    post(&lab, &bob, &format!("{at}/start"), json!({}), 404).await;
    let started = post(&lab, &alice, &format!("{at}/start"), json!({}), 200).await;
    assert!(started["container"]["ipv4Address"].is_string(), "{started}");
    post(&lab, &alice, &format!("{at}/restart"), json!({}), 200).await;
    assert_eq!(get(&lab, &alice, &at, 200).await["status"], "running");
    // Sizes, protection, owner.
    let grown = put(
        &lab,
        &alice,
        &at,
        json!({"cores": 3, "disk": 12, "protected": true}),
        200,
    )
    .await;
    let row = &grown["container"];
    assert_eq!(
        (&row["cores"], &row["disk"], &row["protected"]),
        (&json!(3), &json!(12), &json!(true))
    );
    let refused = put(
        &lab,
        &alice,
        &at,
        json!({"disk": 4, "username": "bob"}),
        400,
    )
    .await;
    assert!(
        refused["errors"]["disk"].is_string() && refused["errors"]["username"].is_string(),
        "{refused}"
    );
    expect(lab.delete(&at, &alice).send().await.unwrap(), 409).await;
    put(&lab, &alice, &at, json!({"protected": false}), 200).await;
    // Services.
    let services = format!("{at}/services");
    let rdp = post(&lab, &alice, &services, json!({"protocol": "rdp"}), 201).await;
    assert_eq!(rdp["externalPort"], 10001);
    let web = post(
        &lab,
        &alice,
        &services,
        json!({"type": "http", "internalPort": 9000, "externalHostname": "other"}),
        201,
    )
    .await;
    let web = format!("{services}/{}", web["id"]);
    assert_eq!(
        put(&lab, &alice, &web, json!({"internalPort": 9001}), 200).await["internalPort"],
        9001
    );
    assert_eq!(
        get(&lab, &alice, &services, 200)
            .await
            .as_array()
            .unwrap()
            .len(),
        4
    );
    assert_eq!(lab.delete(&web, &alice).send().await.unwrap().status(), 204);
    // Snapshots: this storage takes none, which is told with what to do.
    assert_eq!(
        get(&lab, &alice, &format!("{at}/snapshots"), 200).await,
        json!([])
    );
    let no = post(
        &lab,
        &alice,
        &format!("{at}/snapshots"),
        json!({"name": "base"}),
        409,
    )
    .await;
    assert!(
        no["detail"]
            .as_str()
            .unwrap()
            .contains("snapshot feature is not available"),
        "{no}"
    );
    assert!(
        get(&lab, &alice, &format!("{at}/usage"), 200)
            .await
            .is_array()
    );
    // A form of a browser is led back to the container's page.
    let form = lab
        .post(&format!("{at}/restart"), &alice)
        .header("accept", crate::lab::HTML)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            form.status().as_u16(),
            form.headers()["location"].to_str().unwrap()
        ),
        (303, at.as_str())
    );
    // Quotas.
    put(&lab, &alice, "/quotas/alice", json!({"containers": 9}), 403).await;
    let quota = put(
        &lab,
        &admin,
        "/quotas/alice",
        json!({"containers": 1, "memory": 4096}),
        200,
    )
    .await;
    assert_eq!(
        (&quota["remaining"]["containers"], &quota["used"]["cores"]),
        (&json!(0), &json!(3))
    );
    let full = post(
        &lab,
        &alice,
        "/containers?init=true",
        crate::lab::wanted("second"),
        400,
    )
    .await;
    assert!(
        full["errors"]["containers"]
            .as_str()
            .unwrap()
            .contains("1 containers are allowed"),
        "{full}"
    );
    assert_eq!(
        get(&lab, &alice, "/quota", 200).await["limits"]["memory"],
        4096
    );
    get(&lab, &bob, "/quotas/alice", 404).await;
    assert_eq!(
        get(&lab, &admin, "/quotas", 200).await[0]["username"],
        "alice"
    );
    let templates = get(&lab, &alice, "/templates", 200).await;
    assert!(
        templates
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["osRelease"] == "debian-12"),
        "{templates}"
    );
}

#[tokio::test]
async fn admins_keep_the_nodes() {
    let lab = Lab::idle(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let new = json!({"name": "pve9", "apiUrl": lab.simulator.url(), "tlsFingerprint": lab.simulator.fingerprint(),
                     "tokenId": "cac@pve!web", "secret": "00000000-0000-4000-a000-000000000000", "aiContainer": "gpu"});
    post(&lab, &alice, "/nodes", new.clone(), 403).await;
    let made = post(&lab, &admin, "/nodes", new.clone(), 201).await;
    assert!(
        made["hasSecret"] == true && made.get("secret").is_none(),
        "{made}"
    );
    post(&lab, &admin, "/nodes", new, 409).await;
    let bad = post(
        &lab,
        &admin,
        "/nodes",
        json!({"name": "", "apiUrl": "http://x"}),
        400,
    )
    .await;
    assert!(
        bad["errors"]["name"].is_string() && bad["errors"]["apiUrl"].is_string(),
        "{bad}"
    );
    let at = format!("/nodes/{}", made["id"]);
    // A wrong secret is told of, not taken for an empty node.
    let refused = post(&lab, &admin, &format!("{at}/test"), json!({}), 200).await;
    assert!(
        refused.get("version").is_none() && refused["problems"][0].is_string(),
        "{refused}"
    );
    assert_eq!(refused["fingerprint"], lab.simulator.fingerprint());
    let changed = put(
        &lab,
        &admin,
        &at,
        json!({"aiContainer": "", "enabled": false}),
        200,
    )
    .await;
    assert!(
        changed.get("aiContainer").is_none() && changed["enabled"] == false,
        "{changed}"
    );
    let all = get(&lab, &admin, "/nodes", 200).await;
    let first = format!("/nodes/{}/test", all[0]["id"]);
    let check = post(&lab, &admin, &first, json!({}), 200).await;
    assert_eq!(check["problems"], json!([]), "{check}");
    assert!(!check["templates"].as_array().unwrap().is_empty());
    assert_eq!(lab.delete(&at, &admin).send().await.unwrap().status(), 204);
    get(&lab, &admin, &at, 404).await;
}

/// A container that was made by other means comes into the books, and its owner has it from then on.
#[tokio::test]
async fn admins_import_what_a_node_has() {
    let lab = Lab::new().await;
    let (alice, bob, admin) = (
        lab.login("alice").await,
        lab.login("bob").await,
        lab.login("admin").await,
    );
    let (id, job) = lab.create(&alice, "lost").await;
    assert_eq!(lab.ended(job).await, "success");
    let row = get(&lab, &alice, &format!("/containers/{id}"), 200).await;
    for sql in [
        r#"DELETE FROM "Services" WHERE "containerId" = ?"#,
        r#"DELETE FROM "Containers" WHERE "id" = ?"#,
    ] {
        lab.core.db.exec(sql, cac_core::args![id]).await.unwrap();
    }
    let node = &row["nodeId"];
    let (list, import) = (
        format!("/nodes/{node}/importable"),
        format!("/nodes/{node}/import"),
    );
    get(&lab, &alice, &list, 403).await;
    let found = get(&lab, &admin, &list, 200).await;
    assert_eq!(found[0]["hostname"], "lost");
    assert_eq!(found[0]["problems"], json!([]));
    let wish = json!({"vmid": found[0]["vmid"], "username": "bob"});
    post(&lab, &bob, &import, wish.clone(), 403).await;
    let none = post(&lab, &admin, &import, json!({}), 400).await;
    assert!(
        none["errors"]["vmid"].is_string() && none["errors"]["username"].is_string(),
        "{none}"
    );
    let made = post(&lab, &admin, &import, wish.clone(), 201).await;
    // Without a web port it has ssh alone.
    let services = made["services"].as_array().unwrap();
    assert_eq!(
        (services.len(), &services[0]["type"]),
        (1, &json!("tcp")),
        "{made}"
    );
    let again = post(&lab, &admin, &import, wish, 400).await;
    assert!(again["errors"]["vmid"].is_string(), "{again}");
    let at = format!("/containers/{}", made["id"]);
    get(&lab, &alice, &at, 404).await;
    assert_eq!(
        get(&lab, &bob, &at, 200).await["ipv4Address"],
        row["ipv4Address"]
    );
    assert_eq!(lab.delete(&at, &bob).send().await.unwrap().status(), 200);
    assert!(lab.simulator.containers().is_empty());
}

/// The database had the new owner, Proxmox VE had not, and the answer was 500; giving it back failed, too.
#[tokio::test]
async fn a_container_is_given_only_to_somebody_whom_proxmox_knows() {
    let lab = Lab::with(&[]).await;
    let (alice, admin) = (lab.login("alice").await, lab.login("admin").await);
    let (id, job) = lab.create(&alice, "gift").await;
    assert_eq!(lab.ended(job).await, "success");
    let at = format!("/containers/{id}");
    let give = async |to: &str, status: u16| {
        let request = lab.ask(Method::PUT, &at, &admin);
        let answer = request.json(&json!({"username": to})).send().await;
        expect(answer.unwrap(), status).await
    };
    let refused = give("nobody9", 400).await;
    assert!(
        refused["errors"]["username"]
            .as_str()
            .unwrap()
            .contains("nobody9@pve"),
        "{refused}"
    );
    let still = expect(lab.get(&at, &alice).send().await.unwrap(), 200).await;
    assert_eq!(still["username"], "alice");
    assert_eq!(give("bob", 200).await["container"]["username"], "bob");
    assert_eq!(give("alice", 200).await["container"]["username"], "alice");
    // By her whole name it became another one's, and the role went away that had just been given.
    assert_eq!(
        give("alice@pve", 200).await["container"]["username"],
        "alice"
    );
    expect(lab.get(&at, &alice).send().await.unwrap(), 200).await;
    give("alice@pve,bob@pve", 400).await;
}

/// The address of its site was told while nothing led there.
#[tokio::test]
async fn a_container_that_is_stopped_is_reached_nowhere() {
    let lab = Lab::with(&[]).await;
    let alice = lab.login("alice").await;
    let (id, job) = lab.create(&alice, "resting").await;
    assert_eq!(lab.ended(job).await, "success");
    let at = format!("/containers/{id}");
    let found = async || expect(lab.get(&at, &alice).send().await.unwrap(), 200).await;
    assert!(found().await["url"].is_string());
    let stop = lab.post(&format!("{at}/stop"), &alice).send().await;
    expect(stop.unwrap(), 200).await;
    let stopped = found().await;
    assert!(
        stopped["url"].is_null() && stopped["ssh"].is_null(),
        "{stopped}"
    );
    assert_eq!(stopped["status"], "stopped");
}

/// It was 500, and a deletion of nothing was a success.
#[tokio::test]
async fn a_snapshot_that_does_not_exist_is_not_found() {
    let lab = Lab::with(&[]).await;
    let alice = lab.login("alice").await;
    let (id, job) = lab.create(&alice, "bare").await;
    assert_eq!(lab.ended(job).await, "success");
    let at = format!("/containers/{id}/snapshots/nope");
    let rolled = lab.post(&format!("{at}/rollback"), &alice).send().await;
    expect(rolled.unwrap(), 404).await;
    expect(lab.delete(&at, &alice).send().await.unwrap(), 404).await;
}

/// It was 202 with the number of another job, and nothing was ever deleted.
#[tokio::test]
async fn a_deletion_that_waits_is_seen_and_withdrawn() {
    let lab = Lab::with(&[]).await;
    let (alice, bob) = (lab.login("alice").await, lab.login("bob").await);
    let (id, job) = lab.create(&alice, "waiting").await;
    assert_eq!(lab.ended(job).await, "success");
    let at = format!("/containers/{id}");
    let page = async || {
        let request = lab.get(&at, &alice).header("accept", crate::lab::HTML);
        request.send().await.unwrap().text().await.unwrap()
    };
    assert!(!page().await.contains("Deletion requested"));
    let slow = cac_simulator::Action::Latency { ms: 3000 };
    lab.simulator
        .faults()
        .once("POST", "/status/shutdown", slow);
    let stop = lab.post(&format!("{at}/stop"), &alice);
    let stopping = tokio::spawn(stop.send());
    cac_core::testing::until("something works on it", async || {
        let now = expect(lab.get(&at, &alice).send().await.unwrap(), 200).await;
        now["state"] == "changing"
    })
    .await;
    // The client goes away before anything can come of it.
    let gone = lab
        .delete(&at, &alice)
        .timeout(std::time::Duration::from_millis(500));
    assert!(gone.send().await.is_err());
    let now = expect(lab.get(&at, &alice).send().await.unwrap(), 200).await;
    assert_eq!(now["deletionRequestedBy"], "alice");
    assert_ne!(now["deletionJobId"], now["jobId"]);
    let shown = page().await;
    assert!(
        shown.contains("Deletion requested") && shown.contains("Keep container"),
        "{shown}"
    );
    let keep = format!("{at}/keep");
    let stranger = lab.post(&keep, &bob).send().await.unwrap();
    expect(stranger, 404).await;
    let kept = expect(lab.post(&keep, &alice).send().await.unwrap(), 200).await;
    assert!(kept["container"]["deletionRequestedAt"].is_null(), "{kept}");
    expect(stopping.await.unwrap().unwrap(), 200).await;
    assert_eq!(lab.simulator.containers().len(), 1);
    // What fails says so, on the page, too.
    let fail = cac_simulator::Action::FailTask {
        text: "the disk is busy".to_owned(),
    };
    lab.simulator.faults().once("DELETE", "/lxc/", fail);
    expect(lab.delete(&at, &alice).send().await.unwrap(), 500).await;
    let shown = page().await;
    assert!(
        shown.contains("the disk is busy") && shown.contains("Try to delete again"),
        "{shown}"
    );
    let gone = lab.delete(&at, &alice).send().await.unwrap();
    expect(gone, 200).await;
}

/// A loop that panicked was nobody's business until the next start.
#[tokio::test]
async fn a_portal_whose_background_work_fails_is_not_ready() {
    let lab = Lab::idle(&[]).await;
    let ready = async || lab.get("/readyz", "").send().await.unwrap();
    assert_eq!(ready().await.status(), 200);
    let first = std::sync::atomic::AtomicBool::new(true);
    cac_core::supervise::supervise(&lab.core, "tested work", || async {
        let first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        assert!(!first, "the first time it panics");
    })
    .await;
    let refused = expect(ready().await, 503).await;
    assert!(
        refused["detail"].as_str().unwrap().contains("tested work"),
        "{refused}"
    );
}
