//! placeholder until the edge branch is merged
use std::time::Duration;
#[derive(Clone, Debug, Default)]
pub struct Metrics;
impl Metrics {
    pub fn batch_committed(&self, _entries: usize, _took: Duration) {}
}
