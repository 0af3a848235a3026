//! Rooms: what is said in them, by whom, and who may read it.
//!
//! Events come in through one door, [`append`]; everything that is read comes from a [`View`] that follows
//! the log, or from the database where it lies further back.

mod alias;
pub mod append;
pub mod auth;
mod create;
mod erasure;
pub mod fields;
pub mod filter;
mod fork;
mod guest;
mod highlight;
mod invite_permission;
mod join;
pub mod members;
mod membership;
mod moment;
mod notice;
mod owned_state;
mod power;
mod predecessor;
mod preset;
mod profile_of;
pub mod reading;
mod receive;
mod rehearse;
pub mod relation;
pub mod resolve;
mod ruled;
mod send;
pub mod state;
mod state_at;
mod successor;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod third_party_invite;
mod thread;
pub mod timeline;
mod upgrade;
pub mod view;
pub mod visibility;
#[cfg(test)]
mod world;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, api::error::ErrorKind, events::TimelineEventType};

pub use self::{
    alias::Moderator,
    create::{InitialState, NewRoom},
    notice::NoticeRoom,
    preset::Preset,
    send::{Message, NewState, check_transaction},
    state::State,
    third_party_invite::{Invitation, Offer, OfferedKey},
    upgrade::Upgrade,
    view::View,
};
use self::{append::Pending, erasure::Erasures};
pub(crate) use self::{erasure::Trace, thread::Related};
use crate::{
    clock::Clock,
    db::Db,
    error::{Error, Result},
    event::SigningKey,
    fact::{Batch, News, RoomHead},
    log::{Log, Reader},
    position::Position,
    random::Random,
    room_version,
    store::{self, room::Lineage},
};

/// How many events are read into a new view.
const LOADED_TIMELINE: usize = 24;
/// How many rooms are kept in memory; beyond it those that nobody uses are dropped.
const KEPT_ROOMS: usize = 2_500;

/// Every room of this server. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    pub(crate) db: Db,
    log: Log,
    clock: Clock,
    random: Random,
    server_name: OwnedServerName,
    key: Arc<SigningKey>,
    active: Arc<Active>,
    /// The server's own user, once it is known that it has one.
    voice: OnceLock<OwnedUserId>,
}

/// The rooms in memory, and whose words are redacted for whoever joins them later. They follow the log.
#[derive(Default)]
pub struct Active {
    rooms: RwLock<HashMap<OwnedRoomId, Arc<Room>>>,
    erasures: Erasures,
}

/// A room in memory: as it is, and as it will be once what is under way has been committed.
pub struct Room {
    view: RwLock<View>,
    pending: tokio::sync::Mutex<Pending>,
}

impl Room {
    fn new(view: View) -> Self {
        Self { view: RwLock::new(view), pending: tokio::sync::Mutex::default() }
    }

    /// Reads from the view. Quick things only: the log waits.
    pub fn view<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&self.view.read())
    }

    /// The state at this moment.
    pub fn state(&self) -> State {
        self.view.read().state.clone()
    }
}

impl Reader for Active {
    fn read(&self, batch: &Batch) {
        for (at, news) in batch.entries() {
            if let News::Erased { user_id } = news {
                self.erasures.note(user_id, at);
            }
            let News::Event(logged) = news else { continue };
            let pdu = &logged.stored.pdu;
            let known = self.rooms.read().get(pdu.room_id()).cloned();
            let room = match known {
                Some(room) => room,
                None if *pdu.kind() == TimelineEventType::RoomCreate && pdu.prev_events().is_empty() => {
                    let Some(room) = new_room(pdu, at) else { continue };
                    self.insert(pdu.room_id(), room)
                }
                None => continue,
            };
            room.view.write().apply(logged);
        }
    }
}

impl Active {
    fn insert(&self, room_id: &RoomId, room: Room) -> Arc<Room> {
        let mut rooms = self.rooms.write();
        if rooms.len() >= KEPT_ROOMS {
            // A room that somebody holds has a writer or reader at work and stays.
            let mut surplus = KEPT_ROOMS / 10;
            rooms.retain(|_, room| {
                let keep = surplus == 0 || Arc::strong_count(room) > 1;
                surplus -= usize::from(!keep);
                keep
            });
        }
        Arc::clone(rooms.entry(room_id.to_owned()).or_insert_with(|| Arc::new(room)))
    }

    /// How many rooms are in memory.
    pub fn len(&self) -> usize {
        self.rooms.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.rooms.read().is_empty()
    }
}

/// A room that begins with this create event.
fn new_room(create: &crate::event::Pdu, at: Position) -> Option<Room> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(default = "first_version")]
        room_version: ruma::RoomVersionId,
    }
    fn first_version() -> ruma::RoomVersionId {
        ruma::RoomVersionId::V1
    }
    let version = create.content_as::<Content>().ok()?.room_version;
    let head = (RoomHead::new(version), Lineage(at.0));
    let state = State::default();
    Some(Room::new(View::new(
        create.room_id().to_owned(),
        create.rules(),
        head,
        at.before(),
        state,
        Vec::new(),
        Position::START,
    )))
}

impl Rooms {
    pub fn new(
        db: Db,
        log: Log,
        clock: Clock,
        random: Random,
        server_name: OwnedServerName,
        key: Arc<SigningKey>,
        active: Arc<Active>,
    ) -> Self {
        let voice = OnceLock::new();
        Self(Arc::new(Inner { db, log, clock, random, server_name, key, active, voice }))
    }

    pub fn log(&self) -> &Log {
        &self.0.log
    }

    pub fn server_name(&self) -> &ruma::ServerName {
        &self.0.server_name
    }

    /// A room, if this server knows it.
    pub async fn find(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>> {
        if let Some(room) = self.0.active.rooms.read().get(room_id) {
            return Ok(Some(Arc::clone(room)));
        }
        loop {
            let Some(view) = self.load(room_id).await? else { return Ok(None) };
            // While nothing can be applied: bring the view to where the log is, and let it follow.
            let position = view.position;
            self.0.log.tail().reach(position).await;
            let followed = self.0.log.tail().catch_up(position, |missed| {
                let mut view = view;
                for (_, news) in missed.iter().flat_map(|batch| batch.entries()) {
                    if let News::Event(logged) = news
                        && logged.stored.pdu.room_id() == room_id
                    {
                        view.apply(logged);
                    }
                }
                self.0.active.insert(room_id, Room::new(view))
            });
            if let Some(room) = followed {
                return Ok(Some(room));
            }
        }
    }

    /// A room that the caller believes to exist.
    pub async fn get(&self, room_id: &RoomId) -> Result<Arc<Room>> {
        let unknown = || Error::refused(ErrorKind::NotFound, format!("This server does not know the room {room_id}"));
        self.find(room_id).await?.ok_or_else(unknown)
    }

    /// Reads a room as the database has it.
    async fn load(&self, room_id: &RoomId) -> Result<Option<View>> {
        let mut snapshot = self.0.db.snapshot().await?;
        let Some((head, trunk)) = store::room::find_head(&mut snapshot, room_id).await? else { return Ok(None) };
        let version_rules = room_version::rules(&head.version).ok_or_else(|| {
            Error::refused(ErrorKind::UnsupportedRoomVersion, format!("Room version {}", head.version))
        })?;
        let position = store::log::last_position(&mut snapshot).await?;
        let state = state_at::load(&mut snapshot, trunk, position).await?;
        let visibilities = visibility::visibilities(&mut snapshot, trunk).await?;
        let most = LOADED_TIMELINE + 1;
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let mut timeline =
            store::event::list_backward(&mut snapshot, room_id, position, Position::START, limit).await?;
        // The one more is not kept: it only tells where what is remembered begins.
        let after = if timeline.len() == most { timeline.pop().map(|oldest| oldest.position) } else { None };
        timeline.reverse();
        let after = after.unwrap_or(Position::START);
        let mut view = View::new(room_id.to_owned(), version_rules, (head, trunk), position, state, timeline, after);
        view.has_hidden_history = visibilities.iter().any(|(_, visibility)| view::hides(visibility));
        Ok(Some(view))
    }
}
