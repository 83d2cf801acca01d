//! Every fault that can be ordered, seen from a client.

use std::time::{Duration, Instant};

use crate::common::{Client, http};
use cac_simulator::{Action, Config, Delay, Simulator};
use serde_json::json;

async fn lab() -> (Simulator, Client) {
    let simulator = Simulator::start(Config::default()).await.unwrap();
    let client = Client::login(&simulator, "root@pam", "simulator").await;
    (simulator, client)
}

const CREATE: [(&str, &str); 3] = [
    ("vmid", "101"),
    ("ostemplate", crate::common::DEBIAN),
    ("rootfs", "local:8"),
];

#[tokio::test]
async fn latency_holds_one_answer_up() {
    let (simulator, client) = lab().await;
    let slow = Action::Latency { ms: 400 };
    simulator.faults().once("GET", "/version", slow);
    let began = Instant::now();
    assert_eq!(client.get("/version").await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert!(simulator.faults().pending().is_empty());
    let began = Instant::now();
    assert_eq!(client.get("/version").await.status, 200);
    assert!(began.elapsed() < Duration::from_millis(400));
    simulator.stop().await;
}

#[tokio::test]
async fn a_status_is_answered_and_nothing_is_done() {
    let (simulator, client) = lab().await;
    for (code, reason) in [
        (500, "Internal Server Error"),
        (503, "busy"),
        (595, "No route to host"),
        (596, "Connection timed out"),
    ] {
        let action = Action::Status {
            code,
            reason: reason.to_owned(),
        };
        simulator.faults().once("POST", "/nodes/pve1/lxc", action);
        let answer = client.send("POST", "/nodes/pve1/lxc", &CREATE).await;
        assert_eq!((answer.status, answer.reason.as_str()), (code, reason));
        assert!(simulator.containers().is_empty());
    }
    assert_eq!(client.create("101", &[]).await, "OK");
    simulator.stop().await;
}

#[tokio::test]
async fn a_drop_before_does_nothing_and_a_drop_after_does_it_all() {
    let (simulator, client) = lab().await;
    let faults = simulator.faults();
    faults.once("POST", "/nodes/pve1/lxc", Action::DropBefore);
    let sent = client.try_send("POST", "/nodes/pve1/lxc", &CREATE).await;
    assert!(sent.is_err());
    assert!(simulator.containers().is_empty());
    faults.once("POST", "/nodes/pve1/lxc", Action::DropAfter);
    let sent = client.try_send("POST", "/nodes/pve1/lxc", &CREATE).await;
    assert!(sent.is_err());
    assert_eq!(simulator.containers().len(), 1);
    simulator.stop().await;
}

#[tokio::test]
async fn a_held_file_lock_times_calls_and_tasks_out() {
    let config = Config {
        delay: Delay {
            lock_timeout: Duration::from_millis(200),
            ..Delay::none()
        },
        ..Config::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let client = Client::login(&simulator, "root@pam", "simulator").await;
    assert_eq!(client.create("101", &[]).await, "OK");
    let path = "/nodes/pve1/lxc/101";
    let hold = Action::HoldLock { ms: 1500 };
    simulator.faults().once("PUT", "/lxc/101/config", hold);
    let text = "can't lock file '/run/lock/lxc/pve-config-101.lock' - got timeout";
    let form = [("memory", "256")];
    let answer = client.send("PUT", &format!("{path}/config"), &form).await;
    assert_eq!((answer.status, answer.reason.as_str()), (500, text));
    let start = format!("{path}/status/start");
    assert_eq!(client.task("POST", &start, &[]).await, text);
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.task("POST", &start, &[]).await != "OK" {
        assert!(Instant::now() < deadline, "the lock is never let go");
    }
    simulator.stop().await;
}

#[tokio::test]
async fn a_lock_in_the_configuration_is_named_and_goes_away() {
    let (simulator, client) = lab().await;
    assert_eq!(client.create("101", &[]).await, "OK");
    let (name, ms) = ("backup".to_owned(), 700);
    let lock = Action::Lock { name, ms };
    simulator.faults().once("GET", "/lxc/101/config", lock);
    let path = "/nodes/pve1/lxc/101";
    let shown = client.get(&format!("{path}/config")).await;
    assert_eq!(shown.data()["lock"], "backup");
    let refused = client.send("DELETE", path, &[]).await;
    assert_eq!(refused.reason, "CT is locked (backup)");
    let start = format!("{path}/status/start");
    assert_eq!(
        client.task("POST", &start, &[]).await,
        "CT is locked (backup)"
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.task("POST", &start, &[]).await != "OK" {
        assert!(Instant::now() < deadline, "the lock never goes away");
    }
    simulator.stop().await;
}

#[tokio::test]
async fn a_hanging_task_runs_until_it_is_aborted() {
    let (simulator, client) = lab().await;
    simulator.faults().once("POST", "/lxc", Action::HangTask);
    let answer = client.send("POST", "/nodes/pve1/lxc", &CREATE).await;
    let upid = answer.data().as_str().unwrap().to_owned();
    let task = format!("/nodes/pve1/tasks/{upid}");
    let state = client.get(&format!("{task}/status")).await;
    assert_eq!(state.data()["status"], "running");
    assert_eq!(client.send("DELETE", &task, &[]).await.status, 200);
    let exit = client.ended(&json!(upid)).await;
    assert!(exit.starts_with("unable to create CT 101 - "), "{exit}");
    assert!(exit.ends_with("received interrupt"), "{exit}");
    assert!(simulator.containers().is_empty());
    simulator.stop().await;
}

#[tokio::test]
async fn a_failing_task_says_why_and_leaves_nothing() {
    let (simulator, client) = lab().await;
    let text = "no space left on device".to_owned();
    simulator
        .faults()
        .once("POST", "/lxc", Action::FailTask { text });
    let exit = client.task("POST", "/nodes/pve1/lxc", &CREATE).await;
    assert_eq!(exit, "unable to create CT 101 - no space left on device");
    assert!(simulator.containers().is_empty());
    simulator.stop().await;
}

#[tokio::test]
async fn a_node_off_the_network_is_listed_and_answers_nothing() {
    let (simulator, client) = lab().await;
    simulator.set_online("pve2", false);
    let nodes = client.get("/nodes").await;
    let states: Vec<_> = nodes.data().as_array().unwrap().iter().collect();
    assert_eq!(states[1]["status"], "offline");
    assert!(states[1].get("maxmem").is_none());
    assert_eq!(states[0]["status"], "online");
    let answer = client.get("/nodes/pve2/lxc").await;
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (595, "No route to host")
    );
    simulator.set_online("pve2", true);
    assert_eq!(client.get("/nodes/pve2/lxc").await.status, 200);
    simulator.stop().await;
}

#[tokio::test]
async fn faults_are_ordered_over_the_wire_too() {
    let (simulator, client) = lab().await;
    let url = format!("{}/simulator/faults", simulator.url());
    let fault = json!({
        "method": "GET", "path": "/version", "count": 2,
        "action": {"status": {"code": 503, "reason": "busy"}},
    });
    let answer = http().post(&url).json(&fault).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(client.get("/version").await.status, 503);
    assert_eq!(client.get("/version").await.status, 503);
    assert_eq!(client.get("/version").await.status, 200);
    let wrong = http()
        .post(&url)
        .json(&json!({"action": "burn"}))
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 400);
    assert!(wrong.text().await.unwrap().contains("hang_task"));
    http().post(&url).json(&fault).send().await.unwrap();
    assert_eq!(simulator.faults().pending().len(), 1);
    http().delete(&url).send().await.unwrap();
    assert!(simulator.faults().pending().is_empty());
    simulator.stop().await;
}
