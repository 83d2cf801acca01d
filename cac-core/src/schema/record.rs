//! The table `Migrations`: which statements ran, which was announced and never confirmed, and what adoption did.

use chrono::{DateTime, Utc};

use super::adoption;
use super::migration::{ADOPTING, Direction, ORIGINAL};
use crate::db::{self, Dialect, Tx};
use crate::{Result, args};

/// Number under which the steps of an adoption are recorded; its statement 0 says that it began.
pub(super) const ADOPTION: i32 = 0;

pub(super) const CREATE_SQLITE: &str = r#"CREATE TABLE IF NOT EXISTS "Migrations" (
  "number" INTEGER NOT NULL,
  "direction" VARCHAR(4) NOT NULL,
  "statement" INTEGER NOT NULL,
  "name" VARCHAR(255) NOT NULL,
  "startedAt" TEXT NOT NULL,
  "appliedAt" TEXT,
  "affected" BIGINT,
  PRIMARY KEY ("number", "direction", "statement")
)"#;
pub(super) const CREATE_MARIADB: &str = r"CREATE TABLE IF NOT EXISTS `Migrations` (
  `number` int NOT NULL,
  `direction` varchar(4) NOT NULL,
  `statement` int NOT NULL,
  `name` varchar(255) NOT NULL,
  `startedAt` datetime(3) NOT NULL,
  `appliedAt` datetime(3) DEFAULT NULL,
  `affected` bigint DEFAULT NULL,
  PRIMARY KEY (`number`, `direction`, `statement`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin";
pub(super) const CREATE_POSTGRES: &str = r#"CREATE TABLE IF NOT EXISTS "Migrations" (
  "number" INTEGER NOT NULL,
  "direction" VARCHAR(4) NOT NULL,
  "statement" INTEGER NOT NULL,
  "name" VARCHAR(255) NOT NULL,
  "startedAt" TIMESTAMPTZ NOT NULL,
  "appliedAt" TIMESTAMPTZ,
  "affected" BIGINT,
  PRIMARY KEY ("number", "direction", "statement")
)"#;

pub(super) fn create(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => CREATE_SQLITE,
        Dialect::MariaDb => CREATE_MARIADB,
        Dialect::Postgres => CREATE_POSTGRES,
    }
}

/// One statement of one migration, or one step of the adoption, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) number: i32,
    pub(super) direction: Direction,
    pub(super) statement: i32,
}

pub(super) struct Record {
    pub(super) key: Key,
    pub(super) name: String,
    /// `None`: announced and not confirmed.
    pub(super) applied: Option<DateTime<Utc>>,
    pub(super) affected: Option<i64>,
}

/// All that is recorded.
#[derive(Default)]
pub(super) struct Records(pub(super) Vec<Record>);

impl Records {
    pub(super) async fn load(tx: &mut Tx) -> Result<Self, db::Error> {
        let sql = r#"SELECT "number", "direction", "statement", "name", "appliedAt", "affected" FROM "Migrations"
            ORDER BY "number", "statement""#;
        let rows = tx.all(sql, args![]).await?;
        let records = rows.iter().map(|row| {
            let direction: String = row.get("direction")?;
            Ok(Record {
                key: Key {
                    number: row.get("number")?,
                    direction: if direction == "down" {
                        Direction::Down
                    } else {
                        Direction::Up
                    },
                    statement: row.get("statement")?,
                },
                name: row.get("name")?,
                applied: row.get("appliedAt")?,
                affected: row.get("affected")?,
            })
        });
        Ok(Self(records.collect::<Result<_, db::Error>>()?))
    }

    fn get(&self, key: Key) -> Option<&Record> {
        self.0.iter().find(|record| record.key == key)
    }

    pub(super) fn applied(&self, key: Key) -> bool {
        self.get(key).is_some_and(|record| record.applied.is_some())
    }

    pub(super) fn announced(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// How many statements of a migration are confirmed.
    pub(super) fn count(&self, number: i32, direction: Direction) -> usize {
        let of =
            |record: &&Record| record.key.number == number && record.key.direction == direction;
        self.0
            .iter()
            .filter(of)
            .filter(|record| record.applied.is_some())
            .count()
    }

    /// The migration whose undoing has begun.
    pub(super) fn undoing(&self) -> Option<i32> {
        let down = |record: &&Record| record.key.direction == Direction::Down;
        self.0.iter().find(down).map(|record| record.key.number)
    }

    pub(super) fn adopted(&self) -> bool {
        self.announced(adoption_key(0))
    }

    pub(super) fn half_adopted(&self) -> bool {
        let done = |step: &adoption::Step| self.applied(adoption_key(step.statement()));
        self.adopted() && !adoption::Step::ALL.iter().all(done)
    }

    pub(super) fn affected(&self, key: Key) -> u64 {
        let affected = self.get(key).and_then(|record| record.affected);
        affected
            .and_then(|number| u64::try_from(number).ok())
            .unwrap_or(0)
    }

    /// The highest recorded migration.
    pub(super) fn newest(&self) -> Option<&Record> {
        self.0.last()
    }
}

pub(super) fn adoption_key(statement: i32) -> Key {
    Key {
        number: ADOPTION,
        direction: Direction::Up,
        statement,
    }
}

/// Records a statement as done, inside the transaction that did it.
pub(super) async fn insert(
    tx: &mut Tx,
    key: Key,
    name: &str,
    affected: Option<u64>,
) -> Result<(), db::Error> {
    let now = Utc::now();
    let affected = affected.and_then(|number| i64::try_from(number).ok());
    let sql = r#"INSERT INTO "Migrations" ("number", "direction", "statement", "name", "startedAt", "appliedAt", "affected")
        VALUES (?, ?, ?, ?, ?, ?, ?)"#;
    let args = args![
        key.number,
        key.direction.name(),
        key.statement,
        name,
        now,
        now,
        affected
    ];
    tx.exec(sql, args).await.map(drop)
}

/// Announces a statement that cannot share a transaction with its record.
pub(super) async fn announce(db: &db::Db, key: Key, name: &str) -> Result<(), db::Error> {
    let sql = r#"INSERT INTO "Migrations" ("number", "direction", "statement", "name", "startedAt")
        VALUES (?, ?, ?, ?, ?)"#;
    let args = args![
        key.number,
        key.direction.name(),
        key.statement,
        name,
        Utc::now()
    ];
    db.exec(sql, args).await.map(drop)
}

pub(super) async fn confirm(tx: &mut Tx, key: Key) -> Result<(), db::Error> {
    let sql = r#"UPDATE "Migrations" SET "appliedAt" = ? WHERE "number" = ? AND "direction" = ? AND "statement" = ?"#;
    let args = args![Utc::now(), key.number, key.direction.name(), key.statement];
    tx.exec(sql, args).await.map(drop)
}

/// Takes back an announcement whose statement is known to have done nothing.
pub(super) async fn withdraw(db: &db::Db, key: Key) -> Result<(), db::Error> {
    let sql = r#"DELETE FROM "Migrations"
        WHERE "number" = ? AND "direction" = ? AND "statement" = ? AND "appliedAt" IS NULL"#;
    let args = args![key.number, key.direction.name(), key.statement];
    db.exec(sql, args).await.map(drop)
}

/// Forgets a migration that is undone; with the adopting one, the adoption too: the database is the original's again.
pub(super) async fn forget(tx: &mut Tx, number: i32, adopted: bool) -> Result<(), db::Error> {
    let sql = r#"DELETE FROM "Migrations" WHERE "number" = ?"#;
    tx.exec(sql, args![number]).await?;
    if adopted && number == ADOPTING {
        tx.exec(sql, args![ORIGINAL]).await?;
        tx.exec(sql, args![ADOPTION]).await?;
    }
    Ok(())
}
