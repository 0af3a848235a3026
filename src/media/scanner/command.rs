//! A program of the operator's that looks at a file.

use std::{io, path::Path, process::Stdio};

use super::verdict::Verdict;
use crate::media::program::Program;

/// What a program needs to find itself, others and its files.
const ENVIRONMENT: [&str; 4] = ["HOME", "LANG", "PATH", "TMPDIR"];

/// Runs the program on a file: 0 is harmless, 1 is not, whatever else says nothing. Dropped, it ends the program and
/// whatever that has started.
pub(super) async fn look(command: &[String], file: &Path) -> io::Result<Verdict> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("no program is configured"));
    };
    let started = Program::start(program, arguments, file, &ENVIRONMENT, Stdio::null());
    let running = started.map_err(|error| io::Error::new(error.kind(), format!("`{program}`: {error}")))?;
    let status = running.wait().await?;
    Ok(match status.code() {
        Some(0) => Verdict::Clean,
        Some(1) => Verdict::Infected(format!("`{program}` says so")),
        _ => Verdict::Unknown(format!("`{program}` ended with {status}")),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use futures_util::FutureExt as _;
    use tokio::time::sleep;

    use super::*;

    fn script(text: &str) -> Vec<String> {
        ["sh", "-c", text, "sh", "{}"].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn a_program_says_by_its_exit_what_a_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a file; touch injected");
        fs::write(&file, "harmless").unwrap();
        let look = script("if grep -q EICAR \"$1\"; then exit 1; else exit 0; fi");
        assert_eq!(super::look(&look, &file).await.unwrap(), Verdict::Clean);
        fs::write(&file, "EICAR").unwrap();
        assert!(matches!(super::look(&look, &file).await.unwrap(), Verdict::Infected(_)));
        for broken in ["exit 2", "kill -9 $$"] {
            assert!(matches!(super::look(&script(broken), &file).await.unwrap(), Verdict::Unknown(_)), "{broken}");
        }
        let missing = super::look(&["/nowhere/at/all".to_owned()], &file).await.unwrap_err();
        assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no shell has read the path");
    }

    #[tokio::test]
    async fn secrets_stay_here() {
        // Cargo sets this one for tests.
        let look = script("test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\"");
        assert_eq!(super::look(&look, Path::new("/a")).await.unwrap(), Verdict::Clean);
    }

    /// The program, and what it has started.
    #[tokio::test]
    async fn who_does_not_wait_any_longer_ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let look = script("sleep 1000 & echo $! > \"$1.new\"; mv \"$1.new\" \"$1\"; wait");
        let mut looking = Box::pin(super::look(&look, &file));
        let grandchild = loop {
            assert!((&mut looking).now_or_never().is_none(), "it has ended");
            match fs::read_to_string(&file) {
                Ok(pid) => break pid.trim().to_owned(),
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        };
        assert!(is_running(&grandchild));
        drop(looking);
        while is_running(&grandchild) {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whoever has ended may not have been waited for.
    fn is_running(pid: &str) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }
}
