//! What a clone takes over from its template and is to have otherwise: sizes, network, start with the node. Repeating any of it is no
//! harm, so nothing is stored but its end.

use std::time::Duration;

use super::super::guest::Guest;
use super::super::running::Asked;
use super::{Making, Placed};
use crate::job::Stop;
use crate::pve::{LxcChange, LxcConfig, Net, Pve};

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
        loop {
            let config = job.ask(|| pve.lxc_config(node, vmid)).await?;
            let change = self.change(placed, config);
            match job.ask(|| pve.lxc_config_set(node, vmid, &change)).await {
                Ok(()) => break,
                Err(Asked::Proxmox(error)) if error.is_modified_meanwhile() => {
                    self.job.pause(Duration::from_millis(200)).await?;
                }
                Err(other) => return Err(other.into()),
            }
        }
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

    /// What is to be otherwise than in the clone's configuration as it is.
    fn change(&self, placed: &Placed, config: LxcConfig) -> LxcChange {
        LxcChange {
            cores: self.container.cores,
            memory_mib: self.container.memory,
            swap_mib: Some(0),
            onboot: Some(true),
            // An address of the template's would be there twice.
            net0: Some(Net {
                name: Some("eth0".to_owned()),
                bridge: Some(placed.bridge.clone()),
                hwaddr: config.net0.and_then(|net| net.hwaddr),
                ip: Some("dhcp".to_owned()),
                rest: Vec::new(),
            }),
            digest: config.digest,
            ..LxcChange::default()
        }
    }
}
