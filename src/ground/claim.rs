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
    /// Holds the file, which is made if it is missing. `time` (milliseconds since the Unix epoch) is for the words that
    /// others read.
    ///
    /// # Errors
    /// Besides that somebody holds it: the file can't be made, or its disk knows no locks
    /// ([`io::ErrorKind::Unsupported`]).
    pub fn take(path: &Path, time: u64) -> Result<Self, ClaimError> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ClaimError::Held(read_holder(&file))),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.write_all(this_process(time).as_bytes())?;
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
fn this_process(time: u64) -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = Some(machine.trim()).filter(|name| !name.is_empty()).unwrap_or("this machine");
    format!("process {} on {machine}, since {}\n", std::process::id(), date(time))
}

/// `2026-11-28 19:03:07 UTC`.
///
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
pub fn date(milliseconds: u64) -> String {
    let (seconds, days) = (milliseconds / 1_000 % 86_400, milliseconds / 86_400_000 + 719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Counted from March, so that the day that some years have is the last.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, in_next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + in_next_year;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_next_reads_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Claim::take(&path, 1_795_892_587_000).unwrap();
        let second = Claim::take(&path, 0).unwrap_err().to_string();
        let process = format!("process {} on ", std::process::id());
        assert!(second.contains(&process) && second.ends_with("since 2026-11-28 19:03:07 UTC"), "{second}");
        drop(first);
        drop(Claim::take(&path, 0).unwrap());
    }

    #[test]
    fn dates_are_right() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(date(seconds * 1_000), text);
        }
    }
}
