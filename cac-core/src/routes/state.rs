//! Where each service is live, as the proxies reported it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Trouble;
use super::live::Without;
use crate::nginx::{Protocol, Service, TakenPorts};
use crate::{Core, Result, args, proxy};

/// How a service stands at the proxies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Every proxy that is heard of serves it as it is now, and there is one.
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

/// A proxy as it reported last.
struct At {
    name: String,
    /// When it reported last, if that was so long ago that it does not count.
    silent: Option<DateTime<Utc>>,
    /// Absent where nothing is known of its file, or nothing is live.
    revision: Option<i64>,
    without: Without,
    /// Ports that other programs have there.
    taken: TakenPorts,
    /// The revision, where one is known.
    refused: Option<(Option<i64>, String)>,
}

impl At {
    /// Why it does not serve a service that came with this revision.
    fn why_not(&self, wanted: i64, port: Option<(u16, Protocol)>) -> Option<String> {
        let name = &self.name;
        if let Some(since) = self.silent {
            let since = since.format("%Y-%m-%d %H:%M:%S");
            return Some(format!(
                "Nothing was heard of {name} since {since} UTC: start `cac proxy sync` there, or forget it (`cac proxy forget {name}`)."
            ));
        }
        if let Some((port, protocol)) = port {
            if self.taken.has(port, protocol) {
                return Some(format!(
                    "Another program has port {port}/{protocol} on {name}: stop that one, or remove the service and add it again, which gets it another port."
                ));
            }
            // A file without single ports is not reported yet, or is the same as another proxy's: neither says anything of this one.
            if self.without == Without::Streams {
                return Some(format!(
                    "nginx on {name} has no stream module: install it there (Debian: libnginx-mod-stream)."
                ));
            }
        }
        match (&self.refused, self.revision) {
            (Some((_, words)), None) => Some(format!("Nothing is live on {name}: {words}")),
            (Some((Some(refused), words)), Some(_)) if *refused >= wanted => {
                Some(format!("{name} refused it: {words}"))
            }
            _ => None,
        }
    }
}

/// Of some services; those that are not known are pending.
pub async fn standings(core: &Core, services: Vec<i64>) -> Result<BTreeMap<i64, Standing>> {
    if services.is_empty() {
        return Ok(BTreeMap::new());
    }
    let table = super::newest(core).await?;
    let mut revisions = BTreeMap::new();
    let mut live: BTreeMap<i64, Vec<LiveAt>> = BTreeMap::new();
    for some in services.chunks(1000) {
        let sql = r#"SELECT "serviceId", "revision" FROM "Routes" WHERE "serviceId" IN ?"#;
        for row in core.db.all(sql, args![some.to_vec()]).await? {
            revisions.insert(row.get::<i64>("serviceId")?, row.get::<i64>("revision")?);
        }
        let sql = r#"SELECT s."serviceId", s."liveSince", p."name" FROM "ProxyServices" s
                     JOIN "Routes" r ON r."serviceId" = s."serviceId" AND r."revision" = s."revision"
                     JOIN "Proxies" p ON p."id" = s."proxyId" WHERE s."serviceId" IN ? ORDER BY p."name""#;
        for row in core.db.all(sql, args![some.to_vec()]).await? {
            live.entry(row.get("serviceId")?).or_default().push(LiveAt {
                proxy: row.get("name")?,
                since: row.get("liveSince")?,
            });
        }
    }
    let mut proxies = proxies(core).await?;
    // Where others go on, one that is gone hinders nobody.
    if proxies.iter().any(|at| at.silent.is_none()) {
        proxies.retain(|at| at.silent.is_none());
    }
    let mut one = |id: i64| {
        let trouble = table.troubles.get(&id);
        let revision = revisions.get(&id).copied();
        let port = table.served.get(&id).and_then(Service::port);
        let mut live = live.remove(&id).unwrap_or_default();
        let heard = |name: &str| {
            let mut heard = proxies.iter().filter(|at| at.silent.is_none());
            heard.any(|at| at.name == name)
        };
        live.retain(|live| heard(&live.proxy));
        (id, standing(&proxies, live, revision, port, trouble))
    };
    Ok(services.into_iter().map(&mut one).collect())
}

fn standing(
    proxies: &[At],
    live: Vec<LiveAt>,
    revision: Option<i64>,
    port: Option<(u16, Protocol)>,
    trouble: Option<&Trouble>,
) -> Standing {
    let Some(wanted) = revision else {
        return Standing {
            state: trouble.map_or(State::Pending, |_| State::Refused),
            reason: trouble.map(|trouble| trouble.reason.clone()),
            live: Vec::new(),
        };
    };
    let kept = trouble.map(|trouble| format!("{} It is served as it was before.", trouble.reason));
    let reason = kept.or_else(|| {
        let serves = |at: &&At| live.iter().any(|live| live.proxy == at.name);
        let mut others = proxies.iter().filter(|at| !serves(at));
        others.find_map(|at| at.why_not(wanted, port))
    });
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

/// Each proxy that reported, and whether it serves an older revision than the newest, for all that is known.
pub(crate) async fn behind(core: &Core) -> Result<Vec<(String, bool)>> {
    let table = super::newest(core).await?;
    let proxies = proxies(core).await?.into_iter();
    let one = |at: At| {
        let behind = at.silent.is_some() || at.revision.is_none_or(|now| now < table.revision);
        (at.name, behind)
    };
    Ok(proxies.map(one).collect())
}

async fn proxies(core: &Core) -> Result<Vec<At>> {
    let sql = r#"SELECT p."name", p."taken", p."reason", p."reportedAt", r."revision", r."leftOut", f."revision" AS "refused" FROM "Proxies" p
                 LEFT JOIN "Revisions" r ON r."etag" = p."revision" LEFT JOIN "Revisions" f ON f."etag" = p."refused"
                 ORDER BY p."name""#;
    let mut found = Vec::new();
    for row in core.db.all(sql, args![]).await? {
        let revision: Option<i64> = row.get("revision")?;
        let refused: Option<i64> = row.get("refused")?;
        let words: Option<String> = row.get("reason")?;
        found.push(At {
            name: row.get("name")?,
            silent: proxy::silent_since(core, &row)?,
            revision,
            without: match revision {
                Some(_) => Without::from_row(&row)?,
                None => Without::default(),
            },
            taken: proxy::taken(&row)?,
            refused: words.map(|words| (refused, words)),
        });
    }
    Ok(found)
}
