//! The rows of facts, and how facts are read back from them, kind by kind.
//!
//! A file here is the other half of one in `event/fact`, which holds the value; the list there binds the two together.

mod account_change;
mod account_data;
mod device_list;
mod forgotten;
mod key_count;
mod late_redaction;
mod listing;
mod outside_membership;
mod presence;
mod receipt;
mod relay;
mod rows;
pub(super) mod to_device;
pub(super) mod typing;

use std::{collections::HashMap, sync::Arc};

use self::rows::Rows;
use crate::{
    db::{Conn, DbResult, Tx},
    event::fact::{
        AccountChange, AccountData, DeviceList, Entry, Fact, Forgotten, KeyCount, Kind, LateRedaction, Listing, News,
        OutsideMembership, Presence, Receipt, Relay, ToDevice, Typing, each_kind,
    },
    ground::position::Position,
};

macro_rules! rows_of_each_kind {
    ($($list:ident: $kind:ident = $letter:literal,)*) => {
        /// The facts of a batch by kind, each with its place.
        #[derive(Default)]
        pub(super) struct Facts<'a> {
            $(pub(super) $list: Vec<(Position, &'a <$kind as Kind>::Fact)>,)*
        }

        impl<'a> Facts<'a> {
            pub(super) fn push(&mut self, at: Position, fact: &'a Fact) {
                match fact {
                    $(Fact::$kind(fact) => self.$list.push((at, fact)),)*
                }
            }

            /// Writes their rows. Returns the places of those that came to nothing.
            pub(super) async fn write(&self, tx: &mut Tx) -> DbResult<Vec<Position>> {
                $(if !self.$list.is_empty() {
                    $kind::write(tx, &self.$list).await?;
                })*
                let mut idle = Vec::new();
                // After what only inserts: it reads, for which everything that waits to be inserted is sent.
                $(if !self.$list.is_empty() {
                    idle.extend($kind::list_idle(tx, &self.$list).await?);
                })*
                Ok(idle)
            }
        }

        /// The entries of a stretch of the log by kind, each with its place.
        #[derive(Default)]
        struct Entries {
            $($list: Vec<(Position, <$kind as Kind>::Entry)>,)*
        }

        impl Entries {
            fn push(&mut self, at: Position, entry: Entry) {
                match entry {
                    // Events are read with the state that they make.
                    Entry::Event(_) => {}
                    $(Entry::$kind(entry) => self.$list.push((at, entry)),)*
                }
            }

            async fn read(self, conn: &mut Conn) -> DbResult<HashMap<Position, News>> {
                let mut news = HashMap::new();
                $(if !self.$list.is_empty() {
                    for (at, value) in $kind::read(conn, self.$list).await? {
                        news.insert(at, News::$kind(Arc::new(value)));
                    }
                })*
                Ok(news)
            }
        }
    };
}
each_kind!(rows_of_each_kind);

/// The facts of a stretch of the log, from its entries. What has been replaced since is left out.
pub(super) async fn read(
    conn: &mut Conn,
    entries: impl Iterator<Item = (Position, Entry)>,
) -> DbResult<HashMap<Position, News>> {
    let mut by_kind = Entries::default();
    for (at, entry) in entries {
        by_kind.push(at, entry);
    }
    by_kind.read(conn).await
}
