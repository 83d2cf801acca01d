//! What an installation remembers about itself: rows of `Settings`. Not the configuration, which comes from the environment.

use rand::Rng as _;

use crate::clock::Clock;
use crate::db::{Db, Tx};
use crate::{Result, args, transaction};

/// The random name of this installation; part of every ownership marker.
pub const INSTALLATION: &str = "installation";

const VALUE: &str = r#"SELECT "value" FROM "Settings" WHERE "name" = ?"#;

/// The value of a setting.
pub async fn find(tx: &mut Tx, name: &str) -> Result<Option<String>> {
    let row = tx.opt(VALUE, args![name]).await?;
    Ok(row.map(|row| row.get("value")).transpose()?)
}

/// The value of a setting, outside of a transaction.
pub async fn value(db: &Db, name: &str) -> Result<Option<String>> {
    let row = db.opt(VALUE, args![name]).await?;
    Ok(row.map(|row| row.get("value")).transpose()?)
}

/// Sets a setting that is not there yet. The caller holds the lock `settings`.
pub async fn create(tx: &mut Tx, clock: &Clock, name: &str, value: &str) -> Result<()> {
    let now = clock.now();
    tx.exec(
        r#"INSERT INTO "Settings" ("name", "value", "createdAt", "updatedAt") VALUES (?, ?, ?, ?)"#,
        args![name, value, now, now],
    )
    .await?;
    Ok(())
}

/// Changes a setting, or sets it. The caller holds the lock `settings`.
pub async fn update(tx: &mut Tx, clock: &Clock, name: &str, value: &str) -> Result<()> {
    let changed = tx
        .exec(
            r#"UPDATE "Settings" SET "value" = ?, "updatedAt" = ? WHERE "name" = ?"#,
            args![value, clock.now(), name],
        )
        .await?;
    if changed == 0 {
        create(tx, clock, name, value).await?;
    }
    Ok(())
}

/// The installation's name, made once: eight hexadecimal digits.
pub async fn installation(db: &Db, clock: &Clock) -> Result<String> {
    transaction!(db, tx => {
        tx.lock("settings").await?;
        if let Some(found) = find(tx, INSTALLATION).await? {
            found
        } else {
            let made = format!("{:08x}", rand::rng().random::<u32>());
            create(tx, clock, INSTALLATION, &made).await?;
            made
        }
    })
}
