//! What somebody brings along into a room from the one that it replaces: their tags, and that it is a direct
//! chat.
//!
//! Anybody may write into `m.room.create` that their room replaces any other. So nothing is brought along unless the old
//! room agrees: its `m.room.tombstone` names the new one, and this server is in it and therefore knows its state.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades> ("transfer/replicate some of the user's
//! personalized settings")

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedRoomId, RoomId, UserId, events::StateEventType};
use serde::Deserialize;
use serde_json::value::to_raw_value;

use crate::{
    error::Result,
    event::{
        Pdu,
        fact::{AccountData, Fact},
    },
    ground::position::Position,
    room::{Rooms, State},
    store,
};

/// What somebody has set for a room.
#[derive(Debug, Default)]
pub(in crate::room) struct RoomSettings {
    old: Option<OwnedRoomId>,
    tags: Option<AccountData>,
    /// With its place in the log: another device may change it before it is carried on.
    direct: Option<(Position, AccountData)>,
}

impl State {
    /// The room that this one claims to replace. A claim and no more: see [`Rooms::is_replaced_by`].
    pub(super) fn predecessor(&self) -> Option<OwnedRoomId> {
        #[derive(Deserialize)]
        struct PredecessorContent {
            predecessor: Option<Predecessor>,
        }
        #[derive(Deserialize)]
        struct Predecessor {
            room_id: OwnedRoomId,
        }
        let content: PredecessorContent = self.content(&StateEventType::RoomCreate)?;
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
    struct TombstoneContent {
        replacement_room: OwnedRoomId,
    }
    tombstone.content_as::<TombstoneContent>().ok().map(|content| content.replacement_room)
}

impl Rooms {
    /// What somebody has set for a room that is replaced.
    pub(in crate::room) async fn settings_in(&self, user_id: &UserId, old: &RoomId) -> Result<RoomSettings> {
        let mut conn = self.0.db.read().await?;
        Ok(RoomSettings {
            old: Some(old.to_owned()),
            tags: store::account_data::find(&mut conn, user_id, Some(old), "m.tag").await?.map(|(_, data)| data),
            direct: store::account_data::find(&mut conn, user_id, None, "m.direct").await?,
        })
    }

    /// What somebody brings along who comes into `new` for the first time. Read before the event is built and compared
    /// by the log when it is written ([`AccountData::replacing`]), so that no setting of another device is overwritten.
    /// Empty where the old room does not agree.
    pub(super) async fn inherited(&self, state: &State, new: &RoomId, user_id: &UserId) -> Result<Vec<Fact>> {
        let Some(old) = state.predecessor() else { return Ok(Vec::new()) };
        if !self.is_replaced_by(&old, new).await? {
            return Ok(Vec::new());
        }
        let mut settings = self.settings_in(user_id, &old).await?;
        // They came here before, or have set tags for a room that they are not in yet: these stay.
        if store::account_data::find(&mut self.0.db.read().await?, user_id, Some(new), "m.tag").await?.is_some() {
            settings.tags = None;
        }
        Ok(settings.carried_to(new))
    }

    /// Whether a room itself says that another takes its place. The state of a room that nobody of this server is in
    /// may be an old one, and says nothing.
    async fn is_replaced_by(&self, old: &RoomId, new: &RoomId) -> Result<bool> {
        let Some(room) = self.find(old).await? else { return Ok(false) };
        Ok(room.view(|view| view.state.successor()).is_some_and(|successor| successor == new))
    }
}

impl RoomSettings {
    /// What the new room gets of it, as long as nothing of that is set anew meanwhile.
    pub(super) fn carried_to(&self, new: &RoomId) -> Vec<Fact> {
        let tags = self.tags.clone().map(|tags| {
            let data = AccountData { room_id: Some(new.to_owned()), ..tags };
            Fact::AccountData(data.replacing(Position::START))
        });
        tags.into_iter().chain(self.direct_with(new)).collect()
    }

    /// The direct chats with the new room wherever the old one is, if that is anything new. The old room stays in the
    /// list: it is still a chat with the same person.
    fn direct_with(&self, new: &RoomId) -> Option<Fact> {
        let ((expected, direct), old) = (self.direct.as_ref()?, self.old.as_ref()?);
        let mut chats: BTreeMap<String, Vec<String>> = serde_json::from_str(direct.content.get()).ok()?;
        let mut changed = false;
        for rooms in chats.values_mut() {
            if rooms.iter().any(|room| room == old.as_str()) && !rooms.iter().any(|room| room == new.as_str()) {
                rooms.push(new.to_string());
                changed = true;
            }
        }
        let content = to_raw_value(&chats).ok().filter(|_| changed)?;
        let data = AccountData { content: Arc::from(content), ..direct.clone() };
        Some(Fact::AccountData(data.replacing(*expected)))
    }
}
