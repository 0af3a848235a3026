//! Stretches of the log, for readers that take it a piece at a time and may lag far behind.
//!
//! Unlike the tail's readers, such a reader chooses when and how much it reads, and may ask for the same stretch twice.

use super::{
    commit::Log,
    replay::{BATCHES, read_entries},
};
use crate::{
    db::{DbError, DbResult},
    event::{
        Logged,
        fact::{Entry, News},
    },
    ground::position::Position,
    store::{self, log::BatchRow},
};

/// Entries of the log that follow each other.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// Each with its place.
    pub(crate) entries: Vec<(Position, News)>,
    /// The place of the last one; where the stretch was to begin if there is none.
    pub(crate) until: Position,
}

impl Stretch {
    fn new(after: Position, entries: impl Iterator<Item = (Position, News)>) -> Self {
        let entries: Vec<_> = entries.collect();
        Self { until: entries.last().map_or(after, |(at, _)| *at), entries }
    }

    /// Without the facts beside them, which few readers of this kind want.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Logged> {
        self.entries.iter().filter_map(|(_, news)| if let News::Event(logged) = news { Some(&**logged) } else { None })
    }
}

impl Log {
    /// The entries after a place, oldest first, at most `limit` and none only at the end of the log. What is not in memory
    /// any more is read from the database, as it stands there now: an event that has been redacted since is redacted,
    /// and of a fact that has been replaced it is left that there was one. Fails where a durable
    /// cursor can't stand: before what has been pruned.
    ///
    /// No connection may be held by the caller: one is taken where the stretch is not in memory.
    pub(crate) async fn read_after(&self, position: Position, limit: usize) -> DbResult<Stretch> {
        let remembered = self.tail().catch_up(position, |missed| {
            let entries = missed.iter().flat_map(|batch| batch.entries()).filter(|(at, _)| *at > position);
            Stretch::new(position, entries.take(limit).map(|(at, news)| (at, news.clone())))
        });
        if let Some(stretch) = remembered {
            return Ok(stretch);
        }
        // Rows and things of one moment, as in `replay.rs`.
        let mut snapshot = self.db.snapshot().await?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut reached = position;
        while entries.len() < limit {
            let rows = store::log::batches_after(&mut snapshot, reached, BATCHES).await?;
            let Some(last) = rows.last().map(|row| row.last) else { break };
            if rows.iter().any(BatchRow::is_pruned) {
                return Err(DbError::decode(format!("what the log held after {} has been pruned", reached.0)));
            }
            reached = last;
            // The first batch may begin before the place that was asked for: a stretch may have ended in the middle of
            // it.
            let placed = rows.into_iter().flat_map(|row| (row.first.0..).map(Position).zip(row.entries));
            entries.extend(placed.filter(|(at, _)| *at > position).map(|(_, entry)| entry));
        }
        entries.truncate(limit);
        // What is left follows without a hole, because positions are dense: counting on from the first gives each its
        // place.
        let first = position.next();
        let news = read_entries(&mut snapshot, first, entries).await?;
        Ok(Stretch::new(position, (first.0..).map(Position).zip(news)))
    }
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use super::*;
    use crate::{
        event::fact::{AccountChange, AccountData, Fact, ListingChange, Write},
        testing::{World, user},
    };

    /// Everything after a place, in pieces.
    async fn read_all(world: &World, limit: usize) -> Vec<(Position, News)> {
        let mut all = Vec::new();
        let mut position = Position::START;
        loop {
            let stretch = world.app.log.read_after(position, limit).await.unwrap();
            assert!(stretch.entries.len() <= limit);
            assert_eq!(stretch.until, stretch.entries.last().map_or(position, |(at, _)| *at));
            if stretch.entries.is_empty() {
                return all;
            }
            position = stretch.until;
            all.extend(stretch.entries);
        }
    }

    #[tokio::test]
    async fn the_log_is_read_from_the_database_as_readers_were_handed_it() {
        for world in World::on_each_engine().await {
            let (alice, bob) = (user("alice"), user("bob"));
            let room = world.room(&[&alice, &bob]).await;
            let said = world.say(&room, &alice, "something").await;
            world.redact(&room, &alice, &said).await;
            let data = |text: &str| {
                let content = serde_json::value::RawValue::from_string(format!("{{\"is\":\"{text}\"}}")).unwrap();
                let (user_id, kind) = (alice.clone(), "org.example.data".to_owned());
                let data = AccountData { user_id, room_id: None, kind, content: content.into() };
                Fact::AccountData(data.into())
            };
            let facts = vec![
                data("old"),
                data("new"),
                Fact::AccountChange(AccountChange::Devices(alice.clone())),
                Fact::AccountChange(AccountChange::Erased(bob.clone())),
                Fact::Listing(ListingChange::Published { room_id: room.clone(), listed: true }),
            ];
            world.app.log.append(Write::facts(facts)).await.unwrap();
            let handed = read_all(&world, 1_000).await;
            assert_eq!(handed.last().map(|(at, _)| *at), Some(world.reached()));

            let world = world.restart().await;
            for limit in [1, 3, 1_000] {
                let read = read_all(&world, limit).await;
                let places = |all: &[(Position, News)]| all.iter().map(|(at, _)| *at).collect::<Vec<_>>();
                assert_eq!(places(&read), places(&handed));
                for ((at, read), (_, handed)) in read.iter().zip(&handed) {
                    match (read, handed) {
                        (News::Superseded, News::AccountData(data)) => assert!(data.content.get().contains("old")),
                        (News::Event(read), News::Event(handed)) => {
                            assert_eq!(read.stored.pdu.event_id(), handed.stored.pdu.event_id());
                            assert_eq!(read.changes.len(), handed.changes.len());
                            assert_eq!(read.redacted.is_some(), handed.redacted.is_some());
                        }
                        _ => assert_eq!(discriminant(read), discriminant(handed), "{at:?}"),
                    }
                }
            }
            world.close().await;
        }
    }
}
