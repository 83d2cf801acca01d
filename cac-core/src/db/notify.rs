//! Notices from one process to others through the server itself, which only PostgreSQL does.

use sqlx::postgres::PgListener;

use super::{Db, Error, Pools};

/// What arrives on one channel.
pub(crate) struct Notices(PgListener);

impl Notices {
    /// Resolves at the next notice, and after a lost connection, when some may have been missed.
    pub(crate) async fn next(&mut self) -> Result<(), Error> {
        self.0.try_recv().await?;
        Ok(())
    }
}

impl Db {
    /// Whether the server carries notices.
    pub(crate) fn notifies(&self) -> bool {
        matches!(self.0, Pools::Postgres(_))
    }

    /// Tells whoever listens on `channel`; nobody where the server carries no notices.
    pub(crate) async fn notify(&self, channel: &'static str) -> Result<(), Error> {
        if let Pools::Postgres(pool) = &self.0 {
            sqlx::query("SELECT pg_notify($1, '')")
                .bind(channel)
                .execute(pool)
                .await?;
        }
        Ok(())
    }

    /// Listens on `channel` by a connection of its own; absent where the server carries no notices.
    pub(crate) async fn listen(&self, channel: &'static str) -> Result<Option<Notices>, Error> {
        let Pools::Postgres(pool) = &self.0 else {
            return Ok(None);
        };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(channel).await?;
        Ok(Some(Notices(listener)))
    }
}
