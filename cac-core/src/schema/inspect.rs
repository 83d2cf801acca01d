//! What kind of database this is, before anything is changed: empty, ours, the original's, or somebody else's.

use super::record::{self, Records};
use super::{adoption, refused};
use crate::Result;
use crate::args;
use crate::db::{Db, Dialect, Retry, Tx};

/// A database that can be worked on.
pub(super) enum State {
    /// The original's, complete, and not adopted.
    Original,
    Ours(Records),
}

enum Found {
    Fresh,
    Original,
    Ours(Records),
}

/// Looks, and makes sure that `Migrations` exists in a fresh database; with `adopt`, also that the adoption of an
/// original's is begun.
pub(super) async fn prepare(db: &Db, adopt: bool) -> Result<State> {
    let mut retry = Retry::default();
    loop {
        match attempt(db, adopt).await {
            Err(crate::Error::Busy { .. }) if retry.again().await => {}
            outcome => return outcome,
        }
    }
}

async fn attempt(db: &Db, adopt: bool) -> Result<State> {
    let mut tx = db.write().await?;
    let found = examine(&mut tx).await?;
    match found {
        Found::Ours(records) => return Ok(State::Ours(records)),
        Found::Original if !adopt => return Ok(State::Original),
        Found::Fresh | Found::Original => {}
    }
    let create = record::create(db.dialect());
    if db.dialect() == Dialect::MariaDb {
        tx.rollback().await;
        db.ddl(create, false).await?;
        tx = db.write().await?;
    } else {
        tx.ddl(create).await?;
    }
    if matches!(found, Found::Original) {
        adoption::begin(&mut tx).await?;
    }
    let records = Records::load(&mut tx).await?;
    tx.commit().await?;
    Ok(State::Ours(records))
}

/// What is recorded, without changing anything; nothing on a fresh database and on the original's.
pub(super) async fn look(db: &Db) -> Result<Records> {
    let mut tx = db.read().await?;
    match examine(&mut tx).await? {
        Found::Ours(records) => Ok(records),
        Found::Fresh | Found::Original => Ok(Records::default()),
    }
}

pub(super) async fn is_original(db: &Db) -> Result<bool> {
    let mut tx = db.read().await?;
    Ok(matches!(examine(&mut tx).await?, Found::Original))
}

async fn examine(tx: &mut Tx) -> Result<Found> {
    let tables = tables(tx).await?;
    let has = |name: &str| tables.iter().any(|table| table == name);
    if has("Migrations") {
        let records = Records::load(tx).await?;
        if records.newest().is_some() {
            return Ok(Found::Ours(records));
        }
    }
    let others: Vec<&str> = tables
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "Migrations")
        .collect();
    if others.is_empty() {
        return Ok(Found::Fresh);
    }
    if tx.dialect() != Dialect::MariaDb || !has("SequelizeMeta") {
        return Err(refused(format!(
            "the database holds tables that are not ours ({}): use an empty database, or one of the original program \
             with its SequelizeMeta",
            others.join(", ")
        )));
    }
    verify(tx, &others).await?;
    Ok(Found::Original)
}

async fn tables(tx: &mut Tx) -> Result<Vec<String>> {
    let sql = match tx.dialect() {
        Dialect::Sqlite => {
            r#"SELECT "name" AS "item" FROM sqlite_master WHERE "type" = 'table' AND "name" NOT LIKE 'sqlite!_%' ESCAPE '!'
               ORDER BY 1"#
        }
        Dialect::MariaDb => {
            r#"SELECT TABLE_NAME AS "item" FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1"#
        }
        Dialect::Postgres => {
            r#"SELECT table_name AS "item" FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY 1"#
        }
    };
    let rows = tx.all(sql, args![]).await?;
    Ok(rows
        .iter()
        .map(|row| row.get("item"))
        .collect::<Result<_, _>>()?)
}

/// The original's migrations, all of them.
const SEQUELIZE: [&str; 11] = [
    "20251021131421-create-container.js",
    "20251021184500-create-services.js",
    "20251104160710-add-service-uniqueness-constraints.js",
    "20251104184238-add-node-field-to-containers.js",
    "20251104193601-create-node.js",
    "20251104193722-convert-container-node-to-node-id.js",
    "20251105145958-add-api-token-to-nodes.js",
    "20251105155228-create-sessions-table.js",
    "20251117120000-create-jobs.js",
    "20251117120001-create-jobstatuses.js",
    "20251117120002-add-job-createdby.js",
];

/// Columns after the original's last migration: type, and the type that ours leaves behind when it is undone.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("Containers", "id", "int"),
    ("Containers", "hostname", "varchar(255)"),
    ("Containers", "username", "varchar(255)"),
    ("Containers", "osRelease", "varchar(255)"),
    ("Containers", "containerId", "int unsigned"),
    ("Containers", "macAddress", "varchar(17)"),
    ("Containers", "ipv4Address", "varchar(45)"),
    ("Containers", "aiContainer", "varchar(50)"),
    ("Containers", "createdAt", "datetime"),
    ("Containers", "updatedAt", "datetime"),
    ("Containers", "nodeId", "int"),
    ("JobStatuses", "id", "int"),
    ("JobStatuses", "jobId", "int"),
    ("JobStatuses", "output", "text"),
    ("JobStatuses", "createdAt", "datetime"),
    ("JobStatuses", "updatedAt", "datetime"),
    ("Jobs", "id", "int"),
    ("Jobs", "command", "varchar(2000)"),
    (
        "Jobs",
        "status",
        "enum('pending','running','success','failure','cancelled')",
    ),
    ("Jobs", "createdAt", "datetime"),
    ("Jobs", "updatedAt", "datetime"),
    ("Jobs", "createdBy", "varchar(255)"),
    ("Nodes", "id", "int"),
    ("Nodes", "name", "varchar(255)"),
    ("Nodes", "apiUrl", "varchar(255)"),
    ("Nodes", "tokenId", "varchar(255)"),
    ("Nodes", "secret", "varchar(255)"),
    ("Nodes", "tlsVerify", "tinyint(1)"),
    ("Nodes", "createdAt", "datetime"),
    ("Nodes", "updatedAt", "datetime"),
    ("SequelizeMeta", "name", "varchar(255)"),
    ("Services", "id", "int"),
    ("Services", "containerId", "int"),
    ("Services", "type", "enum('tcp','udp','http')"),
    ("Services", "internalPort", "int unsigned"),
    ("Services", "externalPort", "int unsigned"),
    ("Services", "tls", "tinyint(1)"),
    ("Services", "externalHostname", "varchar(255)"),
    ("Services", "createdAt", "datetime"),
    ("Services", "updatedAt", "datetime"),
    ("Sessions", "session_id", "varchar(32)"),
    ("Sessions", "expires", "datetime"),
    ("Sessions", "data", "text"),
    ("Sessions", "createdAt", "datetime"),
    ("Sessions", "updatedAt", "datetime"),
];

/// Refuses anything but the original's database after its last migration, naming each difference.
async fn verify(tx: &mut Tx, tables: &[&str]) -> Result<()> {
    let mut found = migrations(tx).await?;
    let known = |table: &str| COLUMNS.iter().any(|(name, ..)| *name == table);
    for table in tables.iter().filter(|table| !known(table)) {
        found.push(format!("the table {table} is not the original's"));
    }
    found.extend(columns(tx).await?);
    if found.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "this looks like a database of the original program, but not after its last migration: {}. Nothing was \
         changed. Run the original's migrations to the end, or put right what is named here, then try again",
        found.join("; ")
    )))
}

async fn migrations(tx: &mut Tx) -> Result<Vec<String>> {
    let rows = tx
        .all(
            r#"SELECT "name" FROM "SequelizeMeta" ORDER BY "name""#,
            args![],
        )
        .await?;
    let ran: Vec<String> = rows
        .iter()
        .map(|row| row.get("name"))
        .collect::<Result<_, _>>()?;
    let missing = SEQUELIZE
        .iter()
        .filter(|name| !ran.iter().any(|other| other == *name))
        .map(|name| format!("SequelizeMeta lacks {name}"));
    let unknown = ran
        .iter()
        .filter(|name| !SEQUELIZE.contains(&name.as_str()))
        .map(|name| format!("SequelizeMeta has the unknown {name}"));
    Ok(missing.chain(unknown).collect())
}

async fn columns(tx: &mut Tx) -> Result<Vec<String>> {
    let sql = r#"SELECT TABLE_NAME AS "owner", COLUMN_NAME AS "item", COLUMN_TYPE AS "kind" FROM information_schema.COLUMNS
        WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, ORDINAL_POSITION"#;
    let mut there: Vec<(String, String, String)> = Vec::new();
    for row in tx.all(sql, args![]).await? {
        there.push((row.get("owner")?, row.get("item")?, row.get("kind")?));
    }
    let mut found = Vec::new();
    for (table, column, kind) in COLUMNS {
        match there
            .iter()
            .find(|(owner, item, _)| owner == table && item == column)
        {
            None => found.push(format!("{table}.{column} is missing")),
            Some((.., actual)) if normal(actual) != normal(kind) => {
                found.push(format!("{table}.{column} is {actual} instead of {kind}"));
            }
            Some(_) => {}
        }
    }
    for (table, column, _) in &there {
        let known_table = COLUMNS.iter().any(|(owner, ..)| owner == table);
        let known = COLUMNS
            .iter()
            .any(|(owner, item, _)| owner == table && item == column);
        if known_table && !known {
            found.push(format!("{table}.{column} is not the original's"));
        }
    }
    Ok(found)
}

/// Display widths differ between servers; the widened types are what our migration leaves behind when undone.
fn normal(kind: &str) -> String {
    match kind.to_lowercase().as_str() {
        "int(11)" => "int".to_owned(),
        "int(10) unsigned" => "int unsigned".to_owned(),
        "datetime(3)" => "datetime".to_owned(),
        "varchar(64)" => "varchar(32)".to_owned(),
        other => other.to_owned(),
    }
}
