//! Resources that this process depends on, looked up when the metrics are read: the connections to its database, and
//! the disk.
//!
//! A disk that fills up and a pool that is always used up can both be seen coming here.

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

use crate::{
    config::{Config, DatabaseUrl},
    db::Db,
};

/// Where to look.
pub struct ProcessResources {
    /// On the disk that must not be full.
    pub folder: PathBuf,
    /// None where the database is on another machine, or at least somebody else's business.
    pub database_file: Option<PathBuf>,
    /// Asks for the pools' numbers each time. A function, so that tests have pools without a database.
    pub pools: Box<dyn Fn() -> Vec<Pool> + Send + Sync>,
}

impl ProcessResources {
    /// With SQLite the disk is that of the database's file, with `PostgreSQL` that of `data_dir`.
    pub(crate) fn of(config: &Config, db: &Db) -> Self {
        let database_file = match config.database_url() {
            DatabaseUrl::Sqlite(path) => Some(path),
            DatabaseUrl::Postgres(_) => None,
        };
        let folder = database_file.as_ref().and_then(|file| file.parent()).unwrap_or(&config.data_dir).to_owned();
        let db = db.clone();
        let pool = |(name, open, idle, max)| Pool { name, open, idle, max };
        Self { folder, database_file, pools: Box::new(move || db.pools().into_iter().map(pool).collect()) }
    }
}

/// Connections to the database that are used in turns.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    pub name: &'static str,
    /// Those in use and those that are idle.
    pub open: u32,
    pub idle: usize,
    /// How many are opened at most.
    pub max: u32,
}

/// Nothing, until there is a database.
#[derive(Clone, Default)]
pub(super) struct ResourceCollector(Arc<OnceLock<ProcessResources>>);

impl fmt::Debug for ResourceCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ResourceCollector")
    }
}

impl ResourceCollector {
    pub(super) fn set(&self, resources: ProcessResources) {
        if self.0.set(resources).is_err() {
            tracing::error!("the metrics were told twice what to watch");
        }
    }
}

impl Collector for ResourceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(resources) = self.0.get() else { return Ok(()) };
        let pools = (resources.pools)();
        let help = "Connections to the database, by pool, in use and idle";
        let mut metric = encoder.encode_descriptor("database_connections", help, None, MetricType::Gauge)?;
        for pool in &pools {
            let (open, idle) = (i64::from(pool.open), i64::try_from(pool.idle).unwrap_or(i64::MAX));
            // The two numbers are not read at one moment, so idle may exceed open.
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
        let disk = find_disk(&resources.folder);
        let size = resources.database_file.as_deref().and_then(find_database_bytes);
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

/// The file and its write-ahead log, in bytes. The log beside it is not there while nobody has the database open.
fn find_database_bytes(file: &Path) -> Option<u64> {
    let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).ok();
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    Some(size(file)? + size(Path::new(&log)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::metrics::Metrics;

    #[test]
    fn connections_and_disk_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let database_file = folder.path().join("hearth.sqlite3");
        fs::write(&database_file, [0; 4096]).unwrap();
        fs::write(folder.path().join("hearth.sqlite3-wal"), [0; 100]).unwrap();
        let metrics = Metrics::new();
        let pools = || vec![Pool { name: "read", open: 3, idle: 2, max: 4 }];
        metrics.watch(ProcessResources {
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
