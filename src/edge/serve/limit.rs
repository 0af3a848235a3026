//! How many files this process may have open at once: each connection is one, and a system that allows 1,024 unless it is
//! asked for more would turn clients away.
//!
//! Ten thousand clients that wait in `/sync` are ten thousand files, so this is done before anything listens.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system lets this process: to the hard limit, which only an administrator raises.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            tracing::debug!(from = limit.current, to = limit.maximum, "raised the limit of open files");
        }
        Err(error) => {
            tracing::warn!(%error, limit = limit.current, "the limit of open files stays: each connection is one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_are_allowed() {
        raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
