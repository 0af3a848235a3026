//! What becomes of the delayed events of a session that ends.
//!
//! The proposal does not say. A call hears of it at once: that its user has left is what its delayed event is for, and
//! the heartbeat that held it back has ended with the session. Whatever else a session was to send later is not sent
//! once it was thrown out, because whoever had it may not have been the account's owner. A session that logs out by
//! itself leaves its messages as they are: to be sent while no client runs is what they are for, and the user's other
//! sessions can still cancel them.
//!
//! It is settled in the transaction that ends the session. What is to be sent is due then, and sent within a moment by
//! the node whose duty that is. A deactivated account sends nothing more: it leaves its rooms, and their calls with
//! them.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4140-delayed-events-futures.md>

use ruma::{
    UserId,
    api::error::{ErrorKind, StandardErrorBody},
};
use serde_json::Value;

use crate::{
    db::Tx,
    error::{Error, Result},
    store::{
        delayed_event::{self, Scheduled},
        device::DeviceSelection,
    },
};

/// By which somebody takes part in a call, as it was called over the years.
///
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3401> and
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4143>
const CALL_MEMBER: [&str; 4] =
    ["m.call.member", "org.matrix.msc3401.call.member", "m.rtc.member", "org.matrix.msc4143.rtc.member"];

/// Who has ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has logged out.
    ByItself,
    /// Somebody else has, who may not trust it: another session, a new password, the operator.
    ThrownOut,
}

/// Sends at once what takes the user of ended sessions out of calls, and cancels the rest where they were thrown out.
/// The account is locked.
pub(super) async fn settle_delayed_events(
    tx: &mut Tx,
    user_id: &UserId,
    which: DeviceSelection<'_>,
    end: End,
    now: i64,
) -> Result<()> {
    let mut scheduled = delayed_event::list_by_device(tx, user_id).await?;
    scheduled.retain(|event| selects(which, event));
    let (goodbyes, others): (Vec<_>, Vec<_>) = scheduled.iter().partition(|event| is_goodbye(user_id, event));
    if !goodbyes.is_empty() {
        delayed_event::expedite(tx, &ids(&goodbyes), now).await?;
    }
    if end == End::ThrownOut && !others.is_empty() {
        let reason = StandardErrorBody::new(
            ErrorKind::Unknown,
            "The session that was to send this has been ended from elsewhere".to_owned(),
        );
        let reason = serde_json::to_string(&reason).map_err(Error::broken)?;
        delayed_event::cancel_all(tx, &ids(&others), &reason, now).await?;
    }
    Ok(())
}

fn ids<'a>(events: &[&'a Scheduled]) -> Vec<&'a str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

/// Also those of sessions that have ended before, where all are.
fn selects(which: DeviceSelection<'_>, event: &Scheduled) -> bool {
    match which {
        DeviceSelection::These(device_ids) => device_ids.contains(&event.device_id.as_str()),
        DeviceSelection::AllBut(device_id) => event.device_id != device_id,
        DeviceSelection::All => true,
    }
}

/// Whether an event takes its sender out of a call, and does nothing else.
fn is_goodbye(user_id: &UserId, event: &Scheduled) -> bool {
    let is_own = event.state_key.as_deref().is_none_or(|key| is_of(user_id, key));
    CALL_MEMBER.contains(&event.kind.as_str()) && is_own && says_goodbye(&event.content)
}

/// The state key of a membership is its user, with or without a device and a call behind that. In front of it may be an
/// underscore, because not all rooms let a key that is not the user alone begin with them.
fn is_of(user_id: &UserId, state_key: &str) -> bool {
    let key = state_key.strip_prefix('_').unwrap_or(state_key);
    key.strip_prefix(user_id.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// Whoever takes part says in which application, or, as it was before, in a list of memberships.
fn says_goodbye(content: &str) -> bool {
    let Ok(Value::Object(content)) = serde_json::from_str(content) else { return false };
    let memberships = content.get("memberships");
    let names_none = memberships.is_none_or(|list| list.as_array().is_some_and(Vec::is_empty));
    names_none && !content.contains_key("application")
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn a_goodbye_takes_its_own_sender_out_of_a_call() {
        let alice = user_id!("@alice:example.org");
        let says = |kind: &str, state_key: Option<&str>, content: &str| {
            let event = Scheduled {
                id: "1".to_owned(),
                device_id: "PHONE".into(),
                kind: kind.to_owned(),
                state_key: state_key.map(ToOwned::to_owned),
                content: content.to_owned(),
            };
            is_goodbye(alice, &event)
        };
        let call = "org.matrix.msc3401.call.member";
        for key in ["@alice:example.org", "@alice:example.org_PHONE", "_@alice:example.org_PHONE_m.call"] {
            assert!(says(call, Some(key), "{}"), "{key}");
        }
        assert!(says(call, Some("@alice:example.org"), r#"{"memberships":[]}"#));
        assert!(says("org.matrix.msc4143.rtc.member", None, r#"{"msc4354_sticky_key":"a"}"#));
        for key in ["", "@bob:example.org", "@alice:example.org.evil", "__@alice:example.org"] {
            assert!(!says(call, Some(key), "{}"), "{key}");
        }
        for content in [r#"{"application":"m.call"}"#, r#"{"memberships":[{}]}"#, r#"{"memberships":{}}"#, "[]"] {
            assert!(!says(call, Some("@alice:example.org"), content), "{content}");
        }
        assert!(!says("m.room.message", None, "{}") && !says("m.room.topic", Some("@alice:example.org"), "{}"));
    }
}
