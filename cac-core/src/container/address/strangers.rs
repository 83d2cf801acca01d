//! Addresses of other running containers that no row has: those of containers that no row knows, and of further network cards. A guest could
//! show one of them and have somebody else's machine published.
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
use crate::node;
use crate::pve::{Pve, Resource};
use crate::{Core, Result};

const FRESH: Duration = Duration::from_secs(60);
/// How long one of them may take.
const ANSWER: Duration = Duration::from_secs(2);
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

/// The VMID of another container in the row's cluster that shows the address on any network card.
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
    let look = async {
        let Ok(resources) = pve.resources("vm").await else {
            return None;
        };
        let strangers = resources.into_iter().filter(|one| {
            let runs = one.kind == "lxc" && one.status.as_deref() == Some("running");
            runs && one.vmid != row.container_id
        });
        let reads = strangers.map(|one| shows(core, (node.id, &pve), one, address).boxed());
        let reads: Vec<BoxFuture<'_, _>> = reads.collect();
        let mut read = stream::iter(reads).buffer_unordered(AT_ONCE);
        while let Some(vmid) = read.next().await {
            if vmid.is_some() {
                return vmid;
            }
        }
        None
    };
    Ok(tokio::time::timeout(super::LOOK, look)
        .await
        .unwrap_or_default())
}

/// The VMID of a stranger if it shows the address.
async fn shows(
    core: &Core,
    (node, pve): (i64, &Pve),
    stranger: Resource,
    address: Ipv4Addr,
) -> Option<u32> {
    let (vmid, on) = (stranger.vmid?, stranger.node?);
    let known = core.strangers.all().get(&(node, vmid)).cloned();
    // Nobody is refused for what was so a moment ago.
    if let Some(known) = known.filter(|known| known.at.elapsed() < FRESH)
        && !known.addresses.contains(&address)
    {
        return None;
    }
    // One that does not answer must not take the time of the others.
    let asked = tokio::time::timeout(ANSWER, pve.lxc_ipv4(&on, vmid)).await;
    let addresses = asked.ok()?.ok()?;
    let at = Instant::now();
    let mut all = core.strangers.all();
    all.retain(|_, shown| shown.at.elapsed() < FRESH);
    // One that boots shows its address in a moment.
    if !addresses.is_empty() {
        let addresses = addresses.clone();
        all.insert((node, vmid), Shown { at, addresses });
    }
    addresses.contains(&address).then_some(vmid)
}
