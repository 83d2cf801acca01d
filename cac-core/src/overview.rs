//! How much there is of everything, for metrics. Nobody's names are in it.

use std::collections::BTreeMap;

use crate::{Core, Result, args, proxy, routes};

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
    /// Hosts that containers may be made on.
    pub nodes: i64,
    /// By name: whether the newest configuration is live there.
    pub proxies: BTreeMap<String, bool>,
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
    let settings = routes::settings(&core.config);
    let settings = settings.map_err(|error| crate::Error::Internal(error.to_string()))?;
    let (file, left_out) = routes::read(core, &settings).await?;
    let revision = file.etag;
    let proxies = proxy::all(core).await?.into_iter();
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
        services_left_out: i64::try_from(left_out.len()).unwrap_or(i64::MAX),
        nodes: enabled.await?.get("n")?,
        proxies: proxies
            .map(|proxy| (proxy.name, proxy.revision.as_ref() == Some(&revision)))
            .collect(),
    })
}

async fn counts(core: &Core, sql: &'static str) -> Result<BTreeMap<String, i64>> {
    let rows = core.db.all(sql, args![]).await?;
    rows.iter()
        .map(|row| Ok((row.get("name")?, row.get("n")?)))
        .collect()
}
