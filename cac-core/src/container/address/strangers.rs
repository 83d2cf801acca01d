//! Addresses of running containers that no row knows: a guest could show one of them and have somebody else's machine published.
//!
//! Asked only when a guest shows an address that no row has, which is at its creation and when it gets another one. What was read is
//! remembered for [`FRESH`], so that many creations beside many strangers cost one round. A stranger that does not answer within
//! [`super::LOOK`] is not waited for: whether it shows the address is not known then, and the newcomer gets it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use crate::container::Container;
use crate::node::{self, cluster};
use crate::pve::{Pve, Resource};
use crate::{Core, Result};

const FRESH: Duration = Duration::from_secs(300);
/// Calls to Proxmox VE at once.
const AT_ONCE: usize = 8;

/// What a process remembers of strangers, by the row id of the node that was asked and VMID.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<HashMap<(i64, u32), Shown>>);

#[derive(Debug, Clone)]
struct Shown {
    at: Instant,
    addresses: Vec<Ipv4Addr>,
}

impl Strangers {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<(i64, u32), Shown>> {
        self.0.lock().expect("nothing panics while it holds it")
    }
}

/// The VMID of a stranger in the row's cluster that shows the address.
pub(super) async fn with_address(
    core: &Core,
    row: &Container,
    address: Ipv4Addr,
) -> Result<Option<u32>> {
    let Some(node) = row.node_id else {
        return Ok(None);
    };
    let Ok(node) = node::find(core, node).await else {
        return Ok(None);
    };
    let Ok(pve) = core.pve(&node) else {
        return Ok(None);
    };
    let ours = cluster::vmids(core, node.id).await?;
    let look = async {
        let Ok(resources) = pve.resources("vm").await else {
            return None;
        };
        let strangers = resources.into_iter().filter(|one| {
            let runs = one.kind == "lxc" && one.status.as_deref() == Some("running");
            runs && one.vmid.is_some_and(|vmid| !ours.contains(&vmid))
        });
        let reads = strangers.map(|one| read(core, node.id, &pve, one).boxed());
        let reads: Vec<BoxFuture<'_, _>> = reads.collect();
        let mut read = stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some(one) = read.next().await {
            if let Some((vmid, addresses)) = one
                && addresses.contains(&address)
            {
                return Some(vmid);
            }
        }
        None
    };
    Ok(tokio::time::timeout(super::LOOK, look)
        .await
        .unwrap_or_default())
}

async fn read(
    core: &Core,
    node: i64,
    pve: &Pve,
    stranger: Resource,
) -> Option<(u32, Vec<Ipv4Addr>)> {
    let (vmid, on) = (stranger.vmid?, stranger.node?);
    let known = core.strangers.all().get(&(node, vmid)).cloned();
    if let Some(known) = known.filter(|known| known.at.elapsed() < FRESH) {
        return Some((vmid, known.addresses));
    }
    let config = pve.lxc_config(&on, vmid).await.ok()?;
    let interfaces = pve.lxc_interfaces(&on, vmid).await.ok()?;
    let addresses = config.net0_ipv4(&interfaces.unwrap_or_default());
    let at = Instant::now();
    let mut all = core.strangers.all();
    all.retain(|_, shown| shown.at.elapsed() < FRESH);
    // One that boots shows its address in a moment.
    if !addresses.is_empty() {
        let addresses = addresses.clone();
        all.insert((node, vmid), Shown { at, addresses });
    }
    Some((vmid, addresses))
}
