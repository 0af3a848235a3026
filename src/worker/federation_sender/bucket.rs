//! Buckets: which destinations are dealt with together, under one lease and one cursor.
//!
//! A destination's bucket follows from its name. It is written down with it, so the way from one to the other never changes.

use ruma::ServerName;

use crate::log::cursor::Cursor;

/// The names of the duties and of the cursors, by number. They are in databases.
const NAMES: [&str; 16] = [
    "federation 0",
    "federation 1",
    "federation 2",
    "federation 3",
    "federation 4",
    "federation 5",
    "federation 6",
    "federation 7",
    "federation 8",
    "federation 9",
    "federation 10",
    "federation 11",
    "federation 12",
    "federation 13",
    "federation 14",
    "federation 15",
];

/// One of the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bucket(u8);

impl Bucket {
    /// Every bucket there is.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..).map(Self).take(NAMES.len())
    }

    /// That of a destination: by an FNV-1a hash of its name.
    pub(super) fn of(server: &ServerName) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = server.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step);
        // The upper half is in it too: the lowest bits alone know little of a name's beginning.
        let [.., last] = (hash ^ (hash >> 32)).to_be_bytes();
        Self(last % 16)
    }

    /// The name of its duty and of its cursor.
    pub(super) fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    pub(super) fn cursor(self) -> Cursor {
        Cursor::new(self.name())
    }

    /// As it is written down beside its destinations.
    pub(super) fn number(self) -> i64 {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ruma::{OwnedServerName, server_name};

    use super::*;

    #[test]
    fn a_destination_stays_in_its_bucket() {
        let known =
            [(server_name!("matrix.org"), 2), (server_name!("example.org"), 2), (server_name!("[::1]:8448"), 8)];
        for (server, number) in known {
            assert_eq!(Bucket::of(server).number(), number, "{server}");
        }
        assert_eq!(Bucket::all().count(), 16);
        assert!(Bucket::all().all(|bucket| bucket.name() == format!("federation {}", bucket.number())));
    }

    #[test]
    fn destinations_spread_over_the_buckets() {
        let mut counts: BTreeMap<Bucket, usize> = BTreeMap::new();
        for number in 0..1_600 {
            let server = OwnedServerName::try_from(format!("s{number}.example.org")).unwrap();
            *counts.entry(Bucket::of(&server)).or_default() += 1;
        }
        assert_eq!(counts.len(), 16);
        assert!(counts.values().all(|count| (50..200).contains(count)), "{counts:?}");
    }
}
