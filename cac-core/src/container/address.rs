//! Which IPv4 address a container has, and which of two that show the same one gets it. What an address may be at all is
//! `infrastructure.rs`.
//!
//! A container's address is the one that Proxmox VE shows on `net0` ([`LxcConfig::net0_ipv4`]), inside `CONTAINER_NETWORKS`. What
//! `/lxc/N/interfaces` shows is what the guest says, and root in the guest can say anything. So an address is never taken from a running
//! container that shows it, too: the newcomer goes without, the row keeps what was refused, and both owners and the admins are told.
//!
//! `address/hold.rs` keeps it for a container that shows none for a moment; `address/strangers.rs` looks whether it is one of a container
//! that no row knows.
//!
//! Storing is done in two steps, since no Proxmox call may run in a transaction: [`claim`] looks at the present holder, [`store`] compares
//! under the lock `names` that the holder is still the one that was looked at.

mod hold;
mod strangers;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use chrono::{DateTime, Utc};

use hold::{end_hold, held_for};
pub(crate) use hold::{end_own_hold, hold};
pub(crate) use strangers::Strangers;

use super::{Container, find_any};
use crate::audit::{self, Origin};
use crate::db::{Row, Tx};
use crate::infrastructure::{self, Denial};
use crate::job::{address_mail, identity};
use crate::node::{self, Node};
use crate::pve::{Interface, LxcConfig, Pve};
use crate::{Core, Result, args, mail};

/// How long a look at the present holder may take. One that takes longer leaves the address where it is.
const LOOK: Duration = Duration::from_secs(5);

/// Why a container does not get the address that Proxmox VE shows on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another container has it and shows it, or nobody can say that it no longer does.
    InUse,
    /// It belongs to the installation itself, or is excepted.
    Infrastructure,
}

impl Refusal {
    /// As `Containers.addressRefusal` has it.
    fn name(self) -> &'static str {
        match self {
            Self::InUse => "in use",
            Self::Infrastructure => "infrastructure",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "infrastructure" => Self::Infrastructure,
            _ => Self::InUse,
        }
    }
}

/// What is wrong with a container's address. The text is fit for its owner: whose container the other one is, it does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressProblem {
    /// It shows this address and does not get it.
    Refused { address: String, refusal: Refusal },
    /// Another container shows this container's address, too.
    Contested { address: String },
}

impl AddressProblem {
    /// From a row of `Containers` with a column `contested`: how many other rows were refused this one's address.
    pub(super) fn from_row(row: &Row) -> Result<Option<Self>> {
        if let Some(address) = row.get::<Option<String>>("refusedAddress")? {
            let refusal: Option<String> = row.get("addressRefusal")?;
            let refusal = Refusal::parse(refusal.as_deref().unwrap_or_default());
            return Ok(Some(Self::Refused { address, refusal }));
        }
        let address: Option<String> = row.get("ipv4Address")?;
        let contested = row.get::<i64>("contested")? > 0;
        Ok(address
            .filter(|_| contested)
            .map(|address| Self::Contested { address }))
    }
}

impl std::fmt::Display for AddressProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused {
                address,
                refusal: Refusal::InUse,
            } => write!(
                f,
                "Proxmox VE shows {address} on this container, but another running container has that address. Nothing is passed on to this \
                 one until one of the two gets another address. Change its network, restart it, then check the address again."
            ),
            Self::Refused {
                address,
                refusal: Refusal::Infrastructure,
            } => write!(
                f,
                "Proxmox VE shows {address} on this container, but that address belongs to this installation itself. Nothing is passed on to \
                 it. Give the container another address, then check the address again."
            ),
            Self::Contested { address } => write!(
                f,
                "Another container shows the address {address}, too. This container keeps it, but connections may reach either of the two. \
                 The admins know; the other container must get another address."
            ),
        }
    }
}

/// The address that a running container has: of those on `net0` inside `CONTAINER_NETWORKS`, the one that is stored already if it is still
/// there, else the first. `None` while `net0` has none yet.
pub(crate) fn of(
    core: &Core,
    config: &LxcConfig,
    interfaces: &[Interface],
    stored: Option<&str>,
) -> Option<Ipv4Addr> {
    let networks = &core.config.containers.networks;
    let mut all = config.net0_ipv4(interfaces);
    all.retain(|ip| infrastructure::is_listed(networks, IpAddr::V4(*ip)));
    let stored = stored.and_then(|text| text.parse().ok());
    let kept = all.iter().find(|ip| Some(**ip) == stored);
    kept.or(all.first()).copied()
}

/// An address that Proxmox VE shows on a container, and what was learnt about it.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) address: Ipv4Addr,
    verdict: Verdict,
    /// Somebody who may register containers says so, too: it is not a guest's word alone.
    vouched: bool,
}

impl Claim {
    /// Of an address that no row has, on somebody's word.
    pub(super) fn unconfirmed(address: Ipv4Addr) -> Self {
        Self::new(address, Verdict::Free)
    }

    fn new(address: Ipv4Addr, verdict: Verdict) -> Self {
        Self {
            address,
            verdict,
            vouched: false,
        }
    }

    /// A container that is silent gives the address up at once.
    pub(super) fn vouched(self) -> Self {
        Self {
            vouched: true,
            ..self
        }
    }

    /// Whether it failed when it was made.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::Strange { .. } | Verdict::Shown | Verdict::Kept | Verdict::Infrastructure(_)
        )
    }
}

#[derive(Debug, Clone)]
enum Verdict {
    /// No row had it.
    Free,
    /// This row has it, and has another one or is gone.
    Lost(Holder),
    /// This row has it, and shows no address at all.
    Silent(Holder),
    /// Another running container shows it, whose row has another one, or that no row knows.
    Strange {
        vmid: u32,
    },
    /// This row has it and shows it.
    Shown,
    /// This row has it and may show it.
    Kept,
    Infrastructure(Denial),
}

/// A row that has an address, as it was when Proxmox VE was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    id: i64,
    updated_at: DateTime<Utc>,
}

async fn holder(tx: &mut Tx, address: &str, except: i64) -> Result<Option<Holder>> {
    let sql = r#"SELECT "id", "updatedAt" FROM "Containers" WHERE "ipv4Address" = ? AND "id" <> ?"#;
    let Some(row) = tx.opt(sql, args![address, except]).await? else {
        return Ok(None);
    };
    Ok(Some(Holder {
        id: row.get("id")?,
        updated_at: row.get("updatedAt")?,
    }))
}

/// Looks at whoever has the address that the guest of this row shows. The caller has proved that what it looked at is this container.
pub(crate) async fn claim(core: &Core, container: i64, address: Ipv4Addr) -> Result<Claim> {
    let claim = claim_on_word(core, container, address).await?;
    if claim.is_refused() {
        return Ok(claim);
    }
    let Some(row) = find_any(core, container).await? else {
        return Ok(claim);
    };
    let its_own = row.ipv4_address.as_deref() == Some(address.to_string().as_str());
    if its_own || hold::is_held_by(core, &address.to_string(), row.id).await? {
        return Ok(claim);
    }
    Ok(match strangers::with_address(core, &row, address).await? {
        Some(vmid) => Claim::new(address, Verdict::Strange { vmid }),
        None => claim,
    })
}

/// [`claim`] where somebody who may register or import containers says so, too: no other container that cac does not know can have it. Row
/// id 0: there is no row yet.
pub(super) async fn claim_on_word(core: &Core, container: i64, address: Ipv4Addr) -> Result<Claim> {
    let known = infrastructure::load(core).await?;
    if let Err(denial) = known.permit(IpAddr::V4(address), None) {
        return Ok(Claim::new(address, Verdict::Infrastructure(denial)));
    }
    let found = {
        let mut tx = core.db.read().await?;
        holder(&mut tx, &address.to_string(), container).await?
    };
    let Some(holder) = found else {
        return Ok(Claim::new(address, Verdict::Free));
    };
    let verdict = match find_any(core, holder.id).await? {
        None => Verdict::Free,
        Some(row) => {
            let look = tokio::time::timeout(LOOK, shows(core, &row, address)).await;
            match look.unwrap_or(Ok(Shows::Unknown))? {
                Shows::Another => Verdict::Lost(holder),
                Shows::Nothing => Verdict::Silent(holder),
                Shows::Yes => Verdict::Shown,
                Shows::Unknown => Verdict::Kept,
            }
        }
    };
    Ok(Claim::new(address, verdict))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Yes,
    /// It shows another address, or is not this row's container any more.
    Another,
    /// It does not run, or has no address yet.
    Nothing,
    /// Proxmox VE cannot be asked, or cannot prove anything.
    Unknown,
}

/// Whether Proxmox VE still shows the address on this row's container. A container that does not run, is proved gone, or is proved to be
/// another one shows nothing.
async fn shows(core: &Core, row: &Container, address: Ipv4Addr) -> Result<Shows> {
    let Some(vmid) = row.container_id else {
        return Ok(Shows::Unknown);
    };
    // A row by hand may name no node; then any one that knows the VMID can tell.
    let mut nodes: Vec<Node> = node::all(core).await?;
    if let Some(id) = row.node_id {
        nodes.retain(|node| node.id == id);
    }
    let mut gone = !nodes.is_empty();
    for node in nodes {
        let Ok(pve) = core.pve(&node) else {
            gone = false;
            continue;
        };
        match shows_on(core, row, &pve, (&node.name, vmid), address).await {
            Ok(Some(shows)) => return Ok(shows),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, container = row.id, "whether it still shows its address is not known");
                gone = false;
            }
        }
    }
    Ok(if gone { Shows::Another } else { Shows::Unknown })
}

/// `None` where the cluster of this node proves that it has no such VMID.
async fn shows_on(
    core: &Core,
    row: &Container,
    pve: &Pve,
    (name, vmid): (&str, u32),
    address: Ipv4Addr,
) -> Result<Option<Shows>, crate::pve::Error> {
    let resources = pve.resources("vm").await?;
    let listed = resources.into_iter().find(|one| one.vmid == Some(vmid));
    let listed = listed.and_then(|one| one.node);
    let on = listed.as_deref().unwrap_or(name);
    let config = match pve.lxc_config(on, vmid).await {
        Ok(config) => config,
        Err(error) if error.is_does_not_exist() && listed.is_none() => {
            return Ok(if pve.sees_all().await? {
                None
            } else {
                Some(Shows::Unknown)
            });
        }
        Err(error) => return Err(error),
    };
    if identity(core, row, &config).is_err() {
        return Ok(Some(Shows::Another));
    }
    // A static one is the container's whether it runs or not.
    if config.net0_ipv4(&[]).contains(&address) {
        return Ok(Some(Shows::Yes));
    }
    let interfaces = pve.lxc_interfaces(on, vmid).await?;
    let shown = interfaces.map_or_else(Vec::new, |all| config.net0_ipv4(&all));
    Ok(Some(match shown.contains(&address) {
        true => Shows::Yes,
        false if shown.is_empty() => Shows::Nothing,
        false => Shows::Another,
    }))
}

/// What [`store`] did.
#[derive(Debug)]
pub(crate) struct Stored {
    /// What the container's row has now.
    pub(crate) address: Option<String>,
    /// That it was refused, and this is news.
    news: Option<News>,
}

#[derive(Debug)]
struct News {
    container: i64,
    address: String,
    refusal: Refusal,
    holder: Option<i64>,
}

/// Gives the container with this row id the claimed address, or refuses it; without a claim it has none. The caller holds the lock `names`,
/// and calls [`Stored::announce`] after the commit.
pub(crate) async fn store(
    tx: &mut Tx,
    core: &Core,
    id: i64,
    claim: Option<&Claim>,
) -> Result<Stored> {
    let (address, refusal, holder) = match claim {
        None => (None, None, None),
        Some(claim) => {
            let text = claim.address.to_string();
            let (refusal, holder) = settle(tx, core, id, claim).await?;
            (Some(text), refusal, holder)
        }
    };
    let sql = r#"SELECT "refusedAddress" FROM "Containers" WHERE "id" = ?"#;
    let before = tx.opt(sql, args![id]).await?;
    let before: Option<String> = before
        .map(|row| row.get("refusedAddress"))
        .transpose()?
        .flatten();
    let refused = address.clone().filter(|_| refusal.is_some());
    let given = address.filter(|_| refusal.is_none());
    let sql = r#"UPDATE "Containers" SET "ipv4Address" = ?, "refusedAddress" = ?, "addressRefusal" = ?, "updatedAt" = ? WHERE "id" = ?"#;
    let word = refusal.map(Refusal::name);
    tx.exec(
        sql,
        args![
            given.as_deref(),
            refused.as_deref(),
            word,
            core.clock.now(),
            id
        ],
    )
    .await?;
    let news = match (refused, refusal) {
        (Some(address), Some(refusal))
            if before.as_ref() != Some(&address) && !was_told(tx, core, id, holder).await? =>
        {
            let containers = address_mail::Containers {
                newcomer: id,
                holder,
            };
            if mail::on(core) {
                address_mail::add(tx, core, &address, containers).await?;
            }
            let news = News {
                container: id,
                address,
                refusal,
                holder,
            };
            news.write(tx, core).await?;
            Some(news)
        }
        _ => None,
    };
    Ok(Stored {
        address: given,
        news,
    })
}

/// Whether both owners were told of a refusal within the hour: a guest may show another address each second.
async fn was_told(tx: &mut Tx, core: &Core, id: i64, holder: Option<i64>) -> Result<bool> {
    let sql = r#"SELECT "id" FROM "AuditEntries" WHERE "createdAt" > ? AND "action" = 'address_refused' AND "target" = ?
                 AND "detail" LIKE ? LIMIT 1"#;
    let hour = core.clock.now() - chrono::Duration::hours(1);
    let holder = holder.map(|holder| (holder, "Another container shows %"));
    for (id, beginning) in std::iter::once((id, "Proxmox VE shows %")).chain(holder) {
        let target = format!("/containers/{id}");
        if tx.opt(sql, args![hour, target, beginning]).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

impl News {
    /// Writes it into the history of both containers.
    async fn write(&self, tx: &mut Tx, core: &Core) -> Result<()> {
        let address = &self.address;
        let refused = AddressProblem::Refused {
            address: address.clone(),
            refusal: self.refusal,
        };
        let contested = AddressProblem::Contested {
            address: address.clone(),
        };
        let holder = self.holder.map(|holder| (holder, contested));
        for (id, problem) in std::iter::once((self.container, refused)).chain(holder) {
            audit::Change::new("address_refused", format!("/containers/{id}"))
                .status(409)
                .detail(problem.to_string())
                .write_for(tx, core, None, &Origin::default())
                .await?;
        }
        Ok(())
    }
}

/// Takes the address from a row that lost it; else why the claim fails, and who has the address.
async fn settle(
    tx: &mut Tx,
    core: &Core,
    id: i64,
    claim: &Claim,
) -> Result<(Option<Refusal>, Option<i64>)> {
    if let Verdict::Infrastructure(denial) = &claim.verdict {
        tracing::warn!(
            container = id,
            ?denial,
            "a container shows an address that it cannot have"
        );
        return Ok((Some(Refusal::Infrastructure), None));
    }
    if let Verdict::Strange { vmid } = claim.verdict {
        tracing::warn!(
            container = id,
            vmid,
            "a container shows an address that another one shows on a network card"
        );
        let sql = r#"SELECT o."id" FROM "Containers" c JOIN "Nodes" n ON n."id" = c."nodeId" JOIN "Containers" o ON o."containerId" = ?
                     JOIN "Nodes" m ON m."id" = o."nodeId"
                     WHERE c."id" = ? AND o."id" <> c."id" AND (m."id" = n."id" OR m."cluster" = n."cluster") ORDER BY o."id" LIMIT 1"#;
        let other = tx.opt(sql, args![vmid, id]).await?;
        let other = other.map(|row| row.get("id")).transpose()?;
        return Ok((Some(Refusal::InUse), other));
    }
    let text = claim.address.to_string();
    let now = holder(tx, &text, id).await?;
    let held = held_for(tx, &text, id).await?;
    match (now, &claim.verdict) {
        (None, _) => match held.filter(|(_, until)| !claim.vouched && core.clock.now() < *until) {
            Some((other, _)) => Ok((Some(Refusal::InUse), Some(other))),
            None => {
                end_hold(tx, &text).await?;
                Ok((None, None))
            }
        },
        (Some(now), Verdict::Silent(then)) if now == *then => {
            let until = match held {
                Some((other, until)) if other == now.id => until,
                _ => hold(tx, core, &text, now.id).await?,
            };
            if !claim.vouched && core.clock.now() < until {
                return Ok((Some(Refusal::InUse), Some(now.id)));
            }
            take_from(tx, core, now.id, &text).await?;
            Ok((None, None))
        }
        (Some(now), Verdict::Lost(then)) if now == *then => {
            take_from(tx, core, now.id, &text).await?;
            Ok((None, None))
        }
        (Some(now), Verdict::Shown) => {
            // Its next silence begins anew.
            end_hold(tx, &text).await?;
            Ok((Some(Refusal::InUse), Some(now.id)))
        }
        // Somebody else got it since Proxmox VE was asked, or it changed. The next look decides with what is true then.
        (Some(now), _) => Ok((Some(Refusal::InUse), Some(now.id))),
    }
}

async fn take_from(tx: &mut Tx, core: &Core, id: i64, address: &str) -> Result<()> {
    end_hold(tx, address).await?;
    let sql = r#"UPDATE "Containers" SET "ipv4Address" = NULL, "updatedAt" = ? WHERE "id" = ?"#;
    tx.exec(sql, args![core.clock.now(), id]).await?;
    Ok(())
}

impl Stored {
    /// Wakes whoever has to know, and logs a refusal that is news. Mail and history are part of the transaction.
    pub(crate) fn announce(&self, core: &Core) {
        core.wake.routes();
        let Some(news) = &self.news else {
            return;
        };
        core.wake.jobs();
        let (container, holder, address) = (news.container, news.holder, &news.address);
        tracing::warn!(container, holder, %address, refusal = news.refusal.name(), "address refused");
    }
}
