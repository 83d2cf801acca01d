//! How much there is of everything, for metrics. Nobody's names are in it.

use std::collections::BTreeMap;

use crate::routes::{self, State};
use crate::{Core, Result, args};

/// Reasons that are told.
const REFUSED: usize = 100;

/// Counts as the database has them now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// By `Jobs.status`; every status is there.
    pub jobs: BTreeMap<String, i64>,
    /// By what works on them: `creating`, …, or `none`.
    pub containers: BTreeMap<String, i64>,
    /// By `Services.type`.
    pub services: BTreeMap<String, i64>,
    /// Services that are stored and yet not served.
    pub services_left_out: i64,
    /// How services stand at the proxies: `live`, `pending`, `refused`.
    pub standings: BTreeMap<String, i64>,
    /// Why, by the ids of services; the first hundred.
    pub refused: BTreeMap<i64, String>,
    /// Hosts that containers may be made on.
    pub nodes: i64,
    /// By name: whether the newest configuration is live there.
    pub proxies: BTreeMap<String, bool>,
}

/// Whether the database answers; nothing is read from its tables.
pub async fn database_answers(core: &Core) -> Result<()> {
    core.db.one(r#"SELECT NOW_MS() AS "now""#, args![]).await?;
    Ok(())
}

/// Counts everything.
pub async fn find(core: &Core) -> Result<Overview> {
    let mut jobs: BTreeMap<String, i64> = ["pending", "running", "success", "failure", "cancelled"]
        .map(|status| (status.to_owned(), 0))
        .into();
    jobs.extend(
        counts(
            core,
            r#"SELECT "status" AS "name", COUNT(*) AS "n" FROM "Jobs" GROUP BY "status""#,
        )
        .await?,
    );
    let table = routes::newest(core).await?;
    let ids = core
        .db
        .all(r#"SELECT "id" FROM "Services""#, args![])
        .await?;
    let ids = ids.iter().map(|row| row.get("id"));
    let standings = routes::standings(core, ids.collect::<Result<_, _>>()?).await?;
    let mut states: BTreeMap<String, i64> = [State::Live, State::Pending, State::Refused]
        .map(|state| (state.as_str().to_owned(), 0))
        .into();
    for standing in standings.values() {
        *states
            .entry(standing.state.as_str().to_owned())
            .or_default() += 1;
    }
    let refused = standings
        .into_iter()
        .filter_map(|(id, standing)| Some((id, standing.reason?)));
    let refused = refused.take(REFUSED).collect();
    let behind = routes::behind(core).await?;
    let enabled = core.db.one(
        r#"SELECT COUNT(*) AS "n" FROM "Nodes" WHERE "enabled" = ?"#,
        args![true],
    );
    Ok(Overview {
        jobs,
        containers: counts(
            core,
            r#"SELECT COALESCE("state", 'none') AS "name", COUNT(*) AS "n" FROM "Containers" GROUP BY COALESCE("state", 'none')"#,
        )
        .await?,
        services: counts(
            core,
            r#"SELECT "type" AS "name", COUNT(*) AS "n" FROM "Services" GROUP BY "type""#,
        )
        .await?,
        services_left_out: i64::try_from(table.troubles.len()).unwrap_or(i64::MAX),
        standings: states,
        refused,
        nodes: enabled.await?.get("n")?,
        proxies: behind.into_iter().map(|(name, behind)| (name, !behind)).collect(),
    })
}

async fn counts(core: &Core, sql: &'static str) -> Result<BTreeMap<String, i64>> {
    let rows = core.db.all(sql, args![]).await?;
    rows.iter()
        .map(|row| Ok((row.get("name")?, row.get("n")?)))
        .collect()
}
