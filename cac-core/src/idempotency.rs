//! Idempotency keys: the same key of the same owner within 24 h stands for the same request, which is carried out once.

use crate::actor::Actor;
use crate::db::Tx;
use crate::{Core, Error, Result, args, secret};

/// What a request made, as it is told again when it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) container: Option<i64>,
    pub(crate) job: i64,
}

/// A well-formed key with the request that it stands for.
pub(crate) struct Key<'a> {
    key: &'a str,
    hash: String,
    /// How releases before hashed the same request; their keys live on for 24 h.
    former: Option<String>,
}

impl<'a> Key<'a> {
    /// `request` is any text that differs between different requests, and that a later release writes alike: never what `Debug`
    /// makes of a type.
    pub(crate) fn new(key: &'a str, request: &str) -> Result<Self> {
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid(
                "Idempotency-Key",
                "Use 1 to 255 printable ASCII characters without blanks.",
            ));
        }
        Ok(Self {
            key,
            hash: secret::hash(request),
            former: None,
        })
    }

    /// The same request as a release before wrote it.
    pub(crate) fn formerly(mut self, request: &str) -> Self {
        self.former = Some(secret::hash(request));
        self
    }

    /// What the same request made before; another request by this key is refused.
    pub(crate) async fn find(
        &self,
        tx: &mut Tx,
        core: &Core,
        actor: &Actor,
    ) -> Result<Option<Made>> {
        let since = core.clock.now() - chrono::Duration::hours(24);
        let row = tx
            .opt(
                r#"SELECT "requestHash", "containerId", "jobId" FROM "IdempotencyKeys"
                   WHERE "username" = ? AND "idempotencyKey" = ? AND "createdAt" > ?"#,
                args![&actor.username, self.key, since],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let stored: String = row.get("requestHash")?;
        if stored != self.hash && self.former.as_ref() != Some(&stored) {
            return Err(Error::conflict(
                "Idempotency-Key",
                "This key was used for another request; use a new one.",
            ));
        }
        Ok(Some(Made {
            container: row.get("containerId")?,
            job: row.get("jobId")?,
        }))
    }

    /// Remembers what the request made, in the transaction that made it; [`Self::find`] came first.
    pub(crate) async fn create(
        &self,
        tx: &mut Tx,
        core: &Core,
        actor: &Actor,
        made: Made,
    ) -> Result<()> {
        let now = core.clock.now();
        // Only one that is older than 24 h can still be there: a younger one was found before.
        tx.exec(
            r#"DELETE FROM "IdempotencyKeys" WHERE "username" = ? AND "idempotencyKey" = ?"#,
            args![&actor.username, self.key],
        )
        .await?;
        tx.insert(
            r#"INSERT INTO "IdempotencyKeys" ("username", "idempotencyKey", "requestHash", "containerId", "jobId", "createdAt", "updatedAt")
               VALUES (?, ?, ?, ?, ?, ?, ?)"#,
            args![&actor.username, self.key, &self.hash, made.container, made.job, now, now],
        )
        .await?;
        Ok(())
    }
}
