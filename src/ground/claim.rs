//! A file that one process at a time holds: whoever finds it held is told by whom.
//!
//! What counts is a lock of the operating system, which ends with the process however that ends, so that nothing is left
//! to clear away; what stands in the file is only for whoever comes second. The file itself stays.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// As everything in the data folder.
const FILE_MODE: u32 = 0o600;
/// What the holder writes is much shorter.
const MAX_WORDS: u64 = 500;

/// Held until it is dropped, or the process ends.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "it is held")] File);

/// Why a file is not held by this process.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process holds it. In its own words who it is, if they can be read.
    #[error("held by {0}")]
    Held(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Claim {
    /// Holds the file, which is made if it is missing. `since`: the time, as others are to read it.
    ///
    /// # Errors
    /// Besides that somebody holds it: the file can't be made, or its disk knows no locks
    /// ([`io::ErrorKind::Unsupported`]).
    pub fn take(path: &Path, since: &str) -> Result<Self, ClaimError> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ClaimError::Held(read_holder(&file))),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.write_all(this_process(since).as_bytes())?;
        Ok(Self(file))
    }
}

fn read_holder(file: &File) -> String {
    let mut words = String::new();
    // It may be about to write them.
    match file.take(MAX_WORDS).read_to_string(&mut words) {
        Ok(length) if length > 0 => words.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}

/// With the machine's name, which in a container is the container's: there many processes have the same number.
fn this_process(since: &str) -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = Some(machine.trim()).filter(|name| !name.is_empty()).unwrap_or("this machine");
    format!("process {} on {machine}, since {since}\n", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_next_reads_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Claim::take(&path, "this morning").unwrap();
        let second = Claim::take(&path, "now").unwrap_err().to_string();
        let process = format!("process {} on ", std::process::id());
        assert!(second.contains(&process) && second.ends_with("since this morning"), "{second}");
        drop(first);
        drop(Claim::take(&path, "now").unwrap());
    }
}
