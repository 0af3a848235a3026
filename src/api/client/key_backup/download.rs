//! A backup as a whole, or what it holds of a room. There may be hundreds of thousands of keys in it, so they are read and
//! written by the page, while the client reads them, and each page is paid for.
//!
//! Keys that are put or deleted meanwhile may be in it or not; all others are in it once. A backup that is deleted
//! meanwhile breaks the answer off.

use ruma::{OwnedRoomId, UserId};

use crate::{
    api::{
        client::parts::{self, Parts},
        endpoint::RawAnswer,
        error::ApiResult,
    },
    app::App,
    error::{Error, Result},
    people::{
        account::{Caller, User},
        key_backup::SessionKey,
        rate_limit::Limit,
    },
};

/// What the first page costs of `read`. Those after it cost 1 each.
const FIRST_PAGE: u32 = 5;

/// What is left to read of a backup.
pub(super) struct KeyDownload {
    app: App,
    caller: Caller,
    version: String,
    /// None for the whole backup.
    room_id: Option<OwnedRoomId>,
    /// The last key that was read.
    last: Option<SessionKey>,
    text: KeysText,
}

impl KeyDownload {
    pub(super) fn new(app: App, caller: User, version: String, room_id: Option<OwnedRoomId>) -> Self {
        let text = KeysText::new(room_id.is_some());
        Self { app, caller: Caller::User(caller), version, room_id, last: None, text }
    }

    pub(super) async fn answer(self) -> ApiResult<RawAnswer> {
        let (user_id, pace) = (self.caller.user_id(), self.caller.pace());
        self.app.rate_limits.check(Limit::Read, FIRST_PAGE, user_id, pace).await?;
        Box::pin(parts::answer(self)).await
    }
}

impl Parts for KeyDownload {
    const WHAT: &'static str = "a backup of keys";

    async fn write(&mut self) -> Result<bool> {
        let Self { app, caller, version, room_id, last, text } = self;
        let page = app.key_backups.page(caller.user_id(), version, room_id.as_deref(), last.as_ref()).await?;
        // Whoever reads slowly may be logged out meanwhile.
        app.accounts.check_still_logged_in(caller).await?;
        if last.is_some() {
            app.rate_limits.owe(Limit::Read, 1, caller.user_id(), caller.pace()).await?;
        }
        for key in &page.keys {
            text.add(key).map_err(Error::broken)?;
        }
        *last = page.keys.into_iter().next_back();
        Ok(page.is_last)
    }

    fn take(&mut self) -> Vec<u8> {
        self.text.take()
    }

    fn end(self) -> Vec<u8> {
        self.text.end()
    }

    fn user_id(&self) -> &UserId {
        self.caller.user_id()
    }
}

/// Keys, ordered by room, as JSON that is being written.
struct KeysText {
    text: Vec<u8>,
    /// Whether they are all of one room, which is not named then.
    of_room: bool,
    /// The room of the last key.
    room: Option<OwnedRoomId>,
}

impl KeysText {
    fn new(of_room: bool) -> Self {
        let beginning = if of_room { r#"{"sessions":{"# } else { r#"{"rooms":{"# };
        Self { text: beginning.into(), of_room, room: None }
    }

    fn add(&mut self, key: &SessionKey) -> serde_json::Result<()> {
        if self.room.as_ref() == Some(&key.room_id) {
            self.text.push(b',');
        } else {
            if self.room.is_some() {
                self.text.extend(b"}},");
            }
            if !self.of_room {
                serde_json::to_writer(&mut self.text, &key.room_id)?;
                self.text.extend(br#":{"sessions":{"#);
            }
            self.room = Some(key.room_id.clone());
        }
        serde_json::to_writer(&mut self.text, &key.session_id)?;
        self.text.push(b':');
        serde_json::to_writer(&mut self.text, &key.data)
    }

    /// What has been written since this was last called.
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    fn end(mut self) -> Vec<u8> {
        if self.room.is_some() && !self.of_room {
            self.text.extend(b"}}");
        }
        self.text.extend(b"}}");
        self.text
    }
}

#[cfg(test)]
mod tests {
    use ruma::RoomId;
    use serde_json::{Value, json};

    use super::*;
    use crate::people::key_backup::{KeyBackupData, Standing};

    fn key(room: &str, session: &str) -> SessionKey {
        let standing = Standing { first_message_index: 3, forwarded_count: 0, is_verified: true };
        let session_data = serde_json::value::to_raw_value(&json!({ "of": session })).unwrap();
        let data = KeyBackupData { standing, session_data };
        SessionKey { room_id: RoomId::parse(room).unwrap(), session_id: session.to_owned(), data }
    }

    fn sent(session: &str) -> Value {
        let session_data = json!({ "of": session });
        json!({ "first_message_index": 3, "forwarded_count": 0, "is_verified": true, "session_data": session_data })
    }

    /// The text of these keys, in parts of so many.
    fn written(of_room: bool, keys: &[SessionKey], part: usize) -> Value {
        let (mut text, mut all) = (KeysText::new(of_room), Vec::new());
        for keys in keys.chunks(part) {
            for key in keys {
                text.add(key).unwrap();
            }
            all.extend(text.take());
        }
        all.extend(text.end());
        serde_json::from_slice(&all).unwrap()
    }

    #[test]
    fn keys_are_the_same_in_however_many_parts() {
        let keys =
            [key("!a:x", "1"), key("!a:x", "2 \"quoted\""), key("!b:x", "1"), key("!c:x", "7"), key("!c:x", "8")];
        let expected = json!({ "rooms": {
            "!a:x": { "sessions": { "1": sent("1"), "2 \"quoted\"": sent("2 \"quoted\"") } },
            "!b:x": { "sessions": { "1": sent("1") } },
            "!c:x": { "sessions": { "7": sent("7"), "8": sent("8") } },
        } });
        for part in 1..=keys.len() {
            assert_eq!(written(false, &keys, part), expected);
            let of_room = json!({ "sessions": { "7": sent("7"), "8": sent("8") } });
            assert_eq!(written(true, &keys[3..], part), of_room);
        }
        assert_eq!(written(false, &[], 1), json!({ "rooms": {} }));
        assert_eq!(written(true, &[], 1), json!({ "sessions": {} }));
    }
}
