//! What the calls about containers put on the wire, byte for byte: Proxmox VE's own form decoder forgives little.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cac_core::pve::{LxcChange, NewLxc};

use crate::server::{Request, Server, answer};

const UPID: &str = "UPID:pve1:0000012B:00066606:6B03ED54:vzcreate:100:svc@pve!api:";

async fn listening() -> (Server, Arc<Mutex<Vec<Request>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = seen.clone();
    let server = Server::answering(move |request| {
        let data = if request.method == "PUT" || request.target.contains("/tasks/") {
            "null".to_owned()
        } else {
            format!("\"{UPID}\"")
        };
        shared.lock().unwrap().push(request);
        answer("200 OK", &format!("{{\"data\":{data}}}"))
    })
    .await;
    (server, seen)
}

fn new_lxc() -> NewLxc {
    NewLxc {
        vmid: 100,
        hostname: "svc1".to_owned(),
        ostemplate: "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst".to_owned(),
        storage: "local".to_owned(),
        disk_gib: 2,
        cores: 1,
        memory_mib: 256,
        swap_mib: 0,
        bridge: "vmbr0".to_owned(),
        description: "a=b; c+d & e%\ncac:x:1 ü".to_owned(),
        tags: vec!["cac".to_owned(), "web".to_owned()],
        ssh_public_keys: None,
        onboot: false,
        pool: Some("lab".to_owned()),
    }
}

/// Pitfalls 9 and 29: `nesting` alone, and a blank is `%20`.
#[tokio::test]
async fn create_escapes_everything_and_keeps_tags_from_a_pool() {
    let (server, seen) = listening().await;
    let mut new = new_lxc();
    let upid = server.client().lxc_create("pve1", &new).await.unwrap();
    assert_eq!((upid.as_str(), upid.vmid()), (UPID, Some(100)));
    new.pool = None;
    new.onboot = true;
    new.ssh_public_keys = Some("ssh-ed25519 AAAA+/= a@b\n".to_owned());
    server.client().lxc_create("pve1", &new).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen[0].is("POST", "/nodes/pve1/lxc"));
    let start = "vmid=100&hostname=svc1&ostemplate=local%3Avztmpl%2Fdebian-12-standard_12.12-1_amd64.tar.zst\
        &rootfs=local%3A2&cores=1&memory=256&swap=0&net0=name%3Deth0%2Cbridge%3Dvmbr0%2Cip%3Ddhcp&unprivileged=1\
        &features=nesting%3D1&description=a%3Db%3B%20c%2Bd%20%26%20e%25%0Acac%3Ax%3A1%20%C3%BC";
    assert_eq!(seen[0].body, format!("{start}&onboot=0&pool=lab"));
    assert_eq!(
        seen[1].body,
        format!(
            "{start}&onboot=1&tags=cac%3Bweb&ssh-public-keys=ssh-ed25519%20AAAA%2B%2F%3D%20a%40b%0A"
        )
    );
    assert_eq!(seen[0].header("transfer-encoding"), None);
    assert_eq!(seen[0].header("cookie"), None);
    assert_eq!(seen[0].header("csrfpreventiontoken"), None);
}

#[tokio::test]
async fn destroy_has_no_body() {
    let (server, seen) = listening().await;
    server.client().lxc_destroy("pve1", 100).await.unwrap();
    let upid = UPID.parse().unwrap();
    server.client().task_stop(&upid).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen[0].target,
        "/api2/json/nodes/pve1/lxc/100?force=1&purge=1&destroy-unreferenced-disks=1"
    );
    let task = "UPID%3Apve1%3A0000012B%3A00066606%3A6B03ED54%3Avzcreate%3A100%3Asvc%40pve%21api%3A";
    assert_eq!(
        seen[1].target,
        format!("/api2/json/nodes/pve1/tasks/{task}")
    );
    for request in seen.iter() {
        assert_eq!(request.method, "DELETE");
        for name in ["content-length", "content-type", "transfer-encoding"] {
            assert_eq!(request.header(name), None, "{request:?}");
        }
    }
}

#[tokio::test]
async fn power_and_changes() {
    let (server, seen) = listening().await;
    let pve = server.client();
    pve.lxc_start("pve1", 100).await.unwrap();
    pve.lxc_stop("pve1", 100).await.unwrap();
    pve.lxc_shutdown("pve1", 100, Duration::from_secs(25))
        .await
        .unwrap();
    pve.lxc_reboot("pve1", 100).await.unwrap();
    let change = LxcChange {
        cores: Some(2),
        tags: Some(vec!["a".to_owned(), "b".to_owned()]),
        net0: Some(
            "name=eth0,hwaddr=BC:24:11:88:97:B8,bridge=vmbr1"
                .parse()
                .unwrap(),
        ),
        description: Some(String::new()),
        onboot: Some(true),
        delete: vec!["nameserver".to_owned(), "searchdomain".to_owned()],
        digest: Some("959b259c".to_owned()),
        ..LxcChange::default()
    };
    pve.lxc_config_set("pve1", 100, &change).await.unwrap();
    let seen = seen.lock().unwrap();
    let lines: Vec<String> = seen
        .iter()
        .map(|request| format!("{} {} {}", request.method, request.target, request.body))
        .collect();
    let at = "/api2/json/nodes/pve1/lxc/100";
    assert_eq!(lines[0], format!("POST {at}/status/start "));
    assert_eq!(
        lines[1],
        format!("POST {at}/status/stop overrule-shutdown=1")
    );
    assert_eq!(
        lines[2],
        format!("POST {at}/status/shutdown timeout=25&forceStop=1")
    );
    assert_eq!(lines[3], format!("POST {at}/status/reboot "));
    assert_eq!(
        lines[4],
        format!(
            "PUT {at}/config cores=2&description=&tags=a%3Bb&onboot=1&net0=name%3Deth0%2Cbridge%3Dvmbr1%2Chwaddr%3DBC%3A24%3A11%3A88%3A97%3AB8\
             &delete=nameserver%2Csearchdomain&digest=959b259c"
        )
    );
}
