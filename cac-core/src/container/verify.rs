//! The rows that wait for a look in Proxmox VE: registered while their node could not be asked, found to be another container, or adopted
//! without their sizes. Any number of processes may run this; each round is made by one of them.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::identity::{self, Look};
use super::{Container, find_any};
use crate::node::{self, cluster};
use crate::{Core, Result, args, setting, transaction};

/// The setting that says when the last round began, in milliseconds since 1970, and after which row the next one goes on.
const ROUND: &str = "identity.round";
/// Between two rounds.
const EVERY: Duration = Duration::from_secs(30);
/// Rows of one round.
const ROWS: u32 = 200;
/// Calls to Proxmox VE at once.
const AT_ONCE: usize = 8;

/// Looks at the waiting rows again and again until `stop`.
pub async fn keep_verifying(core: Core, stop: CancellationToken) {
    loop {
        if let Err(error) = round(&core).await {
            tracing::warn!(%error, "identities cannot be verified");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One round, unless another process has begun one lately.
async fn round(core: &Core) -> Result<()> {
    let Some(after) = begin(core).await? else {
        return Ok(());
    };
    let last = verify_after(core, after).await?;
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let began = read(tx).await?.map_or(0, |round| round.began);
        setting::update(tx, &core.clock, ROUND, &format!("{began} {last}")).await?;
    })
}

struct Round {
    began: i64,
    after: i64,
}

async fn read(tx: &mut crate::db::Tx) -> Result<Option<Round>> {
    let text = setting::find(tx, ROUND).await?;
    let numbers = text.as_deref().and_then(|text| text.split_once(' '));
    Ok(numbers.and_then(|(began, after)| {
        Some(Round {
            began: began.parse().ok()?,
            after: after.parse().ok()?,
        })
    }))
}

/// The row after which this round goes on; `None` when it is not this process's.
async fn begin(core: &Core) -> Result<Option<i64>> {
    let now = core.clock.now().timestamp_millis();
    let pause = i64::try_from(EVERY.as_millis()).unwrap_or(i64::MAX) / 2;
    transaction!(core.db, tx => {
        tx.lock("settings").await?;
        let last = read(tx).await?;
        // A clock that was set back ends the pause, too.
        if last.as_ref().is_some_and(|last| (0..pause).contains(&(now - last.began))) {
            return Ok(None);
        }
        let after = last.map_or(0, |last| last.after);
        setting::update(tx, &core.clock, ROUND, &format!("{now} {after}")).await?;
        Some(after)
    })
}

/// Looks at all waiting rows now: learns clusters, claims VMIDs, proves identities.
pub async fn verify(core: &Core) -> Result<()> {
    let mut after = 0;
    loop {
        after = verify_after(core, after).await?;
        if after == 0 {
            return Ok(());
        }
    }
}

/// Looks at some rows; the id after which to go on, 0 for the beginning.
async fn verify_after(core: &Core, after: i64) -> Result<i64> {
    let nodes = node::all(core).await?;
    cluster::learn_all(core, &nodes).await?;
    transaction!(core.db, tx => {
        tx.lock("names").await?;
        cluster::claim_missing(tx).await?;
    })?;
    let sql = r#"SELECT "id" FROM "Containers" WHERE "id" > ? AND "state" IS NULL AND "nodeId" IS NOT NULL AND "containerId" IS NOT NULL
                   AND ("unverifiedSince" IS NOT NULL OR "identityMismatchAt" IS NOT NULL OR "cores" IS NULL OR "memory" IS NULL OR "disk" IS NULL)
                 ORDER BY "id" LIMIT ?"#;
    let rows = core.db.all(sql, args![after, ROWS]).await?;
    let ids = rows.iter().map(|row| Ok(row.get::<i64>("id")?));
    let ids = ids.collect::<Result<Vec<i64>>>()?;
    let looks: Vec<BoxFuture<'_, _>> = ids.iter().map(|id| look(core, *id).boxed()).collect();
    let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
    while let Some(outcome) = looks.next().await {
        outcome?;
    }
    let full = ids.len() >= ROWS as usize;
    Ok(ids.last().copied().filter(|_| full).unwrap_or(0))
}

async fn look(core: &Core, id: i64) -> Result<()> {
    let Some(row) = find_any(core, id).await? else {
        return Ok(());
    };
    let looked = tokio::time::timeout(node::AWAY, identity::look(core, &row)).await;
    match looked {
        Ok(Ok(Look::Gone)) => missing(&row),
        // What a look proves it stores itself.
        Ok(outcome) => drop(outcome?),
        Err(_) => {}
    }
    Ok(())
}

fn missing(row: &Container) {
    if row.unverified_since.is_some() {
        let vmid = row.container_id.unwrap_or_default();
        tracing::warn!(
            container = row.id,
            vmid,
            "registered, and not in Proxmox VE"
        );
    }
}
