//! The data folder: nobody but the user that runs Hearth reads what is in it, from the moment at which it is made.
//!
//! Rights that an operator has widened are theirs to decide on, so they are reported and left as they are.
//!
//! In the folder are the SQLite database with the hashes of passwords, everything that was said, and the server's
//! signing key: whoever reads that can speak as this server.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// What an SQLite database consists of: the file, and what is beside it while it is in use.
const PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Makes the folder if it is missing, and those above it.
pub fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// What others may read or change, of the folder and of the SQLite database: a warning with the way to mend it.
pub fn find_warning(folder: &Path, database: Option<&Path>) -> Option<String> {
    let part = |path: &Path, name: &str| {
        let mut path = path.as_os_str().to_owned();
        path.push(name);
        PathBuf::from(path)
    };
    let files = database.iter().flat_map(|path| PARTS.map(|name| part(path, name)));
    let wide = |path: &Path| {
        let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    };
    let (mut found, mut mend) = (Vec::new(), Vec::new());
    for (path, mode) in [(folder.to_owned(), FOLDER_MODE)].into_iter().chain(files.map(|file| (file, FILE_MODE))) {
        if let Some(has) = wide(&path) {
            found.push(format!("{} ({has:o})", path.display()));
            mend.push(format!("chmod {mode:o} '{}'", path.display()));
        }
    }
    if found.is_empty() {
        return None;
    }
    Some(format!(
        "other users of this machine are let at what only Hearth should read, such as its signing key: {}. Unless that is \
         meant: {}",
        found.join(", "),
        mend.join(" && ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_folder_is_for_nobody_else_and_what_was_widened_is_told_of_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, database) = (parent.path().join("a/b"), parent.path().join("a/b/hearth.sqlite3"));
        make(&folder).unwrap();
        make(&folder).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&parent.path().join("a"))), (0o700, 0o700));
        fs::write(&database, "").unwrap();
        set(&database, 0o600);
        assert_eq!(find_warning(&folder, Some(&database)), None);

        let log = folder.join("hearth.sqlite3-wal");
        fs::write(&log, "").unwrap();
        set(&log, 0o600);
        set(&folder, 0o755);
        set(&database, 0o644);
        let warning = find_warning(&folder, Some(&database)).unwrap();
        let mended = format!("chmod 700 '{}' && chmod 600 '{}'", folder.display(), database.display());
        assert!(warning.ends_with(&mended) && warning.contains("(755)") && warning.contains("(644)"), "{warning}");
        make(&folder).unwrap();
        assert_eq!((mode(&folder), mode(&database)), (0o755, 0o644));

        // With another engine, files of that name are nobody's business, and the folder still holds what comes.
        assert!(!find_warning(&folder, None).unwrap().contains("sqlite3"));
        set(&folder, 0o700);
        assert_eq!(find_warning(&folder, None), None);
    }
}
