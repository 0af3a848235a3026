//! Whether a failure is worth a line in the log: the first one of a server in a minute.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

const PAUSE: Duration = Duration::from_mins(1);
/// Of how many servers it is remembered.
const MOST: usize = 4_096;

/// When there was the last complaint about each server.
#[derive(Default)]
pub(super) struct Complaints(Mutex<HashMap<OwnedServerName, Instant>>);

impl Complaints {
    /// Whether there has been none for a while. There is one now.
    pub(super) fn is_due(&self, server: &ServerName) -> bool {
        let mut last = self.0.lock();
        if last.get(server).is_some_and(|last| last.elapsed() < PAUSE) {
            return false;
        }
        if last.len() >= MOST {
            last.retain(|_, last| last.elapsed() < PAUSE);
        }
        // Where so many fail at once, the rest is for those who read all of the log.
        let has_room = last.len() < MOST;
        if has_room {
            last.insert(server.to_owned(), Instant::now());
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn a_server_is_complained_about_once_in_a_while() {
        let complaints = Complaints::default();
        assert!(complaints.is_due(server_name!("a.example")));
        assert!(!complaints.is_due(server_name!("a.example")));
        assert!(complaints.is_due(server_name!("b.example")));
        let before = Instant::now().checked_sub(2 * PAUSE).unwrap();
        complaints.0.lock().insert(server_name!("a.example").to_owned(), before);
        assert!(complaints.is_due(server_name!("a.example")));
    }
}
