//! Telling people of sign-ins from where they have not signed in before.

use std::net::IpAddr;

use crate::actor::Actor;
use crate::job::user_mail::{self, Notice};
use crate::{Core, Result, args, login_failure, session, transaction};

/// Mails a user who signs in from where they have not signed in before.
pub(super) async fn notify(core: &Core, actor: &Actor, client: &session::Client) -> Result<()> {
    if core.config.mail.is_none() || !is_new(core, actor, client).await? {
        return Ok(());
    }
    let notice = Notice::NewDevice {
        address: client.address,
        user_agent: client.user_agent.clone(),
        at: core.clock.now(),
    };
    transaction!(core.db, tx => { user_mail::add(tx, core, &actor.username, &notice).await? })?;
    core.wake.jobs();
    Ok(())
}

/// Whether none of the user's earlier sign-ins came from this network. The first one that is known of is no news.
// The audit log has them; a store of known devices would answer better, and belongs here.
async fn is_new(core: &Core, actor: &Actor, client: &session::Client) -> Result<bool> {
    let Some(address) = client.address else {
        return Ok(false);
    };
    let sql = r#"SELECT DISTINCT "address" FROM "AuditEntries"
                 WHERE "username" = ? AND "action" = 'login_create' AND "status" < 400 AND "address" IS NOT NULL"#;
    let rows = core.db.all(sql, args![&actor.username]).await?;
    let mut known = false;
    for row in &rows {
        let earlier: String = row.get("address")?;
        let same = |ip: IpAddr| login_failure::neighbours(ip) == login_failure::neighbours(address);
        known |= earlier.parse().is_ok_and(same);
    }
    Ok(!known && !rows.is_empty())
}
