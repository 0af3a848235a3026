//! What this process stands on, asked when the metrics are read: the connections to its database, and the disk.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

/// Where to look.
pub struct Surroundings {
    /// On the disk that must not be full.
    pub folder: PathBuf,
    /// None where the database is on another machine, or at least somebody else's business.
    pub database_file: Option<PathBuf>,
    pub pools: Box<dyn Fn() -> Vec<Pool> + Send + Sync>,
}

/// Connections to the database that are used in turns.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub name: &'static str,
    pub open: u32,
    pub idle: usize,
    /// How many are opened at most.
    pub max: u32,
}

/// Nothing, until there is a database.
#[derive(Clone, Default)]
pub(super) struct Watched(Arc<OnceLock<Surroundings>>);

impl fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Watched")
    }
}

impl Watched {
    pub(super) fn set(&self, surroundings: Surroundings) {
        if self.0.set(surroundings).is_err() {
            tracing::error!("the metrics were told twice what to watch");
        }
    }
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(surroundings) = self.0.get() else { return Ok(()) };
        let pools = (surroundings.pools)();
        let help = "Connections to the database, by pool, in use and idle";
        let mut metric = encoder.encode_descriptor("database_connections", help, None, MetricType::Gauge)?;
        for pool in &pools {
            let (open, idle) = (i64::from(pool.open), i64::try_from(pool.idle).unwrap_or(i64::MAX));
            for (state, count) in [("used", (open - idle).max(0)), ("idle", idle)] {
                let labels = [("pool", pool.name), ("state", state)];
                ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "Connections to the database that a pool opens at most";
        let mut metric = encoder.encode_descriptor("database_connections_max", help, None, MetricType::Gauge)?;
        for pool in &pools {
            ConstGauge::new(i64::from(pool.max)).encode(metric.encode_family(&[("pool", pool.name)])?)?;
        }
        let disk = find_disk(&surroundings.folder);
        let size = surroundings.database_file.as_deref().and_then(find_database_bytes);
        for (name, help, bytes) in [
            ("database_size", "Size of the SQLite database with its write-ahead log", size),
            ("disk_free", "What this process may still write to the disk with its data", disk.map(|(free, _)| free)),
            ("disk_size", "Size of the disk with the data of this process", disk.map(|(_, size)| size)),
        ] {
            let Some(bytes) = bytes else { continue };
            let metric = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX)).encode(metric)?;
        }
        Ok(())
    }
}

/// What is free for this process and what there is in all, in bytes.
fn find_disk(folder: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}

fn find_database_bytes(file: &Path) -> Option<u64> {
    let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).ok();
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    Some(size(file)? + size(Path::new(&log)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn connections_and_disk_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let database_file = folder.path().join("hearth.sqlite3");
        fs::write(&database_file, [0; 4096]).unwrap();
        fs::write(folder.path().join("hearth.sqlite3-wal"), [0; 100]).unwrap();
        let metrics = Metrics::new();
        let pools = || vec![Pool { name: "read", open: 3, idle: 2, max: 4 }];
        metrics.watch(Surroundings {
            folder: folder.path().to_owned(),
            database_file: Some(database_file),
            pools: Box::new(pools),
        });

        let text = metrics.render().unwrap();
        for line in [
            r#"hearth_database_connections{pool="read",state="used"} 1"#,
            r#"hearth_database_connections{pool="read",state="idle"} 2"#,
            r#"hearth_database_connections_max{pool="read"} 4"#,
            "hearth_database_size_bytes 4196",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let bytes = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap().parse().unwrap()
        };
        assert!((1..=bytes("hearth_disk_size_bytes")).contains(&bytes("hearth_disk_free_bytes")), "{text}");
    }
}
