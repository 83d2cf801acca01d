//! Which services each proxy serves, since when: worked out of what it reported, and of what the file with that tag shows.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::db::{Row, Tx};
use crate::nginx::{BadValue, Protocol, Service, TakenPorts};
use crate::{Error, Result, args};

/// TCP and UDP services that a file is without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Without {
    Ports(TakenPorts),
    /// All: that nginx cannot serve them.
    Streams,
}

const STREAMS: &str = "streams";

impl Without {
    pub(super) fn has(&self, port: u16, protocol: Protocol) -> bool {
        match self {
            Self::Ports(ports) => ports.has(port, protocol),
            Self::Streams => true,
        }
    }

    pub(super) fn from_row(row: &Row) -> Result<Self> {
        let text: String = row.get("leftOut")?;
        text.parse().map_err(|error: BadValue| {
            let said = format!("The database holds ports that are none: {error}");
            Error::Internal(said)
        })
    }
}

impl Default for Without {
    fn default() -> Self {
        Self::Ports(TakenPorts::default())
    }
}

impl FromStr for Without {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text {
            STREAMS => Ok(Self::Streams),
            ports => ports.parse().map(Self::Ports),
        }
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(ports) => ports.fmt(f),
            Self::Streams => f.write_str(STREAMS),
        }
    }
}

/// Notes what a proxy serves from now on, and leaves what it did already. Absent: it serves nothing. The caller has the lock `routes`.
pub(crate) async fn note(
    tx: &mut Tx,
    proxy: i64,
    etag: Option<&str>,
    now: DateTime<Utc>,
) -> Result<()> {
    let sql = r#"SELECT "revision", "leftOut" FROM "Revisions" WHERE "etag" = ?"#;
    let shown = match etag {
        Some(etag) => tx.opt(sql, args![etag]).await?,
        None => None,
    };
    let Some(shown) = shown else {
        let sql = r#"DELETE FROM "ProxyServices" WHERE "proxyId" = ?"#;
        tx.exec(sql, args![proxy]).await?;
        return Ok(());
    };
    let (revision, without): (i64, _) = (shown.get("revision")?, Without::from_row(&shown)?);
    let gone = r#"DELETE FROM "ProxyServices" WHERE "proxyId" = ? AND ("revision" > ? OR NOT EXISTS
                  (SELECT 1 FROM "Routes" r WHERE r."serviceId" = "ProxyServices"."serviceId" AND r."revision" = "ProxyServices"."revision"))"#;
    tx.exec(gone, args![proxy, revision]).await?;
    if without != Without::default() {
        let sql = r#"SELECT s."serviceId", r."form" FROM "ProxyServices" s JOIN "Routes" r ON r."serviceId" = s."serviceId"
                     WHERE s."proxyId" = ?"#;
        let mut out = Vec::new();
        for row in tx.all(sql, args![proxy]).await? {
            if is_without(&without, &row)? {
                out.push(row.get::<i64>("serviceId")?);
            }
        }
        for some in out.chunks(1000) {
            let sql = r#"DELETE FROM "ProxyServices" WHERE "proxyId" = ? AND "serviceId" IN ?"#;
            tx.exec(sql, args![proxy, some.to_vec()]).await?;
        }
    }
    let sql = r#"SELECT r."serviceId", r."revision", r."form" FROM "Routes" r LEFT JOIN "ProxyServices" s
                 ON s."proxyId" = ? AND s."serviceId" = r."serviceId" WHERE r."revision" <= ? AND s."serviceId" IS NULL"#;
    let mut new = Vec::new();
    for row in tx.all(sql, args![proxy, revision]).await? {
        if !is_without(&without, &row)? {
            let (service, since): (i64, i64) = (row.get("serviceId")?, row.get("revision")?);
            new.push(args![proxy, service, since, now]);
        }
    }
    let sql = r#"INSERT INTO "ProxyServices" ("proxyId", "serviceId", "revision", "liveSince") VALUES (?, ?, ?, ?)"#;
    tx.insert_all(sql, new).await?;
    Ok(())
}

/// A file with this tag shows more than was known: whoever serves it serves that.
pub(super) async fn note_all(tx: &mut Tx, etag: &str, now: DateTime<Utc>) -> Result<()> {
    let sql = r#"SELECT "id" FROM "Proxies" WHERE "revision" = ?"#;
    for row in tx.all(sql, args![etag]).await? {
        note(tx, row.get("id")?, Some(etag), now).await?;
    }
    Ok(())
}

/// A form of another version is in no file.
fn is_without(without: &Without, row: &Row) -> Result<bool> {
    let form = serde_json::from_str(&row.get::<String>("form")?);
    let Ok(service): Result<Service, _> = form else {
        return Ok(true);
    };
    let port = service.port();
    Ok(port.is_some_and(|(port, protocol)| without.has(port, protocol)))
}
