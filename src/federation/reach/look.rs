//! Looking at what is elsewhere: aliases, profiles, directories, and rooms from outside.

use std::{collections::HashSet, sync::Arc, time::Duration};

use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId};
use tokio::time::timeout;

use super::{
    Reach, alias,
    answers::{Question, Remembered},
    asked::{RoomsWanted, failed},
    profile::Profile,
    room_elsewhere::RoomElsewhere,
};
use crate::{edge::federation_client::RemoteError, error::Result, room::read::summary::PublicRoomsPage};

/// For how long answers are remembered.
const PROFILE_LIFETIME: Duration = Duration::from_mins(2);
const ROOM_LIFETIME: Duration = Duration::from_mins(5);
/// How many servers are asked about a room, one after the other, and how long each may take.
const MOST_SERVERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(5);

impl Reach {
    /// The room that an alias names, and servers that are in it.
    ///
    /// `M_NOT_FOUND` where it names none, or where its server says so. Where that can't be asked or makes no sense, it is
    /// [`RemoteError::for_client`].
    pub(crate) async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
        let here = &self.0;
        if self.is_here(alias.server_name()) {
            let room_id = here.rooms.get_by_alias(alias).await?;
            let servers = here.rooms.list_servers(&room_id).await?;
            return Ok((room_id, servers));
        }
        alias::ask(&*here.asked, alias).await
    }

    /// Whether a user's profile is kept elsewhere.
    pub(crate) fn is_elsewhere(&self, user_id: &UserId) -> bool {
        !self.is_here(user_id.server_name())
    }

    /// The profile of a user of another server: what their server says, or has said a moment ago.
    ///
    /// `M_NOT_FOUND` and `M_FORBIDDEN` where their server says so.
    pub(crate) async fn profile(&self, user_id: &UserId) -> Result<Arc<Profile>> {
        let (here, server) = (&self.0, user_id.server_name());
        let question = Question::Profile(user_id.to_owned());
        match here.answers.find(&question) {
            Some(Remembered::Profile(profile)) => return Ok(profile),
            Some(Remembered::Failure(error)) => return Err(failed(&error, server)),
            _ => {}
        }
        let answer = here.asked.profile(user_id).await;
        let no_profile = || RemoteError::Malformed("what it says of a user is no profile".to_owned());
        match answer.and_then(|said| Profile::read(said).ok_or_else(no_profile)) {
            Ok(profile) => {
                let profile = Arc::new(profile);
                here.answers.remember(question, Remembered::Profile(Arc::clone(&profile)), PROFILE_LIFETIME);
                Ok(profile)
            }
            Err(error) => {
                here.answers.remember_failure(question, &error);
                Err(failed(&error, server))
            }
        }
    }

    /// A page of another server's directory, with that server's tokens.
    pub(crate) async fn public_rooms(&self, server: &ServerName, wanted: &RoomsWanted) -> Result<PublicRoomsPage> {
        let answer = self.0.asked.public_rooms(server, wanted).await.map_err(|error| failed(&error, server))?;
        let no_page = || RemoteError::Malformed("it is no page of a directory".to_owned()).for_client(server);
        PublicRoomsPage::read(&answer, wanted.limit).ok_or_else(no_page)
    }

    /// A room as the first of some servers says it that says anything. None where none does.
    pub(crate) async fn find_room(&self, room_id: &RoomId, servers: &[OwnedServerName]) -> Option<Arc<RoomElsewhere>> {
        let mut asked: HashSet<&ServerName> = HashSet::new();
        for server in servers {
            if self.is_here(server) || asked.len() >= MOST_SERVERS || !asked.insert(server) {
                continue;
            }
            if let Some(room) = self.ask_for_room(room_id, server).await {
                return Some(room);
            }
        }
        None
    }

    async fn ask_for_room(&self, room_id: &RoomId, server: &ServerName) -> Option<Arc<RoomElsewhere>> {
        let here = &self.0;
        let question = Question::Room(server.to_owned(), room_id.to_owned());
        match here.answers.find(&question) {
            Some(Remembered::Room(room)) => return Some(room),
            Some(Remembered::Failure(_)) => return None,
            _ => {}
        }
        let slow = || Err(RemoteError::Unreachable("it takes too long to answer".to_owned()));
        let answer = timeout(PATIENCE, here.asked.hierarchy(server, room_id)).await.unwrap_or_else(|_| slow());
        let other = || RemoteError::Malformed("it says nothing of the room that it was asked about".to_owned());
        match answer.and_then(|said| RoomElsewhere::read(&said, room_id, server).ok_or_else(other)) {
            Ok(room) => {
                let room = Arc::new(room);
                here.answers.remember(question, Remembered::Room(Arc::clone(&room)), ROOM_LIFETIME);
                Some(room)
            }
            Err(error) => {
                tracing::debug!(%room_id, %server, %error, "a room elsewhere could not be looked at");
                here.answers.remember_failure(question, &error);
                None
            }
        }
    }
}
