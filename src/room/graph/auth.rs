//! Authorization: which events authorize a new one, and whether it is allowed in a state.
//!
//! The rules themselves are ruma's, but for what `owned_state.rs` has beside them.
//! <https://spec.matrix.org/v1.19/server-server-api/#authorization-rules>
//!
//! An event is judged several times with the same functions: on the events that it cites, on the state before it, and
//! on the room's present state (`receive.rs`).

use std::sync::Arc;

use ruma::{
    OwnedEventId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
    room_version_rules::{AuthorizationRules, RoomVersionRules},
    state_res::{
        auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules,
        events::{RoomMemberEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
    },
};
use serde_json::value::RawValue;

use super::{owned_state, rules_event::RulesEvent, state::State};
use crate::event::Pdu;

/// The fields of power levels that are a number each.
pub(in crate::room) const LEVEL_FIELDS: [RoomPowerLevelsIntField; 7] = [
    RoomPowerLevelsIntField::UsersDefault,
    RoomPowerLevelsIntField::EventsDefault,
    RoomPowerLevelsIntField::StateDefault,
    RoomPowerLevelsIntField::Ban,
    RoomPowerLevelsIntField::Redact,
    RoomPowerLevelsIntField::Kick,
    RoomPowerLevelsIntField::Invite,
];

/// The auth events that an event with these fields must cite, from the state before it.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection>
///
/// At most a handful: create event, power levels, join rules and the memberships concerned. None is cited twice. The
/// error is that of content from which they can't be told.
pub fn auth_events(
    state: &State,
    kind: &TimelineEventType,
    sender: &ruma::UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &RoomVersionRules,
) -> Result<Vec<OwnedEventId>, String> {
    let types = auth_types_for_event(kind, sender, state_key, content, &rules.authorization)?;
    let mut ids = Vec::with_capacity(types.len());
    for (kind, state_key) in types {
        if kind == StateEventType::RoomCreate && !rules.event_format.allow_room_create_in_auth_events {
            continue;
        }
        if let Some(pdu) = state.get(&kind.to_string(), &state_key) {
            let id = pdu.event_id().to_owned();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

/// Whether an event is allowed in the state before it; the error says which rule forbids it. `state` must not have the
/// event in it. The text is ruma's, for people who read logs or answers.
pub fn check(pdu: &Pdu, state: &State) -> Result<(), String> {
    let rules = &pdu.rules().authorization;
    if *pdu.kind() == TimelineEventType::RoomCreate {
        // It has no state before it, and the rules that look at state let every one pass.
        return check_cited(pdu, |_| None);
    }
    check_state_dependent_auth_rules(rules, RulesEvent::alone(pdu), |kind, state_key| {
        state.get(&kind.to_string(), state_key).map(Arc::clone)
    })?;
    owned_state::check(pdu, state)
}

/// Why nobody could send an event to this room, whatever their power: what it says is wrong in itself. None where
/// somebody else might, or somebody at another time. It only serves a better answer: [`check`] refuses all of this too.
pub fn contradiction(pdu: &Pdu, state: &State) -> Option<String> {
    let contradiction = match pdu.kind() {
        TimelineEventType::RoomCreate => {
            state.find(&StateEventType::RoomCreate).map(|_| "a room is created once".to_owned())
        }
        TimelineEventType::RoomPowerLevels => read_power_levels(pdu, state).err(),
        TimelineEventType::RoomMember => match RoomMemberEvent::new(pdu).membership() {
            Ok(
                MembershipState::Ban
                | MembershipState::Invite
                | MembershipState::Join
                | MembershipState::Knock
                | MembershipState::Leave,
            ) => None,
            Ok(unknown) => Some(format!("there is no membership {unknown}")),
            Err(error) => Some(error),
        },
        _ => None,
    };
    contradiction.or_else(|| owned_state::malformed(pdu))
}

/// Reads power levels as the authorization rules do. The error says which field is wrong.
fn read_power_levels(pdu: &Pdu, state: &State) -> Result<(), String> {
    let (levels, rules): (_, &AuthorizationRules) = (RoomPowerLevelsEvent::new(pdu), &pdu.rules().authorization);
    for field in LEVEL_FIELDS {
        levels.get_as_int(field, rules)?;
    }
    levels.events(rules)?;
    levels.notifications(rules)?;
    let users = levels.users(rules)?;
    let creators = state.creators(pdu.rules());
    let named = users.and_then(|users| creators.iter().find(|creator| users.contains_key(*creator)));
    match named.filter(|_| rules.explicitly_privilege_room_creators) {
        Some(creator) => Err(format!("{creator} is a creator of the room and has no power level, but more than any")),
        None => Ok(()),
    }
}

/// The rules that look only at the event and what it cites. `find` gives the auth events by identifier. One that `find`
/// does not know makes the event fail.
pub fn check_cited(pdu: &Pdu, find: impl Fn(&ruma::EventId) -> Option<Arc<Pdu>>) -> Result<(), String> {
    check_state_independent_auth_rules(&pdu.rules().authorization, pdu, find)
}
