//! What the kernel says of this process, asked when the metrics are read. Names as the Prometheus client
//! libraries have agreed on them (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(bytes) = find_resident_bytes() else { return Ok(()) };
        let gauge = ConstGauge::new(bytes);
        let name = "process_resident_memory";
        let help = "Memory of this process that is in RAM";
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), gauge.metric_type())?;
        gauge.encode(metric)
    }
}

/// Only Linux has this file; elsewhere the metric is missing.
fn find_resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_some_memory() {
        let bytes = find_resident_bytes().unwrap();
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
        let text = crate::metrics::Metrics::new().render().unwrap();
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }
}
