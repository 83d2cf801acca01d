//! What a clone takes over from its template and is to have otherwise: sizes, network, start with the node. Repeating any of it is no
//! harm, so nothing is stored but its end.

use super::super::guest::Guest;
use super::{Making, Placed};
use crate::job::Stop;
use crate::pve::{LxcChange, Net, Pve};

impl Making<'_> {
    /// Gives a clone what was asked for; a container that was created has it already.
    pub(super) async fn shape(
        &mut self,
        pve: &Pve,
        placed: &Placed,
        vmid: u32,
    ) -> Result<(), Stop> {
        if self.at.shaped || placed.source().is_none() {
            return Ok(());
        }
        self.job.go_on()?;
        let (job, node) = (self.job, placed.node_name.as_str());
        let config = job.ask(|| pve.lxc_config(node, vmid)).await?;
        let net = config.net0.unwrap_or_default();
        let change = LxcChange {
            cores: self.container.cores,
            memory_mib: self.container.memory,
            swap_mib: Some(0),
            onboot: Some(true),
            // An address of the template's would be there twice.
            net0: Some(Net {
                name: Some("eth0".to_owned()),
                bridge: Some(placed.bridge.clone()),
                hwaddr: net.hwaddr,
                ip: Some("dhcp".to_owned()),
                rest: Vec::new(),
            }),
            ..LxcChange::default()
        };
        job.ask(|| pve.lxc_config_set(node, vmid, &change)).await?;
        let guest = Guest {
            job,
            pve,
            node,
            vmid,
        };
        if let Some(gib) = self.container.disk {
            guest.grow(gib).await?;
        }
        self.at.shaped = true;
        self.save().await
    }
}
