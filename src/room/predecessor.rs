//! What somebody brings along into a room from the one that it replaces: their tags, and that it is a direct
//! chat.
//!
//! Anybody may write into `m.room.create` that their room replaces any other. So nothing is brought along unless the old
//! room agrees: its `m.room.tombstone` names the new one, and this server is in it and therefore knows its state.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades> ("transfer/replicate some of the user's
//! personalized settings")

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    OwnedRoomId, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::value::to_raw_value;

use super::{Rooms, State, state::membership_of};
use crate::{
    error::Result,
    event::Pdu,
    fact::{AccountData, Fact},
    store,
};

/// What somebody has set for a room.
#[derive(Debug, Default)]
pub(super) struct Settings {
    old: Option<OwnedRoomId>,
    tags: Option<AccountData>,
    direct: Option<AccountData>,
}

impl State {
    /// The room that this one claims to replace.
    pub(super) fn predecessor(&self) -> Option<OwnedRoomId> {
        #[derive(Deserialize)]
        struct Content {
            predecessor: Option<Predecessor>,
        }
        #[derive(Deserialize)]
        struct Predecessor {
            room_id: OwnedRoomId,
        }
        let content: Content = self.content(&StateEventType::RoomCreate)?;
        content.predecessor.map(|predecessor| predecessor.room_id)
    }

    /// The room that replaces this one, as its tombstone has it.
    pub(super) fn successor(&self) -> Option<OwnedRoomId> {
        successor_in(self.find(&StateEventType::RoomTombstone)?)
    }
}

/// The room that a tombstone names.
pub(super) fn successor_in(tombstone: &Pdu) -> Option<OwnedRoomId> {
    #[derive(Deserialize)]
    struct Content {
        replacement_room: OwnedRoomId,
    }
    tombstone.content_as::<Content>().ok().map(|content| content.replacement_room)
}

impl Rooms {
    /// What somebody has set for a room that is replaced.
    pub(super) async fn settings_in(&self, user_id: &UserId, old: &RoomId) -> Result<Settings> {
        let mut conn = self.0.db.read().await?;
        Ok(Settings {
            old: Some(old.to_owned()),
            tags: store::account_data::find(&mut conn, user_id, Some(old), "m.tag").await?.map(|(_, data)| data),
            direct: store::account_data::find(&mut conn, user_id, None, "m.direct").await?.map(|(_, data)| data),
        })
    }

    /// What somebody brings along who comes into `new` for the first time.
    pub(super) async fn inherited(&self, state: &State, new: &RoomId, user_id: &UserId) -> Result<Vec<Fact>> {
        let Some(old) = state.predecessor() else { return Ok(Vec::new()) };
        if !self.is_replaced_by(&old, new).await? {
            return Ok(Vec::new());
        }
        let mut settings = self.settings_in(user_id, &old).await?;
        if store::account_data::find(&mut self.0.db.read().await?, user_id, Some(new), "m.tag").await?.is_some() {
            settings.tags = None;
        }
        Ok(settings.carried_to(new))
    }

    /// Whether a room itself says that another takes its place. The state of a room that nobody of this server is in
    /// may be an old one, and says nothing.
    async fn is_replaced_by(&self, old: &RoomId, new: &RoomId) -> Result<bool> {
        let Some(room) = self.find(old).await? else { return Ok(false) };
        let state = room.state();
        let is_here = |(user, pdu): (&UserId, &Arc<Pdu>)| {
            user.server_name() == self.server_name() && membership_of(pdu) == MembershipState::Join
        };
        Ok(state.successor().is_some_and(|successor| successor == new) && state.members().any(is_here))
    }
}

impl Settings {
    /// The same for the new room.
    pub(super) fn carried_to(&self, new: &RoomId) -> Vec<Fact> {
        let tags = self.tags.clone().map(|tags| AccountData { room_id: Some(new.to_owned()), ..tags });
        tags.into_iter().chain(self.direct_with(new)).map(Fact::AccountData).collect()
    }

    /// The direct chats with the new room wherever the old one is, if that is anything new.
    fn direct_with(&self, new: &RoomId) -> Option<AccountData> {
        let (direct, old) = (self.direct.as_ref()?, self.old.as_ref()?);
        let mut chats: BTreeMap<String, Vec<String>> = serde_json::from_str(direct.content.get()).ok()?;
        let mut changed = false;
        for rooms in chats.values_mut() {
            if rooms.iter().any(|room| room == old.as_str()) && !rooms.iter().any(|room| room == new.as_str()) {
                rooms.push(new.to_string());
                changed = true;
            }
        }
        let content = to_raw_value(&chats).ok().filter(|_| changed)?;
        Some(AccountData { content: Arc::from(content), ..direct.clone() })
    }
}
