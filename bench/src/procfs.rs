//! What Linux reports about processes and folders: processor time, memory, disk blocks.
//!
//! See `proc(5)`. A server is given by its root processes; their descendants belong to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

/// Microseconds in a tick of `/proc/*/stat`: `USER_HZ` is 100 on every architecture Rust runs on.
const TICK_MICROS: u64 = 10_000;
/// Bytes in a block of `st_blocks`.
const BLOCK: u64 = 512;

/// Memory of a set of processes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    pub(crate) rss_kib: u64,
    /// With shared pages divided among those who share them; `None` where the kernel hides it.
    pub(crate) pss_kib: Option<u64>,
}

impl Memory {
    /// The fairer figure of the two.
    pub(crate) fn kib(self) -> u64 {
        self.pss_kib.unwrap_or(self.rss_kib)
    }
}

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    /// User and system time, with that of children which have ended and were waited for.
    ticks: u64,
}

/// The processes and all of their descendants.
pub(crate) fn tree(roots: &[u32]) -> Result<BTreeSet<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("/proc cannot be read")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(stat) = find_stat(pid)? {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = roots.to_vec();
    while let Some(pid) = next.pop() {
        if found.insert(pid) {
            next.extend(children.remove(&pid).unwrap_or_default());
        }
    }
    Ok(found)
}

/// Processor time that the processes and their descendants have used, in microseconds.
pub(crate) fn cpu_micros(roots: &[u32]) -> Result<u64> {
    for root in roots {
        if find_stat(*root)?.is_none() {
            bail!("process {root} is gone (--pid)");
        }
    }
    let mut ticks = 0;
    for pid in tree(roots)? {
        ticks += find_stat(pid)?.map_or(0, |stat| stat.ticks);
    }
    Ok(ticks * TICK_MICROS)
}

/// Processor time that the generator itself has used, in microseconds.
pub(crate) fn own_cpu_micros() -> Result<u64> {
    let stat = find_stat(std::process::id())?.context("/proc/self is gone")?;
    Ok(stat.ticks * TICK_MICROS)
}

/// Memory of the processes and their descendants.
pub(crate) fn memory(roots: &[u32]) -> Result<Memory> {
    let mut memory = Memory { rss_kib: 0, pss_kib: Some(0) };
    for pid in tree(roots)? {
        memory.rss_kib += find_kib(&format!("/proc/{pid}/status"), "VmRSS:").unwrap_or(0);
        let pss = find_kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
        memory.pss_kib = memory.pss_kib.zip(pss).map(|(sum, pss)| sum + pss);
    }
    Ok(memory)
}

/// How many files the generator may have open.
pub(crate) fn find_open_files_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes on disk of everything under a folder. Files that vanish meanwhile are no error: databases do that.
pub(crate) fn disk_bytes(path: &Path) -> Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", path.display()));
        }
    };
    let mut bytes = metadata.blocks() * BLOCK;
    if metadata.is_dir() {
        match fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries {
                    bytes += disk_bytes(&entry?.path())?;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be read", path.display()));
            }
        }
    }
    Ok(bytes)
}

/// `None` if there is no such process (any more).
fn find_stat(pid: u32) -> Result<Option<Stat>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(line) => Ok(Some(parse_stat(&line).with_context(|| format!("/proc/{pid}/stat is not understood"))?)),
        // A process that ends while its file is open is ESRCH, which has no kind of its own.
        Err(_) => Ok(None),
    }
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The second field, the name, may hold anything but ends with the last parenthesis.
    let (_, fields) = line.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let times = fields.get(11..15)?;
    let ticks = times.iter().map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Stat { parent, ticks })
}

fn find_kib(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        let line = "77 (tmux: (server) x) S 12 77 77 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(line), Some(Stat { parent: 12, ticks: 127 }));
        assert_eq!(parse_stat("77 (x) S"), None);
    }

    #[test]
    fn a_process_is_measured_with_its_descendants() {
        let own = std::process::id();
        let stat = find_stat(own).unwrap().unwrap();
        assert!(tree(&[stat.parent]).unwrap().contains(&own));
        assert!(memory(&[own]).unwrap().rss_kib > 0);
        assert!(cpu_micros(&[0]).is_err());
    }
}
