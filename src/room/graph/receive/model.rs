//! A room as the specification describes it, kept naively: the whole state before and after every event, resolved from
//! everything that is known. The oracle for what is stored as a trunk and its forks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::RoomVersionRules,
    state_res::{
        StateMap, check_state_dependent_auth_rules, check_state_independent_auth_rules, resolve,
        utils::event_id_set::EventIdSet,
    },
};
use serde_json::{Value, json};

use crate::{
    event::{Pdu, Standing},
    room::{State, graph::auth},
};

/// A state: type and state key to event.
pub(in crate::room::graph) type Map = BTreeMap<(String, String), OwnedEventId>;

pub(in crate::room::graph) struct Known {
    pub(in crate::room::graph) pdu: Arc<Pdu>,
    pub(in crate::room::graph) standing: Standing,
    pub(in crate::room::graph) before: Map,
    pub(in crate::room::graph) after: Map,
}

pub(in crate::room::graph) struct Model {
    rules: &'static RoomVersionRules,
    pub(in crate::room::graph) events: HashMap<OwnedEventId, Known>,
    /// In the order of arrival, each with the room's state from then on.
    pub(in crate::room::graph) history: Vec<(OwnedEventId, Map)>,
    pub(in crate::room::graph) extremities: BTreeSet<OwnedEventId>,
    pub(in crate::room::graph) current: Map,
}

impl Model {
    pub(in crate::room::graph) fn new(rules: &'static RoomVersionRules) -> Self {
        Self { rules, events: HashMap::new(), history: Vec::new(), extremities: BTreeSet::new(), current: Map::new() }
    }

    /// Takes the next event in and returns how it stands.
    pub(in crate::room::graph) fn add(&mut self, pdu: Arc<Pdu>) -> Standing {
        let id = pdu.event_id().to_owned();
        let before = self.after_all(pdu.prev_events());
        let standing = self.judge(&pdu, &before);
        let mut after = before.clone();
        if let Some(state_key) = pdu.state_key()
            && standing != Standing::Rejected
        {
            after.insert((pdu.kind().to_string(), state_key.to_owned()), id.clone());
        }
        let prev_events = pdu.prev_events().to_vec();
        self.events.insert(id.clone(), Known { pdu, standing, before, after });
        if standing == Standing::Accepted {
            self.extremities.retain(|extremity| !prev_events.contains(extremity));
            self.extremities.insert(id.clone());
            let extremities: Vec<_> = self.extremities.iter().cloned().collect();
            self.current = self.after_all(&extremities);
        }
        self.history.push((id, self.current.clone()));
        standing
    }

    /// The state after all these events together.
    pub(in crate::room::graph) fn after_all(&self, event_ids: &[OwnedEventId]) -> Map {
        let maps: Vec<&Map> = event_ids.iter().map(|id| &self.events[id].after).collect();
        match maps[..] {
            [] => Map::new(),
            [one] => one.clone(),
            _ => self.resolve(&maps),
        }
    }

    /// A state as the code under test has it.
    pub(in crate::room::graph) fn state(&self, map: &Map) -> State {
        map.values().map(|id| Arc::clone(&self.events[id].pdu)).collect()
    }

    /// The checks on receipt of a PDU: by the events that it cites, by the state before it, by the room's state now.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>
    fn judge(&self, pdu: &Arc<Pdu>, before: &Map) -> Standing {
        let authorization = &self.rules.authorization;
        let find = |id: &EventId| {
            self.events.get(id).filter(|known| known.standing != Standing::Rejected).map(|known| known.pdu.clone())
        };
        if check_state_independent_auth_rules(authorization, &**pdu, find).is_err() {
            return Standing::Rejected;
        }
        let mut cited = Map::new();
        if !self.rules.event_format.allow_room_create_in_auth_events {
            cited.extend(self.current.iter().filter(|((kind, _), _)| kind == "m.room.create").map(owned));
        }
        for id in pdu.auth_events() {
            let event = &self.events[id].pdu;
            cited.insert((event.kind().to_string(), event.state_key().unwrap().to_owned()), id.clone());
        }
        if !self.allows(pdu, &cited) || !self.allows(pdu, before) {
            return Standing::Rejected;
        }
        if self.allows(pdu, &self.current) { Standing::Accepted } else { Standing::SoftFailed }
    }

    fn allows(&self, pdu: &Arc<Pdu>, state: &Map) -> bool {
        let find = |kind: &StateEventType, key: &str| {
            state.get(&(kind.to_string(), key.to_owned())).map(|id| self.events[id].pdu.clone())
        };
        check_state_dependent_auth_rules(&self.rules.authorization, &**pdu, find).is_ok()
    }

    fn resolve(&self, maps: &[&Map]) -> Map {
        let states: Vec<StateMap<OwnedEventId>> = maps
            .iter()
            .map(|map| map.iter().map(|((kind, key), id)| ((kind.as_str().into(), key.clone()), id.clone())).collect())
            .collect();
        let chains = maps.iter().map(|map| self.chain(map.values()).into_iter().collect()).collect();
        let resolved = resolve(
            &self.rules.authorization,
            self.rules.state_res.v2_rules().unwrap(),
            &states,
            chains,
            |id| self.events.get(id).map(|known| known.pdu.clone()),
            |conflicted| Some(self.conflicted_subgraph(conflicted)),
        );
        resolved.unwrap().into_iter().map(|((kind, key), id)| ((kind.to_string(), key), id)).collect()
    }

    /// Everything that these events cite, directly or not.
    pub(in crate::room::graph) fn chain<'a>(
        &'a self,
        event_ids: impl Iterator<Item = &'a OwnedEventId>,
    ) -> BTreeSet<OwnedEventId> {
        let mut chain = BTreeSet::new();
        let mut todo: Vec<&OwnedEventId> = event_ids.collect();
        while let Some(id) = todo.pop() {
            for cited in self.events[id].pdu.auth_events() {
                if chain.insert(cited.clone()) {
                    todo.push(cited);
                }
            }
        }
        chain
    }

    /// What lies on a path of citations from one conflicted event to another.
    fn conflicted_subgraph(&self, conflicted: &StateMap<Vec<OwnedEventId>>) -> EventIdSet<OwnedEventId> {
        let ends: BTreeSet<OwnedEventId> = conflicted.values().flatten().cloned().collect();
        let below = self.chain(ends.iter());
        let leads = |id: &OwnedEventId| self.chain([id].into_iter()).iter().any(|cited| ends.contains(cited));
        ends.iter().cloned().chain(below.into_iter().filter(leads)).collect()
    }

    /// What an event with these fields would cite in a state. One of which the rules can't say it cites what a leaving
    /// would.
    pub(in crate::room::graph) fn auth_events(&self, draft: &crate::event::Draft, state: &Map) -> Vec<OwnedEventId> {
        let state = self.state(state);
        let cites = |content: &Value| {
            let content = serde_json::value::to_raw_value(content).unwrap();
            let state_key = draft.state_key.as_deref();
            auth::auth_events(&state, &draft.kind, &draft.sender, state_key, &content, self.rules)
        };
        let content = serde_json::to_value(&draft.content).unwrap();
        cites(&content).or_else(|_| cites(&json!({ "membership": "leave" }))).unwrap()
    }
}

fn owned<A: Clone, B: Clone>((key, value): (&A, &B)) -> (A, B) {
    (key.clone(), value.clone())
}
