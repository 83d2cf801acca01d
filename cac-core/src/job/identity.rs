//! Whether what stands under a VMID is the container of a row, and where it is now.

use std::time::Duration;

use super::running::Asked;
use super::{Running, Stop};
use crate::Core;
use crate::container::Container;
use crate::node::Node;
use crate::pve::{LxcConfig, Pve};

/// How a reason begins when the container in Proxmox VE is not the one of the row.
pub const MISMATCH: &str = "The container in Proxmox VE is another one";

/// Where the VMID is now, with its config once no creation hides it; `None` only when it is proved gone.
pub(super) async fn locate(
    job: &Running,
    pve: &Pve,
    node: &Node,
    vmid: u32,
) -> Result<Option<(String, LxcConfig)>, Stop> {
    let resources = job.ask(|| pve.resources("vm")).await?;
    let listed = resources
        .iter()
        .find(|r| r.vmid == Some(vmid))
        .and_then(|r| r.node.clone());
    let on = listed.clone().unwrap_or_else(|| node.name.clone());
    let deadline = tokio::time::Instant::now() + job.limits().create;
    loop {
        match job.ask(|| pve.lxc_config(&on, vmid)).await {
            // While it is locked for its creation the config hides the description.
            Ok(config) if config.lock.as_deref() == Some("create") => {
                if tokio::time::Instant::now() > deadline {
                    return Err(Stop::Failed(format!(
                        "CT {vmid} stays locked by its creation."
                    )));
                }
                job.pause(Duration::from_millis(500)).await?;
            }
            Ok(config) => return Ok(Some((on, config))),
            Err(Asked::Proxmox(error)) if error.is_does_not_exist() && listed.is_none() => {
                return if job.ask(|| pve.sees_all()).await? {
                    Ok(None)
                } else {
                    Err(Stop::Failed("Whether the container is gone cannot be proved: the node's token needs VM.Audit on /vms.".to_owned()))
                };
            }
            Err(Asked::Proxmox(error)) => return Err(Stop::Failed(error.to_string())),
            Err(Asked::Stop(stop)) => return Err(stop),
        }
    }
}

/// Whether what stands under the VMID is this row's container; else what it is.
pub(crate) fn identity(
    core: &Core,
    container: &Container,
    config: &LxcConfig,
) -> Result<(), String> {
    let vmid = container.container_id.unwrap_or_default();
    if container.marker {
        let marker = container.marker_line(&core.installation);
        if has_marker(config, &marker) {
            return Ok(());
        }
        return Err(format!(
            "{MISMATCH}: CT {vmid} does not carry the marker `{marker}`."
        ));
    }
    let hostname = config.hostname.as_deref().unwrap_or_default();
    let mac = config.mac().unwrap_or_default();
    let same_mac = container
        .mac_address
        .as_deref()
        .is_some_and(|ours| ours.eq_ignore_ascii_case(mac));
    if hostname.eq_ignore_ascii_case(&container.hostname) && same_mac {
        return Ok(());
    }
    Err(format!(
        "{MISMATCH}: CT {vmid} is `{hostname}` with MAC {mac}."
    ))
}

/// Whether a config's description carries the marker as a line of its own.
pub(super) fn has_marker(config: &LxcConfig, marker: &str) -> bool {
    config
        .description
        .as_deref()
        .unwrap_or_default()
        .lines()
        .any(|line| line.trim() == marker)
}
