//! Testing a node: whether it answers, whose certificate it has, and what its token may do and may not.

use serde::Serialize;

use super::{Node, find};
use crate::actor::Actor;
use crate::pve::{Pve, Tls};
use crate::{Core, Error, Result, placement, user};

/// What a look at a node's API showed.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Proxmox VE's version; absent when it gave no good answer.
    pub version: Option<String>,
    /// SHA-256 of the certificate that answers there now, for pinning.
    pub fingerprint: Option<String>,
    /// Templates it can create containers from.
    pub templates: Vec<String>,
    /// What the token may do.
    pub can: Vec<String>,
    /// What will not work, each with what to do.
    pub problems: Vec<String>,
}

/// The role that gives a token what it needs, as `pveum` makes it.
const ROLE: &str = "CAC";

/// Where privileges are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Containers,
    Storage,
    Bridge,
    Node,
    /// Of the login node only.
    Groups,
}

/// Something that the token is used for.
struct Need {
    what: &'static str,
    on: On,
    privileges: &'static [&'static str],
}

/// By the checks of Proxmox VE's API ("Required permissions" of each call in its API viewer).
const NEEDS: [Need; 8] = [
    Need {
        what: "create, change, start, stop and delete containers",
        on: On::Containers,
        privileges: &[
            "VM.Allocate",
            "VM.Audit",
            "VM.PowerMgmt",
            "VM.Config.Disk",
            "VM.Config.Memory",
            "VM.Config.CPU",
            "VM.Config.Network",
            "VM.Config.Options",
        ],
    },
    Need {
        what: "clone template containers",
        on: On::Containers,
        privileges: &["VM.Clone"],
    },
    Need {
        what: "take snapshots and roll back to them",
        on: On::Containers,
        privileges: &["VM.Snapshot", "VM.Snapshot.Rollback"],
    },
    // Whoever has no Permissions.Modify hands out only what it has itself; these are the rest of PVEVMUser.
    Need {
        what: "give owners the role PVEVMUser, for Proxmox VE's own console",
        on: On::Containers,
        privileges: &[
            "VM.Backup",
            "VM.Config.CDROM",
            "VM.Config.Cloudinit",
            "VM.Console",
        ],
    },
    Need {
        what: "see templates and put disks on storage",
        on: On::Storage,
        privileges: &["Datastore.AllocateSpace", "Datastore.Audit"],
    },
    Need {
        what: "connect containers to the bridge",
        on: On::Bridge,
        privileges: &["SDN.Use"],
    },
    Need {
        what: "weigh how much memory is free",
        on: On::Node,
        privileges: &["Sys.Audit"],
    },
    Need {
        what: "look up who is an admin",
        on: On::Groups,
        privileges: &["Sys.Audit"],
    },
];

impl On {
    fn path(self, node: &Node) -> String {
        let bridge = node.bridge.as_deref().unwrap_or("vmbr0");
        match (self, &node.storage) {
            (Self::Containers, _) => "/vms".to_owned(),
            (Self::Storage, Some(storage)) => format!("/storage/{storage}"),
            (Self::Storage, None) => "/storage".to_owned(),
            (Self::Bridge, _) => format!("/sdn/zones/localnetwork/{bridge}"),
            (Self::Node, _) => format!("/nodes/{}", node.name),
            (Self::Groups, _) => "/access/groups".to_owned(),
        }
    }
}

/// Asks the node what it can do, for admins.
pub async fn test(core: &Core, actor: &Actor, id: i64) -> Result<Check> {
    actor.must_be_admin()?;
    let node = find(core, id).await?;
    let target = node.target()?;
    let shown = Pve::fingerprint_of(&target.api_url).await.ok();
    let mut check = Check {
        fingerprint: shown.map(|print| print.to_string()),
        ..Check::default()
    };
    if let (Some(shown), Tls::Fingerprint(pinned)) = (shown, &target.tls)
        && shown != *pinned
    {
        check.problems.push(format!(
            "The certificate has changed: {pinned} is pinned, {shown} answers now. Nothing is sent there. If the node has a new certificate \
             (`pvenode cert info` on it shows the same), pin that one: tlsFingerprint."
        ));
        return Ok(check);
    }
    let pve = core.pve(&node)?;
    match pve.version().await {
        Ok(version) => check.version = Some(version.version),
        Err(error) => {
            check.problems.push(match (&target.tls, shown) {
                (Tls::SystemRoots, Some(shown)) => format!(
                    "{error} If its certificate is the node's own, compare it with `pvenode cert info` there and pin it: tlsFingerprint {shown}."
                ),
                _ => error.to_string(),
            });
            return Ok(check);
        }
    }
    let told = |error: crate::pve::Error| Error::Upstream(format!("Node {}: {error}", node.name));
    let names: Vec<String> = pve
        .nodes()
        .await
        .map_err(told)?
        .into_iter()
        .map(|info| info.node)
        .collect();
    if !names.contains(&node.name) {
        check.problems.push(format!(
            "Proxmox VE there knows no node `{}`, only {}; change the name.",
            node.name,
            names.join(", ")
        ));
    }
    match placement::templates(&pve, &node).await {
        Ok(found) => {
            check.templates = found.iter().map(placement::Template::id).collect();
            if check.templates.is_empty() {
                check.problems.push("No storage has a container template that the token may see; download one (`pveam download local …`), and give the token Datastore.Audit.".to_owned());
            }
        }
        Err(error) => {
            let text = format!("The templates cannot be listed: {error}");
            check.problems.push(text);
        }
    }
    let login = user::looks_up_by(core, &node).await?;
    rights(&pve, &node, login, &mut check).await.map_err(told)?;
    Ok(check)
}

/// What the token may do, and what it lacks with the exact commands that give it.
async fn rights(
    pve: &Pve,
    node: &Node,
    login: bool,
    check: &mut Check,
) -> Result<(), crate::pve::Error> {
    let token = node.token_id.as_deref().unwrap_or_default();
    let user = token.split('!').next().unwrap_or_default();
    let needs = || NEEDS.iter().filter(|need| login || need.on != On::Groups);
    let mut problems = Vec::new();
    for on in [
        On::Containers,
        On::Storage,
        On::Bridge,
        On::Node,
        On::Groups,
    ] {
        let path = on.path(node);
        let mut lacking: Vec<&str> = Vec::new();
        let mut has = None;
        for need in needs().filter(|need| need.on == on) {
            if has.is_none() {
                has = Some(pve.permissions(Some(&path)).await?);
            }
            let may = |right: &&str| has.as_ref().is_some_and(|has| has.has(&path, right));
            if need.privileges.iter().all(&may) {
                check.can.push(need.what.to_owned());
            } else {
                lacking.extend(need.privileges.iter().filter(|right| !may(right)));
            }
        }
        if !lacking.is_empty() {
            problems.push(format!(
                "The token has no {} on {path}; run `pveum acl modify {path} --users '{user}' --tokens '{token}' --roles {ROLE}`.",
                lacking.join(", ")
            ));
        }
    }
    if !problems.is_empty() {
        let mut all: Vec<&str> = NEEDS
            .iter()
            .flat_map(|need| need.privileges)
            .copied()
            .collect();
        all.sort_unstable();
        all.dedup();
        let role = format!(
            "Make the role that the next commands give, once: `pveum role add {ROLE} --privs '{}'`.",
            all.join(" ")
        );
        problems.insert(0, role);
    }
    check.problems.append(&mut problems);
    Ok(())
}
