//! The log on its way into the user directory: who can be found by anybody, because a room that they are in is open,
//! and what rooms call users of other servers.
//!
//! What is written follows from how memberships and rooms stand when it is written, not from the entries: those only
//! say whom to look at. So what has changed again since is looked at twice, and right both times. Whoever writes holds
//! the cursor's row, from before they look at memberships: what changes after they have looked stands after the cursor.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use super::UserDirectory;
use crate::{
    db::{DbResult, Tx},
    error::Result,
    event::{Logged, Pdu, Standing, fact::News},
    ground::{position::Position, words},
    log::{
        Stretch,
        cursor::{self, Cursor, Follower, KnownPlace, Mover},
    },
    room::act::member_profile::MemberProfile,
    store::{
        self,
        membership::MembershipRow,
        user_directory::{self, DirectoryEntry},
    },
};

/// How far the directory has come.
const CURSOR: Cursor = Cursor::new(user_directory::CURSOR);
/// How many entries of the log are taken at once.
const STEP: usize = 500;
/// How long a change may wait until it is taken, so that much is done at once.
const REST: Duration = Duration::from_millis(500);
/// How long a search waits for the directory to catch up.
const PATIENCE: Duration = Duration::from_secs(3);
/// Up to so many members are looked at with the event that opens or closes their room; more of them later, so that
/// whoever searches does not wait for them.
const FEW: usize = 100;
/// How many members of a large room that was opened or closed are looked at in one transaction.
const SETTLED_AT_ONCE: usize = 200;

/// Whom a stretch of the log may have changed something for.
#[derive(Default)]
struct TouchedUsers {
    /// Users of this server who are in a room no longer, or not yet.
    outside: HashSet<OwnedUserId>,
    /// Users of this server who have come into rooms, or changed there. Nobody becomes known by a room that is closed.
    joined: HashMap<OwnedRoomId, HashSet<OwnedUserId>>,
    /// Users of other servers whom rooms call otherwise.
    strangers: HashMap<OwnedRoomId, HashSet<OwnedUserId>>,
    /// Rooms that may have been opened or closed, or that this server has come into, with the place where they were last.
    rooms: HashMap<OwnedRoomId, Position>,
    /// Rooms that begin in the stretch. Whoever is in one has come in it or later, and is looked at because of that.
    begun: HashSet<OwnedRoomId>,
}

impl Follower for UserDirectory {
    fn cursor(&self) -> Cursor {
        CURSOR
    }

    fn known(&self) -> &KnownPlace {
        &self.known
    }

    fn rest(&self) -> Duration {
        REST
    }

    async fn take(&self, until: Position, mover: Mover) -> Result<Position> {
        let _turn = self.turn.lock().await;
        let from = CURSOR.position(&mut self.db.read().await?).await?;
        let mut reached = from;
        while reached < until {
            let stretch = self.log.read_after(reached, STEP).await?;
            let touched = TouchedUsers::of(&stretch, &self.server_name);
            reached = stretch.until;
            // Most of the log has nothing for the directory. Whoever only searches does not note that they have seen
            // it.
            if touched.is_empty() && mover == Mover::Anybody {
                // Nothing is written, and the next search begins where this one did.
                continue;
            }
            let mut tx = self.db.begin().await?;
            // Another node has taken it meanwhile.
            if !CURSOR.advance(&mut tx, from, reached, mover).await? {
                return Ok(from);
            }
            touched.write(&mut tx, &self.server_name).await?;
            tx.commit().await?;
            break;
        }
        Ok(reached)
    }
}

impl UserDirectory {
    /// Has the directory hold what follows from the log up to `until`, or as much as comes with some patience.
    pub(super) async fn catch_up(&self, until: Position) -> Result<Position> {
        cursor::bring_up(self, until, PATIENCE).await
    }

    /// Looks at the members of large rooms that have been opened, closed or come into. To be called now and then. A room that is
    /// opened or closed again meanwhile has its turn next time, so that this ends and the other rooms have theirs.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.catch_up(self.log.tail().reached()).await?;
        let mut last: Option<OwnedRoomId> = None;
        loop {
            let mut conn = self.db.read().await?;
            let put_off = user_directory::find_put_off(&mut conn, last.as_deref()).await?;
            let Some((room_id, at)) = put_off else { return Ok(()) };
            let members = store::membership::list_joined_users(&mut conn, &room_id, i64::MAX).await?;
            drop(conn);
            for members in members.chunks(SETTLED_AT_ONCE) {
                self.settle_members(&room_id, members).await?;
            }
            let mut tx = self.db.begin().await?;
            user_directory::tick_off(&mut tx, &room_id, at).await?;
            tx.commit().await?;
            last = Some(room_id);
        }
    }

    /// Looks at some members of a large room as it stands now.
    async fn settle_members(&self, room_id: &RoomId, members: &[OwnedUserId]) -> Result<()> {
        let names: Vec<&str> = members.iter().map(|user| user.as_str()).collect();
        let mut tx = self.db.begin().await?;
        // Held from before the look at memberships: see above.
        store::cursor::lock(&mut tx, user_directory::CURSOR).await?;
        relist_strangers(&mut tx, room_id, &strangers_among(members, &self.server_name)).await?;
        user_directory::review(&mut tx, &names).await?;
        Ok(tx.commit().await?)
    }
}

impl TouchedUsers {
    fn of(stretch: &Stretch, here: &ServerName) -> Self {
        let mut touched = Self::default();
        for (_, news) in &stretch.entries {
            match news {
                News::Event(logged) => touched.add(logged, here),
                News::LateRedaction(late) => touched.note_redaction(&late.redacted, here),
                _ => {}
            }
        }
        touched
    }

    fn add(&mut self, Logged { at, stored, changes, redacted, .. }: &Logged, here: &ServerName) {
        // A name or a membership counts by the state that it makes, whatever event was sent.
        let room_id = stored.pdu.room_id();
        for change in changes {
            if let Some(membership) = MembershipRow::of(change, room_id, *at) {
                if membership.user_id.server_name() == here {
                    let user_id = membership.user_id.to_owned();
                    match membership.state {
                        MembershipState::Join => self.joined.entry(room_id.to_owned()).or_default().insert(user_id),
                        _ => self.outside.insert(user_id),
                    };
                } else {
                    self.called_otherwise(room_id, membership.user_id);
                }
            }
            let kind = change.kind.as_str();
            // With the create event of a room that this server comes into nobody has told who is in it.
            let is_entered = kind == "m.room.create" && *stored.pdu.kind() != TimelineEventType::RoomCreate;
            if change.state_key.is_empty()
                && (is_entered || ["m.room.join_rules", "m.room.history_visibility"].contains(&kind))
                && !self.begun.contains(room_id)
            {
                self.rooms.insert(room_id.to_owned(), *at);
            }
        }
        let is_accepted = stored.standing == Standing::Accepted;
        if is_accepted && *stored.pdu.kind() == TimelineEventType::RoomCreate && stored.pdu.prev_events().is_empty() {
            self.begun.insert(room_id.to_owned());
        }
        if let Some(redacted) = redacted {
            self.note_redaction(redacted, here);
        }
    }

    /// A name may have been in it.
    fn note_redaction(&mut self, redacted: &Pdu, here: &ServerName) {
        if *redacted.kind() == TimelineEventType::RoomMember
            && let Some(user_id) = redacted.state_key().and_then(|key| <&UserId>::try_from(key).ok())
            && user_id.server_name() != here
        {
            self.called_otherwise(redacted.room_id(), user_id);
        }
    }

    /// A room calls somebody otherwise, or nothing any more.
    fn called_otherwise(&mut self, room_id: &RoomId, user_id: &UserId) {
        self.strangers.entry(room_id.to_owned()).or_default().insert(user_id.to_owned());
    }

    fn is_empty(&self) -> bool {
        self.outside.is_empty() && self.joined.is_empty() && self.strangers.is_empty() && self.rooms.is_empty()
    }

    /// Writes what follows for those who were touched, by how things stand in this transaction.
    async fn write(self, tx: &mut Tx, here: &ServerName) -> DbResult<()> {
        for (room_id, users) in &self.strangers {
            relist_strangers(tx, room_id, users).await?;
        }
        let entered: Vec<&RoomId> = self.joined.keys().map(|room_id| &**room_id).collect();
        let open = if entered.is_empty() { Vec::new() } else { store::room::list_open_among(tx, &entered).await? };
        let mut locals = self.outside;
        for room_id in &open {
            locals.extend(self.joined.get(room_id).into_iter().flatten().cloned());
        }
        for (room_id, at) in &self.rooms {
            let limit = i64::try_from(FEW + 1).unwrap_or(i64::MAX);
            let members = store::membership::list_joined_users(tx, room_id, limit).await?;
            // Their members follow later, by whoever does the upkeep.
            if members.len() > FEW {
                user_directory::put_off(tx, room_id, at.0).await?;
                continue;
            }
            relist_strangers(tx, room_id, &strangers_among(&members, here)).await?;
            locals.extend(members);
        }
        let locals: Vec<&str> = locals.iter().map(|user| user.as_str()).collect();
        if locals.is_empty() { Ok(()) } else { user_directory::review(tx, &locals).await }
    }
}

/// Those who are users of other servers.
fn strangers_among(members: &[OwnedUserId], here: &ServerName) -> HashSet<OwnedUserId> {
    members.iter().filter(|user_id| user_id.server_name() != here).cloned().collect()
}

/// Writes down what a room calls users of other servers, who may have come, gone or been renamed.
async fn relist_strangers(tx: &mut Tx, room_id: &RoomId, users: &HashSet<OwnedUserId>) -> DbResult<()> {
    let users: Vec<&UserId> = users.iter().map(|user| &**user).collect();
    let names: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    // Written anew, so that it need not be known what was there.
    user_directory::forget_strangers(tx, room_id, &names).await?;
    let is_public = store::room::is_open(tx, room_id).await?;
    let places = store::state::list_current_of(tx, &[room_id], "m.room.member", &names).await?;
    let events = if places.is_empty() { Vec::new() } else { store::event::list_at(tx, &places).await? };
    let joined = events.iter().filter_map(|event| joined(&event.pdu));
    let entries: Vec<DirectoryEntry<'_>> = joined
        .map(|(user_id, name)| {
            let words = words::of_user(user_id, name.as_deref());
            DirectoryEntry { user_id, room_id: Some(room_id), words, is_public }
        })
        .collect();
    user_directory::insert(tx, &entries).await
}

/// Whom a membership event lets into its room, and what it calls them.
fn joined(event: &Pdu) -> Option<(&UserId, Option<String>)> {
    #[derive(Deserialize)]
    struct MemberContent {
        membership: MembershipState,
    }
    let content: MemberContent = event.content_as().ok()?;
    let user_id = <&UserId>::try_from(event.state_key()?).ok()?;
    (content.membership == MembershipState::Join).then(|| (user_id, MemberProfile::said_by(event).displayname))
}
