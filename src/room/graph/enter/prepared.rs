//! What is written of a room before it is one of this server's: its state as a line that nothing names yet, and the
//! memberships of users of other servers, about whom nobody asks there.
//!
//! A row in `room_entries` says whose work that is. Each chunk confirms it in its own transaction, and so does the judge of
//! the batch; who has not been heard of for [`FORGOTTEN_AFTER`] is taken for dead, and what they have written is removed,
//! so nothing of two different answers ever counts together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId};

use super::entering::{Entering, change_to};
use crate::{
    db::Tx,
    error::{Error, Result},
    event::{Pdu, StateChange},
    ground::{
        clock::millis,
        position::{EventKey, Lineage, Order, Position},
    },
    room::{Rooms, State},
    store::{self, membership::MembershipRow, state::Version},
};

/// How many keys of the state are written in one transaction.
const WRITTEN_AT_ONCE: usize = 500;
/// Who enters a room writes a chunk in far less than that.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(2);

/// A room's state that stands ready.
pub(super) struct Prepared {
    pub(super) trunk: Lineage,
    /// How many of each other server are in the room.
    pub(super) servers: BTreeMap<OwnedServerName, i64>,
}

impl Rooms {
    /// Writes the state of a room that is not here. None if somebody else is entering it.
    pub(super) async fn prepare(&self, entering: &Entering) -> Result<Option<Prepared>> {
        let Some(trunk) = self.claim(&entering.room_id).await? else { return Ok(None) };
        match self.write_state(entering, trunk).await {
            Ok(true) => {
                let mut servers = BTreeMap::new();
                let joined = entering.before.members().filter(Member::has_joined);
                for member in joined.filter(|member| member.user_id.server_name() != self.0.server_name) {
                    *servers.entry(member.user_id.server_name().to_owned()).or_default() += 1;
                }
                Ok(Some(Prepared { trunk, servers }))
            }
            Ok(false) => Ok(None),
            Err(error) => {
                self.try_to_clear(&entering.room_id, trunk).await;
                Err(error)
            }
        }
    }

    /// Makes the entering of a room one's own, under a new line. None if it is somebody else's.
    async fn claim(&self, room_id: &RoomId) -> Result<Option<Lineage>> {
        // In a transaction of its own: everybody takes keys.
        let mut tx = self.0.db.begin().await?;
        let trunk = Lineage(store::history::take_keys(&mut tx, 1).await?.0);
        tx.commit().await?;
        let now = self.milliseconds();
        let mut tx = self.0.db.begin().await?;
        if let Some((old, touched)) = store::room_entry::lock(&mut tx, room_id).await? {
            if touched > now - millis(FORGOTTEN_AFTER) {
                return Ok(None);
            }
            store::room_entry::end(&mut tx, room_id, old).await?;
            store::room_entry::clear(&mut tx, room_id, old).await?;
        }
        // Whoever has entered the room meanwhile has ended that, and made it one that there is.
        if !store::room_entry::begin(&mut tx, room_id, trunk, now).await?
            || store::room::any_exists(&mut tx, &[room_id]).await?
        {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(trunk))
    }

    /// Writes the state in chunks. False if somebody else has taken over.
    async fn write_state(&self, entering: &Entering, trunk: Lineage) -> Result<bool> {
        // Events of a large room are packed, so only those of one chunk are unpacked at a time.
        let keys: Vec<(String, String)> =
            entering.before.keys().map(|(kind, key)| (kind.to_owned(), key.to_owned())).collect();
        for keys in keys.chunks(WRITTEN_AT_ONCE) {
            let changes: Vec<StateChange> = pdus_at(&entering.before, keys).iter().map(change_to).collect();
            let mut tx = self.0.db.begin().await?;
            if !store::room_entry::touch(&mut tx, &entering.room_id, trunk, self.milliseconds()).await? {
                return Ok(false);
            }
            self.write_chunk(&mut tx, &entering.room_id, trunk, &changes).await?;
            tx.commit().await?;
        }
        Ok(true)
    }

    async fn write_chunk(&self, tx: &mut Tx, room_id: &RoomId, trunk: Lineage, changes: &[StateChange]) -> Result<()> {
        let ids: Vec<&EventId> =
            changes.iter().filter_map(|change| change.event.as_deref()).map(Pdu::event_id).collect();
        let found: HashMap<OwnedEventId, EventKey> = store::event::keys(tx, &ids).await?.into_iter().collect();
        let key = |change: &StateChange| found.get(change.event.as_deref().map(Pdu::event_id)?).copied();
        let mut versions = Vec::with_capacity(changes.len());
        for change in changes {
            let event = key(change).ok_or_else(|| Error::broken(format!("the state of {room_id} was not kept")))?;
            versions.push(Version { line: trunk, change, from: Order::START, event: Some(event) });
        }
        store::state::insert_versions(tx, &versions).await?;
        // Those of this server's users come with the batch, which tells them.
        let rows = changes.iter().filter_map(|change| MembershipRow::of(change, room_id, Position::START));
        let others: Vec<MembershipRow<'_>> =
            rows.filter(|row| row.user_id.server_name() != self.0.server_name).collect();
        Ok(store::membership::prepare(tx, &others).await?)
    }

    /// Removes what was written of a room that was not entered. What can't be removed now is left to the upkeep.
    pub(super) async fn try_to_clear(&self, room_id: &RoomId, trunk: Lineage) {
        if let Err(error) = self.clear_entry(room_id, trunk).await {
            tracing::warn!(%error, %room_id, "what was written of a room that was not entered is removed later");
        }
    }

    async fn clear_entry(&self, room_id: &RoomId, trunk: Lineage) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        // Not what somebody else has written, or counts by now.
        if store::room_entry::end(&mut tx, room_id, trunk).await? {
            store::room_entry::clear(&mut tx, room_id, trunk).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Removes what processes have left that died while they entered rooms. To be called now and then.
    pub(crate) async fn clear_broken_entries(&self) -> Result<()> {
        let since = self.milliseconds() - millis(FORGOTTEN_AFTER);
        let broken = store::room_entry::list_untouched(&mut self.0.db.read().await?, since).await?;
        for (room_id, trunk) in broken {
            self.clear_entry(&room_id, trunk).await?;
        }
        Ok(())
    }

    fn milliseconds(&self) -> i64 {
        self.now().get().into()
    }
}

/// The events that a state holds under some keys.
fn pdus_at(state: &State, keys: &[(String, String)]) -> Vec<Arc<Pdu>> {
    keys.iter().filter_map(|(kind, key)| state.pdu(kind, key)).collect()
}
