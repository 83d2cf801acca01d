//! What the database remembers of the routes: the last good form of each service, and revisions. A revision is a number that grows
//! whenever the form of a service changes, comes or goes; the entity tags of the files that show it are kept with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::form::{self, Chosen, Known, Rows, Trouble};
use super::live::{Without, note_all};
use crate::db::{Row, Tx};
use crate::infrastructure::{self, Infrastructure};
use crate::nginx::Service;
use crate::{Core, Result, args, transaction};

/// Entity tags that are kept.
const MOST: i64 = 10_000;

/// What a process knows of it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    known: Option<HashMap<i64, Known>>,
    revision: i64,
    /// Entity tags that are stored, with their revision and what they leave out.
    tags: HashMap<String, (i64, Without)>,
    /// What was logged already.
    pub(super) told: BTreeMap<i64, Trouble>,
}

const FORMS: &str = r#"SELECT "serviceId", "form", "revision" FROM "Routes""#;
const LAST: &str = r#"SELECT COALESCE(MAX("revision"), 0) AS "n" FROM "Revisions""#;
/// The tag of no file: its row counts the revisions.
const COUNTER: &str = "";

fn read(rows: &[Row]) -> Result<HashMap<i64, Known>> {
    let mut known = HashMap::with_capacity(rows.len());
    for row in rows {
        let form: String = row.get("form")?;
        // A form of another version is none.
        let Ok(form) = serde_json::from_str::<Service>(&form) else {
            continue;
        };
        let revision = row.get("revision")?;
        known.insert(row.get("serviceId")?, Known { form, revision });
    }
    Ok(known)
}

/// What is served now, without a note of it.
pub(super) async fn look(core: &Core) -> Result<Chosen> {
    let rows = form::read(core).await?;
    let known = read(&core.db.all(FORMS, args![]).await?)?;
    Ok(form::choose(&core.config.nginx, &rows, &known))
}

/// What is served now, and its revision; the good forms are remembered.
pub(super) async fn settle(core: &Core, memory: &mut Memory) -> Result<(Chosen, i64)> {
    let rows = form::read(core).await?;
    if let Some(known) = &memory.known {
        let chosen = form::choose(&core.config.nginx, &rows, known);
        // Another process may have seen a newer good form of what is in trouble now.
        if chosen.troubles.is_empty() && differences(&chosen, known).is_none() {
            return Ok((chosen, memory.revision));
        }
    }
    // In this order, what another process writes meanwhile is seen in what is read later, and never taken for what was read before.
    let last: i64 = core.db.one(LAST, args![]).await?.get("n")?;
    let known = read(&core.db.all(FORMS, args![]).await?)?;
    let newest = known.values().map(|known| known.revision).max();
    let last = newest.map_or(last, |newest| newest.max(last));
    let rows = form::read(core).await?;
    let chosen = form::choose(&core.config.nginx, &rows, &known);
    if differences(&chosen, &known).is_none() {
        memory.known = Some(known);
        memory.revision = last;
        return Ok((chosen, last));
    }
    // Hosts may have to be resolved, which no transaction waits for.
    let infrastructure = infrastructure::known(core).await?;
    let (chosen, known, revision) = transaction!(core.db, tx => {
        tx.lock("routes").await?;
        write(tx, core, Arc::clone(&infrastructure)).await?
    })?;
    memory.known = Some(known);
    memory.revision = revision;
    Ok((chosen, revision))
}

/// Services whose form is new, and those that are not served any more.
type Differences = (BTreeMap<i64, Service>, Vec<i64>);

fn differences(chosen: &Chosen, known: &HashMap<i64, Known>) -> Option<Differences> {
    let new = chosen
        .served
        .iter()
        .filter(|(id, form)| known.get(id).is_none_or(|known| known.form != **form));
    let new: BTreeMap<_, _> = new.map(|(id, form)| (*id, form.clone())).collect();
    let gone = known.keys().filter(|id| !chosen.served.contains_key(id));
    let gone: Vec<i64> = gone.copied().collect();
    (!new.is_empty() || !gone.is_empty()).then_some((new, gone))
}

async fn write(
    tx: &mut Tx,
    core: &Core,
    infrastructure: Arc<Infrastructure>,
) -> Result<(Chosen, HashMap<i64, Known>, i64)> {
    let rows = tx.all(form::ROWS, args![]).await?;
    let rows = Rows::read(&core.config, infrastructure, &rows)?;
    let mut known = read(&tx.all(FORMS, args![]).await?)?;
    let last: i64 = tx.one(LAST, args![]).await?.get("n")?;
    let chosen = form::choose(&core.config.nginx, &rows, &known);
    let Some((new, mut gone)) = differences(&chosen, &known) else {
        return Ok((chosen, known, last));
    };
    let (now, revision) = (core.clock.now(), last + 1);
    count(tx, COUNTER, revision, &Without::default(), now).await?;
    gone.extend(new.keys());
    for some in gone.chunks(1000) {
        let sql = r#"DELETE FROM "Routes" WHERE "serviceId" IN ?"#;
        tx.exec(sql, args![some.to_vec()]).await?;
    }
    for id in gone {
        known.remove(&id);
    }
    let line = |(id, form): (&i64, &Service)| {
        let form = serde_json::to_string(form).unwrap_or_default();
        args![*id, form, revision, now, now]
    };
    let sql = r#"INSERT INTO "Routes" ("serviceId", "form", "revision", "createdAt", "updatedAt") VALUES (?, ?, ?, ?, ?)"#;
    tx.insert_all(sql, new.iter().map(line).collect()).await?;
    for (id, form) in new {
        known.insert(id, Known { form, revision });
    }
    Ok((chosen, known, revision))
}

/// Remembers that a file with this entity tag shows the revision, without those.
pub(super) async fn tag(
    core: &Core,
    memory: &mut Memory,
    etag: &str,
    revision: i64,
    out: &Without,
) -> Result<()> {
    let known = memory.tags.get(etag);
    if known.is_some_and(|(known, without)| *known == revision && without == out) {
        return Ok(());
    }
    let now = core.clock.now();
    transaction!(core.db, tx => {
        tx.lock("routes").await?;
        let sql = r#"SELECT "revision" FROM "Revisions" WHERE "etag" = ? AND "revision" > ?"#;
        // A state that comes back has its old tag and a new number. Another process may have seen that already.
        if tx.opt(sql, args![etag, revision]).await?.is_none() {
            let sql = r#"SELECT "leftOut" FROM "Revisions" WHERE "etag" = ? AND "revision" = ?"#;
            let before = match tx.opt(sql, args![etag, revision]).await? {
                Some(row) => Some(Without::from_row(&row)?),
                None => None,
            };
            // Of two proxies with the same file only the one that says which ports are taken can be told from its report.
            let out = before.as_ref().filter(|before| **before == Without::Streams).unwrap_or(out);
            count(tx, etag, revision, out, now).await?;
            note_all(tx, etag, now).await?;
        }
    })?;
    memory.tags.retain(|_, (known, _)| *known > revision - MOST);
    let tag = (revision, out.clone());
    memory.tags.insert(etag.to_owned(), tag);
    Ok(())
}

async fn count(
    tx: &mut Tx,
    etag: &str,
    revision: i64,
    out: &Without,
    now: DateTime<Utc>,
) -> Result<()> {
    let sql = r#"DELETE FROM "Revisions" WHERE "etag" = ? OR "revision" < ?"#;
    tx.exec(sql, args![etag, revision - MOST]).await?;
    let sql = r#"INSERT INTO "Revisions" ("etag", "revision", "leftOut", "createdAt", "updatedAt") VALUES (?, ?, ?, ?, ?)"#;
    tx.exec(sql, args![etag, revision, out.to_string(), now, now])
        .await?;
    Ok(())
}
