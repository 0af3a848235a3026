//! Server notices: what the server says to its users in a room of their own, in the name of a user that nobody is.
//!
//! The sender is an account like others, in which nobody can log in. A notice is sent with a transaction id, so one
//! that is tried again after a crash is there once.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-notices>

use std::sync::Arc;

use ruma::{OwnedEventId, OwnedTransactionId, RoomId, UserId, events::TimelineEventType};
use serde_json::json;

use crate::{
    config::ServerNoticesConfig,
    db::{Conn, Db},
    error::{Error, Result},
    event::{Content, NoticeFrom, Transaction, TransactionOrigin, content},
    ground::clock::Clock,
    log::Ground,
    people::profile::{AVATAR_URL, DISPLAYNAME, Profiles},
    room::{Author, Message, NewState, NoticeRoom, Rooms},
    store::{account, device},
};

/// The longest notice, in bytes. An event holds no more than twice that.
const MAX_TEXT: usize = 32 * 1024;
/// The specification names only one type of notice, which is not for words of the operator's choice.
const NOTICE_TYPE: &str = "hearth.notice";

/// The server's own voice. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Notices(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    rooms: Rooms,
    profiles: Profiles,
    room: NoticeRoom,
}

/// What is said in the server's name.
pub(crate) struct Notice {
    pub(crate) kind: TimelineEventType,
    /// None for what is not state.
    pub(crate) state_key: Option<String>,
    pub(crate) content: Content,
    /// What has the same `id` from the same is sent once to each user.
    pub(crate) from: NoticeFrom,
    pub(crate) id: OwnedTransactionId,
}

/// Refuses what can't be a notice.
pub(crate) fn check_text(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::invalid_param("The notice is empty"));
    }
    if text.len() > MAX_TEXT || text.contains('\0') {
        return Err(Error::invalid_param(format!("A notice has at most {MAX_TEXT} bytes, and none of them is zero")));
    }
    Ok(())
}

impl Notices {
    pub(crate) fn new(db: Db, clock: Clock, rooms: Rooms, profiles: Profiles, room: NoticeRoom) -> Self {
        Self(Arc::new(Inner { db, clock, rooms, profiles, room }))
    }

    /// The server's own voice, where it is to have one that nobody else has.
    pub(crate) async fn start(ground: &Ground, rooms: &Rooms, profiles: &Profiles) -> Result<Option<Self>> {
        let Ground { config, db, clock, .. } = ground;
        let Some(sender) = config.notices_sender() else { return Ok(None) };
        let ServerNoticesConfig { name, avatar_url, .. } = config.server_notices.clone();
        let room = NoticeRoom { sender, name, avatar_url, version: config.rooms.default_version.clone() };
        let notices = Self::new(db.clone(), clock.clone(), rooms.clone(), profiles.clone(), room);
        match notices.reserve().await {
            Ok(()) => Ok(Some(notices)),
            Err(Error::Refused { message, .. }) => {
                tracing::error!(reason = message, "there are no server notices");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the server's own user is there. Nobody else gets the name from then on, or turns down the
    /// invitation to a room of theirs.
    pub(crate) async fn reserve(&self) -> Result<()> {
        let Inner { db, clock, rooms, room, .. } = &*self.0;
        let mut tx = db.begin().await?;
        if !account::insert(&mut tx, &room.sender, None, false, clock.now().get().into()).await? {
            // One that was there before must be the server's own, of an earlier start.
            check_unused(&mut tx, &room.sender).await?;
        }
        tx.commit().await?;
        rooms.set_notices_sender(&room.sender);
        Ok(())
    }

    /// Gives the server's own user the name and the picture that are configured. A room hears of them with the next
    /// notice there.
    pub(crate) async fn set_sender_profile(&self) -> Result<()> {
        let Inner { profiles, room, .. } = &*self.0;
        let sender = &room.sender;
        profiles.change_without_errand(sender, DISPLAYNAME, Some(&json!(room.name))).await?;
        let avatar_url = room.avatar_url.as_ref().map(|url| json!(url));
        profiles.change_without_errand(sender, AVATAR_URL, avatar_url.as_ref()).await
    }

    /// Sends a user a text, once for each `id`. Who has no account any more is sent nothing.
    pub(crate) async fn send(&self, user_id: &UserId, text: &str, id: &str) -> Result<()> {
        let notice = Notice {
            kind: TimelineEventType::RoomMessage,
            state_key: None,
            content: content([
                ("msgtype", "m.server_notice".into()),
                ("body", text.into()),
                ("server_notice_type", NOTICE_TYPE.into()),
            ]),
            from: NoticeFrom::Operator,
            id: id.into(),
        };
        self.send_notice(user_id, notice).await.map(drop)
    }

    /// Sends a user a notice and returns its event; None for whoever has no account or none any more.
    pub(crate) async fn send_notice(&self, user_id: &UserId, notice: Notice) -> Result<Option<OwnedEventId>> {
        let Inner { db, rooms, room, .. } = &*self.0;
        let account = account::find(&mut db.read().await?, user_id).await?;
        if account.is_none_or(|account| account.deactivated) || user_id == room.sender {
            return Ok(None);
        }
        let room_id = rooms.notice_room(room, user_id).await?;
        let Notice { kind, state_key, content, from, id: transaction_id } = notice;
        let author = Author::Server(room.sender.clone());
        let transaction = Transaction { origin: TransactionOrigin::Notice(from), transaction_id };
        let sent = match state_key {
            Some(state_key) => {
                let transaction = Some(transaction);
                rooms.set_state(&NewState { room_id, author, kind, state_key, content, transaction }).await
            }
            None => rooms.send(&Message { room_id, author, kind, content, transaction }).await,
        };
        sent.map(Some)
    }

    /// Whether the server speaks to somebody in this room.
    pub(crate) async fn is_room(&self, room_id: &RoomId) -> Result<bool> {
        self.0.rooms.is_notice_room(&self.0.room.sender, room_id).await
    }
}

/// An account that was there before must be one that nobody uses.
async fn check_unused(conn: &mut Conn, sender: &UserId) -> Result<()> {
    let account = account::find(conn, sender).await?.ok_or_else(|| Error::broken("an account has vanished"))?;
    if account.password_hash.is_some() || account.deactivated || !device::list(conn, sender).await?.is_empty() {
        return Err(Error::forbidden(format!(
            "{sender} is somebody's account: choose another server_notices.localpart"
        )));
    }
    Ok(())
}
