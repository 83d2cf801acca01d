//! Containers: create, configure, start, stop, destroy, and what they are doing. Calls that return a [`Upid`] are only
//! accepted when they return; whether they worked is the task's to say.

mod config;
mod interface;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

pub use self::config::{LxcChange, LxcConfig, Net, NewClone, NewLxc};
pub use self::interface::{Interface, IpAddress};
use super::cluster::Rows;
use super::http::{Call, Nothing};
use super::wire;
use super::{Error, Pve, Upid};

/// A container as it is now. Sizes in bytes, `cpu` as a share of its cores; the counters are 0 while it is stopped.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LxcStatus {
    #[serde(deserialize_with = "wire::loose")]
    pub vmid: u32,
    /// `running` or `stopped`.
    pub status: String,
    /// The hostname; `CT<vmid>` while the container is being made.
    #[serde(default, deserialize_with = "wire::loose")]
    pub name: Option<String>,
    /// `create`, `backup`, `disk`, `snapshot`, …
    #[serde(default, deserialize_with = "wire::loose")]
    pub lock: Option<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub tags: Vec<String>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub template: Option<bool>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub pid: Option<u32>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub uptime: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub cpus: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub cpu: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub mem: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxmem: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub swap: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxswap: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub disk: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxdisk: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub netin: Option<u64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub netout: Option<u64>,
}

/// A snapshot of a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    pub name: String,
    #[serde(default, deserialize_with = "wire::loose")]
    pub description: Option<String>,
    /// Seconds since 1970.
    #[serde(default, deserialize_with = "wire::loose")]
    pub snaptime: Option<u64>,
    /// The snapshot that it was taken on top of.
    #[serde(default, deserialize_with = "wire::loose")]
    pub parent: Option<String>,
}

/// One point of a container's series; where Proxmox VE has nothing everything but the time is absent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Sample {
    /// Seconds since 1970.
    #[serde(deserialize_with = "wire::loose")]
    pub time: u64,
    /// Share of all its processors.
    #[serde(default, deserialize_with = "wire::loose")]
    pub cpu: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxcpu: Option<f64>,
    /// Bytes, as all that follow.
    #[serde(default, deserialize_with = "wire::loose")]
    pub mem: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxmem: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub disk: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub maxdisk: Option<f64>,
    /// Per second, as all that follow.
    #[serde(default, deserialize_with = "wire::loose")]
    pub netin: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub netout: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub diskread: Option<f64>,
    #[serde(default, deserialize_with = "wire::loose")]
    pub diskwrite: Option<f64>,
}

impl LxcStatus {
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }
}

/// Address of one container or of something below it.
fn lxc<'a>(node: &'a str, vmid: &'a str, below: &[&'a str]) -> Vec<&'a str> {
    let mut segments = vec!["nodes", node, "lxc", vmid];
    segments.extend(below);
    segments
}

impl Pve {
    /// Makes a container. Of several callers with one VMID exactly one succeeds; the others get
    /// [`Error::is_already_exists`] at once.
    pub async fn lxc_create(&self, node: &str, new: &NewLxc) -> Result<Upid, Error> {
        let call = Call::new(Method::POST, &["nodes", node, "lxc"])?;
        self.call(new.fill(call)).await
    }

    /// Copies a stopped container or a template. While the task runs both are locked, the source with `disk`: a second clone of it
    /// is refused ([`Error::is_locked_or_lock_timeout`]). The task's ID names the source.
    pub async fn lxc_clone(&self, node: &str, source: u32, new: &NewClone) -> Result<Upid, Error> {
        let call = Call::new(Method::POST, &lxc(node, &source.to_string(), &["clone"]))?;
        self.call(new.fill(call)).await
    }

    /// The containers of one node that the caller may audit.
    pub async fn lxc_list(&self, node: &str) -> Result<Vec<LxcStatus>, Error> {
        let call = Call::get(&["nodes", node, "lxc"])?;
        Ok(self.call::<Rows<_>>(call).await?.rows())
    }

    /// While the container is being made (`lock` is `create`) everything else is still missing.
    pub async fn lxc_config(&self, node: &str, vmid: u32) -> Result<LxcConfig, Error> {
        let call = Call::get(&lxc(node, &vmid.to_string(), &["config"]))?;
        self.call(call).await
    }

    /// Changes what `change` carries. What a running container cannot take at once waits for its restart.
    pub async fn lxc_config_set(
        &self,
        node: &str,
        vmid: u32,
        change: &LxcChange,
    ) -> Result<(), Error> {
        let vmid = vmid.to_string();
        let call = Call::new(Method::PUT, &lxc(node, &vmid, &["config"]))?;
        self.call::<Nothing>(change.fill(call)).await?;
        Ok(())
    }

    /// Right now, other than in [`Pve::resources`]. An unknown container is a refusal with
    /// [`Error::is_does_not_exist`], which the wrong node says as well.
    pub async fn lxc_status(&self, node: &str, vmid: u32) -> Result<LxcStatus, Error> {
        let call = Call::get(&lxc(node, &vmid.to_string(), &["status", "current"]))?;
        self.call(call).await
    }

    /// A task that ends well does not prove that the container still runs: look at its status.
    pub async fn lxc_start(&self, node: &str, vmid: u32) -> Result<Upid, Error> {
        self.call(power(node, vmid, "start")?).await
    }

    /// Stops at once, also where a shutdown is under way.
    pub async fn lxc_stop(&self, node: &str, vmid: u32) -> Result<Upid, Error> {
        self.call(power(node, vmid, "stop")?.with("overrule-shutdown", 1))
            .await
    }

    /// Asks the container to shut down; one that has not within `timeout` (whole seconds) is stopped.
    pub async fn lxc_shutdown(
        &self,
        node: &str,
        vmid: u32,
        timeout: Duration,
    ) -> Result<Upid, Error> {
        let call = power(node, vmid, "shutdown")?
            .with("timeout", timeout.as_secs())
            .with("forceStop", 1);
        self.call(call).await
    }

    /// Shuts down and starts again.
    pub async fn lxc_reboot(&self, node: &str, vmid: u32) -> Result<Upid, Error> {
        self.call(power(node, vmid, "reboot")?).await
    }

    /// Stops the container if it runs, and removes it with its disks and its entries in jobs.
    pub async fn lxc_destroy(&self, node: &str, vmid: u32) -> Result<Upid, Error> {
        let call = Call::new(Method::DELETE, &lxc(node, &vmid.to_string(), &[]))?
            .with("force", 1)
            .with("purge", 1)
            .with("destroy-unreferenced-disks", 1);
        self.call(call).await
    }

    /// Makes a disk larger, up to `gib` in all; a smaller size is refused.
    pub async fn lxc_resize(
        &self,
        node: &str,
        vmid: u32,
        disk: &str,
        gib: u32,
    ) -> Result<Upid, Error> {
        let call = Call::new(Method::PUT, &lxc(node, &vmid.to_string(), &["resize"]))?
            .with("disk", disk)
            .with("size", format!("{gib}G"));
        self.call(call).await
    }

    /// The snapshots, oldest first; without the pseudo entry `current`.
    pub async fn lxc_snapshots(&self, node: &str, vmid: u32) -> Result<Vec<Snapshot>, Error> {
        let call = Call::get(&lxc(node, &vmid.to_string(), &["snapshot"]))?;
        let mut rows: Vec<Snapshot> = self.call::<Rows<_>>(call).await?.rows();
        rows.retain(|row| row.name != "current");
        rows.sort_by_key(|row| row.snaptime);
        Ok(rows)
    }

    /// What is wrong with the name, or with the storage, is said by the task.
    pub async fn lxc_snapshot(
        &self,
        node: &str,
        vmid: u32,
        name: &str,
        description: &str,
    ) -> Result<Upid, Error> {
        let call = Call::new(Method::POST, &lxc(node, &vmid.to_string(), &["snapshot"]))?
            .with("snapname", name)
            .with("description", description);
        self.call(call).await
    }

    /// Back to a snapshot; the container is stopped afterwards.
    pub async fn lxc_rollback(&self, node: &str, vmid: u32, name: &str) -> Result<Upid, Error> {
        let vmid = vmid.to_string();
        let path = lxc(node, &vmid, &["snapshot", name, "rollback"]);
        self.call(Call::new(Method::POST, &path)?).await
    }

    pub async fn lxc_snapshot_delete(
        &self,
        node: &str,
        vmid: u32,
        name: &str,
    ) -> Result<Upid, Error> {
        let vmid = vmid.to_string();
        let path = lxc(node, &vmid, &["snapshot", name]);
        self.call(Call::new(Method::DELETE, &path)?).await
    }

    /// What the container used; `timeframe` is `hour`, `day`, `week`, `month` or `year`. Refused until Proxmox VE made its first
    /// round after the creation (10 s).
    pub async fn lxc_series(
        &self,
        node: &str,
        vmid: u32,
        timeframe: &str,
    ) -> Result<Vec<Sample>, Error> {
        let call =
            Call::get(&lxc(node, &vmid.to_string(), &["rrddata"]))?.with("timeframe", timeframe);
        Ok(self.call::<Rows<_>>(call).await?.rows())
    }

    /// The IPv4 addresses of a container on all its network cards: static ones of its configuration, and what its guest shows on interfaces
    /// with their MACs.
    pub async fn lxc_ipv4(&self, node: &str, vmid: u32) -> Result<Vec<Ipv4Addr>, Error> {
        let call = Call::get(&lxc(node, &vmid.to_string(), &["config"]))?;
        let config: HashMap<String, Value> = self.call(call).await?;
        let cards = config::cards(&config);
        let interfaces = self.lxc_interfaces(node, vmid).await?.unwrap_or_default();
        Ok(config::all_ipv4(&cards, &interfaces))
    }

    /// What the container's network looks like from inside; `None` for a stopped and for an unknown container alike.
    pub async fn lxc_interfaces(
        &self,
        node: &str,
        vmid: u32,
    ) -> Result<Option<Vec<Interface>>, Error> {
        let call = Call::get(&lxc(node, &vmid.to_string(), &["interfaces"]))?;
        self.call(call).await
    }
}

fn power(node: &str, vmid: u32, what: &str) -> Result<Call, Error> {
    Call::new(
        Method::POST,
        &lxc(node, &vmid.to_string(), &["status", what]),
    )
}
