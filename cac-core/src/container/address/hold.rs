//! An address whose holder shows none at all (it is stopped, or boots) is held for it for [`HELD`]: whoever forges an address would get it
//! at the holder's next restart otherwise. It is given away at once where the holder shows another one, or is gone.

use chrono::{DateTime, Utc};

use crate::db::Tx;
use crate::{Core, Result, args};

/// How long an address stays with a container that shows none any more.
const HELD: chrono::Duration = chrono::Duration::hours(1);

/// Another container for which the address is held, if there is one that has no other address, and until when.
pub(super) async fn held_for(
    tx: &mut Tx,
    address: &str,
    except: i64,
) -> Result<Option<(i64, DateTime<Utc>)>> {
    let sql = r#"SELECT h."containerId", h."until" FROM "AddressHolds" h JOIN "Containers" c ON c."id" = h."containerId"
                 WHERE h."address" = ? AND h."containerId" <> ? AND (c."ipv4Address" IS NULL OR c."ipv4Address" = h."address")"#;
    match tx.opt(sql, args![address, except]).await? {
        Some(row) => Ok(Some((row.get("containerId")?, row.get("until")?))),
        None => Ok(None),
    }
}

/// Whether the address is held for this very container.
pub(super) async fn is_held_by(core: &Core, address: &str, container: i64) -> Result<bool> {
    let sql = r#"SELECT "containerId" FROM "AddressHolds" WHERE "address" = ? AND "containerId" = ? AND "until" > ?"#;
    let now = core.clock.now();
    let row = core.db.opt(sql, args![address, container, now]).await?;
    Ok(row.is_some())
}

/// Ends the hold of an address that its container shows again: its next silence begins anew.
pub(crate) async fn end_own_hold(core: &Core, address: &str, container: i64) -> Result<()> {
    let sql =
        r#"SELECT "containerId" FROM "AddressHolds" WHERE "address" = ? AND "containerId" = ?"#;
    if core.db.opt(sql, args![address, container]).await?.is_some() {
        let sql = r#"DELETE FROM "AddressHolds" WHERE "address" = ? AND "containerId" = ?"#;
        core.db.exec(sql, args![address, container]).await?;
    }
    Ok(())
}

/// Holds the address for a container that shows none from now on; until when. A container holds one address: whoever showed another one
/// before each stop would hold a whole network otherwise.
pub(crate) async fn hold(
    tx: &mut Tx,
    core: &Core,
    address: &str,
    container: i64,
) -> Result<DateTime<Utc>> {
    let now = core.clock.now();
    let until = now + HELD;
    let sql =
        r#"DELETE FROM "AddressHolds" WHERE "address" = ? OR "containerId" = ? OR "until" < ?"#;
    tx.exec(sql, args![address, container, now - HELD]).await?;
    let sql = r#"INSERT INTO "AddressHolds" ("address", "containerId", "until") VALUES (?, ?, ?)"#;
    tx.exec(sql, args![address, container, until]).await?;
    Ok(until)
}

pub(super) async fn end_hold(tx: &mut Tx, address: &str) -> Result<()> {
    let sql = r#"DELETE FROM "AddressHolds" WHERE "address" = ?"#;
    tx.exec(sql, args![address]).await?;
    Ok(())
}
