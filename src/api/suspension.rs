//! What suspended accounts may do by what exactly they ask for, where the endpoint as such is open to them.
//!
//! Both are acts that end something or lead to whoever can lift the suspension. What is refused elsewhere by the
//! endpoint's policy never comes here.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#account-suspension>

use ruma::{CanonicalJsonValue, EventId, RoomId, UserId, events::TimelineEventType};

use crate::{app::App, error::Result, people::account::Restrictions, room::Message};

/// Refuses a suspended user who sends anything but the redaction of something that they have sent themselves.
pub(crate) async fn check_sending(
    app: &App,
    user_id: &UserId,
    restrictions: Restrictions,
    message: &Message,
) -> Result<()> {
    if !restrictions.suspended {
        return Ok(());
    }
    if message.kind == TimelineEventType::RoomRedaction {
        let target = message.content.get("redacts").and_then(CanonicalJsonValue::as_str);
        let sender = match target.and_then(|target| <&EventId>::try_from(target).ok()) {
            Some(target) => app.rooms.find_sender(target).await?,
            None => None,
        };
        // What is not there or names nothing is refused for that.
        if sender.is_none_or(|sender| sender == user_id) {
            return Ok(());
        }
    }
    restrictions.check_not_suspended()
}

/// Refuses a suspended user who joins any room but the one in which the server speaks to them.
pub(crate) async fn check_joining(app: &App, restrictions: Restrictions, room_id: &RoomId) -> Result<()> {
    if restrictions.suspended
        && let Some(notices) = &app.notices
        && notices.is_room(room_id).await?
    {
        return Ok(());
    }
    restrictions.check_not_suspended()
}
