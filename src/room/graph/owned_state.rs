//! State that belongs to a user: at the key that is their identifier, or that begins with it and an underscore. They may
//! write it, and whoever has more power than they.
//!
//! A [proposal](https://github.com/matrix-org/matrix-spec-proposals/pull/3757) (MSC3757) that only rooms of its own
//! versions follow; in all others a user owns what is at their identifier, and nobody else writes there.

use ruma::{UserId, events::TimelineEventType};

use super::state::State;
use crate::{event::Pdu, ground::room_version::has_owned_state};

/// How long a key may be where it belongs to nobody, in bytes. The specification's limit for state keys.
const MAX_KEY_BYTES: usize = 255;
/// How much of a key may follow its owner's identifier, in bytes, the underscore included.
const MAX_REST_BYTES: usize = 256;

/// Whose state an event is. None where the proposal says nothing: in rooms of other versions, at keys that begin with
/// no `@`, and for memberships and invitations by address, whose own rules come before. The error says why nobody may
/// write at such a key.
pub(super) fn owner(pdu: &Pdu) -> Result<Option<&UserId>, String> {
    let Some(key) = pdu.state_key().filter(|_| has_owned_state(pdu.rules())) else { return Ok(None) };
    let has_own_rules = matches!(
        pdu.kind(),
        TimelineEventType::RoomCreate | TimelineEventType::RoomMember | TimelineEventType::RoomThirdPartyInvite
    );
    if has_own_rules || !key.starts_with('@') {
        return match key.len() {
            0..=MAX_KEY_BYTES => Ok(None),
            bytes => Err(format!("its state key has {bytes} bytes, {MAX_KEY_BYTES} are allowed")),
        };
    }
    let (owner, rest) = split(key);
    let owner = <&UserId>::try_from(owner)
        .map_err(|_invalid| "what begins its state key looks like a user's identifier and is none".to_owned())?;
    if rest.len() > MAX_REST_BYTES {
        return Err(format!(
            "its state key has {} bytes after the identifier, {MAX_REST_BYTES} are allowed",
            rest.len()
        ));
    }
    Ok(Some(owner))
}

/// A key into what may be an identifier and the rest. Names of servers have no underscore, so that the first one after
/// the colon ends them.
fn split(key: &str) -> (&str, &str) {
    let underscore = |colon: usize| Some(colon + key.get(colon..)?.find('_')?);
    key.split_at(key.find(':').and_then(underscore).unwrap_or(key.len()))
}

/// Why nobody could send this event, whatever their power.
pub(super) fn malformed(pdu: &Pdu) -> Option<String> {
    owner(pdu).err()
}

/// Whether the sender may write what belongs to somebody, in the state before the event. Beside ruma's rules, which are
/// shown another key (`rules_event.rs`). `Ok` for what belongs to nobody.
pub(super) fn check(pdu: &Pdu, state: &State) -> Result<(), String> {
    let Some(owner) = owner(pdu)? else { return Ok(()) };
    if pdu.sender() == owner {
        return Ok(());
    }
    let levels = state.power_levels(pdu.rules());
    if levels.for_user(pdu.sender()) > levels.for_user(owner) {
        return Ok(());
    }
    Err(format!("this state belongs to {owner}, and takes more power than theirs to change"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_its_identifier_at_the_first_underscore_after_the_colon() {
        for (key, expected) in [
            ("@alice:here", ("@alice:here", "")),
            ("@alice:here_", ("@alice:here", "_")),
            ("@alice:here_a_b", ("@alice:here", "_a_b")),
            ("@al_ice:here:8448_:x", ("@al_ice:here:8448", "_:x")),
            ("@alice:here.elsewhere_x", ("@alice:here.elsewhere", "_x")),
            ("@alice_here", ("@alice_here", "")),
            ("@é:é_é", ("@é:é", "_é")),
        ] {
            assert_eq!(split(key), expected);
        }
    }
}
