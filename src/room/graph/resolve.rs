//! State resolution: one state where the room's history has forked.
//!
//! The algorithm is ruma's; here is what it needs to know, gathered before it runs: the auth chains of the
//! conflicting events and, since room version 12, the events between them. No lock and no database connection is held
//! while it runs, and where it runs is `lanes.rs`'s business.
//!
//! A state is compared with the first one only where the two differ, and the result shares with it whatever is the
//! same: so what a resolution costs follows from the conflict, not from the size of the room, but for the maps that
//! ruma wants.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId, RoomId,
    events::StateEventType,
    room_version_rules::RoomVersionRules,
    state_res::{StateMap, resolve, utils::event_id_set::EventIdSet},
};

use super::{lanes::StepBudget, rooms::Rooms, rules_event::RulesEvent, state::State};
use crate::{
    db::Db,
    error::{Error, Result},
    event::{Pdu, Standing, StateChange},
    store,
};

/// Events that one resolution may look at. A room that needs more is being attacked or broken. At about 2,000
/// bytes each they take 200 MB.
const CEILING: usize = 100_000;

/// States that differ, and the events that a resolution looks at, by identifier.
struct Conflict {
    /// The first one, on which the resolved state is built: most of it stays.
    first: State,
    /// The first is that of `first`. None is equal to it.
    maps: Vec<StateMap<OwnedEventId>>,
    /// Those of the states and, once they have been read, all that these cite. Each with whether it was rejected.
    known: HashMap<OwnedEventId, RulesEvent<Arc<Pdu>>>,
}

impl Rooms {
    /// Resolves several states of one room into one. The order of `states` does not change what comes out. Without a
    /// difference nothing is resolved; of none the empty state is returned.
    pub(super) async fn resolve_states(
        &self,
        room_id: &RoomId,
        rules: &'static RoomVersionRules,
        mut states: Vec<State>,
    ) -> Result<State> {
        let Some(first) = states.first().cloned() else { return Ok(State::default()) };
        states.retain(|other| !first.changes_to(other).is_empty());
        if states.is_empty() {
            return Ok(first);
        }
        // Off the threads that answer requests: a state may be large.
        let gathering = tokio::task::spawn_blocking(move || Conflict::between(first, &states));
        let mut conflict = gathering.await.map_err(Error::broken)?;
        conflict.read_auth_events(&self.0.db).await?;
        self.0.lanes.run(room_id, move |steps| conflict.resolve(rules, steps)).await
    }
}

impl Conflict {
    /// The first state and others that differ from it.
    fn between(first: State, others: &[State]) -> Self {
        let (mut known, mut map) = (HashMap::new(), StateMap::new());
        for pdu in first.iter() {
            map.insert(key_of(&pdu), pdu.event_id().to_owned());
            known.insert(pdu.event_id().to_owned(), RulesEvent::among_others(pdu, false));
        }
        let mut maps = Vec::with_capacity(others.len() + 1);
        for other in others {
            let mut map = map.clone();
            let changes = first.changes_to(other);
            for before in changes.iter().filter_map(|change| first.get(&change.kind, &change.state_key)) {
                map.remove(&key_of(before));
            }
            for pdu in changes.into_iter().filter_map(|change| change.event) {
                map.insert(key_of(&pdu), pdu.event_id().to_owned());
                known.insert(pdu.event_id().to_owned(), RulesEvent::among_others(pdu, false));
            }
            maps.push(map);
        }
        maps.insert(0, map);
        Self { first, maps, known }
    }

    /// Reads what is missing of the auth chains, in batches. A connection is taken for each batch and given back, so
    /// that a deep chain holds up nobody. Events that are not here are left out.
    async fn read_auth_events(&mut self, db: &Db) -> Result<()> {
        let mut frontier: HashSet<OwnedEventId> =
            self.known.values().flat_map(|judged| judged.pdu.auth_events().iter().cloned()).collect();
        loop {
            frontier.retain(|id| !self.known.contains_key(id));
            if frontier.is_empty() {
                return Ok(());
            }
            if self.known.len() + frontier.len() > CEILING {
                return Err(Error::broken(format!("state resolution would look at more than {CEILING} events")));
            }
            let wanted: Vec<&EventId> = frontier.iter().map(|id| &**id).collect();
            let found = store::event::list(&mut db.read().await?, &wanted).await?;
            frontier.clear();
            for stored in found {
                frontier.extend(stored.pdu.auth_events().iter().cloned());
                let rejected = stored.standing == Standing::Rejected;
                self.known.insert(stored.pdu.event_id().to_owned(), RulesEvent::among_others(stored.pdu, rejected));
            }
        }
    }

    /// Everything that the events of one state cite, directly or not, as far as it was read.
    fn chain_of(&self, map: &StateMap<OwnedEventId>) -> EventIdSet<OwnedEventId> {
        let mut chain = EventIdSet::new();
        let mut todo: VecDeque<&OwnedEventId> = map.values().collect();
        while let Some(judged) = todo.pop_front().map(|id| self.known.get(id)) {
            for id in judged.into_iter().flat_map(|judged| judged.pdu.auth_events()) {
                if self.known.contains_key(id) && chain.insert(id.clone()) {
                    todo.push_back(id);
                }
            }
        }
        chain
    }

    /// The resolved state. Of no use if there were too few steps.
    fn resolve(&self, rules: &'static RoomVersionRules, steps: &StepBudget) -> Result<State> {
        let chains = self.maps.iter().map(|map| self.chain_of(map)).collect();
        let v2 = rules.state_res.v2_rules().ok_or_else(|| Error::broken("room version 1 is not supported"))?;
        let resolved = resolve(
            &rules.authorization,
            v2,
            &self.maps,
            chains,
            |id| if steps.take() { self.known.get(id).cloned() } else { None },
            |conflicted| Some(self.conflicted_subgraph(conflicted, steps)),
        );
        // Out of steps: what came out was made with events missing.
        if !steps.take() {
            return Ok(State::default());
        }
        Ok(self.leading_to(&resolved.map_err(Error::broken)?))
    }

    /// The first state with what the resolution has made of it, so that it shares with that whatever is the same.
    fn leading_to(&self, resolved: &StateMap<OwnedEventId>) -> State {
        let mut state = self.first.clone();
        for before in self.maps.first().into_iter().flatten() {
            if let Some(judged) = self.known.get(before.1).filter(|_| !resolved.contains_key(before.0)) {
                let (kind, state_key) = (judged.pdu.kind().to_string(), judged.pdu.state_key().unwrap_or_default());
                state.apply(&StateChange { kind, state_key: state_key.to_owned(), event: None });
            }
        }
        let is_new = |entry: &(&(StateEventType, String), &OwnedEventId)| {
            self.maps.first().and_then(|first| first.get(entry.0)) != Some(entry.1)
        };
        for judged in resolved.iter().filter(is_new).filter_map(|(_, id)| self.known.get(id)) {
            state.insert(Arc::clone(&judged.pdu));
        }
        state
    }

    /// Everything on a path of auth events from one conflicted event to another.
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution> ("conflicted state subgraph")
    fn conflicted_subgraph(
        &self,
        conflicted: &StateMap<Vec<OwnedEventId>>,
        steps: &StepBudget,
    ) -> EventIdSet<OwnedEventId> {
        let ends: HashSet<&OwnedEventId> = conflicted.values().flatten().collect();
        // Whether an event is conflicted or has a conflicted ancestor. Depths are what the sender claims, so the
        // order in which parents come before children is found by walking, without recursion.
        let mut leads: HashMap<&OwnedEventId, bool> = HashMap::new();
        let mut todo: Vec<(&OwnedEventId, bool)> = ends.iter().map(|id| (*id, false)).collect();
        while let Some((id, parents_done)) = todo.pop().filter(|_| steps.take()) {
            let Some(judged) = self.known.get(id) else { continue };
            let parents = judged.pdu.auth_events();
            if parents_done {
                let below = parents.iter().any(|parent| leads.get(parent).copied().unwrap_or(false));
                leads.insert(id, below || ends.contains(id));
            } else if !leads.contains_key(id) {
                // Until its parents are done; a cycle, which hashes rule out, would end here too.
                leads.insert(id, ends.contains(id));
                todo.push((id, true));
                todo.extend(parents.iter().map(|parent| (parent, false)));
            }
        }
        let mut subgraph = EventIdSet::new();
        for (id, leads) in leads {
            if leads {
                subgraph.insert(id.clone());
            }
        }
        subgraph
    }
}

/// The key at which ruma is shown an event.
fn key_of(pdu: &Pdu) -> (StateEventType, String) {
    let state_key = RulesEvent::among_others(pdu, false).key().unwrap_or_default().to_owned();
    (StateEventType::from(pdu.kind().to_string()), state_key)
}
