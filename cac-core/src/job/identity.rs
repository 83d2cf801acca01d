//! Whether what stands under a VMID is the container of a row, and where it is now.

use std::fmt;
use std::time::Duration;

use super::running::Asked;
use super::{Running, Stop};
use crate::Core;
use crate::container::{self, Container};
use crate::node::{Node, cluster};
use crate::pve::{LxcConfig, Pve};

/// How a reason begins when the container in Proxmox VE is not the one of the row.
pub const MISMATCH: &str = "The container in Proxmox VE is another one";
/// How a reason begins when another row names the same VMID of the same cluster.
pub const DUPLICATE: &str = "Another container here has the same VMID";

/// What stands under a VMID is not the row's container. Its text is fit for the row's owner; what it is instead is for admins
/// ([`Mismatch::detail`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    vmid: u32,
    detail: String,
    proved: bool,
}

impl Mismatch {
    /// Name and MAC address of what stands there; for admins only, since it may be anybody's.
    pub(crate) fn detail(&self) -> String {
        format!("{MISMATCH}: {}", self.detail)
    }

    /// Whether it is certain that this is another container. A row whose MAC address is not known, or a container that was only renamed,
    /// proves nothing: it is not acted on, and stays published.
    pub(crate) fn is_proved(&self) -> bool {
        self.proved
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{MISMATCH}: CT {} does not have this container's ownership marker, or its name and MAC address. \
             Ask an admin, who can see what it is.",
            self.vmid
        )
    }
}

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
) -> Result<(), Mismatch> {
    let vmid = container.container_id.unwrap_or_default();
    let hostname = config.hostname.as_deref().unwrap_or_default();
    let mac = config.mac();
    let own_mac = container
        .mac_address
        .as_deref()
        .filter(|mac| container::is_mac(mac));
    let same_name = hostname.eq_ignore_ascii_case(&container.hostname);
    let same_mac = own_mac
        .zip(mac)
        .is_some_and(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs));
    let what = format!(
        "CT {vmid} is `{hostname}` with MAC {}",
        mac.unwrap_or("none")
    );
    let detail = if container.marker {
        let marker = container.marker_line(&core.installation);
        if has_marker(config, &marker) {
            return Ok(());
        }
        format!("{what}, and does not carry the marker `{marker}`.")
    } else if same_name && same_mac {
        return Ok(());
    } else {
        format!("{what}.")
    };
    Err(Mismatch {
        vmid,
        detail,
        proved: own_mac.is_some() && !same_mac && (mac.is_some() || !same_name),
    })
}

/// Proves that a config is that of the row's container and stores the outcome; a job does nothing before.
pub(super) async fn prove(
    job: &Running,
    container: &Container,
    config: &LxcConfig,
    advice: &str,
) -> Result<(), Stop> {
    let outcome = identity(&job.core, container, config);
    container::identity::store(&job.core, container, outcome.as_ref().map(|()| config)).await?;
    outcome.map_err(|mismatch| Stop::Failed(format!("{mismatch} Nothing was touched{advice}")))
}

/// Refuses what cannot be taken back while two rows claim one VMID of a cluster, since only an admin can say whose it is.
pub(super) async fn refuse_duplicates(job: &Running, container: &Container) -> Result<(), Stop> {
    if cluster::duplicates(&job.core, container).await?.is_empty() {
        return Ok(());
    }
    let vmid = container.container_id.unwrap_or_default();
    Err(Stop::Failed(format!(
        "{DUPLICATE} ({vmid}), so it is not certain whose it is. Nothing was touched; an admin lets go of the wrong one \
         (`DELETE /containers/{{id}}?forget=true`)."
    )))
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
