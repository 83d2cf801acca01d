//! What happened on the real machine besides the recorded calls: locks, rights, tidying up.

use std::time::{Duration, Instant};

use cac_simulator::{Action, ContainerView, Simulator};
use serde_json::Value;

use crate::exchange::Exchange;
use crate::player::{PASSWORD, Player, encode};

fn is(simulator: &Simulator, vmid: u32, look: impl Fn(&ContainerView) -> bool) -> bool {
    let containers = simulator.containers();
    containers.iter().any(|c| c.vmid == vmid && look(c))
}

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

impl Player {
    /// Brings about what had happened before the exchange.
    pub(crate) async fn happen(&mut self, exchange: &Exchange) {
        let number = exchange.number();
        let faults = self.simulator.faults();
        match number {
            133 => self.simulator.set_totp("bob@pve", Some("123456")),
            138 => self.simulator.set_totp("bob@pve", None),
            364 => {
                let (name, ms) = ("backup".to_owned(), 4000);
                faults.once("GET", "/lxc/101/status/current", Action::Lock { name, ms });
            }
            377 => self.unlocked(101).await,
            442 => self.stop(101).await,
            476 => self.running(105).await,
            // Something held the container's file lock for half a minute.
            546 | 547 | 551 | 554 => {
                faults.once(&exchange.method, "/lxc/120", Action::HoldLock { ms: 1500 })
            }
            596 => self.stop(120).await,
            995 => self.running(356).await,
            479 => self.has_address(105).await,
            1063 => self.has_address(100).await,
            718 => self.in_overview(200).await,
            751 => self.until(|simulator| !is(simulator, 200, |_| true)).await,
            755 => {
                for vmid in 200..217 {
                    self.destroy(&vmid.to_string()).await;
                }
            }
            979 => faults.once("PUT", "/lxc/360/config", Action::HoldLock { ms: 4000 }),
            688..=711 | 756 => self.grant_step(number).await,
            1044 => self.service().await,
            _ => {}
        }
        let creates = exchange.method == "POST" && exchange.path() == Some("/nodes/pve1/lxc");
        // Between the variants of one create the machine was tidied up.
        if creates && (exchange.status == 200 || (200..295).contains(&number)) {
            let vmid = exchange.json_or_form("vmid");
            self.destroy(&vmid).await;
        }
    }

    async fn unlocked(&self, vmid: u32) {
        let locked = |container: &ContainerView| container.config.contains_key("lock");
        self.until(|simulator| !is(simulator, vmid, locked)).await;
    }

    async fn stop(&mut self, vmid: u32) {
        let path = format!("/nodes/pve1/lxc/{vmid}/status/stop");
        self.as_root("POST", &path, &[]).await;
        self.until(|simulator| is(simulator, vmid, |c| c.status == "stopped"))
            .await;
    }

    async fn running(&self, vmid: u32) {
        self.until(|simulator| is(simulator, vmid, |c| c.status == "running"))
            .await;
    }

    async fn until(&self, good: impl Fn(&Simulator) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !good(&self.simulator) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn has_address(&mut self, vmid: u32) {
        let path = format!("/nodes/pve1/lxc/{vmid}/interfaces");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let body = self.as_root("GET", &path, &[]).await;
            if body["data"][1]["inet"].is_string() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Until the cluster's overview has caught up.
    async fn in_overview(&mut self, vmid: u32) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let body = self.as_root("GET", "/cluster/resources?type=vm", &[]).await;
            let rows = body["data"].as_array().cloned().unwrap_or_default();
            if rows
                .iter()
                .any(|r| r["vmid"] == vmid && r["name"].is_string())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until the task has ended, as it had when its state was recorded.
    pub(crate) async fn wait(&mut self, exchange: &Exchange) {
        let upid = exchange.upid().unwrap();
        let Some(own) = self.upids.get(&upid).cloned() else {
            return;
        };
        let path = format!("/nodes/pve1/tasks/{own}/status");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let body = self.as_root("GET", &path, &[]).await;
            if body["data"]["status"] == "stopped" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn destroy(&mut self, vmid: &str) {
        let Ok(number) = vmid.parse() else { return };
        if is(&self.simulator, number, |_| true) {
            let path = format!("/nodes/pve1/lxc/{vmid}?force=1");
            self.as_root("DELETE", &path, &[]).await;
            self.until(|simulator| !is(simulator, number, |_| true))
                .await;
        }
    }

    async fn take_away(&mut self, path: &str, kind: &str, who: &str, role: &str) {
        let form = [
            ("path", path),
            (kind, who),
            ("roles", role),
            ("delete", "1"),
        ];
        self.as_root("PUT", "/access/acl", &form).await;
    }

    /// The rights of the token grew one by one.
    async fn grant_step(&mut self, number: u32) {
        let (user, token) = ("alice@pve", "alice@pve!t1");
        let bridge = "/sdn/zones/localnetwork/vmbr0";
        let privilege = match number {
            688 => {
                self.take_away("/pool/lab", "tokens", token, "PVEVMUser")
                    .await;
                self.simulator
                    .grant("/storage/local", user, "PVEDatastoreUser");
                return self.simulator.grant("/sdn/zones", user, "PVESDNUser");
            }
            756 => {
                let local = "/storage/local";
                self.take_away(local, "users", user, "PVEDatastoreUser")
                    .await;
                return self
                    .take_away("/sdn/zones", "users", user, "PVESDNUser")
                    .await;
            }
            693 => {
                let role = "PVEDatastoreUser";
                return self.simulator.grant("/storage/local", token, role);
            }
            695 => return self.simulator.grant(bridge, token, "PVESDNUser"),
            690 => "VM.Allocate",
            691 => "VM.Config.Memory",
            692 => "VM.Config.Disk",
            694 => "VM.Config.Network",
            710 => "VM.Audit",
            711 => "VM.PowerMgmt",
            _ => return,
        };
        let role = privilege.replace('.', "");
        self.role(&role, privilege).await;
        self.simulator.grant("/pool/lab", token, &role);
    }

    async fn role(&mut self, role: &str, privileges: &str) {
        let form = [("roleid", role), ("privs", privileges)];
        self.as_root("POST", "/access/roles", &form).await;
    }

    /// The service account, with no more rights than it needs.
    async fn service(&mut self) {
        let user = "svc@pve";
        self.simulator.add_user(user, PASSWORD, &[]);
        self.simulator
            .add_user("alice@pve", PASSWORD, &["lab-users"]);
        let secret = self.simulator.add_token(user, "api", false);
        self.secrets.insert("svc@pve!api".to_owned(), secret);
        self.simulator.add_token("root@pam", "api", false);
        let privileges = "VM.Allocate,VM.Audit,VM.PowerMgmt,VM.Config.Disk,VM.Config.Memory,\
             VM.Config.Network,VM.Config.CPU,VM.Config.Options";
        self.role("Service", privileges).await;
        for (path, role) in [
            ("/pool/lab", "Service"),
            ("/storage", "PVEDatastoreUser"),
            ("/nodes", "PVEAuditor"),
            ("/access/groups", "PVEAuditor"),
            ("/sdn/zones/localnetwork/vmbr0", "PVESDNUser"),
        ] {
            self.simulator.grant(path, user, role);
        }
    }

    async fn as_root(&mut self, method: &str, path: &str, form: &[(&str, &str)]) -> Value {
        let (ticket, csrf) = self.session("root@pam").await;
        let url = format!("{}/api2/json{path}", self.simulator.url());
        let request = self.http.request(method.parse().unwrap(), url);
        let request = request
            .header("cookie", format!("PVEAuthCookie={}", encode(&ticket)))
            .header("csrfpreventiontoken", csrf);
        let request = if form.is_empty() {
            request
        } else {
            request.form(form)
        };
        let response = request.send().await.unwrap();
        response.json().await.unwrap_or_default()
    }
}
