//! Every room that this server holds: those in memory, and those that are read when somebody asks for them.
//!
//! Everything that is read comes from a [`View`], or from the database where it lies further back.
//!
//! A room that is asked for is loaded once, however many wait for it, and inserted while the log can't apply anything:
//! so from its first moment on it misses nothing and has nothing twice. A load that lasted so long that the tail no
//! longer remembers what came since is begun again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use futures_util::future::BoxFuture;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, RoomVersionId, ServerName, api::error::ErrorKind,
};

use super::{
    cache::RoomCache,
    lanes::Lanes,
    load,
    loads::{Load, Loaded},
    residency::{Held, Resident},
    room::Room,
    view::View,
};
use crate::{
    db::Db,
    error::{Error, Result},
    event::{SigningKeys, fact::News},
    ground::{clock::Clock, random::Random},
    log::{Ground, Log, Quotas},
    store,
};

/// Who knows what the aliases of other servers name. Called with no lock held, and takes its time.
pub(crate) trait OtherAliases: Send + Sync {
    /// The room that an alias names. `M_NOT_FOUND` where it names none; other errors where that can't be found out.
    fn find<'a>(&'a self, alias: &'a RoomAliasId) -> BoxFuture<'a, Result<OwnedRoomId>>;
}

/// Every room that this server holds. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(pub(in crate::room) Arc<Inner>);

/// What all clones share.
pub(in crate::room) struct Inner {
    pub(in crate::room) db: Db,
    pub(in crate::room) log: Log,
    pub(in crate::room) clock: Clock,
    pub(in crate::room) random: Random,
    pub(in crate::room) server_name: OwnedServerName,
    pub(in crate::room) key: SigningKeys,
    /// Which rooms are in it decides how fast an answer is, never what it is.
    pub(in crate::room) active: Arc<RoomCache>,
    pub(super) lanes: Lanes,
    /// By how many keys a state may differ from one that is stored.
    pub(in crate::room) state_difference: usize,
    /// How many rooms and aliases somebody may make.
    pub(in crate::room) quotas: Quotas,
    /// The server's own user, once it is known that it has one.
    pub(in crate::room) voice: OnceLock<OwnedUserId>,
    /// Who knows what aliases of other servers name, once somebody does.
    pub(in crate::room) other_aliases: OnceLock<Arc<dyn OtherAliases>>,
}

/// Takes the rooms of a load out of those that are being read, when it is done or given up.
struct LoadGuard {
    active: Arc<RoomCache>,
    room_ids: Vec<OwnedRoomId>,
    number: u64,
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.active.loading.lock().end(&self.room_ids, self.number);
    }
}

impl Rooms {
    /// `active` must be among the log's readers, and hold no room yet.
    pub fn new(
        (db, log): (Db, Log),
        (clock, random): (Clock, Random),
        server_name: OwnedServerName,
        key: SigningKeys,
        (active, state_difference): (Arc<RoomCache>, usize),
        quotas: Quotas,
    ) -> Self {
        let (lanes, voice, other_aliases) = (Lanes::default(), OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner {
            db,
            log,
            clock,
            random,
            server_name,
            key,
            active,
            lanes,
            state_difference,
            quotas,
            voice,
            other_aliases,
        }))
    }

    /// These rooms, whose states are resolved on other lanes.
    #[cfg(test)]
    pub(in crate::room) fn with_lanes(mut self, lanes: Lanes) -> Self {
        Arc::get_mut(&mut self.0).unwrap().lanes = lanes;
        self
    }

    /// `active` has to follow the log. Erasures that are already in the log are read here; later ones come through
    /// `active`. One that is read both ways counts once.
    pub(crate) async fn start(ground: &Ground, active: Arc<RoomCache>) -> Result<Self> {
        let Ground { config, db, log, clock, random, server_name, key, sizes, .. } = ground;
        let (stored, drawn) = ((db.clone(), log.clone()), (clock.clone(), random.clone()));
        let cached = (active, sizes.state_difference);
        let rooms = Self::new(stored, drawn, server_name.clone(), key.clone(), cached, Quotas::of(config));
        for (user_id, at) in store::erasure::list(&mut db.read().await?).await? {
            rooms.0.active.erasures.note(&user_id, at);
        }
        Ok(rooms)
    }

    /// From now on what aliases of other servers name is found out there. A second call changes nothing.
    pub(crate) fn ask_for_aliases(&self, others: Arc<dyn OtherAliases>) {
        self.0.other_aliases.get_or_init(|| others);
    }

    /// In which these rooms are written, and which their cache follows.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    pub fn server_name(&self) -> &ServerName {
        &self.0.server_name
    }

    /// A room that a user of this server is in. None of one that was left, and of one that is outside.
    pub async fn find(&self, room_id: &RoomId) -> Result<Option<Resident>> {
        Ok(self.find_held(room_id).await?.and_then(Held::resident))
    }

    /// A room that a user of this server is or was in. Who may act on what they find here follows from the room's state.
    pub async fn find_held(&self, room_id: &RoomId) -> Result<Option<Held>> {
        if let Some(room) = self.0.active.find(room_id) {
            return Ok(Some(self.held(room)));
        }
        Ok(self.find_each_held(&[room_id]).await?.remove(room_id))
    }

    /// A room that is in memory already. For who would rather do without than have it read.
    pub(crate) fn find_in_memory(&self, room_id: &RoomId) -> Option<Held> {
        self.0.active.find(room_id).map(|room| self.held(room))
    }

    fn held(&self, room: Arc<Room>) -> Held {
        Held::by(room, &self.0.server_name)
    }

    /// Those of some rooms that a user of this server is or was in. Rooms that there are not are missing from the
    /// answer. Rooms are read in hundreds, each in one snapshot. `M_UNSUPPORTED_ROOM_VERSION` if one of them has a
    /// version that this release does not speak.
    pub async fn find_each_held(&self, room_ids: &[&RoomId]) -> Result<HashMap<OwnedRoomId, Held>> {
        let mut found = HashMap::new();
        let mut missing = HashSet::new();
        for room_id in room_ids {
            match self.0.active.find(room_id) {
                Some(room) => drop(found.insert((*room_id).to_owned(), self.held(room))),
                None => drop(missing.insert((*room_id).to_owned())),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        for load in self.begin_loading(&missing) {
            let loaded = load.await.map_err(Error::of_shared)?;
            for (room_id, room) in loaded.iter().filter(|(room_id, _)| missing.contains(*room_id)) {
                let room = room.clone().map_err(|version| unsupported(&version))?;
                found.insert(room_id.clone(), self.held(room));
            }
        }
        Ok(found)
    }

    /// The loads that bring these rooms.
    fn begin_loading(&self, missing: &HashSet<OwnedRoomId>) -> Vec<Load> {
        self.0.active.loading.lock().join(missing, |room_ids, number| {
            let rooms = self.clone();
            let ending = LoadGuard { active: Arc::clone(&self.0.active), room_ids, number };
            async move { rooms.load(&ending.room_ids).await }
        })
    }

    /// Reads rooms as the database has them, and has them follow the log. No connection is held while the tail is
    /// waited for: the follower needs one.
    async fn load(&self, room_ids: &[OwnedRoomId]) -> Result<Loaded> {
        loop {
            // Somebody else's load may have ended just before this one began.
            let known = |room_id: &OwnedRoomId| Some((room_id.clone(), Ok(self.0.active.find(room_id)?)));
            let mut loaded: Loaded = room_ids.iter().filter_map(known).collect();
            let unread: Vec<&RoomId> =
                room_ids.iter().filter(|room_id| !loaded.contains_key(*room_id)).map(|room_id| &**room_id).collect();
            if unread.is_empty() {
                return Ok(loaded);
            }
            let (position, views) = load::views(&self.0.db, &unread).await?;
            // While nothing can be applied: bring the views to where the log is, and let them follow.
            self.0.log.tail().reach(position).await;
            let followed = self.0.log.tail().catch_up(position, |missed| {
                let mut views = views;
                for (_, news) in missed.iter().flat_map(|batch| batch.entries()) {
                    let Some(Ok(view)) = news.room_id().and_then(|room_id| views.get_mut(room_id)) else { continue };
                    match news {
                        News::Event(logged) => view.apply(logged),
                        News::LateRedaction(late) => view.redact(&late.redacted),
                        _ => {}
                    }
                }
                let insert = |(room_id, view): (OwnedRoomId, Result<View, RoomVersionId>)| {
                    let room = view.map(|view| self.0.active.insert(&room_id, Room::new(view)));
                    (room_id, room)
                };
                views.into_iter().map(insert).collect::<Loaded>()
            });
            if let Some(followed) = followed {
                loaded.extend(followed);
                return Ok(loaded);
            }
        }
    }

    /// A room that the caller believes a user of this server to be in. `M_NOT_FOUND` otherwise, also of a room that was
    /// left.
    pub async fn get(&self, room_id: &RoomId) -> Result<Resident> {
        let outside = || Error::not_found(format!("Nobody of this server is in the room {room_id}"));
        self.find(room_id).await?.ok_or_else(outside)
    }

    /// A room that users of this server can come into without the help of another server: one of them is in it, or
    /// nobody at all is any more, so that nothing has happened there that is not known here. Otherwise [`no_entry`].
    pub async fn get_enterable(&self, room_id: &RoomId) -> Result<Held> {
        match self.find_held(room_id).await? {
            Some(Held::Left(room)) if !room.is_empty() => Err(no_entry()),
            Some(room) => Ok(room),
            None => Err(no_entry()),
        }
    }

    /// A room that the caller believes a user of this server to be or have been in. Otherwise [`not_in_room`].
    pub async fn get_held(&self, room_id: &RoomId) -> Result<Held> {
        self.find_held(room_id).await?.ok_or_else(not_in_room)
    }
}

/// For who would do something in a room that they are not in. It is the answer for a room that is not there as well: who
/// has heard of a room's identifier does not learn whether this server has it.
pub fn not_in_room() -> Error {
    Error::forbidden("You are not in this room, or there is no such room: join it first")
}

/// For who would come into a room that is closed to them, and for a room that is not there.
pub fn no_entry() -> Error {
    Error::forbidden(
        "You are not invited to this room and in no other whose members may join it, or this server knows no such \
         room: ask for an invitation",
    )
}

fn unsupported(version: &RoomVersionId) -> Error {
    Error::refused(ErrorKind::UnsupportedRoomVersion, format!("Room version {version}"))
}
