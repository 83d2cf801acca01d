//! How much one user may have: the configured limits, or a row of `Quotas` for this one user. What is asked for counts from the
//! moment that its row exists, and so does what was registered, imported or adopted, with the sizes that it has in Proxmox VE.

use serde::Serialize;

use crate::actor::Actor;
use crate::db::Tx;
use crate::error::Fields;
use crate::service::NewService;
use crate::{Core, Error, Result, args, audit, transaction};

/// Limits; absent ones do not limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub containers: Option<u32>,
    pub cores: Option<u32>,
    /// MiB
    pub memory: Option<u32>,
    /// GiB
    pub disk: Option<u32>,
    /// Services of all containers.
    pub services: Option<u32>,
    /// External ports of all containers, tcp and udp.
    pub ports: Option<u32>,
}

impl Limits {
    /// Where these say nothing the others count.
    fn or(self, other: Self) -> Self {
        Self {
            containers: self.containers.or(other.containers),
            cores: self.cores.or(other.cores),
            memory: self.memory.or(other.memory),
            disk: self.disk.or(other.disk),
            services: self.services.or(other.services),
            ports: self.ports.or(other.ports),
        }
    }
}

/// What somebody has, or wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    pub containers: i64,
    pub cores: i64,
    /// MiB
    pub memory: i64,
    /// GiB
    pub disk: i64,
    /// Services of all containers.
    pub services: i64,
    /// External ports of all containers, tcp and udp.
    pub ports: i64,
}

impl Amounts {
    /// What these services take, and nothing else.
    pub(crate) fn of_services(new: &[NewService]) -> Self {
        let ports = new
            .iter()
            .filter(|service| matches!(service, NewService::Port { .. }));
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            services: number(new.len()),
            ports: number(ports.count()),
            ..Self::default()
        }
    }
}

/// A user's limits and what is used of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quota {
    pub username: String,
    pub limits: Limits,
    /// What an admin set for this user.
    pub own: Limits,
    pub used: Amounts,
}

/// One's own, or for admins anybody's.
pub async fn find(core: &Core, actor: &Actor, username: &str) -> Result<Quota> {
    if !actor.may_see(Some(username)) {
        return Err(Error::NotFound(format!("There is no user {username}.")));
    }
    let mut tx = core.db.read().await?;
    let own = own(&mut tx, username).await?.unwrap_or_default();
    Ok(Quota {
        username: username.to_owned(),
        limits: own.or(core.config.quota),
        own,
        used: used(&mut tx, username).await?,
    })
}

/// Of everyone who has a container or limits of their own, by name; for admins.
pub async fn list(core: &Core, actor: &Actor) -> Result<Vec<Quota>> {
    actor.must_be_admin()?;
    let sql = r#"SELECT "username" FROM "Containers" UNION SELECT "username" FROM "Quotas""#;
    let rows = core.db.all(sql, args![]).await?;
    let names = rows.iter().map(|row| Ok(row.get("username")?));
    let mut names = names.collect::<Result<Vec<String>>>()?;
    names.sort_unstable();
    names.dedup();
    let mut all = Vec::with_capacity(names.len());
    for name in &names {
        all.push(find(core, actor, name).await?);
    }
    Ok(all)
}

/// Gives a user limits of their own, for admins; those that are absent are the configured ones.
pub async fn set(core: &Core, actor: &Actor, username: &str, limits: Limits) -> Result<Quota> {
    actor.must_be_admin()?;
    if username.is_empty() || username.len() > 64 || username.chars().any(char::is_control) {
        return Err(Error::invalid("username", "Give a user's name."));
    }
    let now = core.clock.now();
    transaction!(core.db, tx => {
        // So that nothing is asked for meanwhile by the old limits.
        tx.lock("names").await?;
        let before = own(tx, username).await?.unwrap_or_default();
        tx.exec(r#"DELETE FROM "Quotas" WHERE "username" = ?"#, args![username]).await?;
        if limits != Limits::default() {
            tx.exec(
                r#"INSERT INTO "Quotas" ("username", "containers", "cores", "memory", "disk", "services", "ports", "createdAt", "updatedAt")
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"#,
                args![
                    username, limits.containers, limits.cores, limits.memory, limits.disk, limits.services, limits.ports, now, now
                ],
            )
            .await?;
        }
        audit::Change::new("quota_update", format!("/quotas/{username}"))
            .altered(Some(&before), Some(&limits))
            .write(tx, core, actor)
            .await?;
    })?;
    find(core, actor, username).await
}

/// Adds a message for each limit that `more` would break. Admins have no limits but those set for themselves. The caller holds the
/// lock `names`, so that what is counted stays so until the commit.
pub(crate) async fn check(
    tx: &mut Tx,
    core: &Core,
    actor: &Actor,
    owner: &str,
    more: Amounts,
    fields: &mut Fields,
) -> Result<()> {
    let own = own(tx, owner).await?.unwrap_or_default();
    let limits = match actor.admin {
        true => own,
        false => own.or(core.config.quota),
    };
    if limits == Limits::default() {
        return Ok(());
    }
    let used = used(tx, owner).await?;
    for (field, unit, limit, used, more) in [
        (
            "containers",
            "containers",
            limits.containers,
            used.containers,
            more.containers,
        ),
        ("cores", "cores", limits.cores, used.cores, more.cores),
        (
            "memory",
            "MiB of memory",
            limits.memory,
            used.memory,
            more.memory,
        ),
        ("disk", "GiB of disk", limits.disk, used.disk, more.disk),
        (
            "services",
            "services",
            limits.services,
            used.services,
            more.services,
        ),
        (
            "ports",
            "external ports",
            limits.ports,
            used.ports,
            more.ports,
        ),
    ] {
        let Some(limit) = limit.map(i64::from).filter(|_| more > 0) else {
            continue;
        };
        if used + more > limit {
            let left = (limit - used).max(0);
            let message = format!(
                "{limit} {unit} are allowed, {used} are used, so {left} are left; {more} more are asked for."
            );
            fields.add(field, message);
        }
    }
    Ok(())
}

/// What a user has more of than the limits allow, such as `11 of 10 containers`; an admin may register and import beyond them.
/// Rights: none are checked.
pub async fn exceeded(core: &Core, username: &str) -> Result<Vec<String>> {
    let mut tx = core.db.read().await?;
    let own = own(&mut tx, username).await?.unwrap_or_default();
    let (limits, used) = (own.or(core.config.quota), used(&mut tx, username).await?);
    let over = |unit: &str, limit: Option<u32>, used: i64| {
        let limit = limit.filter(|limit| used > i64::from(*limit))?;
        Some(format!("{used} of {limit} {unit}"))
    };
    let all = [
        over("containers", limits.containers, used.containers),
        over("cores", limits.cores, used.cores),
        over("MiB of memory", limits.memory, used.memory),
        over("GiB of disk", limits.disk, used.disk),
        over("services", limits.services, used.services),
        over("external ports", limits.ports, used.ports),
    ];
    Ok(all.into_iter().flatten().collect())
}

async fn own(tx: &mut Tx, username: &str) -> Result<Option<Limits>> {
    let sql = r#"SELECT "containers", "cores", "memory", "disk", "services", "ports" FROM "Quotas" WHERE "username" = ?"#;
    let Some(row) = tx.opt(sql, args![username]).await? else {
        return Ok(None);
    };
    Ok(Some(Limits {
        containers: row.get("containers")?,
        cores: row.get("cores")?,
        memory: row.get("memory")?,
        disk: row.get("disk")?,
        services: row.get("services")?,
        ports: row.get("ports")?,
    }))
}

/// Names compare byte by byte, which an adopted table does not.
async fn used(tx: &mut Tx, username: &str) -> Result<Amounts> {
    let sql =
        r#"SELECT "username", "cores", "memory", "disk" FROM "Containers" WHERE "username" = ?"#;
    let mut used = Amounts::default();
    for row in tx.all(sql, args![username]).await? {
        if row.get::<String>("username")? != username {
            continue;
        }
        let size = |name| Ok::<_, Error>(i64::from(row.get::<Option<u32>>(name)?.unwrap_or(0)));
        used.containers += 1;
        used.cores += size("cores")?;
        used.memory += size("memory")?;
        used.disk += size("disk")?;
    }
    let sql = r#"SELECT c."username", COUNT(*) AS "services", COUNT(s."externalPort") AS "ports" FROM "Services" s
                 JOIN "Containers" c ON c."id" = s."containerId" WHERE c."username" = ? GROUP BY c."username""#;
    for row in tx.all(sql, args![username]).await? {
        if row.get::<String>("username")? == username {
            used.services = row.get("services")?;
            used.ports = row.get("ports")?;
        }
    }
    Ok(used)
}
