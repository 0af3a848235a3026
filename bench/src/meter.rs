//! What a measured stretch cost: the server's processor time and memory, its disk, and the generator's own time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::latency::number;
use crate::options::Options;
use crate::procfs::{self, Memory};

/// A stretch in which a server at rest uses no more than `REST_MICROS` of processor time.
const WINDOW: Duration = Duration::from_millis(300);
const REST_MICROS: u64 = 30_000;
/// How many such stretches to wait.
const WINDOWS: usize = 200;
/// The wait where the server's processes are unknown.
const BLIND_REST: Duration = Duration::from_secs(2);

/// How often the server's memory is read while its peak is looked for.
const SAMPLING: Duration = Duration::from_millis(250);

/// Memory of the server at the most, in KiB.
#[derive(Debug, Default)]
pub(crate) struct Peak(AtomicU64);

impl Peak {
    /// Reads the server's memory again and again until then.
    pub(crate) async fn watch(self: Arc<Self>, pids: Vec<u32>, end: tokio::time::Instant) -> Result<()> {
        while tokio::time::Instant::now() < end {
            if let Some(memory) = server_memory(&pids)? {
                self.0.fetch_max(memory.rss_kib, Ordering::Relaxed);
            }
            tokio::time::sleep(SAMPLING).await;
        }
        Ok(())
    }

    pub(crate) fn rss_kib(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Readings at the start of the stretch.
#[derive(Debug)]
pub(crate) struct Meter {
    pids: Vec<u32>,
    data_dirs: Vec<PathBuf>,
    begun: Instant,
    server_cpu: Option<u64>,
    generator_cpu: u64,
    disk: Option<u64>,
}

/// The differences at its end. What was not asked for (`--pid`, `--data-dir`) is `None`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) server_cpu_us: Option<f64>,
    pub(crate) generator_cpu_us: f64,
    /// Part of one core that the generator was busy; near 1 it measures itself.
    pub(crate) generator_load: f64,
    pub(crate) server_memory: Option<Memory>,
    pub(crate) disk_growth_bytes: Option<f64>,
}

impl Meter {
    /// Begins as soon as the server has finished what the preparation left it to do.
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        quiet(&options.pids).await?;
        Ok(Self {
            pids: options.pids.clone(),
            data_dirs: options.data_dirs.clone(),
            disk: disk(&options.data_dirs)?,
            server_cpu: server_cpu(&options.pids)?,
            generator_cpu: procfs::own_cpu_micros()?,
            begun: Instant::now(),
        })
    }

    pub(crate) fn stop(self) -> Result<Cost> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let generator_cpu_us = number(procfs::own_cpu_micros()?) - number(self.generator_cpu);
        let server_cpu = server_cpu(&self.pids)?;
        let disk = disk(&self.data_dirs)?;
        Ok(Cost {
            seconds,
            server_cpu_us: difference(self.server_cpu, server_cpu),
            generator_cpu_us,
            generator_load: generator_cpu_us / (seconds * 1e6),
            server_memory: server_memory(&self.pids)?,
            disk_growth_bytes: difference(self.disk, disk),
        })
    }
}

impl Cost {
    /// What this stretch and a later one cost.
    pub(crate) fn and(&self, later: &Self) -> Self {
        let sum = |first: Option<f64>, second: Option<f64>| first.zip(second).map(|(first, second)| first + second);
        let seconds = self.seconds + later.seconds;
        let generator_cpu_us = self.generator_cpu_us + later.generator_cpu_us;
        Self {
            seconds,
            server_cpu_us: sum(self.server_cpu_us, later.server_cpu_us),
            generator_cpu_us,
            generator_load: generator_cpu_us / (seconds * 1e6),
            server_memory: later.server_memory,
            disk_growth_bytes: sum(self.disk_growth_bytes, later.disk_growth_bytes),
        }
    }
}

/// Waits until the server has come to rest: an answer is not always the end of its work, and of a long poll nobody
/// outside can know when it was parked.
pub(crate) async fn quiet(pids: &[u32]) -> Result<()> {
    if pids.is_empty() {
        tokio::time::sleep(BLIND_REST).await;
        return Ok(());
    }
    for _ in 0..WINDOWS {
        let before = procfs::cpu_micros(pids)?;
        tokio::time::sleep(WINDOW).await;
        if procfs::cpu_micros(pids)? - before <= REST_MICROS {
            return Ok(());
        }
    }
    eprintln!("  the server does not come to rest; measuring all the same");
    Ok(())
}

/// Memory of the server now, if it was named.
pub(crate) fn server_memory(pids: &[u32]) -> Result<Option<Memory>> {
    (!pids.is_empty()).then(|| procfs::memory(pids)).transpose()
}

fn server_cpu(pids: &[u32]) -> Result<Option<u64>> {
    (!pids.is_empty()).then(|| procfs::cpu_micros(pids)).transpose()
}

fn disk(data_dirs: &[PathBuf]) -> Result<Option<u64>> {
    if data_dirs.is_empty() {
        return Ok(None);
    }
    data_dirs.iter().map(|path| procfs::disk_bytes(path)).sum::<Result<u64>>().map(Some)
}

fn difference(before: Option<u64>, after: Option<u64>) -> Option<f64> {
    before.zip(after).map(|(before, after)| number(after) - number(before))
}
