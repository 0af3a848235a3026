//! What the caches of this process take, asked for when the metrics are read.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use crate::ground::weighed::Weighed;

/// Nothing, until there are caches.
#[derive(Clone, Default)]
pub(super) struct CacheCollector(Arc<OnceLock<Vec<Arc<dyn Weighed>>>>);

impl fmt::Debug for CacheCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CacheCollector")
    }
}

impl CacheCollector {
    pub(super) fn set(&self, caches: Vec<Arc<dyn Weighed>>) {
        if self.0.set(caches).is_err() {
            tracing::error!("the metrics were told twice which caches there are");
        }
    }
}

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(caches) = self.0.get() else { return Ok(()) };
        let weights: Vec<_> = caches.iter().map(|cache| cache.weight()).collect();
        for (name, help, limits) in [
            ("cache", "What a cache takes in memory, about", false),
            ("cache_max", "What a cache may take in memory, about, before it forgets", true),
        ] {
            let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
            for weight in &weights {
                let bytes = if limits { weight.limit } else { weight.bytes };
                let labels = [("cache", weight.name)];
                ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
