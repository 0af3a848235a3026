//! Simulated clients run as tasks of one scenario and die with it.

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

/// Tasks that all belong to the scenario that holds this value.
#[derive(Debug)]
pub(crate) struct Tasks<T> {
    running: JoinSet<Result<T>>,
}

impl<T: Send + 'static> Tasks<T> {
    pub(crate) fn start<F>(tasks: impl IntoIterator<Item = F>) -> Self
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Self { running: tasks.into_iter().collect() }
    }

    pub(crate) fn none() -> Self {
        Self { running: JoinSet::new() }
    }

    pub(crate) fn add(&mut self, task: impl Future<Output = Result<T>> + Send + 'static) {
        self.running.spawn(task);
    }

    /// Waits for all of them, or for the first that fails.
    pub(crate) async fn finish(mut self) -> Result<Vec<T>> {
        let mut results = Vec::with_capacity(self.running.len());
        while let Some(result) = self.running.join_next().await {
            results.push(result.context("a simulated client broke down")??);
        }
        Ok(results)
    }

    /// Does the work while the tasks go on; fails as soon as one of them ends, which none should.
    pub(crate) async fn during<W>(&mut self, work: impl Future<Output = Result<W>>) -> Result<W> {
        tokio::select! {
            result = work => result,
            Some(ended) = self.running.join_next() => {
                ended.context("a simulated client broke down")??;
                anyhow::bail!("a simulated client stopped before its time")
            }
        }
    }
}
