//! Where each service is live, as the proxies reported it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{TakenPorts, Trouble};
use crate::db::Row;
use crate::nginx::Service;
use crate::{Core, Result, args};

/// How a service stands at the proxies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every proxy that reported serves it as it is now, and there is one.
    Live,
    /// Some proxy does not serve it yet.
    #[default]
    Pending,
    /// It cannot be served as it is now.
    Refused,
}

impl State {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Pending => "pending",
            Self::Refused => "refused",
        }
    }
}

/// A proxy that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveAt {
    pub proxy: String,
    pub since: DateTime<Utc>,
}

/// How one service stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    pub state: State,
    /// Why it is refused.
    pub reason: Option<String>,
    /// Where it is live, in the form that is served now.
    pub live: Vec<LiveAt>,
}

/// A proxy with what it serves.
struct At {
    name: String,
    now: Option<Shown>,
    refused: Option<(i64, String)>,
    /// Since when it serves what, in order.
    since: Vec<(Shown, DateTime<Utc>)>,
}

/// What a file shows.
struct Shown {
    revision: i64,
    /// But for these.
    out: TakenPorts,
}

impl Shown {
    /// Absent where nothing is known of the file.
    fn from_row(row: &Row) -> Result<Option<Self>> {
        let Some(revision) = row.get("revision")? else {
            return Ok(None);
        };
        let out = row.get::<String>("leftOut")?.parse()?;
        Ok(Some(Self { revision, out }))
    }

    /// Whether a service is in it that came with this revision.
    fn has(&self, wanted: i64, port: Option<u16>) -> bool {
        self.revision >= wanted && !port.is_some_and(|port| self.out.has(port))
    }
}

/// Of some services; those that are not known are pending.
pub async fn standings(core: &Core, services: Vec<i64>) -> Result<BTreeMap<i64, Standing>> {
    if services.is_empty() {
        return Ok(BTreeMap::new());
    }
    let table = super::newest(core).await?;
    let sql = r#"SELECT "serviceId", "revision" FROM "Routes" WHERE "serviceId" IN ?"#;
    let mut revisions = BTreeMap::new();
    for some in services.chunks(1000) {
        for row in core.db.all(sql, args![some.to_vec()]).await? {
            revisions.insert(row.get::<i64>("serviceId")?, row.get::<i64>("revision")?);
        }
    }
    let proxies = proxies(core).await?;
    let one = |id: i64| {
        let trouble = table.troubles.get(&id);
        let revision = revisions.get(&id).copied();
        let port = table.served.get(&id).and_then(Service::port);
        (id, standing(&proxies, revision, port, trouble))
    };
    Ok(services.into_iter().map(one).collect())
}

fn standing(
    proxies: &[At],
    revision: Option<i64>,
    port: Option<u16>,
    trouble: Option<&Trouble>,
) -> Standing {
    let Some(wanted) = revision else {
        return Standing {
            state: trouble.map_or(State::Pending, |_| State::Refused),
            reason: trouble.map(|trouble| trouble.reason.clone()),
            live: Vec::new(),
        };
    };
    let serving = |at: &&At| at.now.as_ref().is_some_and(|now| now.has(wanted, port));
    let live = proxies.iter().filter(serving).filter_map(|at| {
        let (_, since) = at.since.iter().find(|(shown, _)| shown.has(wanted, port))?;
        Some(LiveAt {
            proxy: at.name.clone(),
            since: *since,
        })
    });
    let live: Vec<LiveAt> = live.collect();
    let taken = port.and_then(|port| {
        let mut files = proxies.iter().filter_map(|at| Some((at, at.now.as_ref()?)));
        let (at, _) = files.find(|(_, now)| now.out.has(port))?;
        Some(format!(
            "Another program has port {port} on {}: stop that one, or remove the service and add it again, which gets it another port.",
            at.name
        ))
    });
    let refused = proxies.iter().find_map(|at| {
        let (revision, words) = at.refused.as_ref()?;
        (!serving(&at) && *revision >= wanted).then(|| format!("{} refused it: {words}", at.name))
    });
    let kept = trouble.map(|trouble| format!("{} It is served as it was before.", trouble.reason));
    let reason = kept.or(taken).or(refused);
    let state = match &reason {
        Some(_) => State::Refused,
        None if !live.is_empty() && live.len() == proxies.len() => State::Live,
        None => State::Pending,
    };
    Standing {
        state,
        reason,
        live,
    }
}

/// Each proxy that reported, and whether it serves an older revision than the newest.
pub(crate) async fn behind(core: &Core) -> Result<Vec<(String, bool)>> {
    let table = super::newest(core).await?;
    let proxies = proxies(core).await?.into_iter();
    let one = |at: At| {
        (
            at.name,
            at.now.is_none_or(|now| now.revision < table.revision),
        )
    };
    Ok(proxies.map(one).collect())
}

async fn proxies(core: &Core) -> Result<Vec<At>> {
    let sql = r#"SELECT p."id", p."name", p."reason", r."revision", r."leftOut", f."revision" AS "refused" FROM "Proxies" p
                 LEFT JOIN "Revisions" r ON r."etag" = p."revision" LEFT JOIN "Revisions" f ON f."etag" = p."refused"
                 ORDER BY p."name""#;
    let mut found = Vec::new();
    let mut since: BTreeMap<i64, Vec<(Shown, DateTime<Utc>)>> = BTreeMap::new();
    let history = r#"SELECT "proxyId", "revision", "leftOut", "liveSince" FROM "ProxyRevisions" ORDER BY "proxyId", "liveSince", "revision""#;
    for row in core.db.all(history, args![]).await? {
        let times = since.entry(row.get("proxyId")?).or_default();
        if let Some(shown) = Shown::from_row(&row)? {
            times.push((shown, row.get("liveSince")?));
        }
    }
    for row in core.db.all(sql, args![]).await? {
        let refused: Option<i64> = row.get("refused")?;
        let words: Option<String> = row.get("reason")?;
        found.push(At {
            name: row.get("name")?,
            now: Shown::from_row(&row)?,
            refused: refused.zip(words),
            since: since.remove(&row.get("id")?).unwrap_or_default(),
        });
    }
    Ok(found)
}
