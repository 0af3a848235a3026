//! Files that come in.

use prometheus_client::{
    metrics::counter::Counter,
    registry::{Registry, Unit},
};

/// What this node has received.
#[derive(Default)]
pub(super) struct UploadMetrics {
    pub(super) uploads: Counter,
    stored: Counter,
    deduplicated: Counter,
    deduplicated_bytes: Counter,
}

impl UploadMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("media_uploads", "Files that users have uploaded", metrics.uploads.clone());
        let help = "Bytes of media that were stored, those that were there already left out";
        registry.register_with_unit("media_stored", help, Unit::Bytes, metrics.stored.clone());
        let help = "Files that were stored already when they came in";
        registry.register("media_deduplicated", help, metrics.deduplicated.clone());
        let help = "Bytes of files that were stored already when they came in";
        registry.register_with_unit("media_spared", help, Unit::Bytes, metrics.deduplicated_bytes.clone());
        metrics
    }

    pub(super) fn kept(&self, bytes: u64, is_new: bool) {
        if is_new {
            self.stored.inc_by(bytes);
        } else {
            self.deduplicated.inc();
            self.deduplicated_bytes.inc_by(bytes);
        }
    }
}
