//! What events cite for being allowed, what these cite in turn, and so on.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#authorization-rules>
//!
//! A walk never leaves the room in which an event stands: what is cited of another one is not followed. It reads in
//! batches, and a connection is taken for each and given back, so that a deep chain holds up nobody.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId};

use super::rooms::Rooms;
use crate::{
    error::{Error, Result},
    event::Pdu,
    store,
};

/// How many events are read at once.
const READ_AT_ONCE: usize = 1_000;
/// How many events a walk looks at: far more than any room has that is sound.
const CEILING: usize = 200_000;

impl Rooms {
    /// Everything that these events cite, directly or not, as far as it is here. In no particular order; one of the events
    /// themselves is among it if another cites it. Of those that are not here nothing is known.
    ///
    /// `Unavailable` where there is more of it than anybody should ask for.
    pub async fn auth_chain(&self, event_ids: &[OwnedEventId]) -> Result<Vec<Arc<Pdu>>> {
        let mut pdus = Vec::with_capacity(event_ids.len());
        for some in event_ids.chunks(READ_AT_ONCE) {
            let ids: Vec<&EventId> = some.iter().map(|id| &**id).collect();
            let found = store::event::list(&mut self.0.db.read().await?, &ids).await?;
            pdus.extend(found.into_iter().map(|stored| stored.pdu));
        }
        self.auth_chain_of(&pdus).await
    }

    /// [`Rooms::auth_chain`] of events that have been read.
    pub async fn auth_chain_of(&self, pdus: &[Arc<Pdu>]) -> Result<Vec<Arc<Pdu>>> {
        let mut known: HashMap<OwnedEventId, Arc<Pdu>> =
            pdus.iter().map(|pdu| (pdu.event_id().to_owned(), Arc::clone(pdu))).collect();
        let mut asked: HashSet<OwnedEventId> = HashSet::new();
        let mut wanted: Vec<OwnedEventId> = Vec::new();
        let mut want = |pdu: &Pdu, known: &HashMap<OwnedEventId, Arc<Pdu>>, wanted: &mut Vec<OwnedEventId>| {
            let unread = pdu.auth_events().iter().filter(|id| !known.contains_key(*id));
            wanted.extend(unread.filter(|id| asked.insert((*id).clone())).cloned());
        };
        for pdu in pdus {
            want(pdu, &known, &mut wanted);
        }
        let mut looked_at = pdus.len();
        while !wanted.is_empty() {
            let some = wanted.split_off(wanted.len().saturating_sub(READ_AT_ONCE));
            looked_at += some.len();
            if looked_at > CEILING {
                return Err(Error::Unavailable("these events cite more than this server looks through".to_owned()));
            }
            let ids: Vec<&EventId> = some.iter().map(|id| &**id).collect();
            for stored in store::event::list(&mut self.0.db.read().await?, &ids).await? {
                want(&stored.pdu, &known, &mut wanted);
                known.insert(stored.pdu.event_id().to_owned(), stored.pdu);
            }
        }
        Ok(within_rooms(&known, pdus))
    }
}

/// What these events cite, of what has been read, without edges that lead out of a room.
fn within_rooms(known: &HashMap<OwnedEventId, Arc<Pdu>>, from: &[Arc<Pdu>]) -> Vec<Arc<Pdu>> {
    let mut chain: HashMap<&EventId, &Arc<Pdu>> = HashMap::new();
    let mut todo: Vec<&Arc<Pdu>> = from.iter().collect();
    while let Some(pdu) = todo.pop() {
        for other in pdu.auth_events().iter().filter_map(|id| known.get(id)) {
            if other.room_id() == pdu.room_id() && chain.insert(other.event_id(), other).is_none() {
                todo.push(other);
            }
        }
    }
    chain.into_values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::room::{testing::pdu_of, world::RoomWorld};

    #[tokio::test]
    async fn a_chain_has_everything_that_is_cited_and_nothing_else() {
        let world = RoomWorld::new().await;
        let room_id = world.create_room(ruma::RoomVersionId::V11, "shared").await;
        let join = world.member(&room_id, "bob", "bob", "join").await;
        let said = world.say(&room_id, "bob", &["hello"]).await.remove(0);
        let chain = world.rooms.auth_chain(&[said.event_id().to_owned()]).await.unwrap();
        let kinds: BTreeSet<String> = chain.iter().map(|pdu| pdu.kind().to_string()).collect();
        let expected = ["m.room.create", "m.room.join_rules", "m.room.member", "m.room.power_levels"];
        assert_eq!(kinds, expected.map(String::from).into());
        assert!(chain.iter().any(|pdu| pdu.event_id() == join.event_id()));
        assert!(chain.iter().all(|pdu| pdu.event_id() != said.event_id()));
        assert!(world.rooms.auth_chain(&[]).await.unwrap().is_empty());
        world.close().await;
    }

    /// However it came that an event cites one of another room, the walk ends there.
    #[test]
    fn a_walk_does_not_leave_the_room() {
        let known = |pdus: &[&Arc<Pdu>]| -> HashMap<OwnedEventId, Arc<Pdu>> {
            pdus.iter().map(|pdu| (pdu.event_id().to_owned(), Arc::clone(pdu))).collect()
        };
        let elsewhere = Arc::new(pdu_of(&json!({ "room_id": "!other:here", "state_key": "" })));
        let own = Arc::new(pdu_of(&json!({ "state_key": "a" })));
        let cites = json!({ "auth_events": [elsewhere.event_id(), own.event_id(), "$unknown"], "state_key": "b" });
        let event = Arc::new(pdu_of(&cites));
        let chain = within_rooms(&known(&[&elsewhere, &own, &event]), &[Arc::clone(&event)]);
        assert_eq!(chain.len(), 1);
        assert_eq!(chain[0].event_id(), own.event_id());
    }
}
