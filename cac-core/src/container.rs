//! Containers: rows, names, who may see them. Asking for one is `container/create.rs`, registering one that exists
//! `container/register.rs`, taking over what a node has `container/import.rs`, and what the original's port map has
//! `container/port_map.rs`; changing one `container/change.rs` and `container/update.rs`, ending one
//! `container/delete.rs`; what they do now
//! `container/live.rs`; whether what stands under a VMID is the row's container `container/identity.rs`, and the rows that wait for that
//! look `container/verify.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::actor::Actor;
use crate::db::Row;
use crate::job::{container_change, container_delete};
use crate::service::{self, Service};
use crate::{Core, Error, Result, args, db};

/// The columns that [`Container::from_row`] reads.
macro_rules! columns {
    ($after:literal) => {
        concat!(
            r#"SELECT c.*, (SELECT COUNT(*) FROM "Containers" o WHERE o."refusedAddress" = c."ipv4Address" AND o."id" <> c."id") AS "contested""#,
            $after
        )
    };
}

pub(crate) mod address;
mod change;
pub(crate) mod check;
mod create;
mod delete;
pub(crate) mod identity;
mod import;
mod live;
mod port_map;
mod register;
mod release;
mod size;
mod suggest;
mod update;
mod verify;

pub(crate) use address::Strangers;
pub use address::{AddressProblem, Refusal};
pub use change::{Changed, TIMEFRAMES, change, snapshots, usage};
pub use create::{Created, NewContainer, Preflight, create, preflight};
pub use delete::{Deletion, delete, forget, keep};
pub use import::{Importable, Wanted, import, importable};
pub use live::{Live, live, live_status};
pub use port_map::{Outcome, Taken, take};
pub(crate) use register::is_mac;
pub use register::{Registration, register};
pub use release::settle;
pub(crate) use release::{
    Admission, admit_deletion, end_deletion, hand_over, keep_settling, release, undo,
};
pub use size::{Size, Sizes};
pub use suggest::suggest;
pub use update::{ContainerChange, update};
pub use verify::{keep_verifying, verify};

/// A row of `Containers` with its services.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub id: i64,
    /// One DNS label; the public name is this under `CAC_DOMAIN`.
    pub hostname: String,
    /// The owner.
    pub username: String,
    pub os_release: Option<String>,
    /// The VMID; absent until one is reserved.
    pub container_id: Option<u32>,
    /// Absent until it is made.
    pub mac_address: Option<String>,
    /// Absent until it runs.
    pub ipv4_address: Option<String>,
    /// What is wrong with its address, for its owner.
    #[serde(skip)]
    pub address_problem: Option<AddressProblem>,
    /// The label of the node that was asked for; `N` for none.
    pub ai_container: String,
    pub node_id: Option<i64>,
    /// Absent when nothing works on it; else `creating`, `changing`, `undoing` or `deleting`.
    pub state: Option<String>,
    /// The job that works on it.
    pub job_id: Option<i64>,
    /// Its deletion was requested, and has neither happened nor been withdrawn.
    pub deletion_requested_at: Option<DateTime<Utc>>,
    pub deletion_requested_by: Option<String>,
    /// The job that deletes it, or waits until no other job works on it; absent once that has failed.
    pub deletion_job_id: Option<i64>,
    /// Why the last attempt to delete it failed.
    pub deletion_error: Option<String>,
    /// What Proxmox VE did not apply of the last change.
    pub change_error: Option<String>,
    /// Whether it carries our ownership marker in Proxmox VE.
    #[serde(skip)]
    pub marker: bool,
    /// The template's volume id.
    pub template: Option<String>,
    pub cores: Option<u32>,
    /// MiB
    pub memory: Option<u32>,
    /// GiB
    pub disk: Option<u32>,
    /// Whether it may not be deleted.
    pub protected: bool,
    /// Since when it is registered without a look in Proxmox VE; absent once its identity was proved.
    pub unverified_since: Option<DateTime<Utc>>,
    /// When it was proved that another container stands under its VMID; absent while that is not so.
    pub identity_mismatch_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    pub ssh_public_key: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub services: Vec<Service>,
}

impl Container {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            hostname: row.get("hostname")?,
            username: row.get("username")?,
            os_release: row.get("osRelease")?,
            container_id: row.get("containerId")?,
            mac_address: row.get("macAddress")?,
            ipv4_address: row.get("ipv4Address")?,
            address_problem: AddressProblem::from_row(row)?,
            ai_container: row.get("aiContainer")?,
            node_id: row.get("nodeId")?,
            state: row.get("state")?,
            job_id: row.get("jobId")?,
            deletion_requested_at: row.get("deletionRequestedAt")?,
            deletion_requested_by: row.get("deletionRequestedBy")?,
            deletion_job_id: row.get("deletionJobId")?,
            deletion_error: row.get("deletionError")?,
            change_error: row.get("changeError")?,
            marker: row.get::<Option<bool>>("marker")?.unwrap_or(false),
            template: row.get("template")?,
            cores: row.get("cores")?,
            memory: row.get("memory")?,
            disk: row.get("disk")?,
            protected: row.get("protected")?,
            unverified_since: row.get("unverifiedSince")?,
            identity_mismatch_at: row.get("identityMismatchAt")?,
            ssh_public_key: row.get("sshPublicKey")?,
            created_at: row.get("createdAt")?,
            updated_at: row.get("updatedAt")?,
            services: Vec::new(),
        })
    }

    /// The ownership marker that a container of this row carries in its description.
    #[must_use]
    pub fn marker_line(&self, installation: &str) -> String {
        marker_line(installation, self.id)
    }
}

/// `cac:<installation>:<row id>`
#[must_use]
pub fn marker_line(installation: &str, id: i64) -> String {
    format!("cac:{installation}:{id}")
}

/// Which containers a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Everyone's, for admins; an ordinary user always sees only their own.
    pub all: bool,
    /// One owner's, for admins.
    pub user: Option<String>,
    /// Only those in whose name, owner, system, address or public names this text stands, in any case.
    pub search: Option<String>,
    pub limit: u32,
    pub offset: u32,
}

/// The conditions of a [`Filter`].
macro_rules! matching {
    ($before:expr, $after:literal) => {
        concat!(
            $before,
            r#" FROM "Containers" c WHERE (? OR c."username" = ?)
                AND (? OR LOWER(c."hostname") LIKE ? ESCAPE '!' OR LOWER(c."username") LIKE ? ESCAPE '!' OR LOWER(c."osRelease") LIKE ? ESCAPE '!'
                     OR c."ipv4Address" LIKE ? ESCAPE '!'
                     OR EXISTS (SELECT 1 FROM "Services" s WHERE s."containerId" = c."id" AND LOWER(s."externalHostname") LIKE ? ESCAPE '!'))"#,
            $after
        )
    };
}

/// A page of containers with their services in order of their ids, and how many there are.
pub async fn list(core: &Core, actor: &Actor, filter: &Filter) -> Result<(Vec<Container>, i64)> {
    let everyone = actor.admin && filter.all && filter.user.is_none();
    let owner = match &filter.user {
        Some(user) if actor.admin => user.as_str(),
        _ => actor.username.as_str(),
    };
    let search = filter.search.as_deref().map(str::trim).unwrap_or_default();
    let like = format!("%{}%", db::without_wildcards(&search.to_lowercase()));
    let wanted = || {
        args![
            everyone,
            owner,
            search.is_empty(),
            &like,
            &like,
            &like,
            &like,
            &like
        ]
    };
    let mut page = wanted();
    page.extend(args![filter.limit, filter.offset]);
    let total = core
        .db
        .one(matching!(r#"SELECT COUNT(*) AS "n""#, ""), wanted())
        .await?;
    let sql = matching!(columns!(""), r#" ORDER BY c."id" LIMIT ? OFFSET ?"#);
    let rows = core.db.all(sql, page).await?;
    let mut containers = rows
        .iter()
        .map(Container::from_row)
        .collect::<Result<Vec<_>>>()?;
    let mut services = service::list(&core.db, containers.iter().map(|c| c.id).collect()).await?;
    for container in &mut containers {
        container.services = services.remove(&container.id).unwrap_or_default();
    }
    Ok((containers, total.get("n")?))
}

/// One container with its services; somebody else's does not exist for an ordinary user.
pub async fn find(core: &Core, actor: &Actor, id: i64) -> Result<Container> {
    match find_any(core, id).await? {
        Some(container) if actor.may_see(Some(&container.username)) => Ok(container),
        _ => Err(Error::NotFound(format!("There is no container {id}."))),
    }
}

/// The names of those of these containers that exist and are the actor's business, by id.
pub async fn names(core: &Core, actor: &Actor, ids: Vec<i64>) -> Result<BTreeMap<i64, String>> {
    let sql =
        r#"SELECT "id", "hostname" FROM "Containers" WHERE "id" IN ? AND (? OR "username" = ?)"#;
    let given = args![ids, actor.admin, &actor.username];
    let rows = core.db.all(sql, given).await?;
    rows.iter()
        .map(|row| Ok((row.get("id")?, row.get("hostname")?)))
        .collect()
}

/// One container with its services. Rights: none are checked.
pub async fn find_any(core: &Core, id: i64) -> Result<Option<Container>> {
    let Some(row) = core
        .db
        .opt(
            columns!(r#" FROM "Containers" c WHERE c."id" = ?"#),
            args![id],
        )
        .await?
    else {
        return Ok(None);
    };
    let mut container = Container::from_row(&row)?;
    container.services = service::list(&core.db, vec![id])
        .await?
        .remove(&id)
        .unwrap_or_default();
    Ok(Some(container))
}

/// Whether some container has this address, or shows it and was refused it.
pub async fn has_address(core: &Core, address: IpAddr) -> Result<bool> {
    let sql =
        r#"SELECT "id" FROM "Containers" WHERE "ipv4Address" = ? OR "refusedAddress" = ? LIMIT 1"#;
    let text = address.to_canonical().to_string();
    Ok(core.db.opt(sql, args![&text, &text]).await?.is_some())
}

/// Why a job on a container did not do what was asked, from its reason.
fn refused(reason: Option<String>) -> Error {
    let reason = reason.unwrap_or_else(|| "The job ended without a reason.".to_owned());
    if reason.contains("snapshot feature is not available") {
        let message = format!(
            "The storage of this container takes no snapshots (Proxmox VE: {reason}); an admin can move its disk to one that does, such as ZFS, LVM-thin or btrfs."
        );
        return Error::conflict("storage", message);
    }
    for (beginning, field) in [
        (container_delete::MISMATCH, "id"),
        (container_delete::DUPLICATE, "id"),
        (container_delete::OURS, "id"),
        (container_change::TAKEN, "name"),
    ] {
        if reason.starts_with(beginning) {
            return Error::conflict(field, reason);
        }
    }
    Error::Upstream(reason)
}

/// Whether `text` is one lower-case DNS label: 1–63 of `a-z0-9-`, no dash at either end (RFC 1123).
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
