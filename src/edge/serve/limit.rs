//! How many files this process may have open at once: each connection is one, and a system that allows 1,024 unless it is
//! asked for more would turn clients away.
//!
//! Ten thousand clients that wait in `/sync` are ten thousand files, so this is done before anything listens.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files that are no connections of clients, beside those to the database: the log, the database's own files, sockets
/// that are on their way out.
const OTHER_FILES: u64 = 64;

/// Of so few connections the operator should know: a few households with their phones.
const FEW: usize = 2_000;

/// More than any machine has clients, where files are not limited.
const MANY: usize = 1_000_000;

/// Raises the limit as far as the system lets this process: to the hard limit, which only an administrator raises. Says
/// so where it is too low for what is configured, or for more than a few clients.
pub fn raise_open_files(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
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
    let possible = most_connections(config);
    match config.connections.max {
        Some(wanted) if usize::try_from(wanted).is_ok_and(|wanted| wanted > possible) => tracing::warn!(
            wanted,
            possible,
            "the limit of open files allows fewer connections than `connections.max`: raise it (`LimitNOFILE=` of \
             systemd, `--ulimit nofile=` of Docker)"
        ),
        None if possible < FEW => tracing::warn!(
            possible,
            "the limit of open files allows few connections: raise it (`LimitNOFILE=` of systemd, `--ulimit nofile=` of \
             Docker)"
        ),
        _ => {}
    }
}

/// How many connections of clients there may be: as many as are wanted, or as there may be files beside those of the
/// database.
pub(super) fn most_connections(config: &Config) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let possible = possible_connections(files, config.database.max_connections);
    let wanted = config.connections.max.and_then(|wanted| usize::try_from(wanted).ok());
    wanted.map_or(possible, |wanted| wanted.min(possible))
}

/// An eighth is left for what comes and goes.
fn possible_connections(files: Option<u64>, to_database: u32) -> usize {
    let Some(files) = files else { return MANY };
    let left = (files - files / 8).saturating_sub(OTHER_FILES + u64::from(to_database));
    usize::try_from(left).unwrap_or(MANY).clamp(1, MANY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_are_allowed() {
        raise_open_files(&Config::default());
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn connections_leave_files_for_the_rest() {
        assert_eq!(possible_connections(Some(1024), 16), 1024 - 128 - 64 - 16);
        assert_eq!(possible_connections(Some(10), 16), 1);
        assert_eq!(possible_connections(None, 16), MANY);
        let mut config = Config::default();
        let possible = most_connections(&config);
        config.connections.max = Some(1);
        assert_eq!(most_connections(&config), 1);
        config.connections.max = Some(u32::MAX);
        assert_eq!(most_connections(&config), possible);
    }
}
