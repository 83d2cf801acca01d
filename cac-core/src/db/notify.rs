//! Notices from one process to others through the server itself, which only PostgreSQL does.

use sqlx::postgres::{PgListener, PgPool};

use super::{Db, Error, Pools};

/// A server that carries notices.
pub(crate) struct Notices(PgPool);

/// What arrives on one channel.
pub(crate) struct Heard(PgListener);

impl Db {
    /// Absent where the server carries no notices.
    pub(crate) fn notices(&self) -> Option<Notices> {
        match &self.0 {
            Pools::Postgres(pool) => Some(Notices(pool.clone())),
            _ => None,
        }
    }
}

impl Notices {
    /// Tells whoever listens on `channel`.
    pub(crate) async fn tell(&self, channel: &'static str) -> Result<(), Error> {
        sqlx::query("SELECT pg_notify($1, '')")
            .bind(channel)
            .execute(&self.0)
            .await?;
        Ok(())
    }

    /// Listens on `channel` by a connection of its own.
    pub(crate) async fn hear(&self, channel: &'static str) -> Result<Heard, Error> {
        let mut listener = PgListener::connect_with(&self.0).await?;
        listener.listen(channel).await?;
        Ok(Heard(listener))
    }
}

impl Heard {
    /// Resolves at the next notice, and after a lost connection, when some may have been missed.
    pub(crate) async fn next(&mut self) -> Result<(), Error> {
        self.0.try_recv().await?;
        Ok(())
    }
}
