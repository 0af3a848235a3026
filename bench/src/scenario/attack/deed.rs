//! What attackers do: the requests that cost a server most, one kind on each connection.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::{Tally, wire};
use crate::client::{Client, User};
use crate::connection::Target;

/// After a refusal or a broken connection. Whoever is not refused goes on at once.
const PAUSE: Duration = Duration::from_millis(50);
/// What a large piece of JSON has, in bytes. Events may have no more than 64 KiB.
const LARGE: usize = 200_000;
const EVENT: usize = 60_000;

/// One kind of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    AccountData,
    RoomAccountData,
    Tags,
    Filters,
    Rooms,
    Bans,
    State,
    Messages,
    Names,
    Receipts,
    Typing,
    Presence,
    Aliases,
    Delayed,
    OpenIds,
    Searches,
    WholeSyncs,
    UnreadSyncs,
    UnreadStreams,
    SlowBodies,
    LookUps,
    Profiles,
    Directory,
    Registrations,
    Logins,
    Refreshes,
    Nonces,
    SlowHeads,
    StrangersStreams,
    StrangersBodies,
}

/// One connection of somebody who means no good.
pub(super) struct Attacker {
    pub(super) target: Arc<Target>,
    pub(super) source: Option<Ipv4Addr>,
    /// None of a stranger.
    pub(super) user: Option<User>,
    /// Which of this party's connections.
    pub(super) place: usize,
    pub(super) end: Instant,
}

/// What came of one request.
pub(super) enum Came {
    Done,
    Refused,
}

impl Deed {
    pub(super) const OF_USER: &[Self] = &[
        Self::AccountData,
        Self::RoomAccountData,
        Self::Tags,
        Self::Filters,
        Self::Rooms,
        Self::Bans,
        Self::State,
        Self::Messages,
        Self::Names,
        Self::Receipts,
        Self::Typing,
        Self::Presence,
        Self::Aliases,
        Self::Delayed,
        Self::OpenIds,
        Self::Searches,
        Self::WholeSyncs,
        Self::UnreadSyncs,
        Self::UnreadStreams,
        Self::SlowBodies,
    ];
    pub(super) const OF_STRANGER: &[Self] = &[
        Self::LookUps,
        Self::Profiles,
        Self::Directory,
        Self::Registrations,
        Self::Logins,
        Self::Refreshes,
        Self::Nonces,
        Self::SlowHeads,
        Self::StrangersStreams,
        Self::StrangersBodies,
    ];

    pub(super) fn all() -> impl Iterator<Item = Self> {
        Self::OF_USER.iter().chain(Self::OF_STRANGER).copied()
    }

    /// As figures of the report are called.
    pub(super) fn name(self) -> String {
        let name = format!("{self:?}");
        name.chars().fold(String::new(), |name, c| {
            let gap = if c.is_uppercase() && !name.is_empty() { "_" } else { "" };
            name + gap + &c.to_lowercase().to_string()
        })
    }
}

impl Attacker {
    /// Goes on until the end, whatever the server says.
    pub(super) async fn attack(self, deed: Deed, tally: Arc<Tally>) -> Result<()> {
        let attack = async {
            let (mut client, mut room, mut round) = (self.client(), None, 0_usize);
            loop {
                let came = self.once(deed, &mut client, &mut room, round).await;
                round += 1;
                let count = match came {
                    Ok(Came::Done) => &tally.done,
                    Ok(Came::Refused) => &tally.refused,
                    Err(_) => &tally.broken,
                };
                count.fetch_add(1, Ordering::Relaxed);
                if !matches!(came, Ok(Came::Done)) {
                    tokio::time::sleep(PAUSE).await;
                    client = self.client();
                }
            }
        };
        tokio::select! {
            () = attack => {}
            () = tokio::time::sleep_until(self.end) => {}
        }
        Ok(())
    }

    fn client(&self) -> Client {
        match (&self.user, self.source) {
            (Some(user), Some(source)) => Client::with_source(&self.target, user, source),
            (Some(user), None) => Client::new(&self.target, user),
            (None, Some(source)) => Client::anonymous_from(&self.target, source),
            (None, None) => Client::anonymous(&self.target),
        }
    }

    fn id(&self) -> &str {
        self.user.as_ref().map_or("@nobody:localhost", |user| user.id.as_str())
    }

    async fn once(&self, deed: Deed, client: &mut Client, room: &mut Option<String>, round: usize) -> Result<Came> {
        let token = self.user.as_ref().and_then(|user| user.authorization.to_str().ok());
        match deed {
            Deed::UnreadSyncs => return wire::read_nothing(&self.target, self.source, token).await,
            Deed::UnreadStreams => return wire::read_no_stream(&self.target, self.source, token, SYNC).await,
            Deed::StrangersStreams => {
                return wire::read_no_stream(&self.target, self.source, None, "/_matrix/client/v3/publicRooms").await;
            }
            Deed::SlowBodies => return wire::dawdle(&self.target, self.source, token, true).await,
            Deed::StrangersBodies => return wire::dawdle(&self.target, self.source, None, true).await,
            Deed::SlowHeads => return wire::dawdle(&self.target, self.source, None, false).await,
            _ => {}
        }
        if deed.needs_room() && room.is_none() {
            *room = self.make_room(client).await?;
            if room.is_none() {
                return Ok(Came::Refused);
            }
        }
        let number = self.place + 1_000 * round;
        let (method, path, body) = self.request(deed, room.as_deref().unwrap_or_default(), number);
        let answer = client.exchange(&method, &path, body.into()).await?;
        Ok(if answer.status.is_success() { Came::Done } else { Came::Refused })
    }

    /// The room that this connection plays in, as it stands in a path.
    async fn make_room(&self, client: &mut Client) -> Result<Option<String>> {
        let body = Bytes::from_static(br#"{"preset":"public_chat"}"#);
        let answer = client.exchange(&Method::POST, "/_matrix/client/v3/createRoom", body).await?;
        let made: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(made.get("room_id").and_then(|id| id.as_str()).map(escape))
    }

    /// The request of a kind, with a number that no other one has.
    fn request(&self, deed: Deed, room: &str, number: usize) -> (Method, String, String) {
        let own = format!("/user/{}", escape(self.id()));
        let rooms = format!("/rooms/{room}");
        let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
        let empty = || "{}".to_owned();
        let (method, path, body) = match deed {
            Deed::AccountData => (put, format!("{own}/account_data/org.example.{number}"), large(LARGE)),
            Deed::RoomAccountData => (put, format!("{own}{rooms}/account_data/org.example.{number}"), large(LARGE)),
            Deed::Tags => (put, format!("{own}{rooms}/tags/u.{number}{}", "x".repeat(200)), empty()),
            Deed::Filters => (post, format!("{own}/filter"), filter(number)),
            Deed::Rooms => (post, "/createRoom".to_owned(), crowded_room()),
            Deed::Bans => (post, format!("{rooms}/ban"), format!(r#"{{"user_id":"@x{number}:localhost"}}"#)),
            Deed::State => (put, format!("{rooms}/state/org.example.{number}/"), large(EVENT)),
            Deed::Messages => (put, format!("{rooms}/send/m.room.message/{number}"), large(EVENT)),
            Deed::Names => {
                let path = format!("/profile/{}/displayname", escape(self.id()));
                (put, path, format!(r#"{{"displayname":"{number}"}}"#))
            }
            Deed::Receipts => (post, format!("{rooms}/receipt/m.read/%24{number}"), empty()),
            Deed::Typing => {
                (put, format!("{rooms}/typing/{}", escape(self.id())), r#"{"typing":true,"timeout":30000}"#.to_owned())
            }
            Deed::Presence => {
                let body = format!(r#"{{"presence":"online","status_msg":"{number}"}}"#);
                (put, format!("/presence/{}/status", escape(self.id())), body)
            }
            Deed::Aliases => {
                let body =
                    format!(r#"{{"room_id":"{}"}}"#, percent_encoding::percent_decode_str(room).decode_utf8_lossy());
                (put, format!("/directory/room/%23x{number}%3Alocalhost"), body)
            }
            Deed::Delayed => {
                let path = format!("{rooms}/send/m.room.message/d{number}?org.matrix.msc4140.delay=3600000");
                (put, path, large(EVENT))
            }
            Deed::OpenIds => (post, format!("{own}/openid/request_token"), empty()),
            Deed::Searches => (post, "/user_directory/search".to_owned(), r#"{"search_term":"bench a"}"#.to_owned()),
            Deed::LookUps => (get, format!("/directory/room/%23x{number}%3Alocalhost"), String::new()),
            Deed::Profiles => (get, format!("/profile/%40x{number}%3Alocalhost"), String::new()),
            Deed::Directory => (post, "/publicRooms".to_owned(), empty()),
            Deed::Registrations => (post, "/register".to_owned(), format!(r#"{{"username":"x{number}"}}"#)),
            Deed::Logins => (post, "/login".to_owned(), wrong_login(number)),
            Deed::Refreshes => (post, "/refresh".to_owned(), format!(r#"{{"refresh_token":"{number}"}}"#)),
            Deed::Nonces => return (get, "/_synapse/admin/v1/register".to_owned(), String::new()),
            // `WholeSyncs`, and those that speak no plain HTTP.
            _ => return (get, SYNC.to_owned(), String::new()),
        };
        (method, format!("/_matrix/client/v3{path}"), body)
    }
}

/// Of everything that there is.
const SYNC: &str = "/_matrix/client/v3/sync?full_state=true&timeout=0";

impl Deed {
    fn needs_room(self) -> bool {
        matches!(
            self,
            Self::RoomAccountData
                | Self::Tags
                | Self::Bans
                | Self::State
                | Self::Messages
                | Self::Receipts
                | Self::Typing
                | Self::Aliases
                | Self::Delayed
        )
    }
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn large(bytes: usize) -> String {
    format!(r#"{{"msgtype":"m.text","body":"{}"}}"#, "x".repeat(bytes))
}

/// One that nobody has stored before, as large as clients may store one.
fn filter(number: usize) -> String {
    let types: Vec<String> =
        (0..1_000).map(|nth| format!("\"org.example.{number}.{nth}.{}\"", "x".repeat(20))).collect();
    format!(r#"{{"room":{{"timeline":{{"types":[{}]}}}}}}"#, types.join(","))
}

/// With as many events as one request can ask for.
fn crowded_room() -> String {
    let invited: Vec<String> = (0..50).map(|nth| format!("\"@x{nth}:localhost\"")).collect();
    let state: Vec<String> =
        (0..100).map(|nth| format!(r#"{{"type":"org.example.{nth}","state_key":"","content":{{}}}}"#)).collect();
    format!(r#"{{"name":"A","topic":"B","invite":[{}],"initial_state":[{}]}}"#, invited.join(","), state.join(","))
}

fn wrong_login(number: usize) -> String {
    let identifier = format!(r#"{{"type":"m.id.user","user":"x{number}"}}"#);
    format!(r#"{{"type":"m.login.password","identifier":{identifier},"password":"{number}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_names_of_small_letters() {
        assert_eq!(Deed::AccountData.name(), "account_data");
        assert_eq!(Deed::Rooms.name(), "rooms");
    }

    #[test]
    fn what_is_sent_is_json() {
        for text in [large(3), filter(1), crowded_room(), wrong_login(1)] {
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
        assert!(filter(1).len() < 64 * 1024);
    }
}
