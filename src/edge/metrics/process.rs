//! What the kernel says of this process, asked when the metrics are read. Names as the Prometheus client
//! libraries have agreed on them (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).
//!
//! It is read from `/proc`, and left out where that is not there.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};
use rustix::process::{Resource, getrlimit};

/// Has no state: each reading asks the kernel, by a few reads of `/proc`.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, unit, value) in [
            (
                "process_resident_memory",
                "Memory of this process that is in RAM",
                Some(Unit::Bytes),
                find_resident_bytes(),
            ),
            ("process_open_fds", "Open files of this process, connections among them", None, count_open_files()),
            ("process_max_fds", "How many files this process may have open", None, find_max_open_files()),
        ] {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

/// Only Linux has this file; elsewhere the metric is missing.
fn find_resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The one that counts them is among them.
fn count_open_files() -> Option<i64> {
    fs::read_dir("/proc/self/fd").ok().and_then(|files| files.count().try_into().ok())
}

/// None also where there is no limit.
fn find_max_open_files() -> Option<i64> {
    getrlimit(Resource::Nofile).current.and_then(|limit| limit.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_some_memory() {
        let bytes = find_resident_bytes().unwrap();
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
        let text = crate::edge::metrics::Metrics::new().render().unwrap();
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
            assert!(text.contains(&format!("\n{name} ")), "{name}\n{text}");
        }
    }
}
