//! Reverse proxies that pull the configuration, and what they report: which revision is live there, or why one is not.
//! What the revision holds is [`crate::routes`]'s matter.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::actor::Actor;
use crate::db::{Row, Tx};
use crate::error::Fields;
use crate::nginx::statement::is_proxy_name;
use crate::nginx::{BadValue, TakenPorts};
use crate::{Core, Error, Result, args, audit, routes, transaction};

/// Proxies that are kept.
const MOST: i64 = 1000;
/// A proxy that says nothing for longer does not count: pullers repeat themselves every [`REPEAT`].
const SILENT: TimeDelta = TimeDelta::minutes(15);
/// How often what is live is to be said again.
pub const REPEAT: Duration = Duration::from_secs(300);
/// What is said where a name is none.
pub const NAME_RULE: &str = "A proxy's name has 1 to 64 letters, digits, `.`, `_` and `-`.";
/// Characters of a reason that are kept.
const REASON: usize = 4000;

/// A row of `Proxies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    pub id: i64,
    pub name: String,
    /// The `ETag` of the configuration that is live there.
    pub revision: Option<String>,
    pub live_since: Option<DateTime<Utc>>,
    /// The last revision that is not live there because nginx refused it.
    pub refused: Option<String>,
    /// In the words of nginx.
    pub reason: Option<String>,
    /// Ports that other programs have on its machine.
    pub taken: TakenPorts,
    /// When the API token expires that it reports with.
    pub token_expires: Option<DateTime<Utc>>,
    pub reported_at: DateTime<Utc>,
}

impl Proxy {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            name: row.get("name")?,
            revision: row.get("revision")?,
            live_since: row.get("liveSince")?,
            refused: row.get("refused")?,
            reason: row.get("reason")?,
            taken: taken(row)?,
            token_expires: row.get("tokenExpires")?,
            reported_at: row.get("reportedAt")?,
        })
    }
}

/// When it reported last, if it has been silent since then for so long that it does not count.
pub(crate) fn silent_since(core: &Core, row: &Row) -> Result<Option<DateTime<Utc>>> {
    let last: DateTime<Utc> = row.get("reportedAt")?;
    Ok((core.clock.now() - last > SILENT).then_some(last))
}

pub(crate) fn taken(row: &Row) -> Result<TakenPorts> {
    let text: String = row.get("taken")?;
    text.parse()
        .map_err(|error: BadValue| Error::Internal(format!("The ports of a proxy: {error}")))
}

/// What a puller says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The `ETag` that it is about.
    pub revision: String,
    /// Absent: it is live.
    pub refused: Option<String>,
    /// nginx does not run there, so that no revision is live.
    pub down: bool,
    /// The `ETag` of what is live while the other one is refused; absent: as it was reported last.
    pub live: Option<String>,
    /// Ports that other programs have there.
    pub taken: TakenPorts,
    /// When the API token expires that the report was sent with.
    pub token_expires: Option<DateTime<Utc>>,
    /// Where the report came from: nothing is passed on to this address. Absent for an nginx of the portal itself.
    pub address: Option<IpAddr>,
}

impl Report {
    /// That it is live.
    #[must_use]
    pub fn live(revision: impl Into<String>) -> Self {
        Self {
            revision: revision.into(),
            refused: None,
            down: false,
            live: None,
            taken: TakenPorts::default(),
            token_expires: None,
            address: None,
        }
    }
}

/// Keeps a report; the proxy is known from its first one on. Whether somebody may report is the edge's matter, by the token's scope.
pub async fn report(core: &Core, name: &str, report: &Report) -> Result<Proxy> {
    let mut fields = Fields::default();
    if !is_proxy_name(name) {
        fields.add("name", NAME_RULE);
    }
    let revision = report.revision.trim();
    let meanwhile = report.live.as_deref().map(str::trim);
    for (field, etag) in [("revision", Some(revision)), ("live", meanwhile)] {
        let bad =
            |etag: &str| etag.is_empty() || etag.len() > 128 || etag.contains(char::is_control);
        if etag.is_some_and(bad) {
            fields.add(
                field,
                "Give the ETag of the configuration, as /nginx.conf sent it.",
            );
        }
    }
    fields.into_result()?;
    let refused = report.refused.as_deref();
    let refused = refused.or(report.down.then_some("nginx does not run there: start it."));
    let reason = refused.map(|reason| {
        let kept: String = reason.trim().chars().take(REASON).collect();
        match kept.as_str() {
            "" => "nginx refused it.".to_owned(),
            _ => kept,
        }
    });
    let now = core.clock.now();
    let address = report.address.map(|ip| ip.to_canonical().to_string());
    transaction!(core.db, tx => {
        tx.lock("routes").await?;
        // The first two reports of a new proxy may come at once.
        tx.lock("proxies").await?;
        let sql = r#"SELECT * FROM "Proxies" WHERE "name" = ?"#;
        let before = match tx.opt(sql, args![name]).await? {
            Some(row) => row,
            None => {
                let count = tx.one(r#"SELECT COUNT(*) AS "n" FROM "Proxies""#, args![]).await?;
                if count.get::<i64>("n")? >= MOST {
                    let message = format!("{MOST} proxies have reported already; an admin can forget one (DELETE /proxies/NAME).");
                    return Err(Error::conflict("name", message));
                }
                let insert = r#"INSERT INTO "Proxies" ("name", "reportedAt", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
                tx.exec(insert, args![name, now, now, now]).await?;
                tx.one(sql, args![name]).await?
            }
        };
        let before = Proxy::from_row(&before)?;
        let live = match (&reason, report.down) {
            (None, _) => Some(revision.to_owned()),
            (Some(_), true) => None,
            (Some(_), false) => meanwhile.map(ToOwned::to_owned).or(before.revision.clone()),
        };
        let after = Proxy {
            live_since: match live == before.revision {
                true => before.live_since,
                false => live.as_ref().map(|_| now),
            },
            revision: live,
            refused: reason.as_ref().map(|_| revision.to_owned()),
            reason: reason.clone(),
            taken: report.taken.clone(),
            token_expires: report.token_expires,
            reported_at: now,
            ..before
        };
        tx.exec(
            r#"UPDATE "Proxies" SET "revision" = ?, "liveSince" = ?, "refused" = ?, "reason" = ?, "taken" = ?, "tokenExpires" = ?,
               "reportedAt" = ?, "address" = COALESCE(?, "address"), "updatedAt" = ? WHERE "id" = ?"#,
            args![
                &after.revision, after.live_since, &after.refused, &after.reason, after.taken.to_string(), after.token_expires, now,
                address.as_deref(), now, after.id
            ],
        )
        .await?;
        routes::note(tx, after.id, after.revision.as_deref(), now).await?;
        after
    })
}

/// All that other programs have on the machines of proxies.
pub(crate) async fn taken_anywhere(tx: &mut Tx) -> Result<TakenPorts> {
    let mut all = TakenPorts::default();
    let sql = r#"SELECT "taken" FROM "Proxies" WHERE "taken" <> ''"#;
    for row in tx.all(sql, args![]).await? {
        all.extend(taken(&row)?);
    }
    Ok(all)
}

/// All that ever reported, by id; for admins.
pub async fn list(core: &Core, actor: &Actor) -> Result<Vec<Proxy>> {
    actor.must_be_admin()?;
    all(core).await
}

pub(crate) async fn all(core: &Core) -> Result<Vec<Proxy>> {
    let sql = r#"SELECT * FROM "Proxies" ORDER BY "id""#;
    let rows = core.db.all(sql, args![]).await?;
    rows.iter().map(Proxy::from_row).collect()
}

/// Forgets one, for admins; it is known again when it reports.
pub async fn delete(core: &Core, actor: &Actor, name: &str) -> Result<()> {
    actor.must_be_admin()?;
    transaction!(core.db, tx => {
        let sql = r#"DELETE FROM "Proxies" WHERE "name" = ?"#;
        if tx.exec(sql, args![name]).await? == 0 {
            return Err(Error::NotFound(format!("There is no proxy {name}.")));
        }
        audit::Change::new("proxy_delete", format!("/proxies/{name}")).deleted().write(tx, core, actor).await?;
    })
}
