//! Programs of the operator's that are run on files.
//!
//! One reads what a stranger has sent, so it is on its own: of this process's environment, which may hold secrets, it has
//! what it is given by name, and it is in a process group that ends with it. No shell reads its arguments.

use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdout, Command};

/// What stands for the file's path in an argument.
const FILE: &str = "{}";

/// A program at work. Dropped, it ends, with whatever it has started.
pub(super) struct Program {
    // Before the child, so that it is dropped before: as long as that is not waited for, no other group has its number.
    group: Group,
    child: Child,
}

impl Program {
    /// Starts one on a file. `environment` names what it may know of this process's, `output` is where it writes.
    pub(super) fn start(
        program: &str,
        arguments: &[String],
        file: &Path,
        environment: &[&str],
        output: Stdio,
    ) -> io::Result<Self> {
        let child = Command::new(program)
            .args(arguments.iter().map(|argument| filled(argument, file)))
            .env_clear()
            .envs(environment.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { group: Group::of(&child), child })
    }

    /// What it writes, where that is a pipe that nobody has taken yet.
    pub(super) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until it ends by itself. What it has started may go on then.
    pub(super) async fn wait(mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group.0 = None;
        Ok(status)
    }

    /// Ends it, and whatever it has started.
    pub(super) async fn end(self) -> io::Result<ExitStatus> {
        let Self { group, mut child } = self;
        // Before the child is waited for, as where both are dropped.
        drop(group);
        child.wait().await
    }
}

/// An argument for a file. A path alone is passed on as it is, also where it is no Unicode.
fn filled(argument: &str, file: &Path) -> OsString {
    if argument == FILE { file.into() } else { argument.replace(FILE, &file.to_string_lossy()).into() }
}

/// A program and what it has started, which end with this.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a program has ended already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_stand_within_an_argument() {
        assert_eq!(filled("--file={}", Path::new("/a b")), "--file=/a b");
        assert_eq!(filled("{}", Path::new("/a b")), "/a b");
        assert_eq!(filled("$HOME `x`", Path::new("/a")), "$HOME `x`");
    }
}
