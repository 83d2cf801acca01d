//! Making the original's MariaDB database ours in place: what happens to its rows, and the account of it.
//!
//! Each step shares a transaction with its record, so it happens once. Only `Sessions` loses rows.

use serde::Serialize;
use std::collections::BTreeMap;

use chrono::Utc;

use super::migration::{Direction, MIGRATIONS, ORIGINAL};
use super::naming::{self, NamingViolation};
use super::record::{self, Key, Records, adoption_key};
use crate::Result;
use crate::args;
use crate::db::{self, Db, Dialect, Tx};

/// What an adoption did and what it leaves to an admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Adoption {
    /// Rows of `Sessions` dropped: the original kept plain passwords there.
    pub sessions_dropped: u64,
    /// Jobs that stood at `running` and are `failure` now.
    pub jobs_failed: u64,
    /// Old jobs at `pending`; they run as soon as a runner starts.
    pub jobs_pending: u64,
    /// Label and name of each node that got one.
    pub labelled: Vec<(String, String)>,
    /// Labels of containers that do not stand on one node of their own.
    pub unplaced: Vec<String>,
    /// Rows that stay, but are not rendered.
    pub violations: Vec<NamingViolation>,
}

/// A change of rows, in the order of [`Step::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Before our migration, so that no copy of the table is made with passwords in it.
    Sessions,
    Jobs,
    Labels,
}

impl Step {
    pub(super) const ALL: [Self; 3] = [Self::Sessions, Self::Jobs, Self::Labels];

    pub(super) fn statement(self) -> i32 {
        match self {
            Self::Sessions => 1,
            Self::Jobs => 2,
            Self::Labels => 3,
        }
    }

    pub(super) fn key(self) -> Key {
        adoption_key(self.statement())
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sessions => "adoption: sessions",
            Self::Jobs => "adoption: jobs",
            Self::Labels => "adoption: labels",
        }
    }

    /// Returns the number of rows changed.
    pub(super) async fn run(self, tx: &mut Tx) -> Result<u64, db::Error> {
        match self {
            Self::Sessions => tx.exec(r#"DELETE FROM "Sessions""#, args![]).await,
            Self::Jobs => fail_running(tx).await,
            Self::Labels => label_nodes(tx).await,
        }
    }
}

/// Says that the adoption began and that the original's tables are there, in one transaction.
pub(super) async fn begin(tx: &mut Tx) -> Result<(), db::Error> {
    record::insert(tx, adoption_key(0), "adoption", None).await?;
    let original = MIGRATIONS
        .iter()
        .find(|migration| migration.number == ORIGINAL);
    let original = original.expect("the first migration is compiled in");
    let statements = original.statements(Direction::Up, Dialect::MariaDb);
    for (statement, _) in (1..).zip(statements) {
        let key = Key {
            number: ORIGINAL,
            direction: Direction::Up,
            statement,
        };
        record::insert(tx, key, original.name, None).await?;
    }
    Ok(())
}

async fn fail_running(tx: &mut Tx) -> Result<u64, db::Error> {
    const REASON: &str = "The job was running when this database was taken over from the original program; \
        how far it came is unknown.";
    let now = Utc::now();
    let sql = r#"SELECT "id" FROM "Jobs" WHERE "status" = 'running' ORDER BY "id" FOR UPDATE"#;
    for row in tx.all(sql, args![]).await? {
        let id: i64 = row.get("id")?;
        let sql = r#"INSERT INTO "JobStatuses" ("jobId", "output", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#;
        tx.insert(sql, args![id, format!("{REASON}\n"), now, now])
            .await?;
    }
    let sql = r#"UPDATE "Jobs" SET "status" = 'failure', "reason" = ?, "finishedAt" = ?, "updatedAt" = ?
        WHERE "status" = 'running'"#;
    tx.exec(sql, args![REASON, now, now]).await
}

/// A label belongs to a node when all its containers stand there and no other label does so.
async fn label_nodes(tx: &mut Tx) -> Result<u64, db::Error> {
    let sql = r#"SELECT "aiContainer", "nodeId" FROM "Containers" WHERE "aiContainer" <> 'N'"#;
    let mut nodes: BTreeMap<String, Vec<Option<i64>>> = BTreeMap::new();
    for row in tx.all(sql, args![]).await? {
        nodes
            .entry(row.get("aiContainer")?)
            .or_default()
            .push(row.get("nodeId")?);
    }
    let mut labels: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for (label, mut on) in nodes.iter().map(|(label, on)| (label, on.clone())) {
        on.sort_unstable();
        on.dedup();
        if let [Some(node)] = on[..] {
            labels.entry(node).or_default().push(label);
        }
    }
    let mut changed = 0;
    for (node, on) in labels {
        if let [label] = on[..] {
            let sql =
                r#"UPDATE "Nodes" SET "aiContainer" = ? WHERE "id" = ? AND "aiContainer" IS NULL"#;
            changed += tx.exec(sql, args![label, node]).await?;
        }
    }
    Ok(changed)
}

/// The account of a finished adoption.
pub(super) async fn account(db: &Db, records: &Records) -> Result<Adoption> {
    let sql = r#"SELECT "aiContainer", "name" FROM "Nodes" WHERE "aiContainer" IS NOT NULL ORDER BY "id""#;
    let rows = db.all(sql, args![]).await?;
    let labelled: Vec<(String, String)> = rows
        .iter()
        .map(|row| Ok((row.get("aiContainer")?, row.get("name")?)))
        .collect::<Result<_, db::Error>>()?;
    let sql = r#"SELECT DISTINCT "aiContainer" FROM "Containers" WHERE "aiContainer" <> 'N' ORDER BY "aiContainer""#;
    let rows = db.all(sql, args![]).await?;
    let labels: Vec<String> = rows
        .iter()
        .map(|row| row.get("aiContainer"))
        .collect::<Result<_, _>>()?;
    let placed = |label: &String| labelled.iter().any(|(other, _)| other == label);
    let unplaced = labels.into_iter().filter(|label| !placed(label)).collect();
    let sql = r#"SELECT COUNT(*) AS "count" FROM "Jobs" WHERE "status" = 'pending'"#;
    Ok(Adoption {
        sessions_dropped: records.affected(Step::Sessions.key()),
        jobs_failed: records.affected(Step::Jobs.key()),
        jobs_pending: db.one(sql, args![]).await?.get("count")?,
        labelled,
        unplaced,
        violations: naming::naming_violations(db).await?,
    })
}
