//! State resolution: one state where the room's history has forked.
//!
//! The algorithm is ruma's; here is what it needs to know, gathered before it runs: the auth chains of the
//! conflicting events and, since room version 12, the events between them.
//!
//! <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution>

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::RoomVersionRules,
    state_res::{StateMap, resolve, utils::event_id_set::EventIdSet},
};

use super::{State, ruled::Ruled};
use crate::{
    db::Conn,
    error::{Error, Result},
    event::{Pdu, Standing},
    store,
};

/// Events that one resolution may look at. A room that needs more is being attacked or broken.
const CEILING: usize = 100_000;

/// The events that a resolution looks at, by identifier.
#[derive(Default)]
struct Known(HashMap<OwnedEventId, Ruled<Arc<Pdu>>>);

/// Resolves several states of one room into one.
pub async fn resolve_states(conn: &mut Conn, rules: &'static RoomVersionRules, states: Vec<State>) -> Result<State> {
    let Some((first, rest)) = states.split_first() else { return Ok(State::default()) };
    if rest.iter().all(|other| first.changes_to(other).is_empty()) {
        return Ok(first.clone());
    }
    let mut known = Known::default();
    for pdu in states.iter().flat_map(State::iter) {
        known.0.insert(pdu.event_id().to_owned(), Ruled::among_others(Arc::clone(pdu), false));
    }
    let chains = known.auth_chains(conn, &states).await?;
    // Pure computing from here on, possibly long: off the threads that answer requests.
    let resolved = tokio::task::spawn_blocking(move || known.resolve(rules, &states, chains));
    resolved.await.map_err(Error::broken)?
}

impl Known {
    /// For each state the auth chain of its events. Reads what is missing in batches.
    async fn auth_chains(&mut self, conn: &mut Conn, states: &[State]) -> Result<Vec<EventIdSet<OwnedEventId>>> {
        let mut frontier: HashSet<OwnedEventId> =
            states.iter().flat_map(State::iter).flat_map(|pdu| pdu.auth_events().iter().cloned()).collect();
        loop {
            frontier.retain(|id| !self.0.contains_key(id));
            if frontier.is_empty() {
                break;
            }
            if self.0.len() + frontier.len() > CEILING {
                return Err(Error::broken(format!("state resolution would look at more than {CEILING} events")));
            }
            let wanted: Vec<&EventId> = frontier.iter().map(|id| &**id).collect();
            let found = store::event::list(conn, &wanted).await?;
            frontier.clear();
            for stored in found {
                frontier.extend(stored.pdu.auth_events().iter().cloned());
                let rejected = stored.standing == Standing::Rejected;
                self.0.insert(stored.pdu.event_id().to_owned(), Ruled::among_others(stored.pdu, rejected));
            }
        }
        Ok(states.iter().map(|state| self.chain_of(state)).collect())
    }

    fn chain_of(&self, state: &State) -> EventIdSet<OwnedEventId> {
        let mut chain = EventIdSet::new();
        let mut todo: VecDeque<&Arc<Pdu>> = state.iter().collect();
        while let Some(pdu) = todo.pop_front() {
            for id in pdu.auth_events() {
                if let Some(judged) = self.0.get(id)
                    && chain.insert(id.clone())
                {
                    todo.push_back(&judged.pdu);
                }
            }
        }
        chain
    }

    fn resolve(
        &self,
        rules: &'static RoomVersionRules,
        states: &[State],
        chains: Vec<EventIdSet<OwnedEventId>>,
    ) -> Result<State> {
        let maps: Vec<StateMap<OwnedEventId>> = states.iter().map(state_map).collect();
        let v2 = rules.state_res.v2_rules().ok_or_else(|| Error::broken("room version 1 is not supported"))?;
        let resolved = resolve(
            &rules.authorization,
            v2,
            &maps,
            chains,
            |id| self.0.get(id).cloned(),
            |conflicted| Some(self.conflicted_subgraph(conflicted)),
        )
        .map_err(Error::broken)?;
        Ok(resolved.values().filter_map(|id| self.0.get(id)).map(|judged| Arc::clone(&judged.pdu)).collect())
    }

    /// Everything on a path of auth events from one conflicted event to another.
    ///
    /// <https://spec.matrix.org/v1.19/rooms/v12/#state-resolution> ("conflicted state subgraph")
    fn conflicted_subgraph(&self, conflicted: &StateMap<Vec<OwnedEventId>>) -> EventIdSet<OwnedEventId> {
        let ends: HashSet<&OwnedEventId> = conflicted.values().flatten().collect();
        // Whether an event is conflicted or has a conflicted ancestor. Depths are what the sender claims, so the
        // order in which parents come before children is found by walking, without recursion.
        let mut leads: HashMap<&OwnedEventId, bool> = HashMap::new();
        let mut todo: Vec<(&OwnedEventId, bool)> = ends.iter().map(|id| (*id, false)).collect();
        while let Some((id, parents_done)) = todo.pop() {
            let Some(judged) = self.0.get(id) else { continue };
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

fn state_map(state: &State) -> StateMap<OwnedEventId> {
    let key = |pdu: &Arc<Pdu>| {
        let state_key = Ruled::among_others(&**pdu, false).key().unwrap_or_default().to_owned();
        (StateEventType::from(pdu.kind().to_string()), state_key)
    };
    state.iter().map(|pdu| (key(pdu), pdu.event_id().to_owned())).collect()
}
