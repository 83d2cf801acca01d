//! Which kind of work a job is. Everything else about a kind is in its own file, or in the program that brings it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{
    Running, Stop, account_mail, address_mail, container_access, container_change,
    container_create, container_delete, shell, task, user_mail,
};

type Work = Arc<dyn Fn(Running) -> BoxFuture<'static, Result<(), Stop>> + Send + Sync>;

/// The kinds of typed jobs that a runner can work on.
pub(super) struct Kinds(HashMap<&'static str, Work>);

impl Kinds {
    /// Our own.
    pub(super) fn new() -> Self {
        let mut kinds = Self(HashMap::new());
        kinds.add(container_create::KIND, |job| async move {
            container_create::run(&job).await
        });
        kinds.add(container_access::KIND, |job| async move {
            container_access::run(&job).await
        });
        kinds.add(container_change::KIND, |job| async move {
            container_change::run(&job).await
        });
        kinds.add(container_delete::KIND, |job| async move {
            container_delete::run(&job).await
        });
        kinds.add(account_mail::KIND, |job| async move {
            account_mail::run(&job).await
        });
        kinds.add(
            user_mail::KIND,
            |job| async move { user_mail::run(&job).await },
        );
        kinds.add(address_mail::KIND, |job| async move {
            address_mail::run(&job).await
        });
        kinds.add(task::KIND, |job| async move { task::run(&job).await });
        kinds
    }

    pub(super) fn add<W, F>(&mut self, kind: &'static str, work: W)
    where
        W: Fn(Running) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Stop>> + Send + 'static,
    {
        self.0
            .insert(kind, Arc::new(move |job| Box::pin(work(job))));
    }

    /// Works on a claimed job to its end.
    pub(super) async fn run(&self, job: Running) -> Result<(), Stop> {
        let Some(kind) = job.claim.kind.as_deref() else {
            return shell::run(&job).await;
        };
        match self.0.get(kind) {
            Some(work) => work(job).await,
            None => Err(Stop::Failed(format!(
                "This runner does not know the job kind `{kind}`; a newer release may have added it."
            ))),
        }
    }
}
