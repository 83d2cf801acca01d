//! Doing what is left, one statement at a time, so that it can be killed anywhere and continued.

use super::adoption::{self, Step as AdoptionStep};
use super::migration::{Direction, MIGRATIONS, Migration, ORIGINAL};
use super::record::{self, Key, Records};
use super::report::Report;
use super::trail::{self, Action};
use super::{HALF_ADOPTED, inspect, loss, refused};
use crate::actor::Origin;
use crate::db::{self, Db, Dialect, Retry, Tx};
use crate::{Error, Result};

/// A kill on request, for the tests of continuing.
pub(super) struct Stop {
    left: Option<usize>,
    before_record: bool,
}

impl Stop {
    pub(super) fn never() -> Self {
        Self {
            left: None,
            before_record: false,
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn after(statements: usize, before_record: bool) -> Self {
        Self {
            left: Some(statements),
            before_record,
        }
    }

    fn count(&mut self) {
        self.left = self.left.map(|left| left.saturating_sub(1));
    }

    fn check(&self, before_record: bool) -> Result<()> {
        if self.left == Some(0) && self.before_record == before_record {
            return Err(Error::Internal("stopped on request".to_owned()));
        }
        Ok(())
    }
}

enum Step {
    Statement {
        key: Key,
        title: String,
        sql: String,
    },
    Adopt(AdoptionStep),
    /// Every statement of an undoing ran: forget the migration.
    Forget(i32),
}

pub(super) struct Runner<'a> {
    db: &'a Db,
    stop: &'a mut Stop,
    /// Who asked for it; without them nothing is written into the audit log.
    by: Option<&'a Origin>,
    /// Whether each applied migration has an entry, as on a database that was in use before.
    each: bool,
    /// What an undoing loses, for its entry.
    lost: Option<String>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(db: &'a Db, stop: &'a mut Stop, by: Option<&'a Origin>) -> Self {
        Self {
            db,
            stop,
            by,
            each: false,
            lost: None,
        }
    }

    /// Finishes an interrupted undoing first.
    pub(super) async fn up(&mut self) -> Result<Report> {
        let before = inspect::look(self.db).await?;
        self.each = before.newest().is_some() && !before.half_adopted();
        let mut applied: Vec<String> = Vec::new();
        while let Some(step) = self.advance(next_up).await? {
            if let Step::Statement { key, title, .. } = step
                && key.direction == Direction::Up
                && !applied.contains(&title)
            {
                applied.push(title);
            }
        }
        let adoption = if before.half_adopted() {
            let records = inspect::look(self.db).await?;
            Some(adoption::account(self.db, &records).await?)
        } else {
            None
        };
        Ok(Report { applied, adoption })
    }

    /// Undoes the newest migration and returns its title. What somebody would miss is dropped only with `discard`.
    pub(super) async fn down(&mut self, discard: bool) -> Result<String> {
        let records = inspect::look(self.db).await?;
        let migration = last(self.db.dialect(), &records)?;
        let dialect = self.db.dialect();
        if migration.statements(Direction::Down, dialect).is_empty() {
            let why = migration.remark(Direction::Down, dialect);
            return Err(refused(format!(
                "{} cannot be undone: {}",
                migration.title(),
                why.trim()
            )));
        }
        // One that was interrupted was let through when it began.
        if records.undoing().is_none() {
            let mut tx = self.db.read().await?;
            let losses = loss::find(&mut tx, migration).await?;
            tx.rollback().await;
            if !losses.is_empty() {
                if !discard {
                    return Err(refused(loss::refusal(&migration.title(), &losses)));
                }
                self.lost = Some(format!("lost: {}", loss::listed(&losses)));
            }
        }
        let next = |dialect, records: &Records| next_down(dialect, records, migration);
        while self.advance(next).await?.is_some() {}
        Ok(migration.title())
    }

    async fn advance(
        &mut self,
        next: impl Fn(Dialect, &Records) -> Option<Step>,
    ) -> Result<Option<Step>> {
        let mut retry = Retry::default();
        loop {
            match self.attempt(&next).await {
                Err(Error::Busy { .. }) if retry.again().await => {}
                outcome => return outcome,
            }
        }
    }

    async fn attempt(
        &mut self,
        next: &impl Fn(Dialect, &Records) -> Option<Step>,
    ) -> Result<Option<Step>> {
        let mut tx = self.db.write().await?;
        let records = Records::load(&mut tx).await?;
        known(&records)?;
        let Some(step) = next(self.db.dialect(), &records) else {
            return Ok(None);
        };
        match &step {
            Step::Statement { key, title, sql } if self.db.dialect() == Dialect::MariaDb => {
                let resumed = records.announced(*key);
                tx.rollback().await;
                self.outside(*key, title, sql, resumed).await?;
            }
            step => self.inside(tx, step, &records).await?,
        }
        Ok(Some(step))
    }

    /// MariaDB commits DDL by itself: announce, run, confirm.
    async fn outside(&mut self, key: Key, title: &str, sql: &str, resumed: bool) -> Result<()> {
        if !resumed {
            record::announce(self.db, key, title).await?;
        }
        if let Err(error) = self.db.ddl(sql, resumed).await {
            if !matches!(error, crate::db::Error::Unreachable(_)) {
                record::withdraw(self.db, key).await?;
            }
            return Err(failed(title, key, error));
        }
        self.stop.count();
        self.stop.check(true)?;
        let mut tx = self.db.write().await?;
        record::confirm(&mut tx, key).await?;
        self.write_applied(&mut tx, key, title).await?;
        tx.commit().await?;
        self.stop.check(false)
    }

    async fn inside(&mut self, mut tx: Tx, step: &Step, records: &Records) -> Result<()> {
        match step {
            Step::Statement { key, title, sql } => {
                tx.ddl(sql)
                    .await
                    .map_err(|error| failed(title, *key, error))?;
                record::insert(&mut tx, *key, title, None).await?;
                self.write_applied(&mut tx, *key, title).await?;
            }
            Step::Adopt(step) => {
                let affected = step.run(&mut tx).await?;
                record::insert(&mut tx, step.key(), step.name(), Some(affected)).await?;
                if let (Some(by), AdoptionStep::Labels) = (self.by, step) {
                    trail::write(&mut tx, by, Action::Adopt, "adoption", None).await?;
                }
            }
            Step::Forget(number) => {
                record::forget(&mut tx, *number, records.adopted()).await?;
                if let (Some(by), Some(migration)) = (self.by, find(*number))
                    && trail::has_log(*number)
                {
                    let lost = self.lost.as_deref();
                    trail::write(&mut tx, by, Action::Undo, &migration.title(), lost).await?;
                }
            }
        }
        self.stop.count();
        self.stop.check(true)?;
        tx.commit().await?;
        self.stop.check(false)
    }

    /// The entry of a migration whose last statement this is.
    async fn write_applied(&self, tx: &mut Tx, key: Key, title: &str) -> Result<(), db::Error> {
        let Some(by) = self
            .by
            .filter(|_| self.each && key.direction == Direction::Up && trail::has_log(key.number))
        else {
            return Ok(());
        };
        let count = find(key.number)
            .map(|migration| migration.statements(key.direction, self.db.dialect()).len());
        match count == usize::try_from(key.statement).ok() {
            true => trail::write(tx, by, Action::Apply, title, None).await,
            false => Ok(()),
        }
    }
}

/// Schema errors hold no user's data, and whoever migrates must see them.
fn failed(title: &str, key: Key, error: crate::db::Error) -> Error {
    if error.busy() {
        return error.into();
    }
    let direction = key.direction.name();
    refused(format!(
        "{title} {direction}, statement {}: {error}",
        key.statement
    ))
}

fn known(records: &Records) -> Result<()> {
    let newest = MIGRATIONS.last().map_or(0, |migration| migration.number);
    match records.newest() {
        Some(record) if record.key.number > newest => Err(refused(format!(
            "the database was made by a newer release (migration {}): use that release",
            record.name
        ))),
        _ => Ok(()),
    }
}

fn find(number: i32) -> Option<&'static Migration> {
    MIGRATIONS
        .iter()
        .find(|migration| migration.number == number)
}

/// The first statement that is not confirmed.
fn unconfirmed(
    dialect: Dialect,
    records: &Records,
    migration: &Migration,
    direction: Direction,
) -> Option<Step> {
    let statements = migration.statements(direction, dialect);
    (1..).zip(statements).find_map(|(statement, sql)| {
        let key = Key {
            number: migration.number,
            direction,
            statement,
        };
        (!records.applied(key)).then(|| Step::Statement {
            key,
            title: migration.title(),
            sql,
        })
    })
}

fn next_up(dialect: Dialect, records: &Records) -> Option<Step> {
    if let Some(migration) = records.undoing().and_then(find) {
        return next_down(dialect, records, migration);
    }
    let adopt = |step: AdoptionStep| {
        (records.adopted() && !records.applied(step.key())).then_some(Step::Adopt(step))
    };
    adopt(AdoptionStep::Sessions)
        .or_else(|| {
            let each = |migration| unconfirmed(dialect, records, migration, Direction::Up);
            MIGRATIONS.iter().find_map(each)
        })
        .or_else(|| AdoptionStep::ALL.into_iter().find_map(adopt))
}

fn next_down(dialect: Dialect, records: &Records, migration: &Migration) -> Option<Step> {
    let left = records.count(migration.number, Direction::Up) > 0;
    left.then(|| {
        unconfirmed(dialect, records, migration, Direction::Down)
            .unwrap_or(Step::Forget(migration.number))
    })
}

/// The migration to undo: the one whose undoing was interrupted, else the newest one.
fn last(dialect: Dialect, records: &Records) -> Result<&'static Migration> {
    known(records)?;
    if let Some(migration) = records.undoing().and_then(find) {
        return Ok(migration);
    }
    if records.half_adopted() {
        return Err(refused(HALF_ADOPTED));
    }
    let newest = records
        .newest()
        .filter(|record| record.key.number >= ORIGINAL);
    let Some(migration) = newest.and_then(|record| find(record.key.number)) else {
        return Err(refused(
            "there is nothing to undo: no migration has been applied",
        ));
    };
    let whole = migration.statements(Direction::Up, dialect).len();
    if records.count(migration.number, Direction::Up) < whole {
        let title = migration.title();
        return Err(refused(format!(
            "{title} was interrupted: run `cac migrate up` first"
        )));
    }
    Ok(migration)
}
